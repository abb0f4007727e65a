//! Small days whose figures were computed by hand.

use crate::day::{Day, Guest, HostKind, Variant};
use crate::policy::{Move, Policy, View};
use crate::replay::{Error, replay};
use crate::tally::Outcome;

/// A policy that was told everything before.
struct Told {
    start: Vec<usize>,
    moves: Vec<Vec<Move>>,
}

impl Policy for Told {
    fn name(&self) -> String {
        "told".to_owned()
    }

    fn start(&mut self, _: &Day, _: Variant) -> Option<Vec<usize>> {
        Some(self.start.clone())
    }

    fn moves(&mut self, view: &View<'_>) -> Vec<Move> {
        self.moves.get(view.tick).cloned().unwrap_or_default()
    }
}

/// Hosts of 2 × 1860 MIPS which draw 86 W, and 31 W more at full load, in a straight line.
fn hosts(number: usize, guests: Vec<Guest>) -> Day {
    let watts = (0..=10)
        .map(|tenth| 86.0 + 3.1 * f64::from(tenth))
        .collect();
    Day {
        kinds: vec![HostKind {
            cores: 2,
            core_mips: 1860.0,
            memory_mb: 1000,
            guests_at_start: 10,
            watts,
        }],
        hosts: vec![0; number],
        guests,
        sample_s: 300.0,
        begin_s: 0.1,
        end_s: 1200.0,
        move_mb_per_s: 62.5,
    }
}

/// A guest of 1860 MIPS whose memory moves in ten seconds.
fn guest(percents: [f64; 4]) -> Guest {
    let mut load: Vec<f64> = percents.iter().map(|percent| percent / 100.0).collect();
    load.push(load[3]);
    Guest {
        name: "guest".to_owned(),
        mips: 1860.0,
        memory_mb: 625,
        load,
    }
}

fn run(day: &Day, variant: Variant, start: &[usize], moves: &[&[(usize, usize)]]) -> Outcome {
    let moves = moves
        .iter()
        .map(|moves| {
            moves
                .iter()
                .map(|&(guest, to)| Move { guest, to })
                .collect()
        })
        .collect();
    let start = start.to_vec();
    replay(day, variant, &mut Told { start, moves })
        .unwrap()
        .outcome
}

fn near(one: f64, other: f64) {
    assert!(
        (one - other).abs() < 1e-9 * other.abs().max(1e-3),
        "{one} is not {other}"
    );
}

#[test]
fn a_guest_that_stays_costs_its_load_from_the_second_tick_on() {
    // Ticks at 300.1, 600.1 and 900.1 s. 20 % of 1860 is a tenth of the host: 89.1 W for twice 300 s.
    let outcome = run(&hosts(2, vec![guest([20.0; 4])]), Variant::STOCK, &[0], &[]);
    near(outcome.kwh, 89.1 * 600.0 / 3.6e6);
    assert_eq!((outcome.moves, outcome.boots), (0, 0));
    assert_eq!((outcome.slatah, outcome.pdm), (0.0, 0.0));
}

#[test]
fn a_move_costs_on_both_hosts_and_a_tenth_of_what_is_asked() {
    let day = hosts(2, vec![guest([20.0; 4])]);
    let outcome = run(&day, Variant::STOCK, &[0], &[&[(0, 1)]]);
    // Ten seconds: the source at a tenth, the target at a hundredth. Then the target alone for 590 s.
    near(
        outcome.kwh,
        (89.1 * 10.0 + 86.31 * 10.0 + 89.1 * 590.0) / 3.6e6,
    );
    // The target is active for 600 s and short in the first ten, the source active for ten.
    near(outcome.slatah, 10.0 / 610.0);
    near(outcome.pdm, 0.1 * 10.0 / 600.0);
    assert_eq!((outcome.moves, outcome.boots), (1, 1));
}

#[test]
fn a_host_that_boots_takes_a_minute_and_its_energy() {
    let day = hosts(2, vec![guest([20.0; 4])]);
    let variant = Variant {
        kept: true,
        boots: true,
    };
    let outcome = run(&day, variant, &[0], &[&[(0, 1)]]);
    // The move begins at 360.1 s and ends at 370.1 s.
    let joules = 89.1 * 70.0 + 86.31 * 10.0 + 89.1 * 530.0;
    near(outcome.kwh, joules / 3.6e6 + 0.02);
    // A host that is on already is neither waited for nor paid.
    let there = hosts(
        2,
        vec![
            guest([20.0; 4]),
            Guest {
                memory_mb: 100,
                ..guest([20.0; 4])
            },
        ],
    );
    assert_eq!(run(&there, variant, &[0, 1], &[&[(0, 1)]]).boots, 0);
}

