//! The linter's twin: every state of every interleaving, one by one. On small plans the two must say the same.

use std::collections::BTreeSet;

use estive_world::{
    Act, DomainIx, HostIx, HostPower, Indexed, Link, Operation, Plan, Relation, Scope, Site,
    SiteIx, World,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Fault, lint};
use crate::samples::{domain, host, moved, plan, step, world};
use crate::{Amounts, KINDS, Rooms};

/// What is wrong, without the state that shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    Order,
    Power,
    Room(usize, usize),
    Moves(usize),
    Link(SiteIx, SiteIx),
    Apart(usize, usize),
}

/// What a step does to its domain, found by running the plan by number.
#[derive(Clone, Copy)]
struct Effect {
    domain: DomainIx,
    from: Option<HostIx>,
    to: HostIx,
    amounts: Amounts,
    replica: bool,
}

struct Twin<'a> {
    world: &'a World,
    plan: &'a Plan,
    rooms: Rooms,
    effects: Vec<Option<Effect>>,
    /// 0: not begun, 1: runs, 2: ended.
    state: Vec<u8>,
    wrong: BTreeSet<Wrong>,
    states: u64,
}

impl Twin<'_> {
    fn walk(&mut self, at: usize) {
        if at == self.state.len() {
            self.states += 1;
            return self.look();
        }
        let ready = self.plan.steps[at]
            .after
            .iter()
            .all(|earlier| self.state[earlier.at()] == 2);
        for state in 0..=if ready { 2 } else { 0 } {
            self.state[at] = state;
            self.walk(at + 1);
        }
    }

    fn look(&mut self) {
        let mut wrong = Vec::new();
        self.order(&mut wrong);
        if !wrong.is_empty() {
            // Where a domain is then nobody can say.
            return self.wrong.extend(wrong);
        }
        self.power(&mut wrong);
        self.room(&mut wrong);
        self.moves(&mut wrong);
        self.apart(&mut wrong);
        self.wrong.extend(wrong);
    }

    fn order(&self, wrong: &mut Vec<Wrong>) {
        for later in 0..self.state.len() {
            for earlier in 0..later {
                if let (Some(one), Some(other)) = (self.effects[earlier], self.effects[later])
                    && one.domain == other.domain
                    && self.state[later] > 0
                    && self.state[earlier] < 2
                {
                    wrong.push(Wrong::Order);
                }
            }
        }
    }

    fn power(&self, wrong: &mut Vec<Wrong>) {
        for host in 0..self.world.hosts.len() {
            let number = HostIx::of(host);
            let (mut on, mut switching) = (self.world.hosts[host].state == HostPower::On, 0);
            let (mut wanted, mut may_hold) = (None, true);
            for (at, step) in self.plan.steps.iter().enumerate() {
                let to = match step.act {
                    Act::SwitchOn { host } if host == number => true,
                    Act::SwitchOff { host } if host == number => false,
                    _ => continue,
                };
                match self.state[at] {
                    1 => {
                        switching += 1;
                        wanted = Some(to);
                        may_hold = to;
                    }
                    2 => on = to,
                    _ => {}
                }
            }
            let touches = |at: usize| {
                self.effects[at].is_some_and(|it| it.from == Some(number) || it.to == number)
            };
            let runs = (0..self.state.len()).any(|at| self.state[at] == 1 && touches(at));
            if runs && (!on || switching > 0) || switching > 1 || wanted == Some(on) {
                wrong.push(Wrong::Power);
            }
            if !may_hold && self.inhabitants(number) > 0 {
                wrong.push(Wrong::Power);
            }
        }
    }

    fn inhabitants(&self, host: HostIx) -> usize {
        (0..self.world.domains.len())
            .filter(|&at| {
                let domain = &self.world.domains[at];
                let (mut at_host, mut at_replica) = (domain.host, domain.replica);
                let mut arrives = false;
                for (step, effect) in self.effects.iter().enumerate() {
                    let Some(effect) = effect.filter(|it| it.domain.at() == at) else {
                        continue;
                    };
                    if self.state[step] == 1 {
                        arrives |= effect.to == host;
                    }
                    if self.state[step] == 2 {
                        if effect.replica {
                            at_replica = Some(effect.to);
                        } else {
                            if at_replica.is_some() && effect.from.is_some() {
                                at_replica = effect.from;
                            }
                            at_host = Some(effect.to);
                        }
                    }
                }
                let under_way = |it: &Operation| it.domain.at() == at && it.to == host;
                at_host == Some(host)
                    || at_replica == Some(host)
                    || arrives
                    || self.world.operations.iter().any(under_way)
            })
            .count()
    }

    fn room(&self, wrong: &mut Vec<Wrong>) {
        let start = self.rooms.taken(self.world);
        let mut taken = start.clone();
        for (at, effect) in self.effects.iter().enumerate() {
            let Some(effect) = effect else { continue };
            if self.state[at] > 0 {
                taken[effect.to.at()].add(&effect.amounts);
            }
            if let (2, Some(from)) = (self.state[at], effect.from) {
                taken[from.at()].take(&effect.amounts);
            }
        }
        for host in 0..taken.len() {
            for kind in 0..KINDS {
                let room = self.rooms.room(HostIx::of(host)).0[kind];
                if taken[host].0[kind] > room.max(start[host].0[kind]) {
                    wrong.push(Wrong::Room(host, kind));
                }
            }
        }
    }

    fn moves(&self, wrong: &mut Vec<Wrong>) {
        let site = |host: HostIx| self.world.hosts[host].site;
        let mut all: Vec<(HostIx, HostIx, bool)> = (self.world.operations.iter())
            .filter_map(|it| Some((self.world.domains[it.domain].host?, it.to, false)))
            .collect();
        all.extend(
            (self.effects.iter().enumerate()).filter_map(|(at, effect)| {
                let effect = (*effect).filter(|_| self.state[at] == 1)?;
                Some((effect.from?, effect.to, true))
            }),
        );
        for host in 0..self.world.hosts.len() {
            let here = |it: &&(HostIx, HostIx, bool)| it.0.at() == host || it.1.at() == host;
            let running: Vec<_> = all.iter().filter(here).collect();
            let ours = running.iter().any(|it| it.2);
            if ours && running.len() > self.world.rules.moves_per_host as usize {
                wrong.push(Wrong::Moves(host));
            }
        }
        for one in 0..self.world.sites.len() {
            for other in one + 1..self.world.sites.len() {
                let ends = (SiteIx::of(one), SiteIx::of(other));
                let over = |it: &&(HostIx, HostIx, bool)| {
                    let (from, to) = (site(it.0), site(it.1));
                    (from.min(to), from.max(to)) == ends
                };
                let running: Vec<_> = all.iter().filter(over).collect();
                let ours = running.iter().any(|it| it.2);
                if ours && running.len() > self.world.rules.moves_per_link as usize {
                    wrong.push(Wrong::Link(ends.0, ends.1));
                }
            }
        }
    }

    fn apart(&self, wrong: &mut Vec<Wrong>) {
        for (number, relation) in self.world.rules.relations.iter().enumerate() {
            let Relation::Apart(scope, domains) = relation else {
                continue;
            };
            let place = |host: HostIx| match scope {
                Scope::Host => host.at(),
                Scope::Site => self.world.hosts[host].site.at(),
            };
            // Where its members are before anything moves, and where they are now.
            let mut before: BTreeSet<(usize, DomainIx)> = BTreeSet::new();
            let mut there = before.clone();
            for &member in domains {
                let mut at = self.world.domains[member].host;
                before.extend(at.map(|at| (place(at), member)));
                for it in self
                    .world
                    .operations
                    .iter()
                    .filter(|it| it.domain == member)
                {
                    before.insert((place(it.to), member));
                    there.insert((place(it.to), member));
                }
                for (step, effect) in self.effects.iter().enumerate() {
                    match effect.filter(|it| it.domain == member && !it.replica) {
                        Some(effect) if self.state[step] == 2 => at = Some(effect.to),
                        Some(effect) if self.state[step] == 1 => {
                            there.insert((place(effect.to), member));
                        }
                        _ => {}
                    }
                }
                there.extend(at.map(|at| (place(at), member)));
            }
            for at in 0..self.world.hosts.len() {
                let count = |them: &BTreeSet<(usize, DomainIx)>| {
                    them.iter().filter(|(place, _)| *place == at).count()
                };
                if count(&there) > count(&before).max(1) {
                    wrong.push(Wrong::Apart(number, at));
                }
            }
        }
    }
}

