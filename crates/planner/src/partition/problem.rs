//! What is to be partitioned, and what must hold.

use super::graph::Graph;
use super::sizes::Sizes;

/// No host.
pub const NOWHERE: u32 = u32::MAX;

/// A graph, rooms, where everything is, and what must hold.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Who talks to whom.
    pub graph: Graph,
    /// What each vertex takes.
    pub sizes: Sizes,
    /// What each host has, in the same kinds.
    pub rooms: Sizes,
    /// The site of each host. Hosts of one site stand side by side.
    pub site_of: Vec<u32>,
    /// How many times as much a byte costs between sites as within one; 1 or more.
    pub far: i64,
    /// Where each is now, or [`NOWHERE`].
    pub start: Vec<u32>,
    /// What is paid when it is elsewhere in the end, in the unit of the graph's weights.
    pub price: Vec<i64>,
    /// The class of each vertex.
    pub class_of: Vec<u32>,
    /// Which hosts each class may be on; a class without a row may be on all.
    pub open: Vec<Vec<bool>>,
    /// Those that stay where they are; empty: nobody has to.
    pub still: Vec<bool>,
    /// Groups that each vertex is of, of which no two may be on one host; empty: nobody is of any.
    pub apart: Vec<Vec<u32>>,
}

impl Problem {
    /// With nothing placed, no prices, one site, and no rules but room.
    pub fn new(graph: Graph, sizes: Sizes, rooms: Sizes) -> Self {
        let vertices = graph.vertices();
        Self {
            graph,
            sizes,
            site_of: vec![0; rooms.len()],
            rooms,
            far: 1,
            start: vec![NOWHERE; vertices],
            price: vec![0; vertices],
            class_of: vec![0; vertices],
            open: Vec::new(),
            still: Vec::new(),
            apart: Vec::new(),
        }
    }

    /// Whether a vertex may be there, room aside. Where it is now it may stay.
    pub fn may(&self, vertex: u32, host: u32) -> bool {
        let start = self.start[vertex as usize];
        if start == host {
            return true;
        }
        if start != NOWHERE && self.still.get(vertex as usize) == Some(&true) {
            return false;
        }
        match self.open.get(self.class_of[vertex as usize] as usize) {
            None => true,
            Some(open) => open[host as usize],
        }
    }

    /// The groups that a vertex is of.
    pub fn groups(&self, vertex: u32) -> &[u32] {
        match self.apart.is_empty() {
            true => &[],
            false => &self.apart[vertex as usize],
        }
    }

    /// What a byte between these two hosts costs.
    pub fn distance(&self, one: u32, other: u32) -> i64 {
        let site = |host: u32| self.site_of[host as usize];
        match (one == other, site(one) == site(other)) {
            (true, _) => 0,
            (_, true) => 1,
            _ => self.far,
        }
    }

    /// What is paid when a vertex is there in the end.
    pub fn price(&self, vertex: u32, host: u32) -> i64 {
        let start = self.start[vertex as usize];
        if start == host || start == NOWHERE {
            0
        } else {
            self.price[vertex as usize]
        }
    }
}
