//! One host may fail: what ran there has a place still, at the end of a plan no less than before it.
//!
//! Domains with a replica go to it. What each host must keep for the failure of each other is a sum, so that every state is
//! looked at as for room: taken memory of host r, and memory of those that run on p with their replica on r, against r's
//! room. (A domain on its way from p to its replica on r has its memory there already.) Domains without go anywhere: that is
//! a packing, held against the end only, and taken as failing where first fit decreasing finds nothing.

use std::collections::{BTreeMap, BTreeSet};

use estive_world::{Act, DomainIx, HostIx, Indexed};

use super::chains::Whereabouts;
use super::closure::Closure;
use super::{Fault, Lint, named};
use crate::failover;

/// Place of memory among the kinds of amounts.
const MEMORY: usize = 1;

/// What a pair (who keeps, for whose failure) meets.
#[derive(Default)]
struct Due {
    start: u64,
    /// Step, whether it adds, how much.
    steps: Vec<(usize, bool, u64)>,
}

/// Memory that a step brings to a host or takes from it.
struct Brought {
    step: usize,
    more: bool,
    amount: u64,
    /// Whose failure it changes nothing about.
    but_for: Option<HostIx>,
}

/// Checks both, if the rules say that a host may fail.
pub fn check(lint: &Lint, end: &[Whereabouts], faults: &mut Vec<Fault>) {
    if !lint.world.rules.one_may_fail {
        return;
    }
    pairs(lint, faults);
    let mut on = failover::powered(lint.world);
    let start: Vec<Option<HostIx>> = lint
        .world
        .domains
        .iter()
        .map(|domain| domain.host)
        .collect();
    let hosts: Vec<Option<HostIx>> = end.iter().map(|at| at.host).collect();
    let replicas: Vec<Option<HostIx>> = end.iter().map(|at| at.replica).collect();
    let copies: Vec<Option<HostIx>> = (lint.world.domains.iter())
        .map(|domain| domain.replica)
        .collect();
    let before: BTreeSet<HostIx> =
        failover::without_place(lint.world, &lint.rooms, &start, &copies, &on)
            .into_iter()
            .map(|failure| failure.host)
            .collect();
    for step in lint.steps {
        match step.act {
            Act::SwitchOn { host } => on[host.at()] = true,
            Act::SwitchOff { host } => on[host.at()] = false,
            _ => {}
        }
    }
    for failure in failover::without_place(lint.world, &lint.rooms, &hosts, &replicas, &on) {
        if !before.contains(&failure.host) {
            faults.push(Fault::NoPlaceLeft {
                failing: failure.host,
                domain: failure.domain,
            });
        }
    }
}

fn pairs(lint: &Lint, faults: &mut Vec<Fault>) {
    let world = lint.world;
    let memory = |domain: DomainIx| lint.rooms.live(domain).0[MEMORY];
    let mut due: BTreeMap<(HostIx, HostIx), Due> = BTreeMap::new();
    for (at, domain) in world.domains.iter().enumerate() {
        if let (Some(host), Some(replica)) = (domain.host, domain.replica) {
            due.entry((replica, host)).or_default().start += memory(DomainIx::of(at));
        }
    }
    // Changes of what is due, with each domain's replica as the steps before leave it.
    let mut replicas: Vec<Option<HostIx>> = world.domains.iter().map(|it| it.replica).collect();
    let mut hosts: Vec<Option<HostIx>> = world.domains.iter().map(|it| it.host).collect();
    let mut memories: Vec<Vec<Brought>> = world.hosts.iter().map(|_| Vec::new()).collect();
    for (number, step) in lint.steps.iter().enumerate() {
        let mut change = |keeps: HostIx, of: HostIx, more: bool, amount: u64| {
            due.entry((keeps, of))
                .or_default()
                .steps
                .push((number, more, amount));
        };
        match step.act {
            Act::Move {
                domain, from, to, ..
            } => {
                let swapped = replicas[domain.at()].is_some();
                for (host, more, other) in [(to, true, from), (from, false, to)] {
                    memories[host.at()].push(Brought {
                        step: number,
                        more,
                        amount: memory(domain),
                        but_for: swapped.then_some(other),
                    });
                }
                if swapped {
                    replicas[domain.at()] = Some(from);
                    due.entry((from, to)).or_default();
                }
                hosts[domain.at()] = Some(to);
            }
            Act::Place { domain, to } => {
                memories[to.at()].push(Brought {
                    step: number,
                    more: true,
                    amount: memory(domain),
                    but_for: None,
                });
                if let Some(replica) = replicas[domain.at()] {
                    change(replica, to, true, memory(domain));
                }
                hosts[domain.at()] = Some(to);
            }
            Act::MoveReplica { domain, from, to } => {
                if let Some(host) = hosts[domain.at()] {
                    change(from, host, false, memory(domain));
                    change(to, host, true, memory(domain));
                }
                replicas[domain.at()] = Some(to);
            }
            Act::SwitchOn { .. } | Act::SwitchOff { .. } => {}
        }
    }
    let taken = lint.rooms.taken(world);
    for (&(keeps, of), due) in &mut due {
        let changed = memories[keeps.at()]
            .iter()
            .filter(|it| it.but_for != Some(of));
        due.steps
            .extend(changed.map(|it| (it.step, it.more, it.amount)));
        due.steps.retain(|(_, _, amount)| *amount > 0);
        due.steps.sort_unstable();
        due.start += taken[keeps.at()].0[MEMORY];
    }
    let room = |keeps: HostIx| lint.rooms.room(keeps).0[MEMORY];
    due.retain(|(keeps, _), due| {
        let more: u64 = due.steps.iter().filter(|it| it.1).map(|it| it.2).sum();
        more > 0 && due.start + more > room(*keeps).max(due.start)
    });
    let groups: Vec<Vec<usize>> = (due.values())
        .map(|due| due.steps.iter().map(|(step, _, _)| *step).collect())
        .collect();
    for ((&(keeps, failing), due), order) in due.iter().zip(lint.ancestors(&groups)) {
        let of = |more: bool| -> Vec<usize> {
            (0..due.steps.len())
                .filter(|&at| due.steps[at].1 == more)
                .collect()
        };
        let (gains, losses) = (of(true), of(false));
        let amounts = |places: &[usize]| places.iter().map(|&at| due.steps[at].2).collect();
        let closure = Closure::new(amounts(&gains), amounts(&losses), |gain, loss| {
            order.has(gains[gain], losses[loss])
        });
        if let Some(worst) = closure.above(room(keeps).max(due.start) - due.start) {
            faults.push(Fault::NoSpare {
                host: keeps,
                failing,
                needs: lint.rooms.shown(MEMORY, due.start + worst.value),
                room: lint.rooms.shown(MEMORY, room(keeps)),
                begun: named(worst.gains.iter().map(|&gain| due.steps[gains[gain]].0)),
                ended: named(worst.losses.iter().map(|&loss| due.steps[losses[loss]].0)),
            });
        }
    }
}
