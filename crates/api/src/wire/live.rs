//! Live references: what an agent tells the forwarder of its host, and how that asks the reference.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::Endpoint;

/// `live/NAME.json` in the cache's directory: who may read the live reference NAME, and by which address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveNote {
    /// An address of the host's bridge: clones mount from there.
    pub listen: SocketAddr,
    /// Where the reference answers, tried in turn.
    pub origins: Vec<Endpoint>,
    /// The addresses of its clones on this host. Nobody else is let in.
    pub clones: Vec<IpAddr>,
}

/// Of `GET /v1/live/NAME`: for whom a host asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveClone {
    pub clone: IpAddr,
}

/// The path that is asked for an upgrade to the files of a reference, for a clone.
pub fn live_path(reference: &str, clone: IpAddr) -> String {
    format!("/v1/live/{reference}?clone={clone}")
}
