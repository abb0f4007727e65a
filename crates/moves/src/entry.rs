//! What an agent's journal says of one domain, and what the agent sees of its instance.

use estive_model::Generation;
use serde::{Deserialize, Serialize};

/// A permission to move, granted once by the manager's store: its number is the generation that the domain will have
/// on the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// The granted generation; never granted twice for one domain.
    pub generation: Generation,
    /// Whether the source may switch to post-copy when pre-copy does not converge.
    pub post_copy: bool,
}

/// What this host was asked to do with the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holding {
    /// Nothing: never heard of, deleted, or moved away.
    Absent,
    /// Defined, not to run.
    Stopped,
    /// To run. (With its instance gone: crashed. Nothing restarts it by itself.)
    Running,
    /// Runs, and is being sent to another host.
    Outgoing(Grant),
    /// Given up for good in favour of the grant's destination; the halted instance is kept until that one has it.
    Released(Grant),
    /// Expected from another host; never runs before `commit`.
    Incoming(Grant),
    /// Runs or is halted, and its memory is being written to a file. Until that is whole it may go on as it was.
    Saving,
    /// Its memory and devices are in a file; no instance is needed. From here it goes on by a restore, or is dropped.
    Saved,
    /// An instance is being made of what was saved, to run as this entry's generation. It has not run yet.
    Restoring,
}

/// The journal's entry for one domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// What this host holds.
    pub holding: Holding,
    /// Generation under which it is (or was last) held here.
    pub generation: Generation,
    /// The highest generation ever granted, refused or ended here.
    pub floor: Generation,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            holding: Holding::Absent,
            generation: Generation(0),
            floor: Generation(0),
        }
    }
}

impl Entry {
    /// The same entry with another holding.
    #[must_use]
    pub fn holding(self, holding: Holding) -> Self {
        Self { holding, ..self }
    }

    /// The same entry with its floor raised to at least `generation`.
    #[must_use]
    pub fn raised(self, generation: Generation) -> Self {
        Self {
            floor: self.floor.max(generation),
            ..self
        }
    }
}

/// What the agent sees of the domain's instance (its QEMU) now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// No process.
    Gone,
    /// Made, processors never started.
    Prelaunch,
    /// Processors run, no stream going out.
    Running,
    /// Processors halted on demand.
    Paused,
    /// Memory is being sent; processors run, or are halted for the moment of the switch.
    Streaming,
    /// Post-copy was switched to: processors halted for good, the rest of memory follows. Its death is the guest's.
    Following,
    /// The whole stream was sent and loaded by the other side, processors halted.
    Sent,
    /// Waits for a stream or is receiving it.
    Awaiting,
    /// The whole stream is loaded, processors halted.
    Loaded,
    /// It stands but cannot be asked.
    Unclear,
}
