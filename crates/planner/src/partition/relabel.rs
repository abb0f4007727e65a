//! The same parts on other hosts, so that fewer of the members have to move.

use std::collections::BTreeMap;

use super::problem::{NOWHERE, Problem};

/// Gives each part the host where the most of its price is already, among hosts of one site with equal rooms; the
/// dearest first.
pub fn relabelled(problem: &Problem, mut host: Vec<u32>) -> Vec<u32> {
    let vertices: Vec<u32> = (0..host.len() as u32).collect();
    let hosts: Vec<u32> = (0..problem.rooms.len() as u32).collect();
    relabel(problem, &vertices, &hosts, &mut host);
    host
}

/// The same for parts on `hosts` that hold `members` and nothing else.
pub fn relabel(problem: &Problem, members: &[u32], hosts: &[u32], host: &mut [u32]) {
    let mut stays: BTreeMap<(u32, u32), i64> = BTreeMap::new();
    for &member in members {
        let start = problem.start[member as usize];
        if start != NOWHERE && problem.price[member as usize] > 0 {
            *stays.entry((host[member as usize], start)).or_default() +=
                problem.price[member as usize];
        }
    }
    if stays.is_empty() {
        return;
    }
    let mut pairs: Vec<((u32, u32), i64)> = stays.into_iter().collect();
    pairs.sort_by_key(|&(pair, price)| (-price, pair));
    let alike = |one: u32, other: u32| {
        problem.site_of[one as usize] == problem.site_of[other as usize]
            && problem.rooms.of(one as usize) == problem.rooms.of(other as usize)
    };
    let mut becomes: BTreeMap<u32, u32> = BTreeMap::new();
    let mut taken: BTreeMap<u32, ()> = BTreeMap::new();
    for ((part, start), _) in pairs {
        if hosts.binary_search(&start).is_ok()
            && !becomes.contains_key(&part)
            && !taken.contains_key(&start)
            && alike(part, start)
        {
            becomes.insert(part, start);
            taken.insert(start, ());
        }
    }
    for &part in hosts {
        if becomes.contains_key(&part) {
            continue;
        }
        let own = (!taken.contains_key(&part)).then_some(part);
        let free = own.or_else(|| {
            let mut free = hosts.iter().copied();
            free.find(|free| !taken.contains_key(free) && alike(part, *free))
        });
        // Each class has as many parts as hosts, so that one is free.
        let free = free.unwrap_or(part);
        becomes.insert(part, free);
        taken.insert(free, ());
    }
    for &member in members {
        host[member as usize] = becomes[&host[member as usize]];
    }
}
