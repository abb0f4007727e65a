//! Saving a domain's memory and going on from it: once, or not at all.
//!
//! The file counts only while the journal says `Saved` or `Restoring`. It stops counting by the write of `Running`, which
//! is before the first instruction: so it is never run from twice, and a crash in between loses at most the memory.

use crate::entry::{Entry, Holding, Seen};
use crate::step::{Answer, Effect, Refusal, answer, refuse};
use Answer::Done;
use Effect::{CancelStream, CreateRestored, Fence, Kill, Persist, Resume, SaveState};
use Holding::{Absent, Incoming, Outgoing, Released, Restoring, Running, Saved, Saving, Stopped};
use estive_model::Generation;

pub(crate) fn save(entry: Entry, seen: Seen, generation: Generation) -> Vec<Effect> {
    match entry.holding {
        Saved if generation == entry.generation => answer(Done),
        // Late or repeated: it has gone on since.
        Running | Saved if generation != entry.generation => refuse(Refusal::OldGeneration),
        Running if seen != Seen::Running => refuse(Refusal::NotRunning),
        Running => vec![
            Persist(entry.holding(Saving)),
            SaveState,
            Persist(entry.holding(Saved)),
            Kill,
            Effect::Answer(Done),
        ],
        Saving | Restoring => refuse(Refusal::Saving),
        Outgoing(_) => refuse(Refusal::Moving),
        Released(_) => refuse(Refusal::Released),
        Stopped | Saved => refuse(Refusal::NotRunning),
        Incoming(_) | Absent => refuse(Refusal::Unknown),
    }
}

pub(crate) fn restore(entry: Entry, seen: Seen, generation: Generation) -> Vec<Effect> {
    match entry.holding {
        Saved if generation > entry.floor => {
            let restoring = Entry {
                holding: Restoring,
                generation,
                floor: generation,
            };
            let mut effects = vec![
                Persist(restoring),
                // First: a volume that has gone on without it is found out before anything is made.
                Fence(generation),
                CreateRestored,
                Persist(restoring.holding(Running)),
                Resume,
                Effect::Answer(Done),
            ];
            if seen != Seen::Gone {
                // Left from before the save's end.
                effects.insert(0, Kill);
            }
            effects
        }
        Running if generation == entry.generation && seen == Seen::Loaded => {
            vec![Fence(generation), Resume, Effect::Answer(Done)]
        }
        Running if generation == entry.generation && seen != Seen::Gone => answer(Done),
        Restoring if generation == entry.generation && seen == Seen::Loaded => {
            let mut effects = run(entry);
            effects.push(Effect::Answer(Done));
            effects
        }
        Saved => refuse(Refusal::OldGeneration),
        Saving | Restoring => refuse(Refusal::Saving),
        Outgoing(_) => refuse(Refusal::Moving),
        Released(_) => refuse(Refusal::Released),
        Running | Stopped => refuse(Refusal::NotSaved),
        Incoming(_) | Absent => refuse(Refusal::Unknown),
    }
}

pub(crate) fn drop_saved(entry: Entry) -> Vec<Effect> {
    match entry.holding {
        Saved => vec![Kill, Persist(entry.holding(Stopped)), Effect::Answer(Done)],
        Stopped => answer(Done),
        Saving | Restoring => refuse(Refusal::Saving),
        Outgoing(_) => refuse(Refusal::Moving),
        Released(_) => refuse(Refusal::Released),
        Running => refuse(Refusal::NotSaved),
        Incoming(_) | Absent => refuse(Refusal::Unknown),
    }
}

/// What is being saved goes on as it was.
pub(crate) fn go_on(entry: Entry) -> Vec<Effect> {
    vec![Persist(entry.holding(Running)), CancelStream, Resume]
}

/// A restore came to nothing; what was saved is kept.
pub(crate) fn keep(entry: Entry) -> Vec<Effect> {
    vec![Kill, Persist(entry.holding(Saved))]
}

/// All of it is loaded: run it.
pub(crate) fn run(entry: Entry) -> Vec<Effect> {
    vec![
        Fence(entry.generation),
        Persist(entry.holding(Running)),
        Resume,
    ]
}
