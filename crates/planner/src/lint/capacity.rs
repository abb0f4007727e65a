//! Room on hosts, in every state: what runs and what comes fits, whatever has not left yet.

use estive_world::{HostIx, Indexed};

use super::closure::Closure;
use super::{Fault, Lint, named};
use crate::{Amounts, KINDS};

/// What comes to a host and leaves it: steps, and whether each comes.
pub(super) struct Touching {
    pub steps: Vec<usize>,
    pub comes: Vec<bool>,
}

/// Steps that touch each host, by number.
pub(super) fn by_host(lint: &Lint) -> Vec<Touching> {
    let mut touching: Vec<Touching> = (lint.world.hosts.iter())
        .map(|_| Touching {
            steps: Vec::new(),
            comes: Vec::new(),
        })
        .collect();
    let mut touch = |host: HostIx, step: usize, comes: bool| {
        touching[host.at()].steps.push(step);
        touching[host.at()].comes.push(comes);
    };
    for (step, passage) in lint.passages.iter().enumerate() {
        if let Some(passage) = passage {
            if let Some(from) = passage.from {
                touch(from, step, false);
            }
            touch(passage.to, step, true);
        }
    }
    touching
}

/// Reports each host and kind for which there is a state with too much, with that state.
pub fn check(lint: &Lint, faults: &mut Vec<Fault>) {
    let start = lint.rooms.taken(lint.world);
    let touching = by_host(lint);
    let amounts = |step: usize| &lint.passages[step].as_ref().expect("a passage").amounts;
    // Where everything that comes fits beside everything that is there, nothing depends on order.
    let doubtful: Vec<usize> = (0..touching.len())
        .filter(|&host| {
            let mut all = Amounts::NONE;
            let touching = &touching[host];
            for (at, &step) in touching.steps.iter().enumerate() {
                if touching.comes[at] {
                    all.add(amounts(step));
                }
            }
            !start[host].admits(&all, lint.rooms.room(HostIx::of(host)))
        })
        .collect();
    let groups: Vec<Vec<usize>> = (doubtful.iter())
        .map(|&host| touching[host].steps.clone())
        .collect();
    for (&host, order) in doubtful.iter().zip(lint.ancestors(&groups)) {
        let touching = &touching[host];
        let places = |comes: bool| -> Vec<usize> {
            (0..touching.steps.len())
                .filter(|&at| touching.comes[at] == comes)
                .collect()
        };
        let (come, leave) = (places(true), places(false));
        for kind in 0..KINDS {
            let of = |places: &[usize]| -> Vec<u64> {
                places
                    .iter()
                    .map(|&at| amounts(touching.steps[at]).0[kind])
                    .collect()
            };
            let closure = Closure::new(of(&come), of(&leave), |gain, loss| {
                order.has(come[gain], leave[loss])
            });
            let room = lint.rooms.room(HostIx::of(host)).0[kind];
            let there = start[host].0[kind];
            // A host that is too full before may not get fuller.
            let worst = closure.above(room.max(there) - there);
            if let Some(worst) = worst {
                let steps_of = |places: &[usize], chosen: &[usize]| {
                    named(chosen.iter().map(|&one| touching.steps[places[one]]))
                };
                faults.push(Fault::Room {
                    host: HostIx::of(host),
                    kind,
                    taken: lint.rooms.shown(kind, there + worst.value),
                    room: lint.rooms.shown(kind, room),
                    begun: steps_of(&come, &worst.gains),
                    ended: steps_of(&leave, &worst.losses),
                });
            }
        }
    }
}
