//! A graph cut in two, each side within its room: many levels, and at each a walk of single moves that is followed back
//! to its best point.
//!
//! Sources: Fiduccia and Mattheyses, "A Linear-Time Heuristic for Improving Network Partitions" (1982), for the walk;
//! Karypis and Kumar (1998) for the levels and for growing the first side. Different here: room is hard, so a walk is
//! judged by what is over first, and what is cut second.

use super::coarse::{Coarse, coarsened};
use super::dice::Dice;
use super::graph::Graph;
use super::queue::Queue;
use super::sizes::{Sizes, add, fits, fullest, over};

/// Coarser graphs than this are not made.
const COARSEST: usize = 32;
/// First sides grown at the coarsest level.
const GROWN: usize = 6;
/// Walks at each level at the most; one that gains nothing is the last.
const WALKS: usize = 6;

/// A graph, the sizes of its vertices and the rooms of two sides.
#[derive(Clone, Copy)]
pub struct Both<'a> {
    pub graph: &'a Graph,
    pub sizes: &'a Sizes,
    pub room: [&'a [u64]; 2],
}

/// Which side each vertex is on.
#[derive(Debug, Clone, PartialEq)]
pub struct Halves {
    pub side: Vec<u8>,
    /// How much is over its room, as a share of it.
    pub over: f64,
    pub cut: i64,
}

impl Halves {
    fn better_than(&self, other: &Self) -> bool {
        (self.over, self.cut) < (other.over, other.cut)
    }
}

/// The best of `tries` cuts.
pub fn halved(both: Both, tries: usize, dice: &mut Dice) -> Halves {
    let mut best: Option<Halves> = None;
    for _ in 0..tries.max(1) {
        let halves = halved_once(both, dice);
        if best.as_ref().is_none_or(|best| halves.better_than(best)) {
            best = Some(halves);
        }
    }
    best.expect("there is at least one try")
}

fn halved_once(both: Both, dice: &mut Dice) -> Halves {
    let total = both.sizes.sum();
    let largest: Vec<u64> = total
        .iter()
        .map(|&sum| (sum / (COARSEST as u64 * 2 / 3)).max(1))
        .collect();
    let mut levels: Vec<Coarse> = Vec::new();
    loop {
        let (graph, sizes) = match levels.last() {
            None => (both.graph, both.sizes),
            Some(level) => (&level.graph, &level.sizes),
        };
        if graph.vertices() <= COARSEST {
            break;
        }
        match coarsened(graph, sizes, &largest, dice) {
            Some(level) => levels.push(level),
            None => break,
        }
    }
    let at = |level: Option<&Coarse>| match level {
        None => both.graph.vertices(),
        Some(level) => level.graph.vertices(),
    };
    let mut walker = Walker::new(at(None));
    let coarsest = levels.last().map_or(both, |level| Both {
        graph: &level.graph,
        sizes: &level.sizes,
        ..both
    });
    let loose = if levels.is_empty() {
        0.0
    } else {
        slack(coarsest)
    };
    let mut best: Option<Halves> = None;
    for _ in 0..GROWN {
        let mut halves = grown(coarsest, dice);
        walker.refine(coarsest, loose, &mut halves);
        halves.over = (halves.over - loose).max(0.0);
        if best.as_ref().is_none_or(|best| halves.better_than(best)) {
            best = Some(halves);
        }
    }
    let mut halves = best.expect("there is at least one");
    for level in (0..levels.len()).rev() {
        let of = &levels[level].of;
        let side = of.iter().map(|&of| halves.side[of as usize]).collect();
        let finer = match level {
            0 => both,
            _ => Both {
                graph: &levels[level - 1].graph,
                sizes: &levels[level - 1].sizes,
                ..both
            },
        };
        let loose = if level == 0 { 0.0 } else { slack(finer) };
        halves = measured(finer, side);
        walker.refine(finer, loose, &mut halves);
    }
    halves
}

/// What one vertex may be over at a level that is not the last: the largest vertex's share of the smaller room.
fn slack(both: Both) -> f64 {
    (0..both.sizes.len())
        .map(|vertex| {
            let size = both.sizes.of(vertex);
            fullest(size, both.room[0]).max(fullest(size, both.room[1]))
        })
        .fold(0.0, f64::max)
        .min(1.0)
}

fn measured(both: Both, side: Vec<u8>) -> Halves {
    let load = loads(both, &side);
    Halves {
        over: over(&load[0], both.room[0]) + over(&load[1], both.room[1]),
        cut: both.graph.cut(&side),
        side,
    }
}

fn loads(both: Both, side: &[u8]) -> [Vec<u64>; 2] {
    [0, 1].map(|which| {
        let there = side.iter().enumerate().filter(|&(_, &side)| side == which);
        both.sizes.sum_of(there.map(|(vertex, _)| vertex))
    })
}

