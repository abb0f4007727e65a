//! Small courses whose figures were computed by hand.

use estive_world::{
    Act, Domain, DomainIx, Figures as Expected, Host, HostIx, HostPower, OwnerHours, PowerCurve,
    Ratio, Reason, Reserved, Rules, Site, Step, StepIx, Tariff, Used, World,
};

use estive_planner::{Budget, Objective, Question, Term, Weighted};

use super::{Course, CourseError, Faults, Mind, Nothing, Plans, Setting, Trace, run};

/// Says what it was told, once.
struct Told(Vec<Step>);

impl Mind for Told {
    fn name(&self) -> String {
        "told".to_owned()
    }

    fn steps(&mut self, _: &World) -> Result<Vec<Step>, String> {
        Ok(std::mem::take(&mut self.0))
    }
}

fn step(act: Act, after: &[u32]) -> Step {
    Step {
        act,
        after: after.iter().copied().map(StepIx).collect(),
        reason: Reason::Asked {
            what: String::new(),
        },
        figures: Expected::default(),
    }
}

fn go(domain: u32, from: u32, to: u32) -> Act {
    Act::Move {
        domain: DomainIx(domain),
        from: HostIx(from),
        to: HostIx(to),
        pivot: false,
    }
}

/// Two cores, 100 W and 100 W more at full load, off 0 W, a boot of 60 s and 2 Wh.
fn host(name: &str) -> Host {
    Host {
        capacity: Reserved([2, 8192, 0, 0]),
        speed: Used([2_000_000, 8 << 20, 0, 0]),
        power: PowerCurve {
            watts: vec![100.0, 200.0],
            off_watts: 0.0,
            boot_s: 60,
            boot_wh: 2.0,
            halt_s: 10,
        },
        ..Host::named(name)
    }
}

/// 1000 MiB that nobody writes to, and one core used.
fn domain(name: &str, host: u32) -> Domain {
    Domain {
        host: Some(HostIx(host)),
        reserved: Reserved([1, 1000, 0, 0]),
        used: Used([1_000_000, 0, 0, 0]),
        ..Domain::named(name)
    }
}

/// Two hosts in a network of 104,857,600 bytes a second, so that a domain of 1000 MiB moves in 1 + 10 s; one domain.
fn world() -> World {
    World {
        at_s: 0,
        sites: vec![Site {
            rate_bytes_per_s: 104_857_600,
            ..Site::named("here")
        }],
        hosts: vec![host("a"), host("b")],
        domains: vec![domain("d", 0)],
        rules: Rules {
            overbook: [(String::new(), Ratio::default())].into(),
            ..Rules::default()
        },
        ..World::default()
    }
}

fn hour(world: &World, steps: Vec<Step>) -> Course {
    let setting = Setting {
        length_s: 3600,
        ..Setting::default()
    };
    run(world, None, &setting, &mut Told(steps)).unwrap()
}

fn near(one: f64, other: f64) {
    assert!((one - other).abs() < 1e-6, "{one} is not {other}");
}

#[test]
fn nothing_done_costs_what_stands_there() {
    // One host at half load, one idle: 150 + 100 W for an hour.
    let course = hour(&world(), Vec::new());
    near(course.figures.kwh, 0.25);
    near(course.figures.hosts_on, 2.0);
    assert_eq!(
        (course.figures.plans, course.figures.plans_of_nothing),
        (12, 12)
    );
}

#[test]
fn a_host_is_emptied_and_switched_off_and_the_other_carries_on() {
    let steps = vec![
        step(go(0, 0, 1), &[]),
        step(Act::SwitchOff { host: HostIx(0) }, &[0]),
    ];
    let course = hour(&world(), steps);
    // The move takes 11 s: until then 250 W, afterwards 150 W.
    near(course.figures.kwh, (250.0 * 11.0 + 150.0 * 3589.0) / 3.6e6);
    assert_eq!(course.figures.moves, 1);
    assert_eq!(course.figures.moved_bytes, 1000 << 20);
    assert_eq!(course.periods.last().unwrap().hosts_on, 1);
}

#[test]
fn a_move_waits_for_the_host_that_boots_for_it() {
    let mut world = world();
    world.hosts[1].state = HostPower::Off;
    let steps = vec![
        step(Act::SwitchOn { host: HostIx(1) }, &[]),
        step(go(0, 0, 1), &[0]),
    ];
    let course = hour(&world, steps);
    // A minute and the boot's 2 Wh, then 11 s with both, then one at half load and one idle.
    near(
        course.figures.kwh,
        0.002 + (150.0 * 60.0 + 250.0 * 3540.0) / 3.6e6,
    );
    assert_eq!((course.figures.boots, course.figures.moves), (1, 1));
    assert_eq!(course.happenings[1].at_s, 71.0);
}

