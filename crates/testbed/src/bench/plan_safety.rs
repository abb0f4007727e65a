//! `plan-safety`: whether plans keep within capacity whatever order their steps take, on 10,000 random clusters; and how long
//! it takes to empty and to pack 1,000 and 5,000 hosts, target, way and linter together.
//!
//! Each plan is held against the linter, and played many times by an executor that knows nothing of either: it begins what
//! may begin and ends what runs at random, and adds up plain amounts. BtrPlace's times are quoted: it solves the same two
//! problems (hosts to be emptied; everything on as few hosts as possible, six domains a host) by constraint programming.

use std::path::PathBuf;
use std::time::Instant;

use estive_planner::{Goal, duration_s, lint, sequence};
use estive_world::{
    Act, Domain, DomainIx, Host, HostIx, Indexed, Plan, PowerCurve, Ratio, Report, Reserved, Site,
    Step, World,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::{Spread, conclude, round};
use crate::Error;

const RUNS: u32 = 5;
const CLUSTERS: u64 = 10_000;
/// How often each plan of a cluster is played.
const PLAYED: u32 = 5;
const DOMAINS_PER_HOST: usize = 6;
/// Share of hosts that are emptied at once.
const DRAINED: usize = 20;
/// Hosts, and BtrPlace's seconds to drain and to pack so many.
const SIZES: [(usize, f64, f64); 2] = [(1_000, 2.0, 3.6), (5_000, 12.6, 30.0)];

/// What the benchmark is told.
#[derive(Debug, Clone)]
pub struct PlanSafetyConfig {
    /// Where the result is appended.
    pub results: PathBuf,
    pub runs: Option<u32>,
}

/// Measures and appends the result.
pub fn run(config: &PlanSafetyConfig) -> Result<(), Error> {
    let runs = config.runs.unwrap_or(RUNS).max(1);
    let clusters = clusters();
    println!(
        "{CLUSTERS} clusters: {} plans of {} steps with {} pivots, {} without a way; {} faults, {} states beyond room",
        clusters.plans,
        clusters.steps,
        clusters.pivots,
        clusters.stuck,
        clusters.faults,
        clusters.beyond
    );
    let mut cases = Vec::new();
    let mut worst = 0.0f64;
    for (hosts, drain_s, pack_s) in SIZES {
        for (what, peer_s) in [("drain", drain_s), ("pack", pack_s)] {
            let case = measure(what, hosts, runs);
            println!(
                "{what} {hosts}: {:.3} s ({} steps, {} pivots, {:.0} s to carry out), BtrPlace {peer_s} s",
                case.seconds.median, case.steps, case.pivots, case.lasts_s
            );
            worst = worst.max(case.seconds.median / peer_s);
            cases.push(case.line(what, hosts, peer_s));
            if case.faults > 0 {
                worst = 99.0;
            }
        }
    }
    if clusters.faults > 0 || clusters.beyond > 0 {
        worst = 99.0;
    }
    let largest = &cases[3];
    let line = json!({
        "name": "plan-safety",
        "ours": largest["ours"],
        "peer": largest["peer"],
        "peer_is": "quoted",
        "unit": "s",
        "ratio": round(worst),
        "spread": { "ours": largest["spread"] },
        "runs": runs,
        "clusters": CLUSTERS,
        "plans": clusters.plans,
        "stuck": clusters.stuck,
        "steps": clusters.steps,
        "pivots": clusters.pivots,
        "faults": clusters.faults,
        "states_beyond_room": clusters.beyond,
        "cases": cases,
    });
    conclude(&line, &config.results)
}

#[derive(Default)]
struct Clusters {
    plans: u64,
    steps: usize,
    pivots: usize,
    stuck: u64,
    faults: usize,
    beyond: u64,
}

fn clusters() -> Clusters {
    let mut found = Clusters::default();
    for seed in 0..CLUSTERS {
        let mut random = StdRng::seed_from_u64(seed);
        let (world, target) = cluster(&mut random);
        // Where there is no whole way, the part that was found must be safe too.
        let steps = sequence(&world, &target).unwrap_or_else(|stuck| {
            found.stuck += 1;
            stuck.steps
        });
        found.plans += 1;
        found.steps += steps.len();
        found.pivots += pivots(&steps);
        for _ in 0..PLAYED {
            found.beyond += u64::from(!play(&world, &steps, &mut random));
        }
        found.faults += lint(&world, &plan(steps)).len();
    }
    found
}

struct Case {
    seconds: Spread,
    steps: usize,
    pivots: usize,
    faults: usize,
    lasts_s: f64,
}

impl Case {
    fn line(&self, what: &str, hosts: usize, peer_s: f64) -> Value {
        json!({
            "case": what,
            "hosts": hosts,
            "domains": hosts * DOMAINS_PER_HOST,
            "ours": round(self.seconds.median),
            "peer": peer_s,
            "ratio": round(self.seconds.median / peer_s),
            "spread": self.seconds,
            "steps": self.steps,
            "pivots": self.pivots,
            "lasts_s": round(self.lasts_s),
        })
    }
}

fn measure(what: &str, hosts: usize, runs: u32) -> Case {
    let world = fleet(hosts, &mut StdRng::seed_from_u64(hosts as u64));
    let mut seconds = Vec::new();
    let mut last = Vec::new();
    let mut faults = 0;
    for _ in 0..runs {
        let begin = Instant::now();
        let target = match what {
            "drain" => drained(&world),
            _ => packed(&world),
        };
        let steps = sequence(&world, &target).unwrap_or_else(|stuck| {
            println!("{what} {hosts}: {stuck}");
            faults += stuck.left.len();
            stuck.steps
        });
        let plan = plan(steps);
        faults += lint(&world, &plan).len();
        seconds.push(begin.elapsed().as_secs_f64());
        last = plan.steps;
    }
    Case {
        seconds: Spread::of(&seconds),
        steps: last.len(),
        pivots: pivots(&last),
        faults,
        lasts_s: duration_s(&last),
    }
}

fn pivots(steps: &[Step]) -> usize {
    (steps.iter())
        .filter(|step| matches!(step.act, Act::Move { pivot: true, .. }))
        .count()
}

/// Plays a plan once, in an order by chance; false if more of something is ever on a host than fits there, or a host moves
/// more at once than it may.
fn play(world: &World, steps: &[Step], random: &mut StdRng) -> bool {
    let mut taken: Vec<[u64; 2]> = vec![[0; 2]; world.hosts.len()];
    let size = |domain: DomainIx| {
        let reserved = world.domains[domain].reserved.0;
        [reserved[0], reserved[1]]
    };
    let add = |taken: &mut Vec<[u64; 2]>, host: HostIx, domain: DomainIx, sign: i64| {
        for (sum, more) in taken[host.at()].iter_mut().zip(size(domain)) {
            *sum = sum
                .checked_add_signed(sign * more as i64)
                .expect("what leaves was there");
        }
    };
    for (at, domain) in world.domains.iter().enumerate() {
        if let Some(host) = domain.host {
            add(&mut taken, host, DomainIx::of(at), 1);
        }
    }
    let mut waits: Vec<usize> = steps.iter().map(|step| step.after.len()).collect();
    let mut follow: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for (at, step) in steps.iter().enumerate() {
        for earlier in &step.after {
            follow[earlier.at()].push(at);
        }
    }
    let mut ready: Vec<usize> = (0..steps.len()).filter(|&at| waits[at] == 0).collect();
    let mut running: Vec<usize> = Vec::new();
    let mut busy = vec![0u32; world.hosts.len()];
    let mut safe = true;
    while !(ready.is_empty() && running.is_empty()) {
        let begins = running.is_empty() || !ready.is_empty() && random.random_bool(0.6);
        let list = if begins { &mut ready } else { &mut running };
        let step = list.swap_remove(random.random_range(0..list.len()));
        if let Act::Move {
            domain, from, to, ..
        } = steps[step].act
        {
            if begins {
                add(&mut taken, to, domain, 1);
                busy[from.at()] += 1;
                busy[to.at()] += 1;
                let host = &world.hosts[to];
                let has = [host.capacity.0[0] * 4, host.capacity.0[1]];
                safe &= (0..2).all(|kind| taken[to.at()][kind] <= has[kind]);
                safe &= busy[from.at()].max(busy[to.at()]) <= world.rules.moves_per_host;
            } else {
                add(&mut taken, from, domain, -1);
                busy[from.at()] -= 1;
                busy[to.at()] -= 1;
            }
        }
        if begins {
            running.push(step);
        } else {
            for &next in &follow[step] {
                waits[next] -= 1;
                if waits[next] == 0 {
                    ready.push(next);
                }
            }
        }
    }
    safe
}

/// A few hosts, filled twice by chance: as they are, and as they are to be.
fn cluster(random: &mut StdRng) -> (World, Goal) {
    let count = random.random_range(2..16usize);
    let mut world = world(
        (0..count)
            .map(|at| {
                host(
                    at,
                    [
                        random.random_range(2..17),
                        1024 * random.random_range(8..65),
                    ],
                )
            })
            .collect(),
    );
    world.rules.moves_per_host = random.random_range(1..4);
    let mut taken = vec![[[0u64; 2]; 2]; count];
    let mut target = Vec::new();
    for _ in 0..random.random_range(count..count * 16) {
        let size = [
            random.random_range(1..9),
            1024 * random.random_range(1..17u64),
        ];
        let (from, to) = (random.random_range(0..count), random.random_range(0..count));
        let fits = |host: usize, when: usize| {
            let has = world.hosts[HostIx::of(host)].capacity.0;
            taken[host][when][0] + size[0] <= has[0] * 4 && taken[host][when][1] + size[1] <= has[1]
        };
        if fits(from, 0) && fits(to, 1) {
            for kind in 0..2 {
                taken[from][0][kind] += size[kind];
                taken[to][1][kind] += size[kind];
            }
            world.domains.push(domain(world.domains.len(), from, size));
            target.push(Some(HostIx::of(to)));
        }
    }
    let target = Goal::of(&world, target);
    (world, target)
}

/// Hosts of 16 cores and 64 GiB, six domains of 1 to 8 GiB on each.
fn fleet(hosts: usize, random: &mut StdRng) -> World {
    let mut world = world((0..hosts).map(|at| host(at, [16, 64 * 1024])).collect());
    for number in 0..hosts * DOMAINS_PER_HOST {
        let size = [random.random_range(1..5), 1024 * random.random_range(1..9)];
        world
            .domains
            .push(domain(number, number / DOMAINS_PER_HOST, size));
    }
    world
}

/// One host of twenty is emptied, onto the others in turn.
fn drained(world: &World) -> Goal {
    let leaves = |host: HostIx| host.at().is_multiple_of(DRAINED);
    let hosts: Vec<usize> = (0..world.hosts.len())
        .filter(|at| !at.is_multiple_of(DRAINED))
        .collect();
    let all: Vec<usize> = (0..world.domains.len()).collect();
    let mut target: Vec<Option<HostIx>> = world.domains.iter().map(|domain| domain.host).collect();
    let mut taken = vec![[0u64; 2]; world.hosts.len()];
    let (go, stay): (Vec<usize>, Vec<usize>) = all
        .into_iter()
        .partition(|&at| target[at].is_some_and(leaves));
    for at in stay {
        let host = target[at].expect("every domain has a host");
        add(&mut taken, host.at(), &world.domains[DomainIx::of(at)]);
    }
    first_fit(world, &go, &hosts, 97, &mut taken, &mut target);
    Goal::of(world, target)
}

/// Everything on as few hosts as first fit decreasing finds, those that are full already first; empty ones are switched off.
fn packed(world: &World) -> Goal {
    let mut memory = vec![0u64; world.hosts.len()];
    for domain in &world.domains {
        if let Some(host) = domain.host {
            memory[host.at()] += domain.reserved.0[1];
        }
    }
    let mut hosts: Vec<usize> = (0..world.hosts.len()).collect();
    hosts.sort_by_key(|&host| (std::cmp::Reverse(memory[host]), host));
    let all: u64 = memory.iter().sum();
    // As many as memory needs, and one of fifty more: those keep what they have, the others are emptied onto them.
    let needed = (all.div_ceil(64 * 1024) as usize) * 51 / 50 + 1;
    let kept = &hosts[..needed.min(hosts.len())];
    let mut stays = vec![false; world.hosts.len()];
    for &host in kept {
        stays[host] = true;
    }
    let mut target: Vec<Option<HostIx>> = world.domains.iter().map(|domain| domain.host).collect();
    let mut taken = vec![[0u64; 2]; world.hosts.len()];
    let mut go = Vec::new();
    for (at, domain) in world.domains.iter().enumerate() {
        match domain.host {
            Some(host) if stays[host.at()] => add(&mut taken, host.at(), domain),
            _ => go.push(at),
        }
    }
    go.sort_by_key(|&at| {
        (
            std::cmp::Reverse(world.domains[DomainIx::of(at)].reserved.0[1]),
            at,
        )
    });
    first_fit(world, &go, kept, 1, &mut taken, &mut target);
    let mut target = Goal::of(world, target);
    let mut used = vec![false; world.hosts.len()];
    for host in target.hosts.iter().flatten() {
        used[host.at()] = true;
    }
    target.off = (0..used.len())
        .filter(|&host| !used[host])
        .map(HostIx::of)
        .collect();
    target
}

fn add(taken: &mut [[u64; 2]], host: usize, domain: &Domain) {
    taken[host][0] += domain.reserved.0[0];
    taken[host][1] += domain.reserved.0[1];
}

/// Each goes to the next host where it fits, from the last one on in strides; what fits nowhere stays.
fn first_fit(
    world: &World,
    go: &[usize],
    hosts: &[usize],
    stride: usize,
    taken: &mut [[u64; 2]],
    target: &mut [Option<HostIx>],
) {
    let mut begin = 0;
    for &at in go {
        let domain = &world.domains[DomainIx::of(at)];
        let place = (0..hosts.len())
            .map(|turn| hosts[(begin + turn) % hosts.len()])
            .find(|&host| {
                let has = world.hosts[HostIx::of(host)].capacity.0;
                taken[host][0] + domain.reserved.0[0] <= has[0] * 4
                    && taken[host][1] + domain.reserved.0[1] <= has[1]
            });
        match place {
            Some(host) => {
                add(taken, host, domain);
                target[at] = Some(HostIx::of(host));
            }
            None => add(taken, domain.host.map_or(0, Indexed::at), domain),
        }
        begin = (begin + stride) % hosts.len();
    }
}

fn plan(steps: Vec<Step>) -> Plan {
    Plan {
        world: String::new(),
        objective: String::new(),
        seed: 0,
        work: 0,
        steps,
        report: Report::default(),
    }
}

fn world(hosts: Vec<Host>) -> World {
    let mut world = World {
        sites: vec![Site {
            rate_bytes_per_s: 1_250_000_000,
            ..Site::named("site")
        }],
        hosts,
        ..World::default()
    };
    world
        .rules
        .overbook
        .insert(String::new(), Ratio([4000, 1000, 1000, 1000]));
    world.rules.use_at_most_milli = [0; 4];
    world
}

fn host(number: usize, [cores, memory_mib]: [u64; 2]) -> Host {
    Host {
        capacity: Reserved([cores, memory_mib, 0, 0]),
        power: PowerCurve {
            boot_s: 60,
            halt_s: 10,
            ..PowerCurve::default()
        },
        ..Host::named(format!("h{number}"))
    }
}

fn domain(number: usize, host: usize, [vcpus, memory_mib]: [u64; 2]) -> Domain {
    Domain {
        host: Some(HostIx::of(host)),
        reserved: Reserved([vcpus, memory_mib, 0, 0]),
        dirtied_bytes_per_s: 10_000_000,
        ..Domain::named(format!("d{number}"))
    }
}
