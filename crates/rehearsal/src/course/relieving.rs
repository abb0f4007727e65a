//! The built-in policy on a fleet: who is too hot gives away, nobody runs to and fro, and no move makes things worse.

use std::collections::BTreeMap;

use estive_planner::{Relief, Thresholds, relieve};
use estive_world::{
    Act, Domain, DomainIx, Host, HostIx, Indexed, Reserved, Site, Step, Used, UsedKind, World,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::{Mind, Relieves, Setting, Trace, run};

const HOSTS: usize = 1000;
/// Two domains belong to each host.
const DOMAINS: usize = 2 * HOSTS;
const STEP_S: u32 = 30;
const LENGTH_S: u32 = 2 * 3600;

/// Hosts of eight cores; use comes and goes in waves of their own, and some jump.
fn fleet() -> (World, Trace) {
    let hosts = (0..HOSTS).map(|number| Host {
        capacity: Reserved([8, 32 << 10, 0, 0]),
        speed: Used([8_000_000, 32 << 20, 0, 125_000_000]),
        ..Host::named(format!("h{number}"))
    });
    let domains = (0..DOMAINS).map(|number| {
        let home = HostIx::of(number / 2);
        Domain {
            host: Some(home),
            home: Some(home),
            reserved: Reserved([4, 2 << 10, 0, 0]),
            dirtied_bytes_per_s: 1 << 20,
            ..Domain::named(format!("d{number}"))
        }
    });
    let mut world = World {
        at_s: 0,
        sites: vec![Site::named("here")],
        hosts: hosts.collect(),
        domains: domains.collect(),
        ..World::default()
    };
    world
        .rules
        .overbook
        .insert(String::new(), estive_world::Ratio([4000; 4]));
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut dice = |most: u64| random.next_u64() % most;
    let waves: Vec<(u64, u64, u64)> = (0..DOMAINS)
        .map(|_| (dice(2_000_000), 600 + dice(3000), dice(3600)))
        .collect();
    let rows = (0..u64::from(LENGTH_S / STEP_S)).map(|row| {
        let at_s = row * u64::from(STEP_S);
        let of = |&(height, length_s, from_s): &(u64, u64, u64)| {
            let turn = (at_s + from_s) as f64 / length_s as f64 * std::f64::consts::TAU;
            (height as f64 * (1.0 + turn.sin())) as u64
        };
        waves
            .iter()
            .map(|wave| Used([of(wave), 1 << 20, 0, 0]))
            .collect()
    });
    let trace = Trace {
        step_s: STEP_S,
        rows: rows.collect(),
    };
    (world, trace)
}

/// Writes down what it is shown and what it does.
#[derive(Default)]
struct Noted {
    mind: Relieves,
    reliefs: Vec<(u64, Relief)>,
    begun: Vec<(u64, DomainIx, HostIx)>,
    hot: Vec<usize>,
}

impl Mind for Noted {
    fn name(&self) -> String {
        self.mind.name()
    }

    fn steps(&mut self, world: &World) -> Result<Vec<Step>, String> {
        let mut watch = self.mind.watch.clone();
        watch.see(world, &self.mind.thresholds);
        let decision = relieve(world, &self.mind.thresholds, &watch);
        let high = f64::from(self.mind.thresholds.high_milli);
        let hot =
            (decision.judged.iter()).filter(|it| it.use_milli.is_some_and(|share| share >= high));
        self.hot.push(hot.count());
        self.reliefs
            .extend(decision.moves().map(|relief| (world.at_s, relief.clone())));
        let steps = self.mind.steps(world)?;
        for step in &steps {
            if let Act::Move { domain, to, .. } = step.act {
                self.begun.push((world.at_s, domain, to));
            }
        }
        Ok(steps)
    }
}

#[test]
fn a_fleet_is_relieved_without_running_to_and_fro() {
    let (world, trace) = fleet();
    let setting = Setting {
        length_s: LENGTH_S,
        period_s: STEP_S,
        ..Setting::default()
    };
    let thresholds = Thresholds {
        moves_per_h: None,
        ..Thresholds::default()
    };
    let mut noted = Noted {
        mind: Relieves {
            thresholds,
            ..Relieves::default()
        },
        ..Noted::default()
    };
    run(&world, Some(&trace), &setting, &mut noted).unwrap();
    let cooldown_s = u64::from(world.rules.hysteresis.cooldown_s);
    let mut last: BTreeMap<DomainIx, u64> = BTreeMap::new();
    for &(at_s, domain, _) in &noted.begun {
        if let Some(before_s) = last.insert(domain, at_s) {
            assert!(
                at_s >= before_s + cooldown_s,
                "{domain:?} at {before_s} and {at_s}"
            );
        }
    }
    for (at_s, relief) in &noted.reliefs {
        let [source, _] = relief.before_milli;
        let [_, target] = relief.after_milli;
        assert!(target < 450.0, "at {at_s}: {relief:?}");
        // Who goes home from an idle host may find more there than it left; never a hot host.
        if relief.why != estive_planner::Whither::Return {
            assert!(target < source, "at {at_s}: {relief:?}");
        }
    }
    assert!(noted.begun.len() > 100, "only {} moves", noted.begun.len());
    // Beside a fleet that nobody relieves, hosts are hot less than half as often.
    let mut idle = Noted {
        mind: Relieves {
            thresholds: Thresholds {
                moves_per_h: Some(0),
                ..thresholds
            },
            ..Relieves::default()
        },
        ..Noted::default()
    };
    run(&world, Some(&trace), &setting, &mut idle).unwrap();
    let (with, without): (usize, usize) = (noted.hot.iter().sum(), idle.hot.iter().sum());
    assert!(with * 2 < without, "{with} of {without}");
    assert_eq!(idle.begun, []);
    let used = world.domains[0].used[UsedKind::CpuMicrocores];
    assert_eq!(used, 0, "the fleet itself is not touched");
}
