//! Wire types of the manager.

use crate::wire::{BootTimes, LayerOutcome, OperationReport, PushReport};
use estive_model::{
    Capacity, DeploymentName, DomainName, DomainState, Generation, HostHealth, HostName,
    OperationId,
};
use serde::{Deserialize, Serialize};

/// Who a manager is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerAbout {
    /// Version of the manager.
    pub version: String,
    /// Hosts it was told of.
    pub hosts: u64,
    /// Domains in its store.
    pub domains: u64,
    /// Process id.
    pub pid: u32,
}

/// What the manager knows of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// Its name.
    pub name: HostName,
    /// URL of its agent.
    pub url: String,
    /// Whether it answers.
    pub health: HostHealth,
    /// Why it is unknown, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What it declares, once it has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Memory of its domains, in MiB.
    pub used_memory_mib: u64,
    /// Number of its domains.
    pub domains: u64,
    /// Its hypervisor, in a line.
    #[serde(default)]
    pub hypervisor: String,
}

/// What the manager knows of a domain: the store's word joined with its host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HerdDomain {
    /// The domain.
    pub name: DomainName,
    /// Its deployment; none of one that was defined by itself, with disks of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentName>,
    /// Owner by the store.
    pub host: HostName,
    /// Generation by the store.
    pub generation: Generation,
    /// What it does, by its owner's agent (or by the destination's, during a move); `unknown` when that one is silent.
    pub state: DomainState,
    /// What its owner wants of it: `running`, `stopped` or `saved`.
    pub wanted: DomainState,
    /// Address in the deployment's network, without prefix; empty where it is not known.
    pub address: String,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    #[serde(default)]
    pub cpus: u32,
    /// The groups of the herd file that it stands in, outermost first.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What it was made from; empty without one.
    #[serde(default)]
    pub reference: String,
    /// What of that it has older than the manager's reference is now: `root`, `kernel`, `initramfs`, `modules`. An `up`
    /// takes the new when the domain is stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub older: Vec<String>,
    /// The move under way, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<MovingReport>,
    /// Anything a person should know, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Boot phases of its last start.
    #[serde(default)]
    pub boot: BootTimes,
}

/// Query of `PUT /domain/NAME` at the manager.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefineQuery {
    /// The host that is to have it. One that is there already stays where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
}

/// A move that the store holds open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovingReport {
    /// The operation.
    pub operation: OperationId,
    /// Where to.
    pub destination: HostName,
    /// The granted generation.
    pub generation: Generation,
    /// What it waits for.
    pub waiting_for: String,
}

/// A deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentReport {
    /// Its name.
    pub name: DeploymentName,
    /// Its domains.
    pub domains: Vec<DomainName>,
}

/// The sealed roots that somebody needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootsInUse {
    /// Each with its users.
    pub roots: Vec<RootUse>,
    /// Domains of which it is not recorded what they are made of: they may need any.
    pub unknown: Vec<String>,
}

/// A sealed root that is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootUse {
    /// Its name.
    pub root: String,
    /// By whom, in words.
    pub users: Vec<String>,
}

/// One line of the answer to `up`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum UpLine {
    /// Something in the herd file may be a slip; it stops nothing.
    Warning {
        /// `file:line:column: what`.
        text: String,
    },
    /// What will be made and where.
    Planned {
        /// Clone → host, with the reason.
        placements: Vec<Placement>,
    },
    /// A clone went a step further.
    Step {
        /// The clone.
        domain: DomainName,
        /// `defined`, `started`, `init`, `switched`, `answering`.
        step: String,
        /// Milliseconds since `up` was asked for this clone's start.
        after_ms: u64,
    },
    /// Every clone answers.
    Done {
        /// The table.
        clones: Vec<UpRow>,
    },
    /// It failed; what was made has been taken down again.
    Failed {
        /// The problem, as any other answer would carry it.
        problem: crate::Problem,
    },
}

/// Where a clone goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The clone.
    pub domain: DomainName,
    /// The host.
    pub host: HostName,
    /// Why there.
    pub reason: String,
}

