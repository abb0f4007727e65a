//! Random walks: what the exploration's bounds leave out (many moves, many faults at once), for as long as one likes.

use crate::explore::Bounds;
use crate::rest::Run;
use crate::world::{Action, Host, Life, Message, Rules, Violation, World};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How a walk ended.
#[derive(Debug, Clone)]
pub struct Walked {
    /// Each thing that happened, in words; only filled when asked for or when something is broken.
    pub steps: Vec<String>,
    /// Moves, starts and faults, in number.
    pub happened: usize,
    /// The host on which it runs at the end, after everything has come to rest.
    pub runs_on: Option<Host>,
    /// What is broken.
    pub broken: Option<Violation>,
}

/// Messages kept as "may still come": the oldest are dropped, so that a walk does not drown in them.
const LATE_MAX: usize = 24;

/// Walks `steps_max` random steps from `seed`, then lets the world come to rest and the next move succeed.
pub fn walk(seed: u64, steps_max: usize, rules: &Rules, words: bool) -> Walked {
    let mut random = StdRng::seed_from_u64(seed);
    let bounds = Bounds {
        grants: u64::MAX - 1,
        crashes: [u8::MAX; 2],
        deaths: u8::MAX,
        post_copy: random.random_bool(0.5),
        starts: random.random_bool(0.5),
        defines: random.random_bool(0.5),
        saves: random.random_bool(0.5),
        give_up: true,
        unclear: random.random_bool(0.5),
        looks: random.random_bool(0.5),
        switching: true,
        ..Bounds::default()
    };
    let mut world = World::new(random.random_bool(0.8), &bounds);
    let mut walked = Walked {
        steps: Vec::new(),
        happened: 0,
        runs_on: None,
        broken: None,
    };
    let (mut net, mut actions, mut sent): (Vec<Message>, _, _) =
        (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..steps_max {
        world.enabled(&net, &bounds, rules, &mut actions);
        // Faults are rare, else nothing would ever get anywhere.
        let weights: Vec<u32> = actions.iter().map(|action| weight(action, &net)).collect();
        let mut left = random.random_range(0..weights.iter().sum::<u32>().max(1));
        let chosen = weights.iter().position(|weight| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        });
        let Some(action) = chosen.and_then(|at| actions.get(at)).copied() else {
            break;
        };
        if words {
            walked.steps.push(action.words(&world, rules));
        }
        sent.clear();
        walked.happened += 1;
        if let Err(violation) = world
            .apply_granting(action, rules, &mut sent)
            .and_then(|()| world.check())
        {
            walked.broken = Some(violation);
            return walked;
        }
        for message in &sent {
            net.retain(|old| old != message);
            net.push(*message);
        }
        if net.len() > LATE_MAX {
            net.remove(0);
        }
    }
    let mut run = Run::new(world, *rules);
    run.looks = bounds.unclear;
    let rests = run.settle().and_then(|()| run.at_rest());
    let owner = run.world.manager.record.host;
    walked.runs_on = (run.world.at(owner).life == Life::Running).then_some(owner);
    walked.broken = rests.and_then(|()| run.next_move()).err();
    walked
}

fn weight(action: &Action, net: &[Message]) -> u32 {
    match action {
        Action::Do(_) => 40,
        // The newest is the likeliest to come.
        Action::Deliver(message) => {
            let age = net.iter().rev().position(|late| late == message);
            if age.unwrap_or(LATE_MAX) < 3 { 20 } else { 2 }
        }
        Action::Restart(_) | Action::Switch(_) | Action::Complete(_) | Action::RestArrives(_) => 20,
        Action::Poll(_) | Action::Act | Action::OrderMove { .. } => 15,
        Action::PostCopy(_)
        | Action::Sweep(_)
        | Action::OrderStart
        | Action::OrderDefine
        | Action::OrderRestore => 8,
        Action::DeliverUnclear(_)
        | Action::RestartUnclear(_)
        | Action::DoInVain(_)
        | Action::ActUnheard
        | Action::Look(_)
        | Action::Fail(..)
        | Action::OrderSave
        | Action::Crash(_) => 2,
        Action::ManagerCrash
        | Action::GiveUp
        | Action::OrderStop
        | Action::OrderDrop
        | Action::PostCopyFails(_)
        | Action::Die(_)
        | Action::IncomingExits(_) => 1,
    }
}
