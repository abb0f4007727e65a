//! A plan: a value that says what to do, in which order, why, and what it gains. It does nothing by itself.

use serde::{Deserialize, Serialize};

use crate::{DomainIx, HostIx, Indexed, UsedKind};

/// A step of `Plan::steps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepIx(pub u32);

impl Indexed for StepIx {
    fn at(self) -> usize {
        self.0 as usize
    }
    fn of(number: usize) -> Self {
        Self(u32::try_from(number).expect("a plan has fewer than 2^32 steps"))
    }
}

/// What to do with a world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Digest of the world it was made for: it is refused for another.
    pub world: String,
    /// The objective, as it was asked.
    pub objective: String,
    /// What made it the same again.
    pub seed: u64,
    /// Units of work that the search did: with the seed they replay it.
    pub work: u64,
    /// What to do. Each step comes after those that it names; whatever it does not name may run beside it.
    pub steps: Vec<Step>,
    /// What was found.
    pub report: Report,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What.
    pub act: Act,
    /// Steps that must have ended before it begins, each with a smaller number than its own.
    pub after: Vec<StepIx>,
    /// Why.
    pub reason: Reason,
    /// What is expected of it.
    pub figures: Figures,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// A domain that runs goes elsewhere. It is counted on both hosts from the step's begin to its end.
    Move {
        /// Which.
        domain: DomainIx,
        /// Where it is.
        from: HostIx,
        /// Where it goes.
        to: HostIx,
        /// Whether it only makes room and moves on later in this plan.
        pivot: bool,
    },
    /// A domain that asks for a place starts there.
    Place {
        /// Which.
        domain: DomainIx,
        /// Where.
        to: HostIx,
    },
    /// The second copy of a domain's disks is made on another host, then the old one is given up. Counted on both.
    MoveReplica {
        /// Which.
        domain: DomainIx,
        /// Where it is.
        from: HostIx,
        /// Where it goes.
        to: HostIx,
    },
    /// A host is switched on, and waited for.
    SwitchOn {
        /// Which.
        host: HostIx,
    },
    /// An empty host is switched off.
    SwitchOff {
        /// Which.
        host: HostIx,
    },
}

/// Why a step is in a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "because")]
pub enum Reason {
    /// A rule was broken before, in words, and is not after.
    Repairs {
        /// Which rule and how it was broken.
        rule: String,
    },
    /// The objective's value goes down.
    Gains {
        /// Before the step.
        before: f64,
        /// After it.
        after: f64,
        /// In words, with figures: what of the objective changed.
        what: String,
    },
    /// It makes room for another step.
    MakesRoom {
        /// For which.
        for_domain: DomainIx,
    },
    /// Another step needs it: a host that is switched on, or is empty then.
    Serves {
        /// In words.
        what: String,
    },
    /// Somebody asked for it.
    Asked {
        /// In words.
        what: String,
    },
}

/// What a step is expected to take and to bring.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Seconds it lasts.
    pub duration_s: f64,
    /// Milliseconds in which the domain stands still.
    pub downtime_ms: f64,
    /// Bytes over the network.
    pub bytes: u64,
    /// What it costs in the objective's own unit: it must be gained back.
    pub cost: f64,
}

/// What the search found, in words and figures.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// The objective's value before.
    pub before: f64,
    /// And after the whole plan.
    pub after: f64,
    /// Parts of it by name, before and after.
    pub parts: Vec<(String, f64, f64)>,
    /// Rules that were broken before, in words.
    pub broken: Vec<String>,
    /// Rules that stay broken, and why they cannot be mended.
    pub still_broken: Vec<Hindrance>,
    /// What stood in the way of something better, with counts.
    pub hindrances: Vec<Hindrance>,
    /// What was looked at and not taken.
    pub alternatives: Vec<Alternative>,
    /// Seconds until its last step ends, with those side by side that may be.
    pub duration_s: f64,
    /// Bytes of all its moves.
    pub bytes: u64,
    /// Why there is nothing to do, when there is nothing.
    pub nothing_because: Option<String>,
    /// What was foreseen, and counted beside what is used now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forecasts: Vec<Foreseen>,
}

/// A forecast that a plan was made with: where it was held against the past and was nearer than "as now".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Foreseen {
    /// Of which domain.
    pub domain: DomainIx,
    /// Of what.
    pub kind: UsedKind,
    /// How, in words.
    pub method: String,
    /// The most that is expected, in the kind's unit.
    pub expected: u64,
    /// Mean distance between what was foreseen and what came, on the past, in the kind's unit.
    pub error: f64,
    /// The same of "as now".
    pub as_now: f64,
}

/// What stood in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hindrance {
    /// In words.
    pub what: String,
    /// How often it did.
    pub count: u64,
}

/// What was not taken: a part of the plan, or one move where there is no plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// Which, in words.
    pub what: String,
    /// Domains that it moves.
    pub moves: u64,
    /// Bytes that this carries.
    pub bytes: u64,
    /// The value of the objective's first rank then.
    pub value: f64,
    /// Why not.
    pub because: String,
}
