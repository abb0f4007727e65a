//! The cases, as a table: what is ordered, who is killed at which step, and how it must end.

use std::fmt;

/// What is asked of `estive` when the kill happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The running domain, to the other host.
    Migrate,
    /// The stopped domain.
    Start,
    /// The running domain.
    Stop,
    /// A second herd of one clone.
    Up,
    /// The running domain.
    Save,
    /// The saved domain.
    Restore,
    /// The running domain to the other host, where its QEMU dies while memory is copied: the move is given up.
    GiveUp,
}

/// One of the two hosts, as the order begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// That owns the domain.
    Here,
    /// The other one.
    There,
    /// Whether the last step still came to pass cannot be known: on either, and on one only.
    Either,
}

/// Whose process is killed at its fault point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Agent(Where),
    Manager,
    Command,
    /// The storage host's keeper of volumes.
    Storage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// What holds the order up, so that the kill hits the step meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// A process ends itself at a fault point.
    Fault(Victim, &'static str, Side),
    /// The memory is being copied through a narrow wire.
    Copying,
}

/// How it ends, once what was killed is there again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    Runs(Where),
    /// Asked to run, and its QEMU is gone.
    Crashed(Where),
    Stopped(Where),
    /// Its memory is on disk.
    Saved(Where),
    /// On record, and its host holds nothing of it.
    Unmade,
    /// Not on record.
    Unknown,
}

/// What is killed once the order is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Qemu(Where),
    Process(Victim),
}

#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Of the stateful domain.
    pub kept: bool,
    pub order: Order,
    pub halt: Halt,
    pub then: Option<Then>,
    pub ends: Ends,
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here => "its owner",
            Self::There => "the other host",
            Self::Either => "one of the two",
        })
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(host) => write!(f, "agent of {host}"),
            Self::Manager => f.write_str("manager"),
            Self::Command => f.write_str("command"),
            Self::Storage => f.write_str("storage"),
        }
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs(host) => write!(f, "it runs on {host}"),
            Self::Crashed(host) => write!(f, "it runs nowhere, crashed on {host}"),
            Self::Stopped(host) => write!(f, "it runs nowhere, stopped on {host}"),
            Self::Saved(host) => write!(f, "it runs nowhere, saved on {host}"),
            Self::Unmade => f.write_str("it runs nowhere, on record and not made"),
            Self::Unknown => f.write_str("it runs nowhere, not on record"),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = format!("{:?}", self.order).to_lowercase();
        let kept = if self.kept { " of a stateful one" } else { "" };
        write!(f, "{order}{kept}: ")?;
        match self.halt {
            Halt::Fault(victim, point, side) => {
                let side = format!("{side:?}").to_lowercase();
                write!(f, "{victim} killed {side} {point}")?;
            }
            Halt::Copying => f.write_str("memory being copied")?,
        }
        match self.then {
            Some(Then::Qemu(host)) => write!(f, ", QEMU of {host} killed"),
            Some(Then::Process(victim)) => write!(f, ", {victim} killed"),
            None => Ok(()),
        }
    }
}

