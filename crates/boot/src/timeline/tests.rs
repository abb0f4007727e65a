//! Facts become bars: what is tied to what, what is not known, and laws that hostile guests cannot break.

use super::*;
use crate::record::{Answered, ArrivedLine, HostSpan, SystemBoot, Unit};
use crate::report::Step;
use proptest::prelude::*;

/// A boot of a Debian clone, with everything known. The guest's kernel began at 10 600 of the host's clock.
pub(crate) fn whole() -> BootRecord {
    let span = |what, began_ms, ended_ms| HostSpan {
        what,
        began_ms,
        ended_ms,
    };
    // As they come: the first lines wait for the port, the rest is seen within a poll.
    let arrived = |arrived_ms, line| ArrivedLine {
        arrived_ms,
        within_ms: Some(20),
        line,
    };
    let done = |phase, uptime_ms| Line::Done { phase, uptime_ms };
    let step = |step: &str, began_ms, ended_ms| {
        Line::Step(Step {
            step: step.to_owned(),
            began_ms,
            ended_ms,
        })
    };
    let unit = |name: &str, began_ms, ended_ms| Unit {
        name: name.to_owned(),
        began_ms: Some(began_ms),
        ended_ms: Some(ended_ms),
        failed: false,
    };
    let mut units = vec![
        unit("systemd-journald.service", 2_000, 2_600),
        unit("systemd-udevd.service", 2_100, 2_950),
        unit("nginx.service", 4_100, 5_800),
        unit("ssh.service", 4_200, 5_100),
        unit("multi-user.target", 5_800, 5_800),
        unit("restarted-later.service", 70_000, 71_000),
    ];
    units
        .extend((0..12).map(|number| unit(&format!("small{number}.mount"), 2_200, 2_210 + number)));
    units.push(Unit {
        failed: true,
        ..unit("broken.service", 3_000, 3_001)
    });
    BootRecord {
        number: 2,
        host: "host1".to_owned(),
        asked_ms: Some(10_012),
        host_spans: vec![
            span(HostWork::Archive, 9_700, 9_800),
            span(HostWork::Interface, 10_020, 10_050),
            span(HostWork::Emulator, 10_060, 10_250),
            span(HostWork::Processors, 10_251, 10_255),
        ],
        lines: vec![
            arrived(11_820, done(Phase::Init, 1_100)),
            arrived(11_820, done(Phase::Modules, 1_200)),
            arrived(11_860, done(Phase::Identity, 1_250)),
            arrived(11_950, done(Phase::Layer, 1_345)),
            arrived(12_010, step("nbd root", 1_350, 1_405)),
            arrived(12_010, step("mount", 1_360, 1_400)),
            arrived(12_020, done(Phase::Root, 1_410)),
            arrived(12_060, done(Phase::Union, 1_440)),
            arrived(12_080, done(Phase::Network, 1_470)),
            arrived(12_110, done(Phase::Switch, 1_500)),
        ],
        system: Some(SystemBoot {
            init: "systemd 252".to_owned(),
            began_ms: Some(1_700),
            finished_ms: Some(5_900),
            told_ms: 90_000,
            units,
            left_out: 0,
        }),
        answered: Some(Answered {
            ordered_ms: 12,
            answered_ms: 6_700,
            by: "http, ssh".to_owned(),
        }),
        ..BootRecord::default()
    }
    .cleaned()
}

fn span_of(timeline: &Timeline, path: &[&str]) -> (Option<i64>, Option<i64>) {
    let mut bars = &timeline.bars;
    let mut found = None;
    for name in path {
        let bar = bars
            .iter()
            .find(|bar| bar.name == *name)
            .unwrap_or_else(|| panic!("no {name} of {path:?} in {timeline:#?}"));
        found = Some((bar.began_ms, bar.ended_ms));
        bars = &bar.parts;
    }
    found.unwrap()
}

