//! What a planner is asked.

use estive_world::HostIx;
use serde::{Deserialize, Serialize};

/// A question about a world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// What is better.
    pub objective: Objective,
    /// The most domains that are elsewhere, or have their replica elsewhere, after the answer; none: no bound. One that
    /// is placed for the first time is not counted. Where domains step aside on the way, moves of the way are no more either.
    pub moves_at_most: Option<u32>,
    /// The most bytes that its moves may carry; none: no bound.
    #[serde(default)]
    pub bytes_at_most: Option<u64>,
    /// The most memory, as it is promised, of all domains that are on another host after the answer, in bytes; none: no
    /// bound. What moves carry of it depends on how much of it they use.
    #[serde(default)]
    pub memory_bytes_at_most: Option<u64>,
    /// How much work may be done.
    pub budget: Budget,
    /// For all choices between equals.
    pub seed: u64,
    /// Over how many lanes the search is spread; results depend on it, not on the machine's cores. 8 is common.
    pub lanes: u32,
}

/// Terms from the most to the least important: a later one only decides where all earlier ones are equal (within the
/// minimum gain). In one rank, terms are added by weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// The ranks.
    pub ranks: Vec<Vec<Weighted>>,
}

/// A term with its weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weighted {
    /// Which.
    pub term: Term,
    /// Its weight; 1 is common.
    pub weight: f64,
}

/// What can be made less of. Each term is a number that is better when smaller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Term {
    /// Unevenness over hosts, as Ganeti's hbal scores it: weighted population standard deviations of free memory, free
    /// disk, processors, spindles (0.5 each), reserved memory and N+1, and of what is used of each kind (1 each).
    Balance,
    /// Watts now and watt hours of switching: few hosts, spare room kept for a burst.
    Consolidate {
        /// Share of the used capacity kept free over the hosts that are on, in thousandths.
        spare_milli: u32,
    },
    /// Bytes per second that cross hosts, and those that cross sites counted ten times.
    Locality,
    /// Currency per hour: hosting, energy by tariff, bytes between sites by price.
    Cost,
    /// Expected run time of each deployment's step of work: the slowest domain's computing and its communication.
    Time,
    /// Domains on these hosts.
    GuestsOut {
        /// The hosts to be emptied.
        hosts: Vec<HostIx>,
    },
    /// Distance from users' fair shares of what is used.
    Fair,
}

/// A bound on work, in units that do not depend on the machine: one unit is one candidate looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Units of work.
    pub work: u64,
}
