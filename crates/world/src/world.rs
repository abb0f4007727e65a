//! Everything that a decision is made from.

use serde::{Deserialize, Serialize};

use crate::{Domain, DomainIx, Host, HostIx, Reserved, Rules, SiteIx, VolumeIx};

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct World {
    /// Its moment in seconds since 1970-01-01 UTC.
    pub at_s: u64,
    /// Length of the domains' windows in seconds; 0: there are none.
    pub window_s: u32,
    /// Sites.
    pub sites: Vec<Site>,
    /// Links between sites, each once; two sites without one do not reach each other.
    pub links: Vec<Link>,
    /// Hosts.
    pub hosts: Vec<Host>,
    /// Users.
    pub users: Vec<User>,
    /// Deployments.
    pub deployments: Vec<Deployment>,
    /// Volumes.
    pub volumes: Vec<Volume>,
    /// Domains.
    pub domains: Vec<Domain>,
    /// Who talks to whom, each pair once, ordered, the first the smaller.
    pub talks: Vec<Talk>,
    /// What is under way: it is counted at both ends, and left alone.
    pub operations: Vec<Operation>,
    /// What must hold.
    pub rules: Rules,
}

/// A place with hosts in one local network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Bytes per second between two of its hosts.
    pub rate_bytes_per_s: u64,
    /// Microseconds from one to another.
    pub latency_us: u32,
    /// What a kilowatt hour costs, over time, the earliest first; empty: nothing.
    pub energy: Vec<Tariff>,
}

impl Site {
    /// One with a network of 1 Gbit/s and 100 µs, whose energy costs nothing: what a line that says no more than a name means.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            rate_bytes_per_s: 125_000_000,
            latency_us: 100,
            energy: Vec::new(),
        }
    }
}

/// A price from a moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tariff {
    /// From when, in seconds of the world's clock.
    pub from_s: u64,
    /// Millionths of the currency for a kilowatt hour.
    pub micro_per_kwh: u64,
}

/// A way between two sites, both directions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Its ends.
    pub ends: (SiteIx, SiteIx),
    /// Bytes per second.
    pub rate_bytes_per_s: u64,
    /// Microseconds from end to end.
    pub latency_us: u32,
    /// What a GiB over it costs, in millionths of the currency.
    pub micro_per_gib: u64,
}

/// Who has domains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Its name.
    pub name: String,
    /// The most it may have reserved, `u64::MAX` of a kind: no bound.
    pub quota: Reserved,
    /// Its share against the others', for fairness; 1 is common.
    pub share: u32,
}

/// A named group of domains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its name.
    pub name: String,
}

/// What domains keep their state on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// The hosts that reach it; empty: every one.
    pub reach: Vec<HostIx>,
}

/// What two domains say to each other, both directions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Talk {
    /// Who.
    pub pair: (DomainIx, DomainIx),
    /// Bytes per second.
    pub bytes_per_s: u64,
    /// Messages per second.
    pub messages_per_s: u32,
}

/// A move that was begun and not yet ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Which domain.
    pub domain: DomainIx,
    /// Where it goes; it is still at its `host`.
    pub to: HostIx,
}

impl World {
    /// The link between two sites, whichever is named first.
    pub fn link(&self, one: SiteIx, other: SiteIx) -> Option<&Link> {
        let ends = (one.min(other), one.max(other));
        self.links
            .iter()
            .find(|link| (link.ends.0.min(link.ends.1), link.ends.0.max(link.ends.1)) == ends)
    }

    /// Whether a host reaches a volume.
    pub fn reaches(&self, host: HostIx, volume: VolumeIx) -> bool {
        let reach = &self.volumes[volume].reach;
        reach.is_empty() || reach.contains(&host)
    }
}