#[test]
fn three_clocks_meet_on_one_line() {
    let timeline = Timeline::of(&whole());
    let names: Vec<&str> = timeline.bars.iter().map(|bar| bar.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "archive",
            "request",
            "agent",
            "QEMU",
            "firmware",
            "kernel",
            "estive-init",
            "systemd 252",
            "answers (http, ssh)"
        ]
    );
    // Zero is the manager's request: 12 ms before the host was asked.
    assert_eq!(timeline.zero_ms, Some(10_000));
    let span = |path: &[&str]| {
        let (began_ms, ended_ms) = span_of(&timeline, path);
        (began_ms.unwrap(), ended_ms.unwrap())
    };
    assert_eq!(span(&["archive"]), (-300, -200));
    assert_eq!(span(&["request"]), (0, 12));
    assert_eq!(span(&["agent"]), (12, 60));
    assert_eq!(span(&["agent", "interface, files"]), (20, 50));
    assert_eq!(span(&["QEMU"]), (60, 255));
    // The least of (arrival − uptime): that of the layer's line.
    assert_eq!(span(&["firmware"]), (255, 605));
    assert_eq!(span(&["kernel"]), (605, 1_705));
    assert_eq!(span(&["estive-init"]), (1_705, 2_105));
    assert_eq!(span(&["estive-init", "modules"]), (1_705, 1_805));
    assert_eq!(span(&["estive-init", "root"]), (1_950, 2_015));
    assert_eq!(
        span(&["estive-init", "root", "nbd root", "mount"]),
        (1_965, 2_005)
    );
    assert_eq!(span(&["systemd 252"]), (2_305, 6_505));
    assert_eq!(span(&["systemd 252", "nginx.service"]), (4_705, 6_405));
    assert_eq!(span(&["answers (http, ssh)"]), (0, 6_700));
    let system = timeline.bar(Kind::System).unwrap();
    assert!(
        system
            .parts
            .iter()
            .all(|unit| unit.name != "restarted-later.service")
    );
    assert!(!system.about && timeline.bar(Kind::Firmware).unwrap().about);
    assert_eq!(
        timeline.notes,
        ["guest times are placed by the arrival of its report, 20 ms too late at most"]
    );
}

#[test]
fn what_nobody_saw_is_not_drawn() {
    // An agent that was away while it booted, no manager that waited, no agent in the guest.
    let mut record = whole();
    record.host_spans.clear();
    record.answered = None;
    record.system = None;
    record.system_unknown = Some("no guest agent answers".to_owned());
    for line in &mut record.lines {
        line.within_ms = None;
    }
    let timeline = Timeline::of(&record);
    let why: Vec<(&str, Option<&str>)> = timeline
        .bars
        .iter()
        .map(|bar| (bar.name.as_str(), bar.why.as_deref()))
        .collect();
    assert_eq!(
        why,
        [
            ("agent", Some("it was restarted meanwhile")),
            ("QEMU", Some("the agent was restarted meanwhile")),
            ("firmware", Some("nobody saw when the processors began")),
            ("kernel", None),
            ("estive-init", None),
            ("the clone's own init", Some("no guest agent answers")),
            ("answers", Some("no manager has seen it answer")),
        ]
    );
    assert!(timeline.bar(Kind::Kernel).unwrap().about);
    assert!(
        timeline.notes[0].contains("roughly"),
        "{:?}",
        timeline.notes
    );
}

#[test]
fn a_boot_that_failed_ends_where_it_failed() {
    let mut record = whole();
    record.lines.truncate(6);
    record.lines.push(ArrivedLine {
        arrived_ms: 14_000,
        within_ms: Some(20),
        line: Line::Failed {
            error: "no disk".to_owned(),
            phase: Phase::Root,
        },
    });
    (record.system, record.answered) = (None, None);
    let timeline = Timeline::of(&record);
    let early = timeline.bar(Kind::EarlyUserspace).unwrap();
    assert!(early.failed && early.ended_ms == Some(14_000 - 10_012));
    let root = early.parts.last().unwrap();
    assert_eq!(
        (root.name.as_str(), root.why.as_deref()),
        ("root", Some("no disk"))
    );
    assert_eq!(root.parts[0].name, "nbd root");
    assert_eq!(
        timeline.bars.last().unwrap().why.as_deref(),
        Some("it did not boot")
    );
    // The same while it is under way.
    record.lines.pop();
    let timeline = Timeline::of(&record);
    let early = timeline.bar(Kind::EarlyUserspace).unwrap();
    assert_eq!((early.ended_ms, early.failed), (None, false));
    // And before it has said anything.
    record.lines.clear();
    let timeline = Timeline::of(&record);
    assert_eq!(
        timeline.bar(Kind::Kernel).unwrap().why.as_deref(),
        Some("the clone has reported nothing")
    );
}

#[test]
fn a_guest_that_lies_moves_nothing_but_its_own() {
    let truth = Timeline::of(&whole());
    let mut record = whole();
    for (arrived_ms, uptime_ms) in [(11_900, u64::MAX), (11_900, 9_000_000), (12_000, 10_000)] {
        let line = Line::Step(Step {
            step: "lie".to_owned(),
            began_ms: 0,
            ended_ms: uptime_ms,
        });
        record.lines.insert(
            3,
            ArrivedLine {
                arrived_ms,
                within_ms: Some(1),
                line,
            },
        );
    }
    record.system.as_mut().unwrap().units.push(Unit {
        name: "lie.service".to_owned(),
        began_ms: Some(3_000),
        ended_ms: Some(u64::MAX),
        failed: false,
    });
    let timeline = Timeline::of(&record);
    assert_eq!(timeline.bars, truth.bars);
    assert!(
        timeline.notes[1].starts_with("4 times"),
        "{:?}",
        timeline.notes
    );
}

