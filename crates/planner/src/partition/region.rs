//! A few hosts that talk to each other, emptied and filled anew: what single moves and swaps do not find.

use super::dice::Dice;
use super::placing::Placing;
use super::relabel::relabel;
use super::spread::spread_on;

/// Regions that are filled for nothing, for each host, before there is held to be nothing left to gain.
const PATIENCE_PER_HOST: u64 = 60;

/// Fills regions anew until `work` candidates were looked at, or long nothing was gained; then moves and swaps what
/// gains.
pub fn improve(placing: &mut Placing, work: u64, dice: &mut Dice) {
    let hosts: Vec<u32> = (0..placing.problem.rooms.len() as u32).collect();
    fill(placing, &hosts, work, dice);
    placing.settle(dice);
}

/// The same among some hosts; what is on others stays there.
pub fn improve_on(placing: &mut Placing, hosts: &[u32], work: u64, dice: &mut Dice) {
    fill(placing, hosts, work, dice);
}

/// Hosts in an order in which those stand near each other that talk to each other.
pub fn side_by_side(placing: &Placing, dice: &mut Dice) -> Vec<u32> {
    let count = placing.problem.rooms.len();
    let mut order: Vec<u32> = Vec::with_capacity(count);
    let mut seen = vec![false; count];
    let mut looked = 0;
    for start in dice.order(count) {
        if std::mem::replace(&mut seen[start as usize], true) {
            continue;
        }
        order.push(start);
        while let Some(&host) = order.get(looked) {
            looked += 1;
            for &member in placing.members(host) {
                for &(to, _) in placing.problem.graph.of(member as usize) {
                    let next = placing.hosts()[to as usize];
                    if !std::mem::replace(&mut seen[next as usize], true) {
                        order.push(next);
                    }
                }
            }
        }
    }
    order
}

fn fill(placing: &mut Placing, among: &[u32], work: u64, dice: &mut Dice) {
    let problem = placing.problem;
    let vertices = placing.hosts().len();
    let patience = PATIENCE_PER_HOST * among.len() as u64;
    let mut inside = vec![false; problem.rooms.len()];
    for &host in among {
        inside[host as usize] = true;
    }
    let whole = among.len() == inside.len();
    let mut misses = 0;
    let mut number = vec![u32::MAX; vertices];
    let mut host = placing.hosts().to_vec();
    if among.is_empty() || placing.cost() == 0 {
        return;
    }
    while placing.work < work && misses < patience {
        misses += 1;
        let size = 2 + dice.below(4);
        let hosts = region(placing, among, &inside, size, dice);
        placing.work += 1;
        if hosts.len() < 2 {
            continue;
        }
        let members: Vec<u32> = hosts
            .iter()
            .flat_map(|&host| placing.members(host).iter().copied())
            .collect();
        placing.work += members.len() as u64 * 20;
        let before = cost(placing, &members, &host);
        let old: Vec<u32> = members
            .iter()
            .map(|&member| host[member as usize])
            .collect();
        let to = (&problem.rooms, &problem.site_of[..]);
        spread_on(
            problem,
            to,
            &members,
            &hosts,
            1,
            dice,
            &mut host,
            &mut number,
        );
        relabel(problem, &members, &hosts, &mut host);
        let after = cost(placing, &members, &host);
        let away_on = |host: &[u32]| {
            let away = |&&member: &&u32| problem.start[member as usize] != host[member as usize];
            members.iter().filter(away).count()
        };
        if after < before || (after == before && away_on(&host) <= away_on(placing.hosts())) {
            for (&member, &old) in members.iter().zip(&old) {
                if host[member as usize] != old {
                    placing.put(member, host[member as usize]);
                }
            }
            if placing.keeps_rules_on(&hosts) {
                if after < before {
                    misses = 0;
                    if whole {
                        placing.settle_from(&members);
                        host.copy_from_slice(placing.hosts());
                    }
                }
                continue;
            }
        }
        for (&member, &old) in members.iter().zip(&old) {
            host[member as usize] = old;
            if placing.hosts()[member as usize] != old {
                placing.put(member, old);
            }
        }
    }
}

/// A host, and others of its site that talk to it or to each other.
fn region(
    placing: &Placing,
    among: &[u32],
    inside: &[bool],
    size: usize,
    dice: &mut Dice,
) -> Vec<u32> {
    let problem = placing.problem;
    let first = among[dice.below(among.len())];
    if placing.members(first).is_empty() {
        return Vec::new();
    }
    let mut hosts = vec![first];
    while hosts.len() < size {
        // One edge that leaves, any as likely by its weight, from one of the members of one of the hosts.
        let from = hosts[dice.below(hosts.len())];
        let members = placing.members(from);
        let mut found = None;
        for _ in 0..8 {
            let member = members[dice.below(members.len())];
            let row = problem.graph.of(member as usize);
            if row.is_empty() {
                continue;
            }
            let to = placing.hosts()[row[dice.below(row.len())].0 as usize];
            if inside[to as usize]
                && !hosts.contains(&to)
                && problem.site_of[to as usize] == problem.site_of[first as usize]
            {
                found = Some(to);
                break;
            }
        }
        match found {
            Some(to) => hosts.push(to),
            None => break,
        }
    }
    hosts.sort_unstable();
    hosts
}

/// What members pay, each pair of them counted once; pairs with others are cut whatever is done.
fn cost(placing: &Placing, members: &[u32], host: &[u32]) -> i64 {
    let problem = placing.problem;
    let mut twice = 0;
    for &member in members {
        let here = host[member as usize];
        for &(to, weight) in problem.graph.of(member as usize) {
            if host[to as usize] == here {
                twice -= weight;
            }
        }
        twice += 2 * problem.price(member, here);
    }
    twice
}