#[test]
fn what_waits_for_a_move_that_fails_is_dropped() {
    let steps = vec![
        step(go(0, 0, 1), &[]),
        step(Act::SwitchOff { host: HostIx(0) }, &[0]),
    ];
    let setting = Setting {
        length_s: 3600,
        faults: Faults {
            move_fails_milli: 1000,
            ..Faults::default()
        },
        ..Setting::default()
    };
    let course = run(&world(), None, &setting, &mut Told(steps)).unwrap();
    near(course.figures.kwh, 0.25);
    assert_eq!((course.figures.moves, course.figures.moves_failed), (0, 1));
}

#[test]
fn a_host_with_a_domain_is_not_switched_off() {
    let course = hour(
        &world(),
        vec![step(Act::SwitchOff { host: HostIx(0) }, &[])],
    );
    assert_eq!(course.figures.refused_steps, 1);
    near(course.figures.kwh, 0.25);
}

#[test]
fn no_more_moves_at_once_than_a_host_may_have_and_they_share_the_way() {
    let mut world = world();
    world.domains = vec![domain("d", 0), domain("e", 0), domain("f", 0)];
    world.rules.moves_per_host = 2;
    let steps = (0..3).map(|number| step(go(number, 0, 1), &[])).collect();
    let course = hour(&world, steps);
    // The first has the way to itself when it begins, the second half of it; the third begins with the first one's end, and
    // shares with the second.
    let ends: Vec<f64> = course
        .happenings
        .iter()
        .map(|happening| happening.at_s)
        .collect();
    assert_eq!(ends, [11.0, 21.0, 32.0]);
}

#[test]
fn a_tariff_counts_from_its_moment_on() {
    let mut world = world();
    let at = |from_s, micro_per_kwh| Tariff {
        from_s,
        micro_per_kwh,
    };
    world.sites[0].energy = vec![at(0, 1_000_000), at(1800, 3_000_000)];
    // The account is kept from event to event, and every 300 s there is one.
    near(hour(&world, Vec::new()).figures.cost, 0.125 + 0.375);
}

#[test]
fn an_owner_sits_down_in_his_hours() {
    let mut world = world();
    // 1970 began on a Thursday at 0:00, which is hour 72 of its week.
    world.hosts[0].owner = Some(OwnerHours { hours: [73].into() });
    let setting = Setting {
        length_s: 4 * 3600,
        ..Setting::default()
    };
    let course = run(&world, None, &setting, &mut Nothing).unwrap();
    near(course.figures.beside_owner_s, 3600.0);
    assert_eq!(course.happenings.len(), 2);
}

#[test]
fn a_trace_tells_what_is_used_and_more_on_a_slow_core() {
    let mut world = world();
    world.hosts[0].core_speed_milli = 500;
    let row = |micro| vec![Used([micro, 0, 0, 0])];
    let trace = Trace {
        step_s: 1800,
        rows: vec![row(1_000_000), row(0)],
    };
    let setting = Setting {
        length_s: 3600,
        ..Setting::default()
    };
    let course = run(&world, Some(&trace), &setting, &mut Nothing).unwrap();
    // Two of two cores for half an hour: 200 W, then 100 W; the other host 100 W all the time.
    near(course.figures.kwh, 0.1 + 0.05 + 0.1);
    let other = Trace {
        step_s: 1800,
        rows: vec![Vec::new()],
    };
    let refused = run(&world, Some(&other), &setting, &mut Nothing).unwrap_err();
    assert!(matches!(
        refused,
        CourseError::OtherTrace {
            row: 0,
            found: 0,
            domains: 1
        }
    ));
}

#[test]
fn percentages_are_of_virtual_processors_by_name() {
    let mut world = world();
    world.domains = vec![domain("d", 0), domain("e", 0)];
    world.domains[1].reserved = Reserved([4, 1000, 0, 0]);
    let row = |name: &str, percent: &[u8]| estive_world::traces::TraceRow {
        name: name.to_owned(),
        percent: percent.to_vec(),
    };
    let mut percents = estive_world::traces::Trace {
        period_s: 60,
        rows: vec![row("e", &[50, 100])],
    };
    let trace = Trace::of_percents(&world, &percents).unwrap();
    let used = |micro| Used([micro, 0, 0, 0]);
    assert_eq!(trace.step_s, 60);
    assert_eq!(
        trace.rows,
        [
            [used(1_000_000), used(2_000_000)],
            [used(1_000_000), used(4_000_000)]
        ]
    );
    percents.rows.push(row("x", &[1, 1]));
    assert!(Trace::of_percents(&world, &percents).is_err());
}