#[test]
fn a_reboot_begins_at_its_kernel() {
    let record = BootRecord {
        rebooted: true,
        asked_ms: None,
        host_spans: Vec::new(),
        answered: None,
        ..whole()
    };
    let timeline = Timeline::of(&record);
    assert_eq!(timeline.bars[0].kind, Kind::Firmware);
    assert_eq!(timeline.bar(Kind::Kernel).unwrap().began_ms, Some(0));
    assert_eq!(timeline.zero_ms, Some(10_605));
}

fn times() -> impl Strategy<Value = u64> {
    prop_oneof![0..20_000_u64, Just(u64::MAX), any::<u64>()]
}

prop_compose! {
    fn lines()(arrived_ms in times(), within in any::<bool>(), kind in 0..4_u8, phase in 0..Phase::ALL.len(), a in times(), b in times(), name in ".{0,20}") -> ArrivedLine {
        let phase = Phase::ALL[phase];
        let line = match kind {
            0 | 1 => Line::Done { phase, uptime_ms: a },
            2 => Line::Step(Step { step: name, began_ms: a, ended_ms: b }),
            _ => Line::Failed { error: name, phase },
        };
        ArrivedLine { arrived_ms, within_ms: within.then_some(7), line }
    }
}

prop_compose! {
    fn units()(name in ".{0,20}", began_ms in proptest::option::of(times()), ended_ms in proptest::option::of(times()), failed in any::<bool>()) -> Unit {
        Unit { name, began_ms, ended_ms, failed }
    }
}

prop_compose! {
    /// Whatever agents, guests and managers could tell.
    pub(crate) fn records()(
        asked_ms in proptest::option::of(times()),
        rebooted in any::<bool>(),
        spans in proptest::collection::vec((0..4_usize, times(), times()), 0..5),
        lines in proptest::collection::vec(lines(), 0..30),
        system in proptest::option::of((".{0,20}", proptest::option::of(times()), proptest::option::of(times()), times(), proptest::collection::vec(units(), 0..30))),
        answered in proptest::option::of((times(), times(), ".{0,20}")),
    ) -> BootRecord {
        let works = [HostWork::Archive, HostWork::Interface, HostWork::Emulator, HostWork::Processors];
        BootRecord {
            number: 1,
            host: "host".to_owned(),
            rebooted,
            asked_ms,
            host_spans: spans.into_iter().map(|(what, began_ms, ended_ms)| HostSpan { what: works[what], began_ms, ended_ms }).collect(),
            lines,
            system: system.map(|(init, began_ms, finished_ms, told_ms, units)| SystemBoot { init, began_ms, finished_ms, told_ms, units, left_out: 0 }),
            system_unknown: None,
            answered: answered.map(|(ordered_ms, answered_ms, by)| Answered { ordered_ms, answered_ms, by }),
        }.cleaned()
    }
}

fn lies_within(bar: &Bar) {
    if let (Some(began_ms), Some(ended_ms)) = (bar.began_ms, bar.ended_ms) {
        assert!(began_ms <= ended_ms, "{bar:?}");
    }
    for part in &bar.parts {
        for at_ms in [part.began_ms, part.ended_ms].into_iter().flatten() {
            assert!(
                bar.began_ms.is_none_or(|low| low <= at_ms),
                "{part:?} in {bar:?}"
            );
            assert!(
                bar.ended_ms.is_none_or(|high| at_ms <= high),
                "{part:?} in {bar:?}"
            );
        }
        lies_within(part);
    }
}

proptest! {
    #[test]
    fn a_part_lies_within_its_whole_and_the_order_is_that_of_a_boot(record in records()) {
        let timeline = Timeline::of(&record);
        let order = [Kind::Manager, Kind::Agent, Kind::Emulator, Kind::Firmware, Kind::Kernel, Kind::EarlyUserspace, Kind::System, Kind::Whole];
        let rank = |bar: &Bar| match bar.name.as_str() {
            "archive" => 0,
            _ => order.iter().position(|kind| *kind == bar.kind).unwrap() + 1,
        };
        prop_assert!(timeline.bars.iter().is_sorted_by_key(rank));
        for bar in &timeline.bars {
            lies_within(bar);
        }
        // The guest's own bars follow one another in time.
        let guest = timeline.bars.iter().filter(|bar| matches!(bar.kind, Kind::Firmware | Kind::Kernel | Kind::EarlyUserspace | Kind::System));
        let begins: Vec<i64> = guest.filter_map(|bar| bar.began_ms).collect();
        prop_assert!(begins.is_sorted(), "{:?}", begins);
        prop_assert_eq!(Timeline::of(&record), timeline);
    }
}