#[test]
fn more_than_there_is_is_shared_and_counted() {
    // Three ask 80 %, 4464 of 3720 MIPS: each gets a third, 1240, and the host draws its most.
    let day = hosts(
        1,
        vec![guest([80.0; 4]), guest([80.0; 4]), guest([80.0; 4])],
    );
    let outcome = run(&day, Variant::STOCK, &[0, 0, 0], &[]);
    near(outcome.kwh, 117.0 * 600.0 / 3.6e6);
    near(outcome.slatah, 1.0);
    near(outcome.short, 744.0 / 4464.0);
    // Nobody moved.
    assert_eq!(outcome.pdm, 0.0);
}

#[test]
fn a_guest_that_asks_nothing_is_deleted_in_the_stock_rules_only() {
    // It asks nothing from 300 to 600 s, and 20 % later.
    let day = hosts(1, vec![guest([20.0, 0.0, 0.0, 20.0])]);
    assert_eq!(run(&day, Variant::STOCK, &[0], &[]).kwh, 0.0);
    // Kept: nothing is drawn while nothing is asked. At 600.1 s the line to the next sample has begun: a 300th of 60 s
    // or 20 % × 0.1 ÷ 300; at 900.1 s it is 20 %. The step between costs the mean of both powers.
    let first = 20.0 * 0.1 / 300.0 / 100.0 * 1860.0 / 3720.0;
    let mean = f64::midpoint(86.0 + 31.0 * first, 89.1);
    near(
        run(&day, Variant::KEPT, &[0], &[]).kwh,
        mean * 300.0 / 3.6e6,
    );
}

#[test]
fn memory_is_booked_on_both_hosts_until_a_move_has_ended() {
    // The two change places: each host has 625 of 1000 MB taken.
    let day = hosts(2, vec![guest([20.0; 4]), guest([20.0; 4])]);
    let swap = vec![Move { guest: 0, to: 1 }, Move { guest: 1, to: 0 }];
    let mut told = Told {
        start: vec![0, 1],
        moves: vec![swap],
    };
    assert!(replay(&day, Variant::STOCK, &mut told).is_ok());
    let refused = replay(&day, Variant::KEPT, &mut told).unwrap_err();
    assert!(
        matches!(
            refused,
            Error::BadMove {
                guest: 0,
                to: 1,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn npa_draws_its_most_from_the_begin_to_the_last_tick() {
    let day = hosts(2, vec![guest([20.0; 4])]);
    let mut peer = crate::peers::peer("NPA").unwrap();
    let outcome = replay(&day, Variant::STOCK, peer.as_mut()).unwrap().outcome;
    near(outcome.kwh, 2.0 * 117.0 * 900.1 / 3.6e6);
}

#[test]
fn a_threshold_sends_the_least_memory_away_until_it_is_kept() {
    // 3 × 50 % of 1860 on 3720 is 0.75, two are 0.5: above 0.7 one goes, the one with 500 MB, to the empty host.
    let small = Guest {
        memory_mb: 200,
        ..guest([50.0; 4])
    };
    let mut day = hosts(2, vec![guest([50.0; 4]), guest([50.0; 4]), small]);
    day.kinds[0].memory_mb = 4096;
    let on = [vec![0, 1, 2], Vec::new()];
    let asked_mips = [930.0; 3];
    let view = View {
        day: &day,
        variant: Variant::STOCK,
        time_s: 300.1,
        tick: 0,
        on: &on,
        used_mips: &[2790.0, 0.0],
        asked_mips: &asked_mips,
        history: &[vec![0.5], vec![0.5], vec![0.5]],
        gone: &[false; 3],
    };
    let mut peer = crate::peers::Consolidate::new(crate::peers::Overload::Threshold(0.7));
    assert_eq!(peer.moves(&view), [Move { guest: 2, to: 1 }]);
    // At 0.8 nothing is overloaded, and there is no other host that is on.
    let mut peer = crate::peers::Consolidate::new(crate::peers::Overload::Threshold(0.8));
    assert_eq!(peer.moves(&view), []);
}

#[test]
fn the_same_day_gives_the_same_result_twice() {
    let traces = crate::made_traces(3, 60, 24);
    let day = Day::planetlab(&traces, 40);
    for variant in Variant::ALL {
        let once = || replay(&day, variant, &mut crate::Frugal::default()).unwrap();
        assert_eq!(once().ticks, once().ticks);
    }
}

#[test]
fn on_made_days_ours_is_better_than_every_peer_that_moves_and_costs_no_more_than_lr() {
    for seed in 0..3 {
        let day = Day::planetlab(&crate::made_traces(seed, 240, 96), 180);
        for variant in Variant::ALL {
            let ours = replay(&day, variant, &mut crate::Frugal::default())
                .unwrap()
                .outcome;
            for (name, mut peer) in crate::peers::peers() {
                let theirs = replay(&day, variant, peer.as_mut()).unwrap().outcome;
                if theirs.moves > 0 {
                    assert!(
                        ours.esv() < theirs.esv(),
                        "{seed} {name} {variant:?}: {ours:?} {theirs:?}"
                    );
                }
                if name.starts_with("LR") {
                    assert!(
                        ours.kwh <= theirs.kwh,
                        "{seed} {variant:?}: {ours:?} {theirs:?}"
                    );
                }
            }
        }
    }
}