/// A row of the table printed by `up`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpRow {
    /// The clone.
    pub domain: DomainName,
    /// Its host.
    pub host: HostName,
    /// Its address.
    pub address: String,
    /// From request to init, in milliseconds.
    pub to_init_ms: Option<u64>,
    /// From request to the switch of root, in milliseconds.
    pub to_switched_ms: Option<u64>,
    /// From request to answering (HTTP and SSH, or ping), in milliseconds.
    pub to_answering_ms: Option<u64>,
    /// What counted as answering.
    pub answered_by: String,
}

/// Query of `PUT /deployment/NAME/layers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushQuery {
    /// Change nothing and say what would be.
    #[serde(default)]
    pub dry_run: bool,
    /// Names of clones with commas between; all of the herd without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clones: Option<String>,
}

/// One line of the answer to a push of layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum PushLine {
    /// Something may be a slip; it stops nothing.
    Warning {
        /// What.
        text: String,
    },
    /// The layers are made.
    Planned {
        /// How many clones are to have theirs.
        clones: u64,
    },
    /// A clone's guest lays its layer over itself.
    Laying {
        /// The clone.
        domain: DomainName,
    },
    /// It is over for one clone.
    Clone {
        /// How it ended.
        row: PushRow,
    },
    /// It is over for all.
    Done {
        /// The table.
        clones: Vec<PushRow>,
    },
    /// Nothing was pushed.
    Failed {
        /// The problem.
        problem: crate::Problem,
    },
}

/// What came of a push for one clone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PushRow {
    /// The clone.
    pub domain: DomainName,
    /// Its host; none when it is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: PushOutcome,
}

/// How a push ended for one clone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum PushOutcome {
    /// The running clone has it.
    Laid {
        /// What was written and what was left.
        report: PushReport,
    },
    /// It does not run; its next start takes it.
    NextStart {
        /// Why.
        reason: String,
    },
    /// It runs and could not be reached; its next start takes it.
    Unreached {
        /// Why.
        reason: String,
    },
    /// It does not have it, and its next start has the former one.
    Failed {
        /// Why not.
        problem: crate::Problem,
    },
}

impl PushOutcome {
    /// Whether nothing is left to be done for this clone.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Laid { .. } | Self::NextStart { .. })
    }
}

impl From<LayerOutcome> for PushOutcome {
    fn from(outcome: LayerOutcome) -> Self {
        match outcome {
            LayerOutcome::Laid { report } => Self::Laid { report },
            LayerOutcome::NextStart { reason } => Self::NextStart { reason },
            LayerOutcome::Unreached { reason } => Self::Unreached { reason },
        }
    }
}

/// One line of the answer to `down`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum DownLine {
    /// A domain is gone.
    Gone {
        /// The domain.
        domain: DomainName,
    },
    /// All are gone.
    Done,
    /// Not all could be taken down; the rest is named.
    Failed {
        /// The problem.
        problem: crate::Problem,
    },
}

/// Orders a live migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrateOrder {
    /// Where to; without it the manager picks the host with which all are most even, and says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<HostName>,
    /// Why, for the event log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One line of the answer to `migrate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum MigrateLine {
    /// Write (1) is made.
    Ordered {
        /// The operation.
        operation: OperationId,
        /// From.
        source: HostName,
        /// To.
        destination: HostName,
        /// The granted generation.
        generation: Generation,
        /// Why there.
        reason: String,
    },
    /// Where it stands.
    Progress {
        /// As the source tells it.
        report: OperationReport,
    },
    /// Write (4) is made.
    Done {
        /// The source's last report.
        report: OperationReport,
        /// From the order to write (4), in milliseconds.
        whole_ms: u64,
    },
    /// It did not come to pass; says where the domain is.
    Failed {
        /// The problem.
        problem: crate::Problem,
    },
}

/// A clone's SSH host key, derived from its deployment's secret: known before the clone has ever run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKey {
    /// In OpenSSH's form: `ssh-ed25519 AAAA…`.
    pub public_key: String,
}
