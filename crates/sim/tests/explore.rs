//! The machine of `estive-moves`, explored: nothing can be broken within these bounds.
//!
//! `ESTIVE_DEEP=1` widens them (minutes, and some gigabytes).

use estive_sim::{Bounds, Rules, World, explore};

fn holds(name: &str, running: bool, mut bounds: Bounds) {
    if deep() {
        bounds.states_max = 40_000_000;
    }
    let report = explore(&World::new(running, &bounds), &Rules::default(), &bounds);
    println!(
        "{name}: {} states, {} transitions, {} rests, depth {}, {} messages",
        report.states, report.transitions, report.rested, report.depth, report.messages
    );
    if let Some(trace) = &report.broken {
        panic!("{trace}");
    }
    assert!(!report.cut, "the bound on states was met: nothing is shown");
    // A machine that refuses everything would break nothing either.
    assert!(report.depth > 30, "nothing went far: {}", report.depth);
}

fn deep() -> bool {
    std::env::var_os("ESTIVE_DEEP").is_some()
}

/// Every fault, several times, during one move.
#[test]
fn one_move_under_every_fault() {
    let more = u8::from(deep());
    let bounds = Bounds {
        crashes: [2 + more, 2],
        deaths: 1 + more,
        ..Bounds::default()
    };
    holds("one move", true, bounds);
}

/// A move, and then a move back or again, with orders and answers of the first still on their way.
#[test]
fn two_moves_with_a_crash_of_one_agent() {
    for crashes in [[1, 0], [0, 1]] {
        let bounds = Bounds {
            grants: 2,
            crashes,
            deaths: 0,
            give_up: deep(),
            switching: false,
            ..Bounds::default()
        };
        holds("two moves, a crash", true, bounds);
    }
}

#[test]
fn two_moves_with_a_death_of_an_instance() {
    let bounds = Bounds {
        grants: 2,
        crashes: [u8::from(deep()); 2],
        deaths: 1,
        give_up: deep(),
        switching: false,
        ..Bounds::default()
    };
    holds("two moves, a death", true, bounds);
}

#[test]
fn three_moves_without_faults_of_processes() {
    let bounds = Bounds {
        // Three take two minutes and two gigabytes: with ESTIVE_DEEP.
        grants: if deep() { 3 } else { 2 },
        crashes: [0, 0],
        deaths: 0,
        give_up: false,
        switching: false,
        liveness: false,
        states_max: 40_000_000,
        ..Bounds::default()
    };
    holds("three moves", true, bounds);
}

#[test]
fn a_move_with_post_copy() {
    let bounds = Bounds {
        post_copy: true,
        give_up: deep(),
        ..Bounds::default()
    };
    holds("post-copy", true, bounds);
}

/// An instance that cannot be asked, at any moment at which an agent looks; and agents that look at any time.
#[test]
fn a_move_of_an_instance_that_cannot_always_be_asked() {
    let bounds = Bounds {
        unclear: true,
        looks: true,
        ..Bounds::default()
    };
    holds("unclear", true, bounds);
    let bounds = Bounds {
        post_copy: true,
        deaths: u8::from(deep()),
        give_up: deep(),
        ..bounds
    };
    holds("unclear, post-copy", true, bounds);
}

/// Starts, stops, and orders to make a stopped one anew, that come late, between and during moves.
#[test]
fn starts_stops_definitions_and_moves() {
    let bounds = Bounds {
        grants: 2,
        crashes: [1, u8::from(deep())],
        deaths: 0,
        starts: true,
        defines: true,
        give_up: false,
        switching: false,
        ..Bounds::default()
    };
    holds("stopped at first", false, bounds);
    let bounds = Bounds {
        crashes: [0, u8::from(deep())],
        ..bounds
    };
    holds("running at first", true, bounds);
}

/// The same with an instance that stays behind because it could not be asked.
#[test]
fn starts_stops_and_definitions_of_an_instance_that_cannot_always_be_asked() {
    let bounds = Bounds {
        grants: 2,
        crashes: [1, 0],
        deaths: 0,
        starts: true,
        defines: true,
        give_up: false,
        switching: false,
        unclear: true,
        ..Bounds::default()
    };
    holds("stopped at first, unclear", false, bounds);
}

/// Its memory is saved, restored and dropped, with orders that come late, and a move that is ordered meanwhile.
#[test]
fn saves_restores_and_a_move() {
    let bounds = Bounds {
        grants: 1 + u64::from(deep()),
        crashes: [1, 0],
        deaths: 0,
        saves: true,
        give_up: false,
        switching: false,
        ..Bounds::default()
    };
    holds("saves and a move", true, bounds);
}

/// The same with starts and stops, of an instance that dies or cannot always be asked.
#[test]
fn saves_restores_starts_and_stops() {
    let bounds = Bounds {
        grants: 2,
        crashes: [1, 0],
        deaths: 1,
        moves: false,
        saves: true,
        starts: true,
        give_up: false,
        switching: false,
        unclear: true,
        ..Bounds::default()
    };
    holds("saves and starts, unclear", true, bounds);
}
