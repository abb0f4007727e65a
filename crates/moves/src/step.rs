//! One step of an agent: an order or an observation in, effects out, to be done in order.

use crate::entry::{Entry, Grant, Holding, Seen};
use crate::saved;
use estive_model::Generation;
use serde::{Deserialize, Serialize};

/// What an agent is told, or sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// The domain's files are here; hold it, stopped.
    Define(Generation),
    /// Run it.
    Start(Generation),
    /// Stop it at once. (Asking the guest to power off comes before, and is not decided here.)
    Stop,
    /// Remove it.
    Forget,
    /// Write its memory to a file and end it; it must run as this generation.
    Save(Generation),
    /// Go on from what was saved, as this generation.
    Restore(Generation),
    /// Drop what was saved: it is stopped.
    DropSaved,
    /// Stand ready to receive it.
    Prepare(Grant),
    /// Send it.
    Move(Grant),
    /// Give the move up, if it can still be given up.
    Abort(Generation),
    /// Drop what was prepared: the source has ended that move.
    Discard(Generation),
    /// The source asks whether the whole stream is loaded here.
    AskReady(Generation),
    /// The source has released the domain: run it.
    Commit(Generation),
    /// The whole stream was sent and loaded, the source's processors are halted.
    StreamSent,
    /// The stream failed or was cancelled; the source's processors run on.
    StreamFailed,
    /// Pre-copy does not converge and the herd file allows post-copy.
    SwitchToPostCopy,
    /// The instance ended by itself.
    InstanceGone,
    /// The instance that was to be made could not be made (of one to be restored: or its storage did not let it in).
    CreateFailed,
    /// Its memory could not be written.
    SaveFailed,
    /// The destination's answer to `AskReady`; `false` also when it did not answer in time.
    Ready(Generation, bool),
    /// The destination's answer to `Commit`.
    Committed(Generation, CommitOutcome),
    /// The agent has started and read its journal.
    Restarted,
}

/// A destination's final answer to `commit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitOutcome {
    /// It runs (or ran) there under the granted generation.
    Taken,
    /// Its instance there had ended before it ever ran: the domain's memory is lost. It runs nowhere.
    Lost,
}

/// Why an order was refused; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The generation is not newer than what this host has decided already.
    OldGeneration,
    /// The domain is not held here in a way that allows this.
    NotHeldSo,
    /// It is being moved.
    Moving,
    /// It was released to another host.
    Released,
    /// Its instance is not running.
    NotRunning,
    /// It is not known here.
    Unknown,
    /// Its memory is being saved or restored.
    Saving,
    /// It is saved: it goes on by a restore, or what was saved is dropped first.
    Saved,
    /// Nothing of it is saved.
    NotSaved,
}

/// What an agent answers to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is so.
    Done,
    /// Not done; nothing was changed.
    Refused(Refusal),
    /// To `abort`: the move is over, the domain stays here.
    Aborted,
    /// To `abort`: too late, the domain was released.
    AlreadyReleased,
    /// To `ask ready`: whether the stream is loaded.
    Ready(bool),
    /// To `ask ready` and `commit`: the stream is still coming in, ask again.
    NotYet,
    /// To `commit`: the outcome.
    Committed(CommitOutcome),
}

/// What an agent does, in order. A crash may fall between any two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Write the journal and wait until it is on disk.
    Persist(Entry),
    /// Make an instance, processors halted.
    Create,
    /// Make an instance that waits for the stream, processors halted.
    CreateIncoming(Grant),
    /// Make an instance of what was saved, processors halted.
    CreateRestored,
    /// Halt the processors, write memory and devices to a file, and wait until it is whole and on disk.
    SaveState,
    /// Have the storage cut every export of the domain's volume below this generation, and wait until it says so. A
    /// domain without a volume has nothing to cut. While the storage does not answer, what comes after in the step must
    /// not be done: look again ([`Input::Restarted`]) until it does.
    Fence(Generation),
    /// Start the processors, unless they run.
    Resume,
    /// End the instance.
    Kill,
    /// Start sending memory.
    StartStream(Grant),
    /// Give the stream up, if there is one.
    CancelStream,
    /// Halt the processors for good, then let the rest of memory follow. When this is done they never run here again,
    /// whatever becomes of the stream (QEMU: `stop` before `migrate-start-postcopy`, so that a failed stream does not
    /// start them). If there is no stream any more, halting is all. If they cannot be halted, what comes after in the
    /// step must not be done: look again ([`Input::Restarted`]) until they can.
    StartPostCopy,
    /// Ask the destination whether the stream is loaded; its answer comes back as [`Input::Ready`].
    AskReady(Grant),
    /// Tell the destination to run it, again and again until it answers; comes back as [`Input::Committed`].
    SendCommit(Grant),
    /// Answer who ordered.
    Answer(Answer),
}

