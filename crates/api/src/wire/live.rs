//! Live references: what an agent tells the forwarder of its host, and how that asks the reference.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use estive_model::HostName;
use serde::{Deserialize, Serialize};

use crate::Endpoint;

/// `live/DOMAIN.json` in the cache's directory: what a clone that runs on this host may read, and by which address. A
/// file for each, so that nobody changes what another clone's file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveNote {
    /// The reference's name where it is served.
    pub reference: String,
    /// An address of the host's bridge: clones mount from there.
    pub listen: SocketAddr,
    /// Where the reference answers, tried in turn.
    pub origins: Vec<Endpoint>,
    /// The clone's address. Nobody without a file is let in.
    pub clone: IpAddr,
}

/// Of `GET /v1/live/NAME`: for whom a host asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveClone {
    pub clone: IpAddr,
}

/// Of `PUT /v1/live/NAME/readers`: what a manager says of who may read. What another has said stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveReaders {
    /// May read from now on.
    pub readers: BTreeSet<LiveReader>,
    /// May read no more. Whoever is in neither stays as it is: a manager that has lost its store takes nothing away.
    pub gone: BTreeSet<LiveReader>,
}

/// A clone, and a host that may ask for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveReader {
    pub clone: IpAddr,
    pub host: HostName,
}

/// Where a manager says who may read a reference.
pub fn live_readers_path(reference: &str) -> String {
    format!("/v1/live/{reference}/readers")
}

/// The path that is asked for an upgrade to the files of a reference, for a clone.
pub fn live_path(reference: &str, clone: IpAddr) -> String {
    format!("/v1/live/{reference}?clone={clone}")
}

/// Whether hosts can have this address for their clones.
pub fn is_door(address: Ipv4Addr) -> bool {
    let shared = address.is_multicast() || address.is_broadcast();
    !address.is_unspecified() && !address.is_loopback() && !shared
}

/// Whether a live reference may be called so, where it is served and in descriptions of domains.
pub fn is_live_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
