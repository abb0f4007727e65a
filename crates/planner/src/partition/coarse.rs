//! A smaller graph that looks alike: vertices joined in pairs along their heaviest edges.
//!
//! Source: Karypis and Kumar, "A Fast and High Quality Multilevel Scheme for Partitioning Irregular Graphs" (1998),
//! section 3.1, heavy-edge matching.

use super::dice::Dice;
use super::graph::Graph;
use super::sizes::{Sizes, fits};

/// A graph, and which vertex of it each vertex of the larger one became.
pub struct Coarse {
    pub graph: Graph,
    pub sizes: Sizes,
    pub of: Vec<u32>,
}

/// Joins pairs whose size together is at most `largest`; none when that leaves nearly as many vertices as before.
pub fn coarsened(graph: &Graph, sizes: &Sizes, largest: &[u64], dice: &mut Dice) -> Option<Coarse> {
    let number = graph.vertices();
    let mut of = vec![u32::MAX; number];
    let mut groups = 0u32;
    for vertex in dice.order(number) {
        let vertex = vertex as usize;
        if of[vertex] != u32::MAX {
            continue;
        }
        let size = sizes.of(vertex);
        let mut mate: Option<(i64, u32)> = None;
        let row = graph.of(vertex);
        // Equal weights are common: where the row is begun decides then.
        let begin = if row.is_empty() {
            0
        } else {
            dice.below(row.len())
        };
        for &(to, weight) in row[begin..].iter().chain(&row[..begin]) {
            let free = of[to as usize] == u32::MAX;
            if free
                && mate.is_none_or(|(best, _)| weight > best)
                && fits(size, sizes.of(to as usize), largest)
            {
                mate = Some((weight, to));
            }
        }
        of[vertex] = groups;
        if let Some((_, to)) = mate {
            of[to as usize] = groups;
        }
        groups += 1;
    }
    if groups as usize * 20 > number * 19 {
        return None;
    }
    let mut joined = Sizes::equal(groups as usize, &vec![0; sizes.kinds()]);
    for (vertex, &group) in of.iter().enumerate() {
        joined.add(group as usize, sizes.of(vertex));
    }
    Some(Coarse {
        graph: graph.contracted(&of, groups as usize),
        sizes: joined,
        of,
    })
}