#[test]
fn more_asked_than_there_is_is_counted() {
    let mut world = world();
    world.domains = vec![
        domain("d", 0),
        domain("e", 0),
        domain("f", 0),
        domain("g", 1),
    ];
    let course = hour(&world, Vec::new());
    near(course.figures.overloaded, 0.5);
    near(course.figures.short, 0.25);
}

#[test]
fn hosts_fail_and_come_back_with_their_domains_and_a_seed_repeats_it() {
    let setting = Setting {
        length_s: 100 * 3600,
        seed: 5,
        faults: Faults {
            host_fails_per_1000_h: 100.0,
            repair_s: 600,
            move_fails_milli: 0,
        },
        ..Setting::default()
    };
    let run = |seed| run(&world(), None, &Setting { seed, ..setting }, &mut Nothing).unwrap();
    let course = run(5);
    // About twenty failures of two hosts in a hundred hours.
    assert!(
        (5..50).contains(&course.figures.faults),
        "{}",
        course.figures.faults
    );
    assert!(
        course.figures.down_s > 0.0
            && course.figures.down_s <= 600.0 * course.figures.faults as f64
    );
    assert_eq!(course, run(5));
    assert_ne!(course.figures, run(6).figures);
}

#[test]
fn the_planner_saves_energy_none_of_its_steps_is_refused_and_then_it_rests() {
    let mut world = world();
    world.hosts = ["a", "b", "c", "d"].map(host).into();
    world.domains = vec![
        domain("d", 0),
        domain("e", 1),
        domain("f", 2),
        domain("g", 3),
    ];
    for domain in &mut world.domains {
        domain.used = Used([300_000, 0, 0, 0]);
    }
    let question = Question {
        objective: Objective {
            ranks: vec![vec![Weighted {
                term: Term::Consolidate { spare_milli: 100 },
                weight: 1.0,
            }]],
        },
        moves_at_most: None,
        bytes_at_most: None,
        memory_bytes_at_most: None,
        budget: Budget { work: 20_000 },
        seed: 1,
        lanes: 2,
    };
    let setting = Setting {
        length_s: 4 * 3600,
        ..Setting::default()
    };
    let ours = run(&world, None, &setting, &mut Plans { question }).unwrap();
    let nothing = run(&world, None, &setting, &mut Nothing).unwrap();
    assert!(
        ours.figures.kwh < nothing.figures.kwh * 0.6,
        "{:?}",
        ours.figures
    );
    assert_eq!(ours.figures.refused_steps, 0);
    assert_eq!((ours.figures.short, ours.figures.overloaded), (0.0, 0.0));
    // Once the hosts are few there is nothing more to do.
    assert!(
        ours.figures.plans_of_nothing > ours.figures.plans / 2,
        "{:?}",
        ours.figures
    );
}

#[test]
fn a_length_of_nothing_is_refused() {
    let setting = Setting {
        period_s: 0,
        ..Setting::default()
    };
    let refused = run(&world(), None, &setting, &mut Nothing).unwrap_err();
    assert!(
        refused.to_string().contains("the period is 0 s"),
        "{refused}"
    );
}

#[test]
fn what_rises_by_the_hour_is_foreseen_and_its_error_is_told() {
    let world = world();
    let trace = Trace {
        step_s: 3600,
        rows: (0..40)
            .map(|hour| vec![Used([100_000 + 20_000 * hour, 0, 0, 0])])
            .collect(),
    };
    let run = |horizon_s| {
        let setting = Setting {
            length_s: 40 * 3600,
            period_s: 7200,
            horizon_s,
            ..Setting::default()
        };
        run(&world, Some(&trace), &setting, &mut Nothing).unwrap()
    };
    assert_eq!(run(0).foresight, None);
    let foresight = run(4 * 3600).foresight.unwrap();
    assert!(
        foresight.used > 0 && foresight.used < foresight.looked_at,
        "{foresight:?}"
    );
    assert!(foresight.error().unwrap() < 0.5, "{foresight:?}");
}
