//! Laws of windows and questions: nothing is lost or counted twice, in whatever order parts come.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use crate::{
    Added, Answer, Collected, Flow, Keep, Kind, Mean, Party, Period, Query, Refusal, Volume, Window,
};

const P_MS: u64 = 30_000;

fn domain(number: u32) -> Party {
    Party::Domain(Arc::from(format!("d{number}")))
}

fn flow(from: u32, to: u32, messages: u64) -> Flow {
    Flow {
        from: domain(from),
        to: domain(to),
        volume: Volume {
            messages,
            bytes: messages * 100,
        },
    }
}

fn window(sensor: u32, number: u64, flows: Vec<Flow>) -> Window {
    Window {
        sensor: Arc::from(format!("h{sensor}")),
        number,
        part: 0,
        last: true,
        flows,
    }
}

/// One sensor, windows 10, 11, … with so many messages from d0 to d1.
fn counted(messages: &[u64]) -> Collected {
    let mut collected = Collected::new(Period::COMMON, Keep::default());
    for (number, &messages) in (10..).zip(messages) {
        let window = window(0, number, vec![flow(0, 1, messages)]);
        assert_eq!(collected.add(&window, (number + 1) * P_MS), Added::New);
    }
    collected
}

fn mean(answer: &Answer) -> f64 {
    let Answer::Now(result) = answer else {
        panic!("{answer:?} is no answer");
    };
    let mean = result.mean.as_ref().expect("a mean was asked for");
    mean[&(domain(0), domain(1))].messages
}

fn query(windows: u64, kind: Kind) -> Query {
    Query {
        duration_ms: windows * P_MS,
        wait_ms: 0,
        approximate: false,
        kind,
    }
}

#[test]
fn the_last_window_counts_so_many_times_the_one_before() {
    let collected = counted(&[1, 10, 100]);
    let at_ms = 13 * P_MS;
    let of = |kind| mean(&query(3, kind).ask(&collected, at_ms, at_ms));
    assert_eq!(of(Kind::Mean), 37.0);
    assert_eq!(of(Kind::Weighted(1.0)), 37.0);
    // (1 + 2·10 + 4·100) / 7
    assert!((of(Kind::Weighted(2.0)) - 421.0 / 7.0).abs() < 1e-9);
    assert!((of(Kind::Weighted(0.5)) - (4.0 + 20.0 + 100.0) / 7.0).abs() < 1e-9);
    assert_eq!(of(Kind::Weights(vec![0.0, 1.0, 0.0])), 10.0);
    let refused = query(3, Kind::Weights(vec![1.0])).ask(&collected, at_ms, at_ms);
    assert_eq!(refused, Answer::Refused(Refusal::Weights { windows: 3 }));
}

#[test]
fn who_neither_waits_nor_takes_an_approximation_is_told_how_to_ask_again() {
    let collected = counted(&[6, 12]);
    // Ten seconds into window 12.
    let now_ms = 12 * P_MS + 10_000;
    let plain = query(2, Kind::Mean);
    let rephrase = Refusal::Rephrase {
        wait_ms: 20_000 + P_MS,
    };
    assert_eq!(
        plain.ask(&collected, now_ms, now_ms),
        Answer::Refused(rephrase)
    );
    // An approximation: a third of a window like the one before, and the two windows that began within the last minute.
    let approximate = Query {
        approximate: true,
        ..plain.clone()
    };
    let answer = approximate.ask(&collected, now_ms, now_ms);
    assert!((mean(&answer) - (6.0 + 12.0 + 4.0) / (2.0 + 1.0 / 3.0)).abs() < 1e-9);
    let Answer::Now(result) = answer else {
        unreachable!()
    };
    let estimated: Vec<bool> = result.rows.iter().map(|row| row.estimated).collect();
    assert_eq!(estimated, [false, false, true]);
    // Waiting: until the window ends, then until it is in.
    let waits = Query {
        wait_ms: 25_000,
        ..plain
    };
    let until_ms = 13 * P_MS;
    assert_eq!(
        waits.ask(&collected, now_ms, now_ms),
        Answer::Wait { until_ms }
    );
    let mut collected = collected;
    let more = window(0, 12, vec![flow(0, 1, 30)]);
    assert_eq!(collected.add(&more, until_ms), Added::New);
    assert_eq!(mean(&waits.ask(&collected, now_ms, until_ms)), 21.0);
}

#[test]
fn a_sensor_that_sends_nothing_holds_its_windows_up_until_they_are_closed() {
    let mut collected = counted(&[6]);
    collected.sensor_comes(&Arc::from("h9"), 10);
    let ends_ms = 11 * P_MS;
    let plain = query(1, Kind::Mean);
    assert!(!collected.is_whole(10));
    assert!(matches!(
        plain.ask(&collected, ends_ms, ends_ms),
        Answer::Refused(Refusal::Rephrase { .. })
    ));
    let closed_ms = ends_ms + 4 * P_MS;
    let Answer::Now(result) = plain.ask(&collected, ends_ms, closed_ms) else {
        panic!("a closed window is answered")
    };
    assert_eq!(result.rows[0].missing, [Arc::from("h9")]);
    let late = Window {
        sensor: Arc::from("h9"),
        ..window(0, 10, vec![flow(1, 0, 5)])
    };
    assert_eq!(collected.add(&late, closed_ms), Added::TooLate);
    assert_eq!(collected.thrown_away(), 1);
    let early = window(0, 99, Vec::new());
    assert_eq!(collected.add(&early, closed_ms), Added::TooEarly);
    collected.sensor_goes("h9", 9);
    assert!(!collected.is_whole(12), "h0 is still expected");
}