/// A step, and how a kill before and after it ends.
type Row = (Order, Victim, &'static str, Ends, Ends);

const HERE: Victim = Victim::Agent(Where::Here);
const THERE: Victim = Victim::Agent(Where::There);
const STAYS: Ends = Ends::Runs(Where::Here);
const MOVES: Ends = Ends::Runs(Where::There);
const EITHER: Ends = Ends::Runs(Where::Either);
const CRASHED: Ends = Ends::Crashed(Where::Here);
const STOPPED: Ends = Ends::Stopped(Where::Here);
const SAVED: Ends = Ends::Saved(Where::Here);

/// Every named step. What was not come to is done by whoever finds the order open. A destination that falls silent before
/// anything was sent ends the move, and so does a source that finds its stream not begun or failed; once the source has
/// released the domain the move is only ever finished.
const STEPS: &[Row] = {
    use Order::{Migrate, Restore, Save, Start, Stop, Up};
    use Victim::{Command, Manager};
    &[
        (Migrate, HERE, "move.outgoing_persisted", MOVES, STAYS),
        (Migrate, HERE, "move.stream_started", STAYS, EITHER),
        (Migrate, HERE, "move.sent", MOVES, MOVES),
        (Migrate, HERE, "move.ready_answered", MOVES, MOVES),
        (Migrate, HERE, "move.released_persisted", MOVES, MOVES),
        (Migrate, HERE, "move.commit_sent", MOVES, MOVES),
        (Migrate, HERE, "move.source_killed", MOVES, MOVES),
        (Migrate, HERE, "move.dropped_persisted", MOVES, MOVES),
        (Migrate, THERE, "move.prepared_persisted", STAYS, STAYS),
        (Migrate, THERE, "move.incoming_created", STAYS, STAYS),
        (Migrate, THERE, "move.taken_persisted", MOVES, MOVES),
        (Migrate, THERE, "move.fenced", MOVES, MOVES),
        (Migrate, THERE, "move.resumed", MOVES, MOVES),
        (Migrate, Manager, "move.ordered", STAYS, MOVES),
        (Migrate, Manager, "move.prepared", MOVES, MOVES),
        (Migrate, Manager, "move.send_asked", MOVES, MOVES),
        (Migrate, Manager, "move.committed", MOVES, MOVES),
        (Migrate, Command, "command.sent", STAYS, MOVES),
        (Start, HERE, "start.persisted", STOPPED, CRASHED),
        (Start, HERE, "start.created", CRASHED, STAYS),
        (Start, HERE, "start.fenced", STAYS, STAYS),
        (Start, HERE, "start.resumed", STAYS, STAYS),
        (Start, Manager, "up.started", STOPPED, STAYS),
        (Start, Command, "command.sent", STOPPED, STAYS),
        (Stop, HERE, "stop.persisted", STAYS, STOPPED),
        (Stop, HERE, "stop.killed", STOPPED, STOPPED),
        (Stop, Manager, "stop.asked", STAYS, STOPPED),
        (Stop, Command, "command.sent", STAYS, STOPPED),
        // A save that is cut off is given up.
        (Save, HERE, "save.persisted", STAYS, STAYS),
        (Save, HERE, "save.written", STAYS, STAYS),
        (Save, HERE, "save.kept", STAYS, SAVED),
        (Save, HERE, "save.killed", SAVED, SAVED),
        (Save, Manager, "save.asked", STAYS, SAVED),
        (Save, Command, "command.sent", STAYS, SAVED),
        // A restore too, until all of it is loaded.
        (Restore, HERE, "restore.persisted", SAVED, SAVED),
        (Restore, HERE, "restore.fenced", SAVED, SAVED),
        (Restore, HERE, "restore.created", SAVED, STAYS),
        (Restore, HERE, "restore.taken", STAYS, STAYS),
        (Restore, HERE, "restore.resumed", STAYS, STAYS),
        (Restore, Manager, "restore.asked", SAVED, STAYS),
        (Restore, Command, "command.sent", SAVED, STAYS),
        (Up, Manager, "up.recorded", Ends::Unknown, Ends::Unmade),
        (Up, Manager, "up.defined", Ends::Unmade, STOPPED),
        (Up, Manager, "up.started", STOPPED, STAYS),
        (Up, Command, "command.sent", Ends::Unknown, STAYS),
    ]
};

/// Every named step of who may open a volume. Whether the manager has heard of what the storage has written or not: an
/// order that needs it is not given without its word, and is given again by whoever wants it.
const KEPT_STEPS: &[Row] = {
    use Order::{GiveUp, Migrate, Restore, Save, Start, Stop};
    use Victim::{Manager, Storage};
    &[
        (Migrate, Manager, "volume.granted", MOVES, MOVES),
        (Migrate, Storage, "volume.grant_written", STAYS, STAYS),
        (Migrate, Storage, "volume.let_in_written", STAYS, STAYS),
        // Released: it runs as soon as the storage has cut its source off.
        (Migrate, Storage, "volume.fence_written", MOVES, MOVES),
        (GiveUp, Manager, "volume.revoked", STAYS, STAYS),
        (GiveUp, Storage, "volume.revoke_written", STAYS, STAYS),
        (Start, Manager, "volume.granted", STOPPED, STOPPED),
        (Start, Storage, "volume.grant_written", STOPPED, STOPPED),
        (Start, Storage, "volume.let_in_written", STOPPED, STOPPED),
        (Start, Storage, "volume.fence_written", STAYS, STAYS),
        (Stop, Storage, "volume.revoke_written", STOPPED, STOPPED),
        (Save, Storage, "volume.revoke_written", SAVED, SAVED),
        (Restore, Manager, "volume.granted", SAVED, SAVED),
        (Restore, Storage, "volume.grant_written", SAVED, SAVED),
        (Restore, Storage, "volume.let_in_written", SAVED, SAVED),
        (Restore, Storage, "volume.fence_written", SAVED, SAVED),
    ]
};

/// QEMU has no steps of its own: it is killed where somebody else was held up. And everybody while memory is copied.
const HELD_UP: &[Case] = {
    use Order::{Migrate, Restore, Save, Start};
    use Side::{After, Before};
    use Then::{Process, Qemu};
    use Victim::{Command, Manager};
    const fn killed(order: Order, halt: Halt, then: Then, ends: Ends) -> Case {
        Case {
            kept: false,
            order,
            halt,
            then: Some(then),
            ends,
        }
    }
    const AWAITING: Halt = Halt::Fault(Manager, "move.send_asked", Before);
    const LOADED: Halt = Halt::Fault(HERE, "move.ready_answered", After);
    const RELEASED: Halt = Halt::Fault(HERE, "move.released_persisted", After);
    const TAKEN: Halt = Halt::Fault(THERE, "move.taken_persisted", After);
    const CREATED: Halt = Halt::Fault(HERE, "start.created", After);
    const WRITING: Halt = Halt::Fault(HERE, "save.written", Before);
    const KEPT: Halt = Halt::Fault(HERE, "save.kept", After);
    const MADE: Halt = Halt::Fault(HERE, "restore.created", After);
    const RUNS: Halt = Halt::Fault(HERE, "restore.taken", After);
    const OWN: Then = Qemu(Where::Here);
    const OTHER: Then = Qemu(Where::There);
    // Past the point of no return its memory is in one place only.
    const LOST: Ends = Ends::Crashed(Where::There);
    &[
        killed(Migrate, AWAITING, OWN, CRASHED),
        killed(Migrate, AWAITING, OTHER, STAYS),
        killed(Migrate, Halt::Copying, OWN, CRASHED),
        killed(Migrate, Halt::Copying, OTHER, STAYS),
        killed(Migrate, Halt::Copying, Process(HERE), MOVES),
        killed(Migrate, Halt::Copying, Process(THERE), MOVES),
        killed(Migrate, Halt::Copying, Process(Manager), MOVES),
        killed(Migrate, Halt::Copying, Process(Command), MOVES),
        // The whole stream is there already: nothing is lost with the source.
        killed(Migrate, LOADED, OWN, MOVES),
        killed(Migrate, LOADED, OTHER, STAYS),
        killed(Migrate, RELEASED, OWN, MOVES),
        killed(Migrate, RELEASED, OTHER, LOST),
        killed(Migrate, TAKEN, OTHER, LOST),
        killed(Start, CREATED, OWN, CRASHED),
        killed(Save, WRITING, OWN, CRASHED),
        killed(Save, KEPT, OWN, SAVED),
        killed(Restore, MADE, OWN, SAVED),
        // What it was made of is not run from again: it may have run.
        killed(Restore, RUNS, OWN, CRASHED),
    ]
};

/// The names of all steps.
pub fn steps() -> impl Iterator<Item = &'static str> {
    STEPS.iter().chain(KEPT_STEPS).map(|row| row.2)
}

pub fn all() -> Vec<Case> {
    let sides = |kept, &(order, victim, point, before, after): &Row| {
        [(Side::Before, before), (Side::After, after)].map(|(side, ends)| Case {
            kept,
            order,
            halt: Halt::Fault(victim, point, side),
            then: None,
            ends,
        })
    };
    let mut all: Vec<Case> = STEPS.iter().flat_map(|row| sides(false, row)).collect();
    all.extend(HELD_UP);
    all.extend(KEPT_STEPS.iter().flat_map(|row| sides(true, row)));
    all
}
