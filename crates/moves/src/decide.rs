//! What the manager does next for a domain: level-triggered, from its store's record and what the two agents' journals
//! said last. The same function drives a move forward and picks it up again after a crash of the manager.

use crate::entry::{Entry, Grant, Holding, Seen};
use estive_model::Generation;
use serde::{Deserialize, Serialize};

/// What the owner of a domain wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// It should run.
    Running,
    /// It should be defined and not run.
    Stopped,
    /// Its memory should be kept, and it should not run.
    Saved,
}

/// A move that the store has granted and not yet closed. `H` names a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PendingMove<H> {
    /// The grant.
    pub grant: Grant,
    /// Where to.
    pub destination: H,
    /// Somebody asked to give it up.
    pub give_up: bool,
}

/// The store's record of one domain. Changed only by compare-and-swap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ownership<H> {
    /// The owner: the only host on which the domain may be started, and the source of a pending move.
    pub host: H,
    /// Generation under which the owner holds it.
    pub generation: Generation,
    /// The highest generation ever granted for this domain.
    pub granted: Generation,
    /// What it should do.
    pub wanted: Wanted,
    /// The move under way.
    pub moving: Option<PendingMove<H>>,
}

impl<H: Clone> Ownership<H> {
    /// Write (1): a new grant to move to `destination`. `None` while another move is open.
    pub fn ordered(&self, destination: H, post_copy: bool) -> Option<Self> {
        if self.moving.is_some() {
            return None;
        }
        let generation = self.granted.next();
        let grant = Grant {
            generation,
            post_copy,
        };
        Some(Self {
            granted: generation,
            moving: Some(PendingMove {
                grant,
                destination,
                give_up: false,
            }),
            ..self.clone()
        })
    }

    /// Before a start: a new generation for it, to be written before [`crate::Input::Start`] is sent with it. `None`
    /// while a move is open.
    pub fn starting(&self) -> Option<Self> {
        if self.moving.is_some() {
            return None;
        }
        let generation = self.granted.next();
        Some(Self {
            generation,
            granted: generation,
            wanted: Wanted::Running,
            ..self.clone()
        })
    }

    /// Before a save, to be written before [`crate::Input::Save`] is sent. `None` while a move is open.
    pub fn saving(&self) -> Option<Self> {
        self.moving.is_none().then(|| Self {
            wanted: Wanted::Saved,
            ..self.clone()
        })
    }

    /// Before a definition on the owner, whose journal has this `floor`: a generation that it does not refuse, to be
    /// written before [`crate::Input::Define`] is sent with it. `None` while a move is open.
    pub fn defining(&self, floor: Generation) -> Option<Self> {
        if self.moving.is_some() {
            return None;
        }
        // Granted and not used: a definition that was not heard, or was not answered, is sent again as it was.
        if self.generation > floor {
            return Some(self.clone());
        }
        let generation = self.granted.max(floor).next();
        Some(Self {
            generation,
            granted: generation,
            ..self.clone()
        })
    }

    /// Write (4): the destination owns it.
    pub fn committed(&self) -> Self {
        match &self.moving {
            Some(pending) => Self {
                host: pending.destination.clone(),
                generation: pending.grant.generation,
                moving: None,
                ..self.clone()
            },
            None => self.clone(),
        }
    }

    /// The move is over and the domain stays with its owner.
    pub fn stayed(&self) -> Self {
        Self {
            moving: None,
            ..self.clone()
        }
    }
}

/// What the manager knows of one host's journal for the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostView {
    /// It does not answer: it may hold anything.
    Silent,
    /// What it answered last.
    Says(Entry, Seen),
}

/// The next act of the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// No move is open.
    Nothing,
    /// Ask the destination to prepare.
    Prepare(Grant),
    /// Ask the source to send.
    Send(Grant),
    /// Wait for the agents, and look again.
    Wait,
    /// Ask the source to give the move up (only the source can).
    Abort(Generation),
    /// The source's journal says this grant is over: tell the destination to drop what it prepared, then write
    /// [`Ownership::stayed`]. The write need not wait for the destination: it can never run that grant.
    Stay(Generation),
    /// Write [`Ownership::committed`].
    Commit,
}

/// Decides the next act for a domain.
pub fn decide<H>(record: &Ownership<H>, source: HostView, destination: HostView) -> Decision {
    let Some(pending) = &record.moving else {
        return Decision::Nothing;
    };
    let grant = pending.grant;
    let granted = grant.generation;

    // The destination holds it under the grant: the move is done, whatever else is silent.
    if let HostView::Says(entry, _) = destination
        && entry.generation >= granted
    {
        return Decision::Commit;
    }
    let HostView::Says(at_source, seen) = source else {
        return Decision::Wait;
    };
    match at_source.holding {
        Holding::Outgoing(held) if held.generation == granted => {
            if pending.give_up {
                Decision::Abort(granted)
            } else {
                Decision::Wait
            }
        }
        Holding::Released(held) if held.generation == granted => Decision::Wait,
        // Dropped by the source, which it does only once the destination has confirmed.
        Holding::Absent if at_source.floor >= granted => Decision::Commit,
        Holding::Running
        | Holding::Stopped
        | Holding::Saving
        | Holding::Saved
        | Holding::Restoring
            if at_source.floor >= granted =>
        {
            Decision::Stay(granted)
        }
        Holding::Running if !pending.give_up && seen == Seen::Running => match destination {
            HostView::Says(
                Entry {
                    holding: Holding::Incoming(held),
                    ..
                },
                Seen::Awaiting,
            ) if held == grant => Decision::Send(grant),
            HostView::Says(
                Entry {
                    holding: Holding::Absent,
                    floor,
                    ..
                },
                _,
            ) if floor < granted => Decision::Prepare(grant),
            // Left from an older move, whose discard was lost: the prepare replaces it.
            HostView::Says(
                Entry {
                    holding: Holding::Incoming(held),
                    ..
                },
                _,
            ) if held.generation < granted => Decision::Prepare(grant),
            // It has just moved from there and is being forgotten (or, after post-copy, still read from there).
            HostView::Says(
                Entry {
                    holding: Holding::Released(held),
                    ..
                },
                _,
            ) if held.generation < granted => Decision::Wait,
            _ => Decision::Abort(granted),
        },
        Holding::Running
        | Holding::Stopped
        | Holding::Saving
        | Holding::Saved
        | Holding::Restoring => Decision::Abort(granted),
        // The source knows nothing of what the store says it owns: cannot tell, change nothing.
        _ => Decision::Wait,
    }
}

/// The grant of an instance that a host still keeps ready although that move is over: the host has not heard the
/// discard, or heard a late prepare. Tell it to discard (again), so that nothing half-made stays.
pub fn leftover<H>(record: &Ownership<H>, view: HostView) -> Option<Generation> {
    let HostView::Says(
        Entry {
            holding: Holding::Incoming(held),
            ..
        },
        _,
    ) = view
    else {
        return None;
    };
    let open = record
        .moving
        .as_ref()
        .is_some_and(|pending| pending.grant.generation <= held.generation);
    (!open && held.generation <= record.granted).then_some(held.generation)
}
