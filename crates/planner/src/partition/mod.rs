//! Which domain on which host, so that few bytes cross hosts: a graph partitioned under hard rooms in several kinds,
//! from where everything is now, each move at its price.
//!
//! Lanes search apart, each from a seed and a beginning of its own (where things are, whole components packed, or halves
//! of halves), and the cheapest is taken, the first among equals. Where there are many hosts, all lanes go on from there
//! with a quarter of the work done, each among hosts of its own (`shared_out`). What a lane does: `spread` or `packed` begins, `repair`
//! empties what is too full, `Placing::settle` moves and swaps single vertices, `improve` fills few hosts anew.
//!
//! Cost: some microseconds for each vertex of a region that is filled anew; memory as the graph's edges. Weakness: room of
//! several kinds is only balanced as far as walks of single moves can; where rooms are nearly full of large things of
//! uneven sizes, only the beginning from the present placement may be left.

mod coarse;
mod dice;
mod graph;
mod halves;
#[cfg(test)]
mod laws;
mod packed;
mod placing;
mod problem;
mod queue;
mod region;
mod relabel;
mod repair;
mod sizes;
mod spread;

use rayon::prelude::*;

pub use graph::Graph;
pub use problem::{NOWHERE, Problem};
pub use sizes::Sizes;

use dice::Dice;
use placing::Placing;

/// Of so many hosts for each lane, lanes go on together from the best beginning.
const HOSTS_PER_LANE: usize = 16;
/// How often hosts are then shared out among lanes.
const ROUNDS: u64 = 6;

/// How long and how wide is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// For all choices between equals.
    pub seed: u64,
    /// Searches from different beginnings; the result depends on it, not on the machine's cores.
    pub lanes: u32,
    /// Candidates that all lanes together look at.
    pub work: u64,
}

/// A placement that keeps every rule of the problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where each is.
    pub host: Vec<u32>,
    /// What crosses hosts, that between sites counted `Problem::far` times, and what the moves cost.
    pub cost: i64,
    /// Candidates looked at.
    pub work: u64,
}

/// The cheapest placement found; none when no lane found any that keeps the rules.
pub fn partition(problem: &Problem, effort: Effort) -> Option<Answer> {
    let lanes = effort.lanes.max(1);
    let many = problem.rooms.len() >= HOSTS_PER_LANE * lanes as usize;
    let first = if many { effort.work / 4 } else { effort.work };
    let each = first / u64::from(lanes);
    let answers: Vec<Option<Answer>> = (0..lanes)
        .into_par_iter()
        .map(|lane| searched(problem, lane, Dice::new(effort.seed, u64::from(lane)), each))
        .collect();
    let work = answers.iter().flatten().map(|answer| answer.work).sum();
    let best = answers
        .into_iter()
        .flatten()
        .min_by_key(|answer| answer.cost)?;
    let best = Answer { work, ..best };
    Some(if many {
        shared_out(problem, effort, best)
    } else {
        best
    })
}

/// Goes on from one answer in all lanes together: each has hosts of its own, side by side by who talks to whom, and
/// fills regions among them anew; what they find is put together. Then hosts are shared out otherwise.
fn shared_out(problem: &Problem, effort: Effort, mut answer: Answer) -> Answer {
    let lanes = u64::from(effort.lanes.max(1));
    for round in 0..ROUNDS {
        let left = effort.work.saturating_sub(answer.work) / (ROUNDS - round);
        let mut dice = Dice::new(effort.seed, lanes * (round + 1) * 2);
        let mut placing = Placing::new(problem, answer.host.clone());
        let order = region::side_by_side(&placing, &mut dice);
        let chunk = order.len().div_ceil(lanes as usize).max(1);
        let found: Vec<(Vec<(u32, u32)>, u64)> = order
            .par_chunks(chunk)
            .enumerate()
            .map(|(lane, hosts)| {
                let stream = lanes * ((round + 1) * 2 + 1) + lane as u64;
                let mut own = Placing::new(problem, answer.host.clone());
                let mut dice = Dice::new(effort.seed, stream);
                region::improve_on(&mut own, hosts, left / lanes, &mut dice);
                let members = hosts.iter().flat_map(|&host| placing.members(host));
                let moved = members
                    .map(|&member| (member, own.hosts()[member as usize]))
                    .filter(|&(member, host)| answer.host[member as usize] != host);
                (moved.collect(), own.work)
            })
            .collect();
        for (moved, work) in found {
            for (member, host) in moved {
                placing.put(member, host);
            }
            placing.work += work;
        }
        placing.settle(&mut dice);
        answer = Answer {
            cost: placing.cost(),
            work: answer.work + placing.work,
            host: placing.hosts().to_vec(),
        };
    }
    answer
}

fn searched(problem: &Problem, lane: u32, mut dice: Dice, work: u64) -> Option<Answer> {
    let from_now = lane == 0 && problem.start.iter().all(|&host| host != NOWHERE);
    let begun = match lane {
        _ if from_now => problem.start.clone(),
        lane if lane % 2 == 1 => packed::packed(problem, &mut dice),
        _ => spread::spread_all(problem, &mut dice),
    };
    let begun = if from_now {
        begun
    } else {
        relabel::relabelled(problem, begun)
    };
    let mut placing = Placing::new(problem, begun);
    if !repair::repair(&mut placing) {
        return None;
    }
    placing.settle(&mut dice);
    region::improve(&mut placing, work, &mut dice);
    Some(Answer {
        cost: placing.cost(),
        work: placing.work,
        host: placing.hosts().to_vec(),
    })
}
