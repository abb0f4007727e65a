//! What must hold, whatever is gained: hard rules, and those against thrash.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{DomainIx, HostIx, Ratio};

/// The hard rules of a world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// How much may be promised, by class of domain; the empty class is the common one. A host's room is used up by the
    /// sum over classes of what is promised divided by the class's ratio.
    pub overbook: BTreeMap<String, Ratio>,
    /// The largest share of a host that may be *used*, in thousandths, by kind as in `Used`; 0: no such rule.
    pub use_at_most_milli: [u32; 4],
    /// Any one host may fail, and what ran on it still has a place (by replicas where there are, else anywhere).
    pub one_may_fail: bool,
    /// Moves at once out of or into one host.
    pub moves_per_host: u32,
    /// Moves at once over one link between sites.
    pub moves_per_link: u32,
    /// Rules between domains and hosts.
    pub relations: Vec<Relation>,
    /// Against moving to and fro.
    pub hysteresis: Hysteresis,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            overbook: BTreeMap::from([(String::new(), Ratio::default())]),
            use_at_most_milli: [1000, 0, 0, 0],
            one_may_fail: false,
            moves_per_host: 2,
            moves_per_link: 2,
            relations: Vec::new(),
            hysteresis: Hysteresis::default(),
        }
    }
}

/// What is said of some domains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// All in one.
    Together(Scope, Vec<DomainIx>),
    /// No two in one.
    Apart(Scope, Vec<DomainIx>),
    /// Each only on these hosts.
    Only(Vec<DomainIx>, Vec<HostIx>),
    /// None on these hosts.
    Never(Vec<DomainIx>, Vec<HostIx>),
}

/// What a relation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// A host.
    Host,
    /// A site.
    Site,
}

/// What keeps a herd from running to and fro.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hysteresis {
    /// A domain that moved stays for so long, in seconds.
    pub cooldown_s: u32,
    /// A move must gain at least this share of the objective's value, in millionths.
    pub gain_at_least_ppm: u32,
    /// A move must have paid for itself within this time, in seconds.
    pub pays_back_within_s: u32,
}

impl Default for Hysteresis {
    fn default() -> Self {
        Self {
            cooldown_s: 300,
            gain_at_least_ppm: 1000,
            pays_back_within_s: 3600,
        }
    }
}