use Answer::{AlreadyReleased, Committed, Done, NotYet, Ready, Refused};
use Effect::{
    AskReady, CancelStream, Create, CreateIncoming, Fence, Kill, Persist, Resume, SendCommit,
    StartPostCopy, StartStream,
};
use Holding::{Absent, Incoming, Outgoing, Released, Restoring, Running, Saved, Saving, Stopped};

pub(crate) fn answer(answer: Answer) -> Vec<Effect> {
    vec![Effect::Answer(answer)]
}

pub(crate) fn refuse(why: Refusal) -> Vec<Effect> {
    answer(Refused(why))
}

/// What the agent does when `input` comes while its journal says `entry` and its instance looks like `seen`.
///
/// Pure and total: every pair of holding and input has an answer, and orders that come late, twice or out of turn
/// change nothing.
pub fn step(entry: &Entry, seen: Seen, input: Input) -> Vec<Effect> {
    let entry = *entry;
    match input {
        Input::Define(generation) => define(entry, seen, generation),
        Input::Start(generation) => start(entry, seen, generation),
        Input::Stop => stop(entry),
        Input::Forget => forget(entry),
        Input::Save(generation) => saved::save(entry, seen, generation),
        Input::Restore(generation) => saved::restore(entry, seen, generation),
        Input::DropSaved => saved::drop_saved(entry),
        Input::SaveFailed => match entry.holding {
            Saving => saved::go_on(entry),
            _ => vec![],
        },
        Input::Prepare(grant) => prepare(entry, seen, grant),
        Input::Move(grant) => send(entry, seen, grant),
        Input::Abort(generation) => abort(entry, generation),
        Input::Discard(generation) => discard(entry, generation),
        Input::AskReady(generation) => ask_ready(entry, seen, generation),
        Input::Commit(generation) => commit(entry, seen, generation),
        Input::StreamSent => match entry.holding {
            Outgoing(grant) => vec![AskReady(grant)],
            // Given up, but the cancelling came too late and the stream ended by halting the processors. (Found by the
            // exploration: it stayed halted until the agent was restarted.)
            Running if seen == Seen::Sent => vec![Resume],
            // The end of a post-copy: nothing here is needed any more.
            Released(grant) if halted(seen) => vec![SendCommit(grant)],
            _ => vec![],
        },
        Input::StreamFailed => match entry.holding {
            Outgoing(_) => vec![Persist(entry.holding(Running)), Resume],
            Released(grant) if halted(seen) => vec![SendCommit(grant)],
            _ => vec![],
        },
        Input::SwitchToPostCopy => match entry.holding {
            Outgoing(grant) if grant.post_copy && seen == Seen::Streaming => {
                vec![
                    Persist(entry.holding(Released(grant))),
                    StartPostCopy,
                    SendCommit(grant),
                ]
            }
            _ => vec![],
        },
        Input::InstanceGone => match entry.holding {
            // The stream may have been loaded in full before the instance died: then the destination can have it.
            Outgoing(grant) => vec![AskReady(grant)],
            Released(grant) if seen == Seen::Gone => vec![SendCommit(grant)],
            // Its memory is lost with it.
            Saving if seen == Seen::Gone => vec![Persist(entry.holding(Running))],
            // It had not run: what was saved is as good as before.
            Restoring if seen == Seen::Gone => vec![Persist(entry.holding(Saved))],
            _ => vec![],
        },
        Input::CreateFailed => match entry.holding {
            Incoming(_) => vec![Persist(entry.holding(Absent))],
            Restoring => saved::keep(entry),
            Running if seen == Seen::Gone => vec![Persist(entry.holding(Stopped))],
            _ => vec![],
        },
        Input::Ready(generation, ready) => is_ready(entry, seen, generation, ready),
        Input::Committed(generation, _) => match entry.holding {
            // Post-copy: it runs there, and needs the pages that are still here. When they have all been sent (or can
            // no longer be), the commit is repeated. (Found by the exploration: the source was ended under them.)
            Released(grant)
                if grant.generation == generation
                    && (seen == Seen::Following || seen == Seen::Unclear && grant.post_copy) =>
            {
                vec![]
            }
            Released(grant) if grant.generation == generation => {
                vec![Kill, Persist(entry.holding(Absent))]
            }
            _ => vec![],
        },
        Input::Restarted => restarted(entry, seen),
    }
}

