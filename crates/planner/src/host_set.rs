//! A set of hosts, as bits.

use estive_world::{HostIx, Indexed};

/// A set of hosts of one world.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostSet {
    words: Vec<u64>,
}

impl HostSet {
    /// None of `hosts` hosts.
    pub fn none(hosts: usize) -> Self {
        Self {
            words: vec![0; hosts / 64 + 1],
        }
    }

    /// Adds one.
    pub fn add(&mut self, host: HostIx) {
        self.words[host.at() / 64] |= 1 << (host.at() % 64);
    }

    /// Whether it is in.
    pub fn has(&self, host: HostIx) -> bool {
        self.words[host.at() / 64] & (1 << (host.at() % 64)) != 0
    }
}