/// All that is wrong in any state, and how many states there are.
fn by_hand(world: &World, plan: &Plan) -> (BTreeSet<Wrong>, u64) {
    let rooms = Rooms::new(world);
    let mut replicas: Vec<Option<HostIx>> = world.domains.iter().map(|it| it.replica).collect();
    let effects = (plan.steps.iter())
        .map(|step| {
            let effect = |domain: DomainIx, from, to, amounts, replica| {
                Some(Effect {
                    domain,
                    from,
                    to,
                    amounts,
                    replica,
                })
            };
            match step.act {
                Act::Move {
                    domain, from, to, ..
                } => {
                    let mut amounts = rooms.takes(domain);
                    if replicas[domain.at()].is_some() {
                        replicas[domain.at()] = Some(from);
                        amounts = *rooms.live(domain);
                    }
                    effect(domain, Some(from), to, amounts, false)
                }
                Act::Place { domain, to } => effect(domain, None, to, rooms.takes(domain), false),
                Act::MoveReplica { domain, from, to } => {
                    replicas[domain.at()] = Some(to);
                    effect(domain, Some(from), to, *rooms.kept(domain), true)
                }
                Act::SwitchOn { .. } | Act::SwitchOff { .. } => None,
            }
        })
        .collect();
    let mut twin = Twin {
        world,
        plan,
        rooms,
        effects,
        state: vec![0; plan.steps.len()],
        wrong: BTreeSet::new(),
        states: 0,
    };
    twin.walk(0);
    (twin.wrong, twin.states)
}