/// Its processors do not run, and cannot start by themselves.
fn halted(seen: Seen) -> bool {
    matches!(
        seen,
        Seen::Paused | Seen::Sent | Seen::Following | Seen::Gone
    )
}

fn define(entry: Entry, seen: Seen, generation: Generation) -> Vec<Effect> {
    match entry.holding {
        // A stopped one is made anew, of something else.
        Absent | Stopped if generation > entry.floor => {
            let mut effects = vec![
                Persist(Entry {
                    holding: Stopped,
                    generation,
                    floor: generation,
                }),
                Effect::Answer(Done),
            ];
            if seen != Seen::Gone {
                // Left from before the stop, see `forget`: its files are about to be replaced. (Found by the
                // exploration: they were, under processors that ran.)
                effects.insert(0, Kill);
            }
            effects
        }
        Stopped if generation == entry.generation => answer(Done),
        Absent => refuse(Refusal::OldGeneration),
        Saved => refuse(Refusal::Saved),
        Saving | Restoring => refuse(Refusal::Saving),
        _ => refuse(Refusal::NotHeldSo),
    }
}

fn start(entry: Entry, seen: Seen, generation: Generation) -> Vec<Effect> {
    match entry.holding {
        Running if generation == entry.generation && seen != Seen::Gone => {
            // Made, or loaded of what was saved or sent, and not started for whatever reason.
            if matches!(seen, Seen::Prelaunch | Seen::Loaded) {
                vec![Fence(generation), Resume, Effect::Answer(Done)]
            } else {
                answer(Done)
            }
        }
        Stopped | Running if generation <= entry.floor => refuse(Refusal::OldGeneration),
        Running if seen != Seen::Gone => refuse(Refusal::NotHeldSo),
        Stopped | Running => {
            let mut effects = vec![
                Persist(Entry {
                    holding: Running,
                    generation,
                    floor: generation,
                }),
                Create,
                Fence(generation),
                Resume,
                Effect::Answer(Done),
            ];
            if seen != Seen::Gone {
                // Left from before the stop, see `forget`.
                effects.insert(0, Kill);
            }
            effects
        }
        Outgoing(_) => refuse(Refusal::Moving),
        Released(_) => refuse(Refusal::Released),
        Incoming(_) | Absent => refuse(Refusal::Unknown),
        // A start from nothing would make what was saved worthless: that is for a person to say.
        Saved => refuse(Refusal::Saved),
        Saving | Restoring => refuse(Refusal::Saving),
    }
}

fn stop(entry: Entry) -> Vec<Effect> {
    match entry.holding {
        // Written first: a crash before the kill leaves "stopped" with an instance, which the restart ends.
        Running => vec![Persist(entry.holding(Stopped)), Kill, Effect::Answer(Done)],
        // What was saved stays.
        Stopped | Saved => vec![Kill, Effect::Answer(Done)],
        Restoring => vec![Persist(entry.holding(Saved)), Kill, Effect::Answer(Done)],
        Saving => refuse(Refusal::Saving),
        Outgoing(_) => refuse(Refusal::Moving),
        Released(_) => refuse(Refusal::Released),
        Incoming(_) | Absent => refuse(Refusal::Unknown),
    }
}

