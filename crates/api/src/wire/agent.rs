//! Wire types of the agent.

pub use estive_boot::boots::Boots;
pub use estive_boot::push::{Left, PushReport, ServiceAct, Unnamed, WhyLeft};
pub use estive_boot::record::{Answered, ArrivedLine, BootRecord};
use estive_model::{Capacity, Digest, DomainName, DomainState, Generation, HostName, OperationId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Largest archive accepted, in bytes.
pub const MAX_ARCHIVE_BYTES: u64 = 512 * 1024 * 1024;
/// Largest JSON or XML body accepted, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;
/// Token of the HTTP upgrade for byte streams.
pub const STREAM_PROTOCOL: &str = "estive-stream";

/// Who an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentAbout {
    /// The host's name.
    pub name: HostName,
    /// Version of the agent.
    pub version: String,
    /// The hypervisor, in a line.
    pub hypervisor: String,
    /// What it declares.
    pub capacity: Capacity,
    /// Memory that its domains (held, running or expected) may use, in MiB.
    pub used_memory_mib: u64,
    /// Domains it holds.
    pub domains: u64,
    /// Process id of the agent.
    pub pid: u32,
    /// What a person has to see to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What an agent says of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainReport {
    /// The domain.
    pub name: DomainName,
    /// What it does here.
    pub state: DomainState,
    /// The journal's entry: the pure machine's words.
    pub journal: JournalReport,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Process id of its QEMU, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its memory on disk, if it is saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<SavedReport>,
    /// The move it takes part in, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationId>,
    /// Why it is in a state that nobody asked for: the last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Boot phases reached so far.
    #[serde(default)]
    pub boot: BootTimes,
}

/// Memory that waits on a host's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedReport {
    /// When it was saved, milliseconds since the epoch.
    pub saved_ms: u64,
    /// What it takes on the host's disk.
    pub bytes: u64,
}

/// Has a domain saved, or go on from there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveOrder {
    /// To an agent: to save, the generation that it runs as; to restore, a new one. Only the manager grants them, and
    /// without one an agent that is driven alone takes what fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
}

/// The journal's entry and what is seen of the instance, as the words of `estive-moves`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalReport {
    /// `estive_moves::Entry` as JSON: holding, generation, floor.
    pub entry: serde_json::Value,
    /// `estive_moves::Seen` as JSON.
    pub seen: serde_json::Value,
    /// Why the entry cannot be believed: nothing is to be decided on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

/// Has an agent forget a domain that its journal does not know, in the query of a DELETE.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetQuery {
    /// Its QEMU is ended and its files are removed, whatever the journal should have said of it.
    #[serde(default)]
    pub forget: bool,
    /// The highest generation that may have been granted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Generation>,
}

/// When a clone's boot reached each phase.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootTimes {
    /// When the agent was asked to start it, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_ms: Option<u64>,
    /// Phase → milliseconds since the epoch at which its report arrived.
    #[serde(default)]
    pub phases_ms: BTreeMap<String, u64>,
    /// Phase → guest uptime in milliseconds.
    #[serde(default)]
    pub uptimes_ms: BTreeMap<String, u64>,
    /// What init said went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the clone's own system has said of itself since, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<Registration>,
}

/// Tells an agent that a clone which it started answers now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnsweredOrder {
    /// Which start: [`BootTimes::asked_ms`].
    pub asked_ms: u64,
    /// When.
    pub answered: Answered,
}

/// A clone that says it is there (template set `register`). Its guest's word: shown, and nothing decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its address, without prefix.
    pub address: Ipv4Addr,
    /// Processors that it uses.
    pub cpus: u32,
    /// When it said so to this host, milliseconds since the epoch.
    pub since_ms: u64,
}

/// Asks for a state: `running`, `paused` or `stopped`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusOrder {
    /// The state wanted.
    pub state: DomainState,
    /// Generation granted for it (the manager's); without one the agent takes the next (driven alone).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// To stop: how long the guest may take to power off before it is ended, in milliseconds; 0 = at once.
    #[serde(default)]
    pub grace_ms: u64,
}

