//! Graphs of who talks to whom, shaped like the NAS parallel benchmarks, by the rules of the project's measures: an edge
//! has a weight in some unit of bytes per second.
//!
//! Source: Bailey et al., "The NAS Parallel Benchmarks" (1991), for who talks to whom; weights as the measures set them.

use std::collections::BTreeMap;

/// Edges, each with its smaller end first.
pub type Edges = BTreeMap<(u32, u32), u64>;

/// Which benchmark's pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Nobody talks.
    Ep,
    /// Sums inside the rows of a grid by doubling, and one partner by transposition.
    Cg,
    /// A flat open grid.
    Lu,
    /// A closed grid in space, with coarser levels.
    Mg,
    /// A flat closed grid, with one diagonal.
    Bt,
    /// Everybody with everybody.
    Ft,
    /// Jobs of 4 to 64 of all of these.
    Mix,
}

impl Pattern {
    /// All, in the order of the measures.
    pub const ALL: [Self; 7] = [
        Self::Ep,
        Self::Cg,
        Self::Lu,
        Self::Mg,
        Self::Bt,
        Self::Ft,
        Self::Mix,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ep => "ep",
            Self::Cg => "cg",
            Self::Lu => "lu",
            Self::Mg => "mg",
            Self::Bt => "bt",
            Self::Ft => "ft",
            Self::Mix => "mix",
        }
    }

    /// Its edges between `count` domains, which is 1 or more.
    pub fn edges(self, count: u32) -> Edges {
        let mut edges = Edges::new();
        match self {
            Self::Ep => {}
            Self::Cg => cg(count, &mut edges),
            Self::Lu => lu(count, &mut edges),
            Self::Mg => mg(count, &mut edges),
            Self::Bt => bt(count, &mut edges),
            Self::Ft => {
                for one in 0..count {
                    for other in one + 1..count {
                        join(&mut edges, one, other, 1);
                    }
                }
            }
            Self::Mix => mix(count, &mut edges),
        }
        edges
    }
}

fn join(edges: &mut Edges, one: u32, other: u32, weight: u64) {
    if one != other {
        let pair = (one.min(other), one.max(other));
        *edges.entry(pair).or_default() += weight;
    }
}

/// The two factors nearest to a square, the smaller first.
fn flat(count: u32) -> (u32, u32) {
    let mut rows = count.isqrt().max(1);
    while !count.is_multiple_of(rows) {
        rows -= 1;
    }
    (rows, count / rows)
}

/// Three factors with the least surface, the first found among equals.
fn cubic(count: u32) -> (u32, u32, u32) {
    let most = f64::from(count).cbrt().round() as u32 + 1;
    (1..=most)
        .filter(|&deep| count.is_multiple_of(deep))
        .map(|deep| {
            let (rows, columns) = flat(count / deep);
            (deep, rows, columns)
        })
        .min_by_key(|&(deep, rows, columns)| deep * rows + deep * columns + rows * columns)
        .unwrap_or((1, 1, count))
}

fn cg(count: u32, edges: &mut Edges) {
    let (rows, columns) = flat(count);
    for row in 0..rows {
        for column in 0..columns {
            let own = row * columns + column;
            let mut stride = 1;
            while stride < columns {
                let partner = column ^ stride;
                if partner < columns && partner > column {
                    join(edges, own, row * columns + partner, 100);
                }
                stride *= 2;
            }
            let transposed = (column % rows) * columns + (row + (column / rows) * rows) % columns;
            if transposed > own {
                join(edges, own, transposed, 60);
            }
        }
    }
}

fn lu(count: u32, edges: &mut Edges) {
    let (rows, columns) = flat(count);
    for row in 0..rows {
        for column in 0..columns {
            let own = row * columns + column;
            if column + 1 < columns {
                join(edges, own, own + 1, 40);
            }
            if row + 1 < rows {
                join(edges, own, own + columns, 40);
            }
        }
    }
}

fn mg(count: u32, edges: &mut Edges) {
    let (deep, rows, columns) = cubic(count);
    let at = |x: u32, y: u32, z: u32| ((x % deep) * rows + y % rows) * columns + z % columns;
    let levels = (0..3).take_while(|&level| (1 << level) < deep.max(rows).max(columns));
    for level in levels {
        let stride = 1u32 << level;
        let weight = (64u64 >> (2 * level)).max(1);
        for x in (0..deep).step_by(stride as usize) {
            for y in (0..rows).step_by(stride as usize) {
                for z in (0..columns).step_by(stride as usize) {
                    join(edges, at(x, y, z), at(x + stride, y, z), weight);
                    join(edges, at(x, y, z), at(x, y + stride, z), weight);
                    join(edges, at(x, y, z), at(x, y, z + stride), weight);
                }
            }
        }
    }
}

fn bt(count: u32, edges: &mut Edges) {
    let (rows, columns) = flat(count);
    let at = |row: u32, column: u32| (row % rows) * columns + column % columns;
    for row in 0..rows {
        for column in 0..columns {
            let own = at(row, column);
            join(edges, own, at(row, column + 1), 50);
            join(edges, own, at(row + 1, column), 50);
            join(edges, own, at(row + 1, column + 1), 50);
        }
    }
}

fn mix(count: u32, edges: &mut Edges) {
    const SIZES: [u32; 7] = [4, 8, 8, 16, 16, 32, 64];
    const KINDS: [Pattern; 6] = [
        Pattern::Cg,
        Pattern::Lu,
        Pattern::Mg,
        Pattern::Bt,
        Pattern::Ft,
        Pattern::Ep,
    ];
    let mut first = 0;
    for job in 0.. {
        if first >= count {
            return;
        }
        let size = SIZES[job % SIZES.len()].min(count - first);
        for ((one, other), weight) in KINDS[job % KINDS.len()].edges(size) {
            edges.insert((first + one, first + other), weight);
        }
        first += size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Edges and weights as `bench/traffic/results.tsv` of the measures has them.
    #[test]
    fn the_graphs_are_those_of_the_measures() {
        for (pattern, count, edges, weight) in [
            (Pattern::Ep, 64, 0, 0),
            (Pattern::Cg, 4, 3, 260),
            (Pattern::Cg, 64, 124, 11_280),
            (Pattern::Cg, 1024, 3056, 285_760),
            (Pattern::Cg, 10_000, 36_550, 3_457_000),
            (Pattern::Lu, 8, 10, 400),
            (Pattern::Lu, 1024, 1984, 79_360),
            (Pattern::Lu, 10_000, 19_800, 792_000),
            (Pattern::Mg, 4, 4, 512),
            (Pattern::Mg, 8, 12, 1536),
            (Pattern::Mg, 64, 204, 12_672),
            (Pattern::Mg, 1024, 3488, 202_944),
            (Pattern::Mg, 10_000, 34_425, 1_984_500),
            (Pattern::Bt, 4, 6, 600),
            (Pattern::Bt, 8, 20, 1200),
            (Pattern::Bt, 1024, 3072, 153_600),
            (Pattern::Bt, 10_000, 30_000, 1_500_000),
            (Pattern::Ft, 64, 2016, 2016),
            (Pattern::Ft, 1024, 523_776, 523_776),
            (Pattern::Mix, 8, 7, 420),
            (Pattern::Mix, 64, 193, 4716),
            (Pattern::Mix, 1024, 4412, 100_606),
            (Pattern::Mix, 10_000, 45_776, 970_642),
        ] {
            let made = pattern.edges(count);
            assert_eq!(
                (made.len(), made.values().sum::<u64>()),
                (edges, weight),
                "{} of {count}",
                pattern.name()
            );
        }
    }
}
