//! The log of acts: each with its reason.

use crate::{DomainName, Generation, HostName, OperationId};
use serde::{Deserialize, Serialize};

/// One thing that was done or seen, with why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Order within one log; rises by one.
    pub sequence: u64,
    /// Milliseconds since the epoch, by the clock of who wrote the event.
    pub time_ms: u64,
    /// What happened.
    pub kind: EventKind,
    /// The domain concerned, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainName>,
    /// The host concerned, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// The generation, where one is granted, released or taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// The operation it belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationId>,
    /// Why: one sentence, with figures where there are some.
    pub reason: String,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A domain's archive was accepted on a host.
    Defined,
    /// A domain was asked to run and its processors were started.
    Started,
    /// A domain was stopped on demand.
    Stopped,
    /// A domain's memory was written to disk and the domain ended.
    Saved,
    /// A domain goes on from what was saved.
    Restored,
    /// What was saved of a domain was dropped: it is stopped.
    SavedDropped,
    /// A domain's QEMU ended by itself.
    Crashed,
    /// A domain was removed from a host.
    Deleted,
    /// A domain was given another layer, running or for its next start.
    LayerPushed,
    /// A move was ordered: first durable write.
    MoveOrdered,
    /// The destination stands ready for the stream.
    MovePrepared,
    /// The source gave the domain up: the point of no return.
    MoveReleased,
    /// The destination runs the domain.
    MoveTaken,
    /// The store names the destination as owner: the move is over.
    MoveCommitted,
    /// The move was given up; the domain runs on the source.
    MoveAborted,
    /// A running QEMU was taken over after a restart of the agent.
    Adopted,
    /// An agent started and found something of a domain that its journal does not know: nothing of it is touched.
    NotInJournal,
    /// A host's cache refused what it was given for a root, or could not get it.
    ChunkRefused,
    /// A host answered again after silence.
    HostUp,
    /// A host fell silent.
    HostUnknown,
    /// A deployment was brought up or taken down.
    Deployment,
    /// A reference of the manager's has another root, kernel, initial RAM file system or modules; or cannot be read anew.
    Reference,
}
