//! The way from how a world is to how it should be: which steps, and which of them wait for which.
//!
//! A schedule is played in which each step lasts as long as the pre-copy model expects ([`crate::transfer`]): whatever may
//! begin begins, the longest first; a moving domain is counted on both hosts; no host and no link carries more moves at once
//! than it may. What a step waits for in the plan are those that freed what it takes ([`pool`]), so that the plan is safe
//! whatever the real durations are. When nothing runs and nothing can begin, domains stand in each other's way (a cycle, or
//! too little room between): one of them steps aside to a third host and goes on from there later, a *pivot*, the one that
//! costs the fewest bytes. Each does so at most once, so this ends.
//!
//! Cost: O(s log s) for s steps and the few that wait at each place. Weakness: greedy in time; pivots are chosen one by one,
//! and a target that can only be reached by moving many aside at once is given up as [`Stuck`].

pub(crate) mod hops;
mod pivot;
mod pool;
mod schedule;
mod stock;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use estive_world::{DomainIx, HostIx, Indexed, Relation, Step, World};

use schedule::{First, Schedule};

/// So often the rest is planned anew without what cannot be done.
const RESTS: u32 = 8;

/// How a world should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// Where each domain is to be; none: as it is.
    pub hosts: Vec<Option<HostIx>>,
    /// Where the second copy of its disks is to be; none: wherever it gets to.
    pub replicas: Vec<Option<HostIx>>,
    /// Hosts to be on at the end, beside those that something comes to.
    pub on: Vec<HostIx>,
    /// Hosts to be off at the end: nothing may be left on them.
    pub off: Vec<HostIx>,
    /// Whether domains may step aside to third hosts.
    pub pivots: bool,
}

impl Goal {
    /// Everything as it is.
    pub fn now(world: &World) -> Self {
        Self::of(
            world,
            world.domains.iter().map(|domain| domain.host).collect(),
        )
    }

    /// Domains there, the rest as it comes.
    pub fn of(world: &World, hosts: Vec<Option<HostIx>>) -> Self {
        Self {
            hosts,
            replicas: vec![None; world.domains.len()],
            on: Vec::new(),
            off: Vec::new(),
            pivots: true,
        }
    }
}

/// There is no way that this looked at. What could be done is done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("no way to the target: {} moves stand in each other's way, the first: {}", .left.len(), first(.left))]
pub struct Stuck {
    /// What stays undone, and why.
    pub left: Vec<Left>,
    /// Steps for all the rest: a safe plan as far as it goes.
    pub steps: Vec<Step>,
}

fn first(left: &[Left]) -> &str {
    left.first().map_or("", |left| left.because.as_str())
}

/// One thing that stays undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Which domain; none: a host that cannot be switched.
    pub domain: Option<DomainIx>,
    /// Where it should have gone, or the host.
    pub to: HostIx,
    /// In words.
    pub because: String,
}

/// Steps from a world to a target. Every state of every interleaving of them keeps the rules ([`crate::lint`]), if the target
/// does and each domain may be where it sends it.
///
/// # Errors
/// [`Stuck`], with what can be done.
pub fn sequence(world: &World, goal: &Goal) -> Result<Vec<Step>, Stuck> {
    let mut best = best_of(world, goal);
    if best.left.is_empty() {
        return Ok(best.steps);
    }
    // The rest is planned anew without what cannot be done: nobody steps aside in vain.
    let mut left = best.left.clone();
    let mut rest = goal.clone();
    for _ in 0..RESTS {
        for gone in &best.left {
            match gone.domain {
                Some(domain) => {
                    for domain in company(world, domain) {
                        rest.hosts[domain.at()] = world.domains[domain].host;
                        rest.replicas[domain.at()] = world.domains[domain].replica;
                    }
                }
                None => rest.off.retain(|host| *host != gone.to),
            }
        }
        best = best_of(world, &rest);
        if best.left.is_empty() {
            return Err(Stuck {
                left,
                steps: best.steps,
            });
        }
        left.extend(best.left.iter().cloned());
    }
    // At last without anybody who steps aside, and without those that must be together: so what is left harms no other.
    rest.pivots = false;
    for relation in &world.rules.relations {
        if let Relation::Together(_, members) = relation {
            for member in members {
                rest.hosts[member.at()] = world.domains[*member].host;
                rest.replicas[member.at()] = world.domains[*member].replica;
            }
        }
    }
    let last = best_of(world, &rest);
    left.extend(last.left.iter().cloned());
    Err(Stuck {
        left,
        steps: last.steps,
    })
}

/// A domain and all that must be together with it, with these, and so on: where one cannot go, none goes.
fn company(world: &World, domain: DomainIx) -> BTreeSet<DomainIx> {
    let mut company = BTreeSet::from([domain]);
    let groups = || {
        (world.rules.relations.iter()).filter_map(|relation| match relation {
            Relation::Together(_, members) => Some(members),
            _ => None,
        })
    };
    loop {
        let before = company.len();
        for members in groups() {
            if members.iter().any(|member| company.contains(member)) {
                company.extend(members);
            }
        }
        if company.len() == before {
            return company;
        }
    }
}

/// Another order at the start gets by with fewer pivots sometimes; where there are none there is nothing to gain.
fn best_of<'a>(world: &'a World, goal: &'a Goal) -> Schedule<'a> {
    let mut best: Option<Schedule> = None;
    for first in [First::Longest, First::Wanted, First::Shortest] {
        let mut schedule = Schedule::new(world, goal, first);
        schedule.run();
        let done = schedule.left.is_empty() && schedule.pivots == 0;
        if best
            .as_ref()
            .is_none_or(|best| schedule.price() < best.price())
        {
            best = Some(schedule);
        }
        if done {
            break;
        }
    }
    best.expect("one was tried")
}

/// Seconds until the last step ends if each lasts as long as its figures say and begins as soon as it may.
pub fn duration_s(steps: &[Step]) -> f64 {
    let mut ends: Vec<f64> = Vec::with_capacity(steps.len());
    for step in steps {
        let begin = step
            .after
            .iter()
            .map(|earlier| ends[earlier.at()])
            .fold(0.0, f64::max);
        ends.push(begin + step.figures.duration_s);
    }
    ends.into_iter().fold(0.0, f64::max)
}
