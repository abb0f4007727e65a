//! Moves at once: of the steps that touch a host or a link, no more than so many may ever run together.
//!
//! The most that can run together is the largest sum of begins less ends over down-sets: the width of their order.

use std::collections::BTreeMap;

use estive_world::{HostIx, Indexed, SiteIx};

use super::closure::Closure;
use super::{Fault, Lint, capacity, named};

/// Checks hosts and links. What is under way counts all the time.
pub fn check(lint: &Lint, faults: &mut Vec<Fault>) {
    hosts(lint, faults);
    links(lint, faults);
}

fn hosts(lint: &Lint, faults: &mut Vec<Fault>) {
    let world = lint.world;
    let mut under_way = vec![0u64; world.hosts.len()];
    for operation in &world.operations {
        under_way[operation.to.at()] += 1;
        if let Some(from) = world.domains[operation.domain].host {
            under_way[from.at()] += 1;
        }
    }
    // A domain that is started moves nothing.
    let mut groups: Vec<(usize, Vec<usize>)> = capacity::by_host(lint)
        .into_iter()
        .map(|touching| {
            let moves = touching.steps.into_iter();
            moves.filter(|&step| {
                lint.passages[step]
                    .as_ref()
                    .is_some_and(|it| it.from.is_some())
            })
        })
        .map(Iterator::collect)
        .enumerate()
        .collect();
    let most = |host: usize| u64::from(world.rules.moves_per_host).saturating_sub(under_way[host]);
    groups.retain(|(host, steps)| steps.len() as u64 > most(*host));
    let (hosts, groups): (Vec<usize>, Vec<Vec<usize>>) = groups.into_iter().unzip();
    for ((at, group), order) in groups.iter().enumerate().zip(lint.ancestors(&groups)) {
        let host = hosts[at];
        if let Some(running) = at_once(group, &order, most(host)) {
            faults.push(Fault::TooManyMoves {
                host: HostIx::of(host),
                count: running.len() as u64 + under_way[host],
                at_most: world.rules.moves_per_host,
                running: named(running),
            });
        }
    }
}

fn links(lint: &Lint, faults: &mut Vec<Fault>) {
    let world = lint.world;
    let ends = |from: HostIx, to: HostIx| -> Option<(SiteIx, SiteIx)> {
        let (from, to) = (world.hosts[from].site, world.hosts[to].site);
        (from != to).then_some((from.min(to), from.max(to)))
    };
    let mut under_way: BTreeMap<(SiteIx, SiteIx), u64> = BTreeMap::new();
    for operation in &world.operations {
        let from = world.domains[operation.domain].host;
        if let Some(ends) = from.and_then(|from| ends(from, operation.to)) {
            *under_way.entry(ends).or_default() += 1;
        }
    }
    let mut over: BTreeMap<(SiteIx, SiteIx), Vec<usize>> = BTreeMap::new();
    for (step, passage) in lint.passages.iter().enumerate() {
        let ends = passage
            .as_ref()
            .and_then(|passage| ends(passage.from?, passage.to));
        if let Some(ends) = ends {
            over.entry(ends).or_default().push(step);
        }
    }
    let most = |ends: &(SiteIx, SiteIx)| {
        let under_way = under_way.get(ends).copied().unwrap_or(0);
        u64::from(world.rules.moves_per_link).saturating_sub(under_way)
    };
    over.retain(|ends, steps| steps.len() as u64 > most(ends));
    let groups: Vec<Vec<usize>> = over.values().cloned().collect();
    for ((ends, group), order) in over.iter().zip(lint.ancestors(&groups)) {
        if let Some(running) = at_once(group, &order, most(ends)) {
            faults.push(Fault::TooManyOverLink {
                ends: *ends,
                count: running.len() as u64 + under_way.get(ends).copied().unwrap_or(0),
                at_most: world.rules.moves_per_link,
                running: named(running),
            });
        }
    }
}

/// Steps of a group that may all run at once, if there are more than `most` such.
fn at_once(group: &[usize], order: &super::Ancestors, most: u64) -> Option<Vec<usize>> {
    let each = vec![1; group.len()];
    let closure = Closure::new(each.clone(), each, |later, earlier| {
        order.has(later, earlier)
    });
    let worst = closure.above(most)?;
    Some(
        (worst.gains.iter())
            .filter(|begun| !worst.losses.contains(begun))
            .map(|&begun| group[begun])
            .collect(),
    )
}
