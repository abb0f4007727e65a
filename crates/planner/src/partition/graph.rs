//! Who talks to whom, as rows of neighbours one after another.

/// Weights above this are counted as this: sums over 2^20 pairs, ten times, still fit.
const HEAVIEST: u64 = 1 << 38;

/// An undirected graph with whole weights, without loops, each pair once in the row of either end.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    first: Vec<u32>,
    ends: Vec<(u32, i64)>,
}

impl Graph {
    /// From pairs in any order; a pair that is there twice is added up, one of a vertex with itself is left out.
    ///
    /// # Panics
    /// If a pair names a vertex that is not there.
    pub fn of_pairs(vertices: usize, pairs: &[(u32, u32, u64)]) -> Self {
        let clean = |&(one, other, weight): &(u32, u32, u64)| {
            (one != other && weight > 0).then(|| (one, other, weight.min(HEAVIEST) as i64))
        };
        let mut first = vec![0u32; vertices + 1];
        for (one, other, _) in pairs.iter().filter_map(clean) {
            first[one as usize + 1] += 1;
            first[other as usize + 1] += 1;
        }
        for vertex in 0..vertices {
            first[vertex + 1] += first[vertex];
        }
        let mut ends = vec![(0, 0); first[vertices] as usize];
        let mut next = first.clone();
        for (one, other, weight) in pairs.iter().filter_map(clean) {
            for (from, to) in [(one, other), (other, one)] {
                ends[next[from as usize] as usize] = (to, weight);
                next[from as usize] += 1;
            }
        }
        Self { first, ends }.merged()
    }

    /// Rows sorted, equal neighbours added up.
    fn merged(mut self) -> Self {
        let mut kept = 0;
        let mut begin = 0;
        for vertex in 0..self.vertices() {
            let end = self.first[vertex + 1] as usize;
            self.ends[begin..end].sort_unstable_by_key(|&(to, _)| to);
            let row = kept;
            for place in begin..end {
                let (to, weight) = self.ends[place];
                if kept > row && self.ends[kept - 1].0 == to {
                    self.ends[kept - 1].1 += weight;
                } else {
                    self.ends[kept] = (to, weight);
                    kept += 1;
                }
            }
            begin = end;
            self.first[vertex + 1] = kept as u32;
        }
        self.ends.truncate(kept);
        self
    }

    /// How many vertices.
    pub fn vertices(&self) -> usize {
        self.first.len().saturating_sub(1)
    }

    /// Neighbours of a vertex with the weight between, in order of their numbers but for graphs that were put together
    /// by [`Graph::contracted`].
    pub fn of(&self, vertex: usize) -> &[(u32, i64)] {
        &self.ends[self.first[vertex] as usize..self.first[vertex + 1] as usize]
    }

    /// The graph between `members` alone, which are numbered by their order.
    ///
    /// `number` has a place for each vertex of this graph; all `u32::MAX` before and after.
    pub fn between(&self, members: &[u32], number: &mut [u32]) -> Self {
        for (new, &old) in members.iter().enumerate() {
            number[old as usize] = new as u32;
        }
        let mut graph = Self {
            first: Vec::with_capacity(members.len() + 1),
            ends: Vec::new(),
        };
        graph.first.push(0);
        for &old in members {
            let inside = self.of(old as usize).iter();
            graph.ends.extend(inside.filter_map(|&(to, weight)| {
                let new = number[to as usize];
                (new != u32::MAX).then_some((new, weight))
            }));
            graph.first.push(graph.ends.len() as u32);
        }
        for &old in members {
            number[old as usize] = u32::MAX;
        }
        graph
    }

    /// The graph in which the vertices of one group are one: `of_group` names each vertex's group, below `groups`.
    pub fn contracted(&self, of_group: &[u32], groups: usize) -> Self {
        let mut starts = vec![0u32; groups + 1];
        for &group in of_group {
            starts[group as usize + 1] += 1;
        }
        for group in 0..groups {
            starts[group + 1] += starts[group];
        }
        let mut next = starts.clone();
        let mut sorted = vec![0u32; of_group.len()];
        for (vertex, &group) in of_group.iter().enumerate() {
            sorted[next[group as usize] as usize] = vertex as u32;
            next[group as usize] += 1;
        }
        let mut place = vec![u32::MAX; groups];
        let mut graph = Self {
            first: Vec::with_capacity(groups + 1),
            ends: Vec::with_capacity(self.ends.len() / 2),
        };
        graph.first.push(0);
        for group in 0..groups {
            let row = graph.ends.len();
            for &vertex in &sorted[starts[group] as usize..starts[group + 1] as usize] {
                for &(to, weight) in self.of(vertex as usize) {
                    let other = of_group[to as usize];
                    if other as usize == group {
                        continue;
                    }
                    let at = place[other as usize];
                    if at != u32::MAX && at as usize >= row {
                        graph.ends[at as usize].1 += weight;
                    } else {
                        place[other as usize] = graph.ends.len() as u32;
                        graph.ends.push((other, weight));
                    }
                }
            }
            graph.first.push(graph.ends.len() as u32);
        }
        graph
    }

    /// Vertices that reach each other, each set in order of its numbers, the sets in order of their first.
    pub fn components(&self) -> Vec<Vec<u32>> {
        let mut seen = vec![false; self.vertices()];
        let mut all = Vec::new();
        for start in 0..self.vertices() {
            if std::mem::replace(&mut seen[start], true) {
                continue;
            }
            let mut component = vec![start as u32];
            let mut looked = 0;
            while looked < component.len() {
                for &(to, _) in self.of(component[looked] as usize) {
                    if !std::mem::replace(&mut seen[to as usize], true) {
                        component.push(to);
                    }
                }
                looked += 1;
            }
            component.sort_unstable();
            all.push(component);
        }
        all
    }

    /// Weight of all pairs together.
    pub fn weight(&self) -> i64 {
        self.ends.iter().map(|&(_, weight)| weight).sum::<i64>() / 2
    }

    /// Weight of the pairs whose ends have different words.
    pub fn cut<T: PartialEq>(&self, words: &[T]) -> i64 {
        let mut cut = 0;
        for vertex in 0..self.vertices() {
            for &(to, weight) in self.of(vertex) {
                if words[vertex] != words[to as usize] {
                    cut += weight;
                }
            }
        }
        cut / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Graph {
        Graph::of_pairs(5, &[(0, 1, 3), (2, 1, 5), (1, 0, 1), (2, 2, 9), (3, 4, 7)])
    }

    #[test]
    fn pairs_are_added_up_and_loops_left_out() {
        let graph = path();
        assert_eq!(graph.of(0), [(1, 4)]);
        assert_eq!(graph.of(1), [(0, 4), (2, 5)]);
        assert_eq!(graph.weight(), 16);
        assert_eq!(graph.components(), [vec![0, 1, 2], vec![3, 4]]);
    }

    #[test]
    fn a_part_and_a_contraction_keep_what_is_between() {
        let graph = path();
        let mut number = vec![u32::MAX; 5];
        let part = graph.between(&[2, 1, 4], &mut number);
        assert_eq!(part.of(0), [(1, 5)]);
        assert_eq!(part.weight(), 5);
        assert!(number.iter().all(|&number| number == u32::MAX));
        let joined = graph.contracted(&[0, 0, 1, 1, 2], 3);
        assert_eq!(joined.weight(), 12);
        assert_eq!(joined.of(0), [(1, 5)]);
    }

    #[test]
    fn what_is_cut_is_counted_once() {
        assert_eq!(path().cut(&[0, 0, 1, 1, 0]), 12);
    }
}