/// Query of `PUT /domain/NAME/incoming`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareQuery {
    /// The granted generation.
    pub generation: Generation,
    /// Whether post-copy is allowed.
    #[serde(default)]
    pub post_copy: bool,
    /// The operation.
    pub operation: OperationId,
    /// The source host.
    pub source: HostName,
}

/// A destination stands ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Address for the stream.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Name in the destination's certificate when the stream goes over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_name: Option<String>,
}

/// Orders a source to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveOrder {
    /// The operation; its report is under `/operation/ID` on the source.
    pub operation: OperationId,
    /// The granted generation.
    pub generation: Generation,
    /// Whether post-copy is allowed.
    #[serde(default)]
    pub post_copy: bool,
    /// The destination host.
    pub destination: HostName,
    /// URL of the destination's agent, for `ready` and `commit`.
    pub destination_url: String,
    /// Where the stream goes.
    pub stream: Prepared,
}

/// Names a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantOrder {
    /// The granted generation.
    pub generation: Generation,
}

/// Answer to `abort`, `discard`, `ready` and `commit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantAnswer {
    /// `estive_moves::Answer` as JSON.
    pub answer: serde_json::Value,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationPhase {
    /// Accepted, not yet begun.
    Accepted,
    /// Memory is being copied while the domain runs.
    Copying,
    /// The stream is sent; the destination is asked whether it has it.
    Switching,
    /// Released by the source, not yet confirmed by the destination.
    Released,
    /// The destination runs it.
    Done,
    /// Given up; the domain runs on the source.
    Aborted,
    /// The destination lost it after the release: it runs nowhere.
    Lost,
}

/// Progress and result of a move, as its source tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationReport {
    /// The operation.
    pub operation: OperationId,
    /// The domain.
    pub domain: DomainName,
    /// The granted generation.
    pub generation: Generation,
    /// How far it is.
    pub phase: OperationPhase,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes of memory still to send.
    pub remaining_bytes: u64,
    /// All memory, in bytes.
    pub total_bytes: u64,
    /// Rate at which the guest dirties memory, bytes a second.
    pub dirty_rate_bytes_per_s: u64,
    /// Interruption QEMU expects if it switched now, in milliseconds.
    pub expected_downtime_ms: u64,
    /// QEMU's own downtime, once complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_ms: Option<u64>,
    /// Duration of QEMU's migration, in milliseconds.
    pub total_ms: u64,
    /// How it was done and why: `pre-copy`, `pre-copy, processors slowed by 30 %`, `post-copy`…
    pub choice: String,
    /// When the source's processors were halted, microseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted_us: Option<u64>,
    /// When the destination confirmed that it runs, microseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_us: Option<u64>,
    /// What went wrong, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `details` of the problem answered when an archive names files that are not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingFiles {
    /// Digests to send along (in the archive as `files/<hex>`, or by `PUT /file/DIGEST`).
    pub missing: Vec<Digest>,
}

/// Query of `PUT /domain/NAME/layer`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerQuery {
    /// The generation that the domain must have; without one it is not asked (driven alone).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Change nothing and say what would be.
    #[serde(default)]
    pub dry_run: bool,
}

/// One line of the answer to a layer that was pushed to a domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum LayerLine {
    /// The guest answers, and lays the layer over itself.
    Laying,
    /// It is over; the layer is the domain's from now on.
    Done {
        /// How it ended.
        outcome: LayerOutcome,
    },
    /// Nothing was stored; the guest may have part of it, and pushing again makes that good.
    Failed {
        /// The problem.
        problem: crate::Problem,
    },
}

/// Where a layer that was pushed has come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum LayerOutcome {
    /// The running guest has it.
    Laid {
        /// What was written and what was left.
        report: PushReport,
    },
    /// It does not run; its next start takes it.
    NextStart {
        /// Why: `it is stopped`.
        reason: String,
    },
    /// It runs and could not be reached; its next start takes it.
    Unreached {
        /// Why.
        reason: String,
    },
}