/// What the linter says, in the twin's words.
fn by_linter(world: &World, plan: &Plan) -> BTreeSet<Wrong> {
    let relations = |scope: Scope, begun: &[estive_world::StepIx]| {
        let brought = plan.steps[begun[0].at()].act;
        let domain = match brought {
            Act::Move { domain, .. } | Act::Place { domain, .. } => domain,
            _ => panic!("{brought:?} brings no domain"),
        };
        (world.rules.relations.iter())
            .position(|it| matches!(it, Relation::Apart(of, them) if *of == scope && them.contains(&domain)))
            .expect("a relation")
    };
    (lint(world, plan).iter())
        .map(|fault| match fault {
            Fault::TwoAtOnce { .. } => Wrong::Order,
            Fault::BesideSwitch { .. } | Fault::Power { .. } | Fault::NotEmpty { .. } => {
                Wrong::Power
            }
            Fault::Room { host, kind, .. } => Wrong::Room(host.at(), *kind),
            Fault::TooManyMoves { host, .. } => Wrong::Moves(host.at()),
            Fault::TooManyOverLink { ends, .. } => Wrong::Link(ends.0, ends.1),
            Fault::NotApart {
                scope,
                place,
                begun,
                ..
            } => Wrong::Apart(relations(*scope, begun), *place),
            other => panic!("{}", other.say(world)),
        })
        .collect()
}

