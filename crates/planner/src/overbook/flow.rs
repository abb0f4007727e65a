//! A maximum flow (Edmonds and Karp): shortest ways, until there is none.

use std::collections::VecDeque;

/// A network with what flows in it.
pub struct Flow {
    /// By node: its edges.
    out: Vec<Vec<usize>>,
    /// Where each edge goes and what it still takes; each is followed by its opposite.
    edges: Vec<(usize, u64)>,
}

impl Flow {
    pub fn new(nodes: usize) -> Self {
        Self {
            out: vec![Vec::new(); nodes],
            edges: Vec::new(),
        }
    }

    /// Adds an edge, which has this number then.
    pub fn edge(&mut self, from: usize, to: usize, room: u64) -> usize {
        let number = self.edges.len();
        self.out[from].push(number);
        self.out[to].push(number + 1);
        self.edges.push((to, room));
        self.edges.push((from, 0));
        number
    }

    /// What flows on an edge.
    pub fn on(&self, edge: usize) -> u64 {
        self.edges[edge + 1].1
    }

    /// Pushes as much as there can flow.
    pub fn most(&mut self, source: usize, sink: usize) -> u64 {
        let mut all = 0;
        loop {
            let mut by: Vec<Option<usize>> = vec![None; self.out.len()];
            let mut queue = VecDeque::from([source]);
            while let Some(node) = queue.pop_front()
                && by[sink].is_none()
            {
                for &edge in &self.out[node] {
                    let (to, room) = self.edges[edge];
                    if room > 0 && to != source && by[to].is_none() {
                        by[to] = Some(edge);
                        queue.push_back(to);
                    }
                }
            }
            let mut amount = u64::MAX;
            let mut node = sink;
            while let Some(edge) = by[node] {
                amount = amount.min(self.edges[edge].1);
                node = self.edges[edge ^ 1].0;
            }
            if node != source {
                return all;
            }
            let mut node = sink;
            while let Some(edge) = by[node] {
                self.edges[edge].1 -= amount;
                self.edges[edge ^ 1].1 += amount;
                node = self.edges[edge ^ 1].0;
            }
            all += amount;
        }
    }
}
