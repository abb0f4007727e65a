//! Which domain on which host, so that few bytes cross hosts: a graph partitioned under hard rooms in several kinds,
//! from where everything is now, each move at its price.
//!
//! Lanes search apart, each from a seed and a beginning of its own (where things are, whole components packed, or halves
//! of halves), and the cheapest is taken, the first among equals. What a lane does: `spread` or `packed` begins, `repair`
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
    let work = effort.work / u64::from(lanes);
    let answers: Vec<Option<Answer>> = (0..lanes)
        .into_par_iter()
        .map(|lane| searched(problem, lane, Dice::new(effort.seed, u64::from(lane)), work))
        .collect();
    let work = answers.iter().flatten().map(|answer| answer.work).sum();
    let best = answers
        .into_iter()
        .flatten()
        .min_by_key(|answer| answer.cost)?;
    Some(Answer { work, ..best })
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