fn forget(entry: Entry) -> Vec<Effect> {
    match entry.holding {
        // Its instance may stand still, when the agent fell between "stopped" and the kill and could not ask it since.
        Stopped | Saved => vec![Kill, Persist(entry.holding(Absent)), Effect::Answer(Done)],
        Absent => answer(Done),
        Saving | Restoring => refuse(Refusal::Saving),
        Running => refuse(Refusal::NotHeldSo),
        Outgoing(_) | Incoming(_) => refuse(Refusal::Moving),
        Released(_) => refuse(Refusal::Released),
    }
}

fn prepare(entry: Entry, seen: Seen, grant: Grant) -> Vec<Effect> {
    match entry.holding {
        Absent if grant.generation > entry.floor => vec![
            Persist(entry.holding(Incoming(grant)).raised(grant.generation)),
            CreateIncoming(grant),
            Effect::Answer(Done),
        ],
        Incoming(held) if held == grant && matches!(seen, Seen::Awaiting | Seen::Loaded) => {
            answer(Done)
        }
        Incoming(held) if held == grant => refuse(Refusal::NotRunning),
        // The store grants a move only after it has closed the one before: what is kept ready for an older one is a
        // leftover whose discard was lost, and must not make the next move fail.
        Incoming(held) if held.generation < grant.generation => vec![
            Kill,
            Persist(entry.holding(Incoming(grant)).raised(grant.generation)),
            CreateIncoming(grant),
            Effect::Answer(Done),
        ],
        Absent => refuse(Refusal::OldGeneration),
        _ => refuse(Refusal::NotHeldSo),
    }
}

fn send(entry: Entry, seen: Seen, grant: Grant) -> Vec<Effect> {
    match entry.holding {
        Outgoing(held) if held == grant => answer(Done),
        Running if grant.generation <= entry.floor => refuse(Refusal::OldGeneration),
        Running if seen != Seen::Running => refuse(Refusal::NotRunning),
        Running => vec![
            Persist(entry.holding(Outgoing(grant)).raised(grant.generation)),
            StartStream(grant),
            Effect::Answer(Done),
        ],
        Outgoing(_) => refuse(Refusal::Moving),
        Released(_) => refuse(Refusal::Released),
        Saved => refuse(Refusal::Saved),
        Saving | Restoring => refuse(Refusal::Saving),
        _ => refuse(Refusal::NotHeldSo),
    }
}

fn abort(entry: Entry, generation: Generation) -> Vec<Effect> {
    match entry.holding {
        Outgoing(grant) if grant.generation == generation => vec![
            Persist(entry.holding(Running)),
            CancelStream,
            Resume,
            Effect::Answer(Answer::Aborted),
        ],
        // Not begun, or over: from now on it can never begin.
        Running | Stopped | Saving | Saved | Restoring if generation > entry.generation => {
            vec![
                Persist(entry.raised(generation)),
                Effect::Answer(Answer::Aborted),
            ]
        }
        Released(grant) if grant.generation == generation => answer(AlreadyReleased),
        Absent if entry.floor >= generation => answer(AlreadyReleased),
        Outgoing(_) => refuse(Refusal::Moving),
        Running | Stopped | Saving | Saved | Restoring | Released(_) => {
            refuse(Refusal::OldGeneration)
        }
        Incoming(_) | Absent => refuse(Refusal::Unknown),
    }
}

fn discard(entry: Entry, generation: Generation) -> Vec<Effect> {
    match entry.holding {
        // An older one is over too: the store grants one after the other.
        Incoming(grant) if grant.generation <= generation => {
            vec![
                Kill,
                Persist(entry.holding(Absent).raised(generation)),
                Effect::Answer(Done),
            ]
        }
        Absent if entry.floor >= generation => answer(Done),
        // A late "prepare" of that grant must find it refused.
        Absent => vec![Persist(entry.raised(generation)), Effect::Answer(Done)],
        _ => refuse(Refusal::NotHeldSo),
    }
}

fn ask_ready(entry: Entry, seen: Seen, generation: Generation) -> Vec<Effect> {
    match entry.holding {
        Incoming(grant) if grant.generation == generation => match seen {
            Seen::Loaded => answer(Ready(true)),
            Seen::Awaiting | Seen::Unclear => answer(NotYet),
            _ => answer(Ready(false)),
        },
        _ => answer(Ready(false)),
    }
}

