//! From where everything should be to steps: which hosts are switched off besides, what a host that may fail forbids, and
//! what stays undone.

use std::collections::BTreeSet;

use estive_world::{
    Act, DomainIx, DomainLife, Hindrance, HostIx, Indexed, Relation, ReservedKind, Step, World,
};

use crate::Question;
use crate::failover::{powered, without_place};
use crate::ground::Ground;
use crate::lint::place_of;
use crate::places::Spot;
use crate::power;
use crate::sequence::{Goal, sequence};

/// So many of what stays undone are named one by one.
const NAMED: usize = 20;
/// At so many lengths steps are looked at for the longest that keeps room for a host that fails.
const LENGTHS: usize = 64;

/// Steps, and what they leave undone.
pub(crate) struct Way {
    pub steps: Vec<Step>,
    pub left: Vec<Hindrance>,
}

/// The way to these spots, within the question's limits: domains that step aside count as moves and carry bytes; where that
/// would be too much, what needs them is left undone.
pub(crate) fn to(ground: &Ground<'_>, question: &Question, spots: &[Spot]) -> Way {
    let world = ground.world;
    let mut goal = goal(ground, question, spots);
    let mut found = sequence(world, &goal);
    let beyond = |steps: &[Step]| {
        let carried = Carried::by(world, steps);
        let pivots = (steps.iter()).any(|step| matches!(step.act, Act::Move { pivot: true, .. }));
        pivots
            && (question
                .moves_at_most
                .is_some_and(|most| carried.moves > u64::from(most))
                || carried.is_beyond(question))
    };
    let steps = match &found {
        Ok(steps) => steps,
        Err(stuck) => &stuck.steps,
    };
    if beyond(steps) {
        goal.pivots = false;
        found = sequence(world, &goal);
    }
    let (mut steps, mut left) = match found {
        Ok(steps) => (steps, Vec::new()),
        Err(stuck) => {
            let words = stuck.left.into_iter().map(|left| left.because).collect();
            (stuck.steps, named(words))
        }
    };
    // Moves that share a link are slower, and carry more: what the search counted is less than what the steps do.
    let most = (0..=steps.len())
        .rev()
        .find(|&length| !Carried::by(world, &steps[..length]).is_beyond(question));
    cut(ground, most.unwrap_or(0), &mut steps, &mut left);
    Way { steps, left }
}

/// What steps carry.
pub(crate) struct Carried {
    /// Moves of domains.
    pub moves: u64,
    /// Bytes over the network.
    pub bytes: u64,
    /// Memory of those that move, as it was promised; twice where one steps aside.
    pub memory_bytes: u64,
}

impl Carried {
    pub fn by(world: &World, steps: &[Step]) -> Self {
        let mut carried = Self {
            moves: 0,
            bytes: 0,
            memory_bytes: 0,
        };
        for step in steps {
            carried.bytes = carried.bytes.saturating_add(step.figures.bytes);
            if let Act::Move { domain, .. } = step.act {
                let memory_mib = world.domains[domain].reserved[ReservedKind::MemoryMib];
                carried.moves += 1;
                carried.memory_bytes = carried
                    .memory_bytes
                    .saturating_add(memory_mib.saturating_mul(1 << 20));
            }
        }
        carried
    }

    fn is_beyond(&self, question: &Question) -> bool {
        question.bytes_at_most.is_some_and(|most| self.bytes > most)
            || (question.memory_bytes_at_most).is_some_and(|most| self.memory_bytes > most)
    }
}

/// What is to be reached: domains on their spots, hosts off that nobody needs, and hosts on for the spare that is asked for.
fn goal(ground: &Ground<'_>, question: &Question, spots: &[Spot]) -> Goal {
    let place = |host: HostIx| (host != ground.nowhere()).then_some(host);
    let mut goal = Goal::of(
        ground.world,
        spots.iter().map(|spot| place(spot.host)).collect(),
    );
    goal.replicas = spots.iter().map(|spot| place(spot.replica)).collect();
    let switching = power::switching(ground.world, &question.objective, spots);
    goal.on = switching.on;
    goal.off = off(ground, switching.off, spots);
    goal
}

/// Of hosts that nobody needs the first, as many as may be off so that what another leaves when it fails has a place still.
fn off(ground: &Ground<'_>, mut off: Vec<HostIx>, spots: &[Spot]) -> Vec<HostIx> {
    let world = ground.world;
    if off.is_empty() || !must_survive(world) {
        return off;
    }
    let before = failing_now(ground);
    let (hosts, replicas) = (homes(ground, spots), copies(ground, spots));
    let base = on_with(world, &hosts);
    let survives = |off: &[HostIx]| {
        let mut on = base.clone();
        for host in off {
            on[host.at()] = false;
        }
        failing(ground, &hosts, &replicas, &on).is_subset(&before)
    };
    // With fewer off there is more room: the most that may be is found by halving.
    let (mut may, mut may_not) = (0, off.len() + 1);
    while may + 1 < may_not {
        let half = may.midpoint(may_not);
        if survives(&off[..half]) {
            may = half;
        } else {
            may_not = half;
        }
    }
    off.truncate(may);
    off
}

/// Whether what a host leaves when it fails must find a place somewhere: there are domains that have no replica.
pub(crate) fn must_survive(world: &World) -> bool {
    let alone = |domain: &estive_world::Domain| {
        domain.replica.is_none() && domain.life != DomainLife::Stopped
    };
    world.rules.one_may_fail && world.domains.iter().any(alone)
}

/// Whether every host may fail with domains on these spots that may fail now, those that nobody needs being on.
pub(crate) fn survives(ground: &Ground<'_>, spots: &[Spot]) -> bool {
    let hosts = homes(ground, spots);
    let on = on_with(ground.world, &hosts);
    failing(ground, &hosts, &copies(ground, spots), &on).is_subset(&failing_now(ground))
}