/// One side grown from a vertex, always by the one that is tied to it best, until both are equally full.
fn grown(both: Both, dice: &mut Dice) -> Halves {
    let number = both.graph.vertices();
    let from = dice.below(2) as u8;
    let mut side = vec![1 - from; number];
    let (here, there) = (usize::from(from), 1 - usize::from(from));
    let mut load = loads(both, &side);
    let mut queue = Queue::new(number);
    let mut out = vec![false; number];
    let order = dice.order(number);
    let mut next = order.iter();
    while fullest(&load[here], both.room[here]) < fullest(&load[there], both.room[there]) {
        let vertex = match queue.best() {
            Some((_, vertex)) => vertex,
            None => {
                match next.find(|&&vertex| side[vertex as usize] != from && !out[vertex as usize]) {
                    Some(&vertex) => vertex,
                    None => break,
                }
            }
        };
        queue.remove(vertex);
        let vertex = vertex as usize;
        let size = both.sizes.of(vertex);
        if !fits(size, &load[here], both.room[here]) {
            out[vertex] = true;
            continue;
        }
        side[vertex] = from;
        add(&mut load[here], size);
        subtract(&mut load[there], size);
        for &(to, _) in both.graph.of(vertex) {
            if side[to as usize] != from && !out[to as usize] {
                let gain = gain(both.graph, &side, to as usize);
                queue.set(to, gain);
            }
        }
    }
    measured(both, side)
}

fn subtract(load: &mut [u64], size: &[u64]) {
    for (load, &size) in load.iter_mut().zip(size) {
        *load -= size;
    }
}

/// What is cut less when a vertex changes sides.
fn gain(graph: &Graph, side: &[u8], vertex: usize) -> i64 {
    let own = side[vertex];
    let row = graph.of(vertex).iter();
    row.map(|&(to, weight)| {
        if side[to as usize] == own {
            -weight
        } else {
            weight
        }
    })
    .sum()
}

/// Scratch space of walks.
pub struct Walker {
    queues: [Queue; 2],
    gains: Vec<i64>,
    locked: Vec<bool>,
    walked: Vec<u32>,
}

impl Walker {
    /// For graphs of at most so many vertices.
    pub fn new(vertices: usize) -> Self {
        Self {
            queues: [Queue::new(vertices), Queue::new(vertices)],
            gains: vec![0; vertices],
            locked: vec![false; vertices],
            walked: Vec::new(),
        }
    }

    /// Walks until one gains nothing. What is over by at most `loose` counts as not over.
    pub fn refine(&mut self, both: Both, loose: f64, halves: &mut Halves) {
        for _ in 0..WALKS {
            let before = ((halves.over - loose).max(0.0), halves.cut);
            self.walk(both, loose, halves);
            if ((halves.over - loose).max(0.0), halves.cut) >= before {
                break;
            }
        }
    }

    fn walk(&mut self, both: Both, loose: f64, halves: &mut Halves) {
        let number = both.graph.vertices();
        let mut load = loads(both, &halves.side);
        let all = number <= 256 || halves.over > loose;
        self.locked[..number].fill(false);
        self.walked.clear();
        for queue in &mut self.queues {
            queue.clear();
        }
        for vertex in 0..number {
            let own = halves.side[vertex];
            let row = both.graph.of(vertex);
            let border = row.iter().any(|&(to, _)| halves.side[to as usize] != own);
            if all || border {
                self.gains[vertex] = gain(both.graph, &halves.side, vertex);
                self.queues[usize::from(own)].set(vertex as u32, self.gains[vertex]);
            }
        }
        let patience = (number / 50).clamp(40, 400);
        let mut best = ((halves.over - loose).max(0.0), halves.cut, halves.over, 0);
        let mut cut = halves.cut;
        while self.walked.len() < best.3 + patience {
            let Some(vertex) = self.next(&load, both.room) else {
                break;
            };
            let from = usize::from(halves.side[vertex as usize]);
            self.queues[from].remove(vertex);
            self.locked[vertex as usize] = true;
            self.walked.push(vertex);
            cut -= self.gains[vertex as usize];
            let size = both.sizes.of(vertex as usize);
            subtract(&mut load[from], size);
            add(&mut load[1 - from], size);
            halves.side[vertex as usize] = 1 - from as u8;
            for &(to, weight) in both.graph.of(vertex as usize) {
                let to_side = usize::from(halves.side[to as usize]);
                if self.locked[to as usize] {
                    continue;
                }
                if self.queues[to_side].holds(to) {
                    let change = if to_side == from {
                        2 * weight
                    } else {
                        -2 * weight
                    };
                    self.gains[to as usize] += change;
                } else {
                    self.gains[to as usize] = gain(both.graph, &halves.side, to as usize);
                }
                self.queues[to_side].set(to, self.gains[to as usize]);
            }
            let over = over(&load[0], both.room[0]) + over(&load[1], both.room[1]);
            let too_much = (over - loose).max(0.0);
            if (too_much, cut) < (best.0, best.1) {
                best = (too_much, cut, over, self.walked.len());
            }
        }
        for &vertex in &self.walked[best.3..] {
            let side = &mut halves.side[vertex as usize];
            *side = 1 - *side;
        }
        halves.cut = best.1;
        halves.over = best.2;
    }

    /// From the side that is over; from whichever gains more when neither is.
    fn next(&self, load: &[Vec<u64>; 2], room: [&[u64]; 2]) -> Option<u32> {
        let over = [0, 1].map(|side| over(&load[side], room[side]));
        let best = [0, 1].map(|side| self.queues[side].best());
        if over[0] > 0.0 && over[0] >= over[1] {
            return best[0].map(|(_, vertex)| vertex);
        }
        if over[1] > 0.0 {
            return best[1].map(|(_, vertex)| vertex);
        }
        match best {
            [Some(one), Some(other)] => Some(if one.0 >= other.0 { one.1 } else { other.1 }),
            [one, other] => one.or(other).map(|(_, vertex)| vertex),
        }
    }
}
