//! Stepping aside: when all that is left waits for each other, one domain goes to a third host first.

use std::collections::BTreeSet;

use estive_world::{DomainIx, HostIx, HostPower, Indexed};

use super::hops::Hop;
use super::schedule::Schedule;
use crate::ground::{cooling_s, is_soon_gone};
use crate::{Amounts, KINDS, transfer};

/// A domain that could step aside, the best first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// It lets nobody in by itself: others have to follow.
    alone_not_enough: bool,
    /// It has nothing to do in this plan otherwise, and must come back.
    comes_back: bool,
    /// Bytes of the detour.
    bytes: u64,
    domain: DomainIx,
    for_domain: DomainIx,
}

/// Lets one domain step aside in each part of the world that hangs together by what waits; false if nobody can.
pub fn step_aside(schedule: &mut Schedule) -> bool {
    let waiting: Vec<DomainIx> = (schedule.waiting.iter())
        .flat_map(|waiting| waiting.iter().map(|(_, domain)| *domain))
        .collect();
    if waiting.is_empty() || !schedule.target.pivots {
        return false;
    }
    // Who is where, of those on hosts that somebody waits for.
    let mut wanted = vec![false; schedule.world.hosts.len()];
    for &domain in &waiting {
        wanted[schedule.next(domain).expect("it waits").to().at()] = true;
    }
    let mut guests: Vec<Vec<DomainIx>> = vec![Vec::new(); wanted.len()];
    for (at, spot) in schedule.spots.iter().enumerate() {
        if let Some(host) = spot.host.filter(|host| wanted[host.at()])
            && !schedule.stepped_aside[at]
        {
            guests[host.at()].push(DomainIx::of(at));
        }
    }
    let mut candidates: Vec<Candidate> = Vec::new();
    for &for_domain in &waiting {
        let hop = schedule.next(for_domain).expect("it waits");
        for &domain in guests[hop.to().at()].iter().filter(|&&it| it != for_domain) {
            let comes_back = schedule.next(domain).is_none();
            let what = &schedule.world.domains[domain];
            if what.pinned
                || cooling_s(schedule.world, what).is_some()
                || comes_back
                    && schedule
                        .world
                        .operations
                        .iter()
                        .any(|it| it.domain == domain)
            {
                continue;
            }
            candidates.push(Candidate {
                alone_not_enough: !lets_in(schedule, domain, for_domain, hop),
                comes_back,
                bytes: transfer::memory_bytes(what) * if comes_back { 2 } else { 1 },
                domain,
                for_domain,
            });
        }
    }
    candidates.sort_unstable();
    let parts = parts(schedule, &waiting);
    // What will come to each host still.
    let mut due = vec![Amounts::NONE; schedule.world.hosts.len()];
    for at in 0..schedule.world.domains.len() {
        if let Some(to) = schedule.goal(at)
            && schedule.spots[at].host != Some(to)
        {
            due[to.at()].add(schedule.stock.rooms.live(DomainIx::of(at)));
        }
    }
    // Who steps aside goes elsewhere from then on: where each part is, is said as it was before.
    let part_of = |schedule: &Schedule, waits: DomainIx| {
        parts[schedule.next(waits).expect("it waits").to().at()]
    };
    let candidates: Vec<(usize, Candidate)> = (candidates.into_iter())
        .map(|candidate| (part_of(schedule, candidate.for_domain), candidate))
        .collect();
    let mut served = BTreeSet::new();
    for (part, candidate) in candidates {
        if candidate.alone_not_enough && candidate.comes_back {
            break;
        }
        if served.contains(&part) {
            continue;
        }
        if let Some(to) = aside(schedule, &due, candidate.domain) {
            go(schedule, candidate.domain, to, candidate.for_domain);
            served.insert(part);
        }
    }
    !served.is_empty()
}