fn commit(entry: Entry, seen: Seen, generation: Generation) -> Vec<Effect> {
    match entry.holding {
        Incoming(grant) if grant.generation == generation => {
            let taken = Entry {
                holding: Running,
                generation,
                floor: entry.floor,
            };
            match seen {
                Seen::Loaded => vec![
                    Persist(taken),
                    Fence(generation),
                    Resume,
                    Effect::Answer(Committed(CommitOutcome::Taken)),
                ],
                // Owned here from now on, and shown as crashed: its memory is lost, it runs nowhere.
                Seen::Gone => {
                    vec![
                        Persist(taken),
                        Effect::Answer(Committed(CommitOutcome::Lost)),
                    ]
                }
                _ => answer(NotYet),
            }
        }
        // Taken before; a crash may have fallen between the journal and the processors.
        Running if entry.generation == generation && seen == Seen::Loaded => {
            vec![
                Fence(generation),
                Resume,
                Effect::Answer(Committed(CommitOutcome::Taken)),
            ]
        }
        // It may be halted still: the source goes on asking until that is known. (Found by the exploration: the source
        // forgot it, and nobody came back to start the processors.)
        Running if entry.generation == generation && seen == Seen::Unclear => answer(NotYet),
        _ if entry.generation >= generation => answer(Committed(CommitOutcome::Taken)),
        _ if entry.floor >= generation => answer(Committed(CommitOutcome::Lost)),
        _ => refuse(Refusal::Unknown),
    }
}

fn is_ready(entry: Entry, seen: Seen, generation: Generation, ready: bool) -> Vec<Effect> {
    let Outgoing(grant) = entry.holding else {
        return vec![];
    };
    if grant.generation != generation {
        return vec![];
    }
    match (ready, seen) {
        // The stream is loaded there and nothing runs here: give it up.
        (true, Seen::Sent | Seen::Gone) => {
            vec![Persist(entry.holding(Released(grant))), SendCommit(grant)]
        }
        // It cannot be asked: change nothing; the next observation comes back to this.
        (_, Seen::Unclear) => vec![],
        // Not there, or it runs here all the same: it stays.
        _ => vec![Persist(entry.holding(Running)), CancelStream, Resume],
    }
}

fn restarted(entry: Entry, seen: Seen) -> Vec<Effect> {
    match (entry.holding, seen) {
        (_, Seen::Unclear) => match entry.holding {
            // With post-copy its processors may run still: nobody may be told to run it before they are halted.
            Released(grant) if !grant.post_copy => vec![SendCommit(grant)],
            _ => vec![],
        },
        (Absent | Stopped | Saved, Seen::Gone) => vec![],
        (Absent | Stopped | Saved, _) => vec![Kill],
        // Nobody was told that it is saved: it goes on (or is shown as crashed).
        (Saving, Seen::Gone) => vec![Persist(entry.holding(Running))],
        (Saving, _) => saved::go_on(entry),
        (Restoring, Seen::Loaded) => saved::run(entry),
        (Restoring, _) => saved::keep(entry),
        // Asked to run and halted before its first instruction here.
        (Running, Seen::Prelaunch | Seen::Loaded) => vec![Fence(entry.generation), Resume],
        // After a move that was given up: it has run here, so nothing older is left to cut.
        (Running, Seen::Sent) => vec![Resume],
        (Running, Seen::Streaming) => vec![CancelStream, Resume],
        (Running, _) => vec![],
        (Outgoing(grant), Seen::Sent | Seen::Gone) => vec![AskReady(grant)],
        (Outgoing(_), Seen::Streaming) => vec![],
        (Outgoing(_), _) => vec![Persist(entry.holding(Running)), Resume],
        (Released(grant), Seen::Sent | Seen::Gone | Seen::Following) => vec![SendCommit(grant)],
        // A crash fell between the journal and the switch to post-copy. (Found by the exploration: the stream went on
        // as pre-copy, failed at its very end with everything loaded on the other side, and the domain ran twice.)
        (Released(grant), _) if grant.post_copy => vec![StartPostCopy, SendCommit(grant)],
        (Released(grant), _) => vec![SendCommit(grant)],
        (Incoming(_), _) => vec![],
    }
}
