//! Whole components where they fit; larger ones cut into pieces of about a host; pieces packed, the largest first, where
//! the least room is left.

use super::dice::Dice;
use super::problem::{NOWHERE, Problem};
use super::sizes::{Sizes, fits, fullest, fullest_with, over};
use super::spread::spread_on;

/// Places everything; what fits nowhere is where it is tied to most, over its room.
pub fn packed(problem: &Problem, dice: &mut Dice) -> Vec<u32> {
    let hosts = problem.rooms.len();
    let mut host = vec![NOWHERE; problem.graph.vertices()];
    let mut load = Sizes::equal(hosts, &vec![0; problem.sizes.kinds()]);
    let mut pieces = pieces(problem, dice);
    let largest = roomiest(problem);
    let share = |piece: &Vec<u32>| {
        let size = problem
            .sizes
            .sum_of(piece.iter().map(|&vertex| vertex as usize));
        fullest(&size, problem.rooms.of(largest))
    };
    dice.shuffle(&mut pieces);
    pieces.sort_by(|one, other| share(other).total_cmp(&share(one)));
    let mut left = Vec::new();
    for piece in pieces {
        let size = problem
            .sizes
            .sum_of(piece.iter().map(|&vertex| vertex as usize));
        let after = |host: usize| fullest_with(&size, load.of(host), problem.rooms.of(host));
        let open = |host: &usize| {
            fits(&size, load.of(*host), problem.rooms.of(*host))
                && piece
                    .iter()
                    .all(|&vertex| problem.may(vertex, *host as u32))
        };
        let best = (0..hosts)
            .filter(open)
            .map(|host| (after(host), host))
            .max_by(|one, other| one.0.total_cmp(&other.0).then(other.1.cmp(&one.1)));
        match best {
            Some((_, best)) => {
                load.add(best, &size);
                for vertex in piece {
                    host[vertex as usize] = best as u32;
                }
            }
            None => left.push(piece),
        }
    }
    for vertex in left.into_iter().flatten() {
        let to = tied(problem, &load, &host, vertex);
        load.add(to as usize, problem.sizes.of(vertex as usize));
        host[vertex as usize] = to;
    }
    host
}

/// Components, and parts of those that fit on no host.
fn pieces(problem: &Problem, dice: &mut Dice) -> Vec<Vec<u32>> {
    let largest = problem.rooms.of(roomiest(problem));
    let mut number = vec![u32::MAX; problem.graph.vertices()];
    let mut part = vec![0; problem.graph.vertices()];
    let mut pieces = Vec::new();
    for component in problem.graph.components() {
        let members = component.iter().map(|&vertex| vertex as usize);
        let size = problem.sizes.sum_of(members);
        if over(&size, largest) == 0.0 {
            pieces.push(component);
            continue;
        }
        let parts = (fullest(&size, largest).ceil() as usize).clamp(2, component.len().max(2));
        let rooms = Sizes::equal(parts, largest);
        let hosts: Vec<u32> = (0..parts as u32).collect();
        let sites = vec![0; parts];
        spread_on(
            problem,
            (&rooms, &sites),
            &component,
            &hosts,
            4,
            dice,
            &mut part,
            &mut number,
        );
        let mut cut = vec![Vec::new(); parts];
        for vertex in component {
            cut[part[vertex as usize] as usize].push(vertex);
        }
        pieces.extend(cut.into_iter().filter(|piece| !piece.is_empty()));
    }
    pieces
}

/// The host with the most room: of those that hold the largest share of everything.
fn roomiest(problem: &Problem) -> usize {
    let total = problem.sizes.sum();
    (0..problem.rooms.len())
        .min_by(|&one, &other| {
            let share = |host| fullest(&total, problem.rooms.of(host));
            share(one).total_cmp(&share(other)).then(one.cmp(&other))
        })
        .unwrap_or(0)
}

/// Of the hosts with room the one with the strongest ties, then the emptiest; of all, where none has room.
fn tied(problem: &Problem, load: &Sizes, host: &[u32], vertex: u32) -> u32 {
    let size = problem.sizes.of(vertex as usize);
    let mut ties = vec![0i64; problem.rooms.len()];
    for &(to, weight) in problem.graph.of(vertex as usize) {
        if let Some(tie) = ties.get_mut(host[to as usize] as usize) {
            *tie += weight;
        }
    }
    let key = |at: usize| {
        let room = problem.rooms.of(at);
        let open = problem.may(vertex, at as u32);
        let fits = open && fits(size, load.of(at), room);
        (fits, open, ties[at], -fullest(load.of(at), room))
    };
    let best = (0..problem.rooms.len()).max_by(|&one, &other| {
        let (a, b) = (key(one), key(other));
        (a.0, a.1, a.2)
            .cmp(&(b.0, b.1, b.2))
            .then(a.3.total_cmp(&b.3))
            .then(other.cmp(&one))
    });
    best.unwrap_or(0) as u32
}