/// For each host the smallest number of those that it hangs together with: a domain waits on one to go to another.
fn parts(schedule: &Schedule, waiting: &[DomainIx]) -> Vec<usize> {
    let mut parent: Vec<usize> = (0..schedule.world.hosts.len()).collect();
    fn root(parent: &mut [usize], mut at: usize) -> usize {
        while parent[at] != at {
            parent[at] = parent[parent[at]];
            at = parent[at];
        }
        at
    }
    for &domain in waiting {
        let to = schedule.next(domain).expect("it waits").to().at();
        if let Some(from) = schedule.spots[domain.at()].host {
            let (one, other) = (root(&mut parent, from.at()), root(&mut parent, to));
            parent[one.max(other)] = one.min(other);
        }
    }
    (0..parent.len()).map(|at| root(&mut parent, at)).collect()
}

/// Whether there is enough of everything for a hop once a domain has left the host where it goes.
fn lets_in(schedule: &mut Schedule, gone: DomainIx, comes: DomainIx, hop: Hop) -> bool {
    let spot = schedule.spots[comes.at()];
    let takes = schedule.stock.deal(comes, spot, hop).takes;
    let leaves = Hop::Move(hop.to());
    let mut freed = schedule.spots[gone.at()];
    freed.host = Some(hop.to());
    // What the one that leaves frees there; to where is not yet known, so a seat is taken to be freed too.
    let mut frees = schedule.stock.deal(gone, freed, leaves).frees;
    let first_slot = schedule.world.hosts.len() * KINDS;
    frees.retain(|(pool, _)| *pool < first_slot);
    takes.iter().all(|&(pool, amount)| {
        let given: u64 = (frees.iter())
            .filter(|(of, _)| *of == pool)
            .map(|(_, amount)| amount)
            .sum();
        let pool = &schedule.stock.pools[pool];
        pool.taken - given + amount <= pool.room
    })
}

/// Where a domain can step aside to: where it does not get in anybody's way if there is such a host, else where it fits.
fn aside(schedule: &mut Schedule, due: &[Amounts], domain: DomainIx) -> Option<HostIx> {
    let spot = schedule.spots[domain.at()];
    let from = spot.host?;
    let mut best: Option<(bool, HostIx)> = None;
    for at in 0..schedule.world.hosts.len() {
        let to = HostIx::of(at);
        let final_host = schedule.goal(domain.at());
        if to == from
            || !schedule.on[at]
            || schedule.world.hosts[to].state == HostPower::Unknown
            || is_soon_gone(schedule.world, &schedule.world.hosts[to])
            || Some(to) == final_host
            || schedule.target.off.contains(&to)
            || spot.replica.is_some_and(|replica| replica != to)
        {
            continue;
        }
        if (schedule
            .fences
            .against(schedule.world, domain, Some(from), to))
        .is_some()
        {
            continue;
        }
        // From there it must be able to go on.
        if let Some(last) = final_host
            && (schedule
                .fences
                .against(schedule.world, domain, Some(to), last))
            .is_some()
        {
            continue;
        }
        let takes = schedule.stock.deal(domain, spot, Hop::Move(to)).takes;
        if !takes
            .iter()
            .all(|&(pool, amount)| schedule.stock.pools[pool].admits(amount))
        {
            continue;
        }
        let in_the_way = takes.iter().any(|&(pool, amount)| {
            pool / KINDS == at && {
                let due = due[at].0[pool % KINDS];
                !schedule.stock.pools[pool].admits(amount + due)
            }
        });
        if !in_the_way {
            return Some(to);
        }
        best = best.or(Some((in_the_way, to)));
    }
    best.map(|(_, to)| to)
}

fn go(schedule: &mut Schedule, domain: DomainIx, to: HostIx, for_domain: DomainIx) {
    schedule.aside[domain.at()] = Some((to, for_domain));
    schedule.stepped_aside[domain.at()] = true;
    schedule.pivots += 1;
    for waiting in &mut schedule.waiting {
        waiting.retain(|(_, other)| *other != domain);
    }
    schedule.try_begin(domain);
}