#[test]
fn what_is_not_kept_is_not_asked_for() {
    let mut collected = Collected::new(
        Period::COMMON,
        Keep {
            windows: Some(2),
            late: 1,
        },
    );
    for number in 10..14 {
        collected.add(
            &window(0, number, vec![flow(0, 1, number)]),
            (number + 1) * P_MS,
        );
    }
    let now_ms = 14 * P_MS;
    let gone: Vec<u64> = collected
        .forget(now_ms)
        .into_iter()
        .map(|(number, _)| number)
        .collect();
    assert_eq!(gone, [10, 11, 12]);
    let asked = query(3, Kind::Mean).ask(&collected, now_ms, now_ms);
    let refusal = Refusal::NotKept {
        oldest: 13,
        duration_ms: P_MS,
    };
    assert_eq!(asked, Answer::Refused(refusal));
    assert_eq!(
        mean(&query(1, Kind::Mean).ask(&collected, now_ms, now_ms)),
        13.0
    );
}

/// Windows 10 to 13 of three sensors, each in one to three parts.
fn parts() -> impl Strategy<Value = Vec<Window>> {
    let flows = || proptest::collection::vec((0u32..4, 0u32..4, 1u64..1000), 0..5);
    let of_window = proptest::collection::vec(flows(), 1..4);
    proptest::collection::vec(of_window, 12).prop_map(|all| {
        let mut windows = Vec::new();
        for (at, parts) in all.into_iter().enumerate() {
            let count = parts.len();
            for (part, flows) in parts.into_iter().enumerate() {
                windows.push(Window {
                    sensor: Arc::from(format!("h{}", at % 3)),
                    number: 10 + at as u64 / 3,
                    part: part as u32,
                    last: part + 1 == count,
                    flows: (flows.into_iter())
                        .map(|(from, to, messages)| flow(from, to, messages))
                        .collect(),
                });
            }
        }
        windows
    })
}

proptest! {
    #[test]
    fn nothing_is_lost_or_counted_twice_in_whatever_order_parts_come(
        windows in parts(),
        order in any::<u64>(),
        again in proptest::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut shuffled: Vec<Window> = windows.clone();
        shuffled.extend(again.iter().map(|at| at.get(&windows).clone()));
        // A fixed shuffle by a multiplicative hash of each place.
        let mut places: Vec<usize> = (0..shuffled.len()).collect();
        places.sort_by_key(|&at| (at as u64 + 1).wrapping_mul(order | 1).rotate_left(17));
        let now_ms = 14 * P_MS;
        let mut collected = Collected::new(Period::COMMON, Keep::default());
        for sensor in 0..3 {
            collected.sensor_comes(&Arc::from(format!("h{sensor}")), 10);
        }
        let added: Vec<Added> = (places.iter()).map(|&at| collected.add(&shuffled[at], now_ms)).collect();
        prop_assert_eq!(added.iter().filter(|it| **it == Added::New).count(), windows.len());
        prop_assert_eq!(added.iter().filter(|it| **it == Added::Again).count(), again.len());
        let mut truth: BTreeMap<(u64, Party, Party), u64> = BTreeMap::new();
        for window in &windows {
            for flow in &window.flows {
                *truth.entry((window.number, flow.from.clone(), flow.to.clone())).or_default() += flow.volume.messages;
            }
        }
        let Answer::Now(result) = query(4, Kind::Detailed).ask(&collected, now_ms, now_ms) else {
            return Err(TestCaseError::fail("all is in"));
        };
        let mut found: BTreeMap<(u64, Party, Party), u64> = BTreeMap::new();
        for row in &result.rows {
            prop_assert!(row.missing.is_empty());
            for ((from, to), Mean { messages, .. }) in &row.flows {
                found.insert((row.number, from.clone(), to.clone()), *messages as u64);
            }
        }
        prop_assert_eq!(found, truth);
    }

    #[test]
    fn a_mean_is_between_the_least_and_the_most(
        messages in proptest::collection::vec(0u64..10_000, 1..40),
        by in 0.1f64..10.0,
    ) {
        let collected = counted(&messages);
        let now_ms = (10 + messages.len() as u64) * P_MS;
        let query = query(messages.len() as u64, Kind::Weighted(by));
        let mean = mean(&query.ask(&collected, now_ms, now_ms));
        let (least, most) = (messages.iter().min().unwrap(), messages.iter().max().unwrap());
        prop_assert!(mean >= *least as f64 - 1e-6 && mean <= *most as f64 + 1e-6);
    }
}