/// A small world with little room and a plan whose order is partly left out.
fn random(random: &mut StdRng) -> (World, Plan) {
    let hosts = random.random_range(2..5usize);
    let replicas = random.random_bool(0.3);
    let mut world = world(
        (0..hosts)
            .map(|at| {
                let mut host = host(
                    &format!("h{at}"),
                    [random.random_range(2..7), 100, random.random_range(2..9), 9],
                );
                host.site = SiteIx::of(at % 2);
                if random.random_bool(0.1) {
                    host.state = HostPower::Off;
                }
                host
            })
            .collect(),
        (0..random.random_range(1..7usize))
            .map(|at| {
                let on = random
                    .random_bool(0.9)
                    .then(|| random.random_range(0..hosts as u32));
                let mut domain = domain(
                    &format!("d{at}"),
                    on,
                    [random.random_range(0..4), 10, random.random_range(0..3), 0],
                );
                if replicas
                    && random.random_bool(0.7)
                    && let Some(on) = on
                {
                    domain.replica = Some(HostIx((on + 1) % hosts as u32));
                }
                domain.class = ["", "a"][random.random_range(0..2)].to_owned();
                domain
            })
            .collect(),
    );
    world.sites.push(Site {
        name: "there".to_owned(),
        ..world.sites[0].clone()
    });
    world.links.push(Link {
        ends: (SiteIx(0), SiteIx(1)),
        rate_bytes_per_s: 1,
        latency_us: 1,
        micro_per_gib: 0,
    });
    world
        .rules
        .overbook
        .insert(String::new(), estive_world::Ratio([1000; 4]));
    world.rules.overbook.insert(
        "a".to_owned(),
        estive_world::Ratio([1500, 1000, 1000, 1000]),
    );
    world.rules.moves_per_host = random.random_range(1..5);
    world.rules.moves_per_link = random.random_range(1..5);
    let all: Vec<DomainIx> = (0..world.domains.len()).map(DomainIx::of).collect();
    if random.random_bool(0.3) {
        let some = all
            .iter()
            .copied()
            .filter(|_| random.random_bool(0.5))
            .collect();
        let scope = [Scope::Host, Scope::Site][random.random_range(0..2)];
        world.rules.relations.push(Relation::Apart(scope, some));
    }
    if random.random_bool(0.1)
        && let Some(on) = world.domains[0].host
    {
        let to = HostIx((on.0 + 1) % hosts as u32);
        world.operations.push(Operation {
            domain: DomainIx(0),
            to,
        });
    }
    let mut at: Vec<(Option<HostIx>, Option<HostIx>)> = world
        .domains
        .iter()
        .map(|it| (it.host, it.replica))
        .collect();
    let mut on: Vec<bool> = world
        .hosts
        .iter()
        .map(|it| it.state == HostPower::On)
        .collect();
    let mut steps = Vec::new();
    let dense = random.random_range(0.02..0.5);
    for number in 0..random.random_range(1..=16u32) {
        if steps.len() == 10 {
            break;
        }
        let mut after: Vec<u32> = Vec::new();
        for earlier in number.saturating_sub(4)..number {
            if random.random_bool(dense) {
                after.push(earlier);
            }
        }
        let it = random.random_range(0..all.len());
        let to = HostIx(random.random_range(0..hosts as u32));
        let under_way = world
            .operations
            .iter()
            .any(|operation| operation.domain.at() == it);
        let mine = DomainIx::of(it);
        if random.random_bool(0.15) {
            let act = if on[to.at()] {
                Act::SwitchOff { host: to }
            } else {
                Act::SwitchOn { host: to }
            };
            on[to.at()] ^= true;
            // Mostly where it makes sense: else no plan with it would pass.
            if random.random_bool(0.8) {
                after = (0..number).collect();
            }
            steps.push(step(act, after));
            continue;
        }
        if under_way {
            continue;
        }
        let next = match at[it] {
            (None, replica) if replica != Some(to) => {
                at[it].0 = Some(to);
                step(Act::Place { domain: mine, to }, [])
            }
            (Some(from), Some(replica)) if to != from && to != replica => {
                at[it].1 = Some(to);
                step(
                    Act::MoveReplica {
                        domain: mine,
                        from: replica,
                        to,
                    },
                    [],
                )
            }
            (Some(from), Some(replica)) if to == replica => {
                at[it] = (Some(to), Some(from));
                moved(mine.0, from.0, to.0, [])
            }
            (Some(from), None) if from != to => {
                at[it].0 = Some(to);
                moved(mine.0, from.0, to.0, [])
            }
            _ => continue,
        };
        steps.push(next);
        // Mostly after the last step of the same domain, and after its host was switched.
        let number = steps.len() - 1;
        after.retain(|&earlier| (earlier as usize) < number);
        for earlier in 0..number {
            let same = match (steps[earlier].act, steps[number].act) {
                (
                    Act::Move { domain: one, .. }
                    | Act::Place { domain: one, .. }
                    | Act::MoveReplica { domain: one, .. },
                    Act::Move { domain: other, .. }
                    | Act::Place { domain: other, .. }
                    | Act::MoveReplica { domain: other, .. },
                ) => one == other,
                (Act::SwitchOn { .. } | Act::SwitchOff { .. }, _) => true,
                _ => false,
            };
            if same && random.random_bool(0.95) {
                after.push(earlier as u32);
            }
        }
        after.sort_unstable();
        after.dedup();
        steps[number].after = after.into_iter().map(estive_world::StepIx).collect();
    }
    let count = steps.len() as u32;
    for (number, step) in steps.iter_mut().enumerate() {
        step.after
            .retain(|earlier| earlier.at() < number && earlier.0 < count);
    }
    (world, plan(steps))
}

#[test]
fn it_says_what_all_states_say_on_ten_thousand_plans() {
    let (mut clean, mut states, mut seen) = (0, 0, BTreeSet::new());
    for seed in 0..10_000 {
        let (world, plan) = random(&mut StdRng::seed_from_u64(seed));
        let (by_hand, looked) = by_hand(&world, &plan);
        let by_linter = by_linter(&world, &plan);
        states += looked;
        clean += u32::from(by_hand.is_empty());
        seen.extend(
            by_hand
                .iter()
                .map(std::mem::discriminant)
                .map(|it| format!("{it:?}")),
        );
        // What is out of order hides the rest: then it is enough that it is refused.
        let early = |wrong: &BTreeSet<Wrong>| {
            wrong.contains(&Wrong::Order) || wrong.contains(&Wrong::Power)
        };
        if early(&by_hand) || early(&by_linter) {
            assert_eq!(
                early(&by_hand),
                early(&by_linter),
                "seed {seed}: {plan:?} in {world:?}"
            );
        } else {
            assert_eq!(by_hand, by_linter, "seed {seed}: {plan:#?} in {world:#?}");
        }
    }
    assert_eq!(seen.len(), 6, "every kind of fault was met");
    assert!(
        clean > 1000 && clean < 9000,
        "{clean} plans without fault, {states} states"
    );
    assert!(states > 500_000, "{states} states");
}