fn homes(ground: &Ground<'_>, spots: &[Spot]) -> Vec<Option<HostIx>> {
    (spots.iter())
        .map(|spot| (spot.host != ground.nowhere()).then_some(spot.host))
        .collect()
}

fn copies(ground: &Ground<'_>, spots: &[Spot]) -> Vec<Option<HostIx>> {
    (spots.iter())
        .map(|spot| (spot.replica != ground.nowhere()).then_some(spot.replica))
        .collect()
}

/// Which hosts are on when domains are there: those that are, and those that are switched on for them.
fn on_with(world: &World, hosts: &[Option<HostIx>]) -> Vec<bool> {
    let mut on = powered(world);
    for (domain, host) in world.domains.iter().zip(hosts) {
        // Who is on a host that is off already wakes nobody.
        if let Some(host) = host.filter(|_| domain.host != *host) {
            on[host.at()] = true;
        }
    }
    on
}

fn failing(
    ground: &Ground<'_>,
    hosts: &[Option<HostIx>],
    replicas: &[Option<HostIx>],
    on: &[bool],
) -> BTreeSet<HostIx> {
    (without_place(ground.world, &ground.rooms, hosts, replicas, on).iter())
        .map(|failure| failure.host)
        .collect()
}

fn failing_now(ground: &Ground<'_>) -> BTreeSet<HostIx> {
    let hosts: Vec<Option<HostIx>> = (ground.world.domains.iter())
        .map(|domain| domain.host)
        .collect();
    let replicas: Vec<Option<HostIx>> = (ground.world.domains.iter())
        .map(|domain| domain.replica)
        .collect();
    failing(ground, &hosts, &replicas, &powered(ground.world))
}

fn named(words: Vec<String>) -> Vec<Hindrance> {
    let more = words.len().saturating_sub(NAMED);
    let mut named: Vec<Hindrance> = (words.into_iter().take(NAMED))
        .map(|what| Hindrance { what, count: 1 })
        .collect();
    if more > 0 {
        named.push(Hindrance {
            what: "more moves stand in each other's way".to_owned(),
            count: more as u64,
        });
    }
    named
}

/// Cuts steps to no more than so many, and further where they would end with a host that may fail no more and could before,
/// with somebody who stands aside, or with a group that is not whole. Steps by number are one of the orders that may happen,
/// so what is before a cut is a plan too.
fn cut(ground: &Ground<'_>, most: usize, steps: &mut Vec<Step>, left: &mut Vec<Hindrance>) {
    let world = ground.world;
    let all = steps.len();
    let before = must_survive(world).then(|| failing_now(ground));
    if most == all && before.is_none() {
        return;
    }
    let stride = if before.is_some() {
        most.div_ceil(LENGTHS).max(1)
    } else {
        1
    };
    let lengths = (0..=most).rev();
    for length in lengths.filter(|length| (most - length).is_multiple_of(stride) || *length == 0) {
        let (hosts, replicas, on, aside) = reached(world, &steps[..length]);
        if aside || !groups_are_whole(world, &hosts) {
            continue;
        }
        let survives = (before.as_ref())
            .is_none_or(|before| failing(ground, &hosts, &replicas, &on).is_subset(before));
        if survives {
            if length < all {
                let what = if length < most {
                    "steps after which a host could not fail any more, or that others wait for"
                } else {
                    "steps that would carry more bytes than may be carried"
                };
                left.push(Hindrance {
                    what: what.to_owned(),
                    count: (all - length) as u64,
                });
                steps.truncate(length);
            }
            return;
        }
    }
}

/// By domain or host.
type Reached = (Vec<Option<HostIx>>, Vec<Option<HostIx>>, Vec<bool>, bool);

/// Where domains and their replicas are after some steps, which hosts are on, and whether any stands aside.
fn reached(world: &World, steps: &[Step]) -> Reached {
    let mut hosts: Vec<Option<HostIx>> = world.domains.iter().map(|domain| domain.host).collect();
    let mut replicas: Vec<Option<HostIx>> =
        world.domains.iter().map(|domain| domain.replica).collect();
    let mut on = powered(world);
    let mut aside: BTreeSet<DomainIx> = BTreeSet::new();
    for step in steps {
        match step.act {
            Act::Move {
                domain, to, pivot, ..
            } => {
                let from = hosts[domain.at()].replace(to);
                if replicas[domain.at()].is_some() {
                    replicas[domain.at()] = from;
                }
                if pivot {
                    aside.insert(domain);
                } else {
                    aside.remove(&domain);
                }
            }
            Act::Place { domain, to } => hosts[domain.at()] = Some(to),
            Act::MoveReplica { domain, to, .. } => replicas[domain.at()] = Some(to),
            Act::SwitchOn { host } => on[host.at()] = true,
            Act::SwitchOff { host } => on[host.at()] = false,
        }
    }
    (hosts, replicas, on, !aside.is_empty())
}

/// Whether those that are to be together are in no more places than at the start, or in one.
fn groups_are_whole(world: &World, hosts: &[Option<HostIx>]) -> bool {
    world.rules.relations.iter().all(|relation| {
        let Relation::Together(scope, members) = relation else {
            return true;
        };
        let places = |at: &dyn Fn(DomainIx) -> Option<HostIx>| {
            let places: BTreeSet<usize> = (members.iter())
                .filter_map(|&member| at(member))
                .map(|host| place_of(world, *scope, host))
                .collect();
            places.len()
        };
        let before = places(&|domain| world.domains[domain].host);
        places(&|domain| hosts[domain.at()]) <= before.max(1)
    })
}
