//! A whole placement that changes step by step: what each host holds, and what single moves and swaps gain.

use std::collections::{BTreeMap, VecDeque};

use super::dice::Dice;
use super::problem::{NOWHERE, Problem};
use super::sizes::{Sizes, fits, fits_for};

/// Who is where.
pub struct Placing<'a> {
    pub problem: &'a Problem,
    host: Vec<u32>,
    load: Sizes,
    members: Vec<Vec<u32>>,
    /// Where each vertex stands among its host's members.
    seat: Vec<u32>,
    /// Hosts of each site; empty where there is but one.
    sites: Vec<Vec<u32>>,
    /// How many of each group are on a host.
    grouped: BTreeMap<(u32, u32), u32>,
    /// For those that talk to many, what ties them to each host; empty for the others.
    tables: Vec<Vec<i64>>,
    /// Who is in the queue of a settling.
    waits: Vec<bool>,
    ties: Ties,
    /// Candidates looked at.
    pub work: u64,
}

/// What ties one vertex to hosts, sites and other vertices.
struct Ties {
    of_host: Vec<i64>,
    of_site: Vec<i64>,
    of_vertex: Vec<i64>,
    /// Hosts that it is tied to, and in the end all that could gain.
    hosts: Vec<u32>,
}

/// The best that was found for a vertex.
#[derive(Clone, Copy)]
struct Change {
    /// What it gains, and, for where that is nothing, how many more are at home then.
    gain: (i64, i64),
    to: u32,
    against: Option<u32>,
}

impl<'a> Placing<'a> {
    /// From where each is.
    pub fn new(problem: &'a Problem, host: Vec<u32>) -> Self {
        let hosts = problem.rooms.len();
        let mut load = Sizes::equal(hosts, &vec![0; problem.sizes.kinds()]);
        let mut members = vec![Vec::new(); hosts];
        let mut seat = vec![0; host.len()];
        for (vertex, &at) in host.iter().enumerate() {
            load.add(at as usize, problem.sizes.of(vertex));
            seat[vertex] = members[at as usize].len() as u32;
            members[at as usize].push(vertex as u32);
        }
        let count = problem
            .site_of
            .iter()
            .max()
            .map_or(0, |&last| last as usize + 1);
        let mut sites = vec![Vec::new(); count];
        for (host, &site) in problem.site_of.iter().enumerate() {
            sites[site as usize].push(host as u32);
        }
        if count < 2 {
            sites.clear();
        }
        let mut placing = Self {
            problem,
            load,
            members,
            seat,
            sites,
            grouped: BTreeMap::new(),
            tables: tables(problem, &host),
            waits: vec![false; host.len()],
            ties: Ties {
                of_host: vec![0; hosts],
                of_site: vec![0; count],
                of_vertex: vec![0; host.len()],
                hosts: Vec::new(),
            },
            host,
            work: 0,
        };
        for vertex in 0..placing.host.len() as u32 {
            placing.count_groups(vertex, placing.host[vertex as usize], true);
        }
        placing
    }

    fn count_groups(&mut self, vertex: u32, host: u32, there: bool) {
        for &group in self.problem.groups(vertex) {
            let count = self.grouped.entry((group, host)).or_default();
            *count = if there { *count + 1 } else { *count - 1 };
        }
    }

    /// Where each is.
    pub fn hosts(&self) -> &[u32] {
        &self.host
    }

    /// What is on a host.
    pub fn members(&self, host: u32) -> &[u32] {
        &self.members[host as usize]
    }

    /// Whether a host holds more than there is room for.
    pub fn is_over(&self, host: u32) -> bool {
        let host = host as usize;
        let mut kinds = self.load.of(host).iter().zip(self.problem.rooms.of(host));
        kinds.any(|(load, room)| load > room)
    }

    /// Whether more is there than fits of something that `member` has some of, or it may not be there.
    pub fn is_over_by(&self, host: u32, member: u32) -> bool {
        let size = self.problem.sizes.of(member as usize);
        let host = host as usize;
        let mut kinds = self
            .load
            .of(host)
            .iter()
            .zip(self.problem.rooms.of(host))
            .zip(size);
        kinds.any(|((load, room), &size)| size > 0 && load > room) || self.clashes(member)
    }

    /// Whether a member of a host may not be there together with another.
    pub fn clashes(&self, member: u32) -> bool {
        let host = self.host[member as usize];
        let mut groups = self.problem.groups(member).iter();
        groups.any(|&group| {
            self.grouped
                .get(&(group, host))
                .is_some_and(|&count| count > 1)
        })
    }

    /// Whether any two members of a host may not be there together.
    pub fn has_clash(&self, host: u32) -> bool {
        !self.problem.apart.is_empty()
            && self.members[host as usize]
                .iter()
                .any(|&member| self.clashes(member))
    }

    /// Whether there are fewer of what a host has too much of when `other` is there instead of `member`, and nothing else
    /// becomes too much.
    pub fn relieves(&self, member: u32, other: u32) -> bool {
        let host = self.host[member as usize];
        let [leaves, comes] = [member, other].map(|vertex| self.problem.sizes.of(vertex as usize));
        let kinds = self.load.of(host as usize).iter();
        let mut kinds = kinds
            .zip(self.problem.rooms.of(host as usize))
            .zip(leaves.iter().zip(comes));
        let mut relieved = self.clashes(member);
        let within = kinds.all(|((&load, &room), (&leaves, &comes))| {
            relieved |= load > room && comes < leaves;
            comes <= leaves || load - leaves + comes <= room
        });
        within
            && relieved
            && self.problem.may(other, host)
            && self.apart_from(other, host, Some(member))
    }

    /// Whether every rule holds everywhere.
    pub fn keeps_rules(&self) -> bool {
        let hosts: Vec<u32> = (0..self.members.len() as u32).collect();
        self.keeps_rules_on(&hosts)
    }

    /// Whether every rule holds on some hosts.
    pub fn keeps_rules_on(&self, hosts: &[u32]) -> bool {
        hosts.iter().all(|&host| {
            let mut members = self.members(host).iter();
            !self.is_over(host)
                && !self.has_clash(host)
                && members.all(|&member| self.problem.may(member, host))
        })
    }

    /// Whether a vertex may come to a host beside all that is there.
    pub fn admits(&self, vertex: u32, to: u32) -> bool {
        let size = self.problem.sizes.of(vertex as usize);
        self.problem.may(vertex, to)
            && fits(
                size,
                self.load.of(to as usize),
                self.problem.rooms.of(to as usize),
            )
            && self.apart_from(vertex, to, None)
    }

    /// Whether it may come to a host once `leaving` has left there.
    pub fn admits_for(&self, vertex: u32, to: u32, leaving: u32) -> bool {
        let [size, gone] = [vertex, leaving].map(|vertex| self.problem.sizes.of(vertex as usize));
        self.problem.may(vertex, to)
            && fits_for(
                size,
                gone,
                self.load.of(to as usize),
                self.problem.rooms.of(to as usize),
            )
            && self.apart_from(vertex, to, Some(leaving))
    }

    fn apart_from(&self, vertex: u32, host: u32, leaving: Option<u32>) -> bool {
        self.problem.groups(vertex).iter().all(|group| {
            let there = self.grouped.get(&(*group, host)).copied().unwrap_or(0);
            let leaves =
                leaving.is_some_and(|leaving| self.problem.groups(leaving).contains(group));
            there == u32::from(leaves)
        })
    }

    /// What crosses hosts, that between sites counted `far` times, and what is paid for being elsewhere.
    pub fn cost(&self) -> i64 {
        let mut cost = 0;
        for (vertex, &host) in self.host.iter().enumerate() {
            for &(to, weight) in self.problem.graph.of(vertex) {
                if (to as usize) > vertex {
                    cost += weight * self.problem.distance(host, self.host[to as usize]);
                }
            }
            cost += self.problem.price(vertex as u32, host);
        }
        cost
    }

    /// Puts a vertex elsewhere, whether there is room or not.
    pub fn put(&mut self, vertex: u32, to: u32) {
        let from = std::mem::replace(&mut self.host[vertex as usize], to);
        self.count_groups(vertex, from, false);
        self.count_groups(vertex, to, true);
        if from != to {
            for &(other, weight) in self.problem.graph.of(vertex as usize) {
                let table = &mut self.tables[other as usize];
                if !table.is_empty() {
                    table[from as usize] -= weight;
                    table[to as usize] += weight;
                }
            }
        }
        let size = self.problem.sizes.of(vertex as usize);
        self.load.take(from as usize, size);
        self.load.add(to as usize, size);
        let seat = self.seat[vertex as usize] as usize;
        self.members[from as usize].swap_remove(seat);
        if let Some(&moved) = self.members[from as usize].get(seat) {
            self.seat[moved as usize] = seat as u32;
        }
        self.seat[vertex as usize] = self.members[to as usize].len() as u32;
        self.members[to as usize].push(vertex);
    }

    /// Moves and swaps until none of one or two vertices gains anything, or brings one home for nothing.
    pub fn settle(&mut self, dice: &mut Dice) {
        // What leaves makes room for others than those that it talked to: hence all again.
        loop {
            let all = dice.order(self.host.len());
            if !self.settle_from(&all) {
                return;
            }
        }
    }

    /// Looks at some, and from there at all that they talk to; whether anything changed.
    pub fn settle_from(&mut self, first: &[u32]) -> bool {
        let mut waiting: VecDeque<u32> = first.iter().copied().collect();
        for &vertex in first {
            self.waits[vertex as usize] = true;
        }
        let mut changed = false;
        while let Some(vertex) = waiting.pop_front() {
            self.waits[vertex as usize] = false;
            let Some(change) = self.best_change(vertex) else {
                continue;
            };
            changed = true;
            let from = self.host[vertex as usize];
            self.put(vertex, change.to);
            if let Some(other) = change.against {
                self.put(other, from);
            }
            for moved in [Some(vertex), change.against].into_iter().flatten() {
                let row = self.problem.graph.of(moved as usize).iter();
                for next in row.map(|&(to, _)| to).chain([moved]) {
                    if !std::mem::replace(&mut self.waits[next as usize], true) {
                        waiting.push_back(next);
                    }
                }
            }
        }
        changed
    }

    fn gather(&mut self, vertex: u32) {
        for &(to, weight) in self.problem.graph.of(vertex as usize) {
            let host = self.host[to as usize];
            if self.ties.of_host[host as usize] == 0 {
                self.ties.hosts.push(host);
            }
            self.ties.of_host[host as usize] += weight;
            self.ties.of_site[self.problem.site_of[host as usize] as usize] += weight;
            self.ties.of_vertex[to as usize] = weight;
        }
    }

    fn forget(&mut self, vertex: u32) {
        for &(to, _) in self.problem.graph.of(vertex as usize) {
            self.ties.of_vertex[to as usize] = 0;
        }
        for host in std::mem::take(&mut self.ties.hosts) {
            self.ties.of_host[host as usize] = 0;
            self.ties.of_site[self.problem.site_of[host as usize] as usize] = 0;
        }
    }

    /// What speaks for a host for the gathered vertex.
    fn pull(&self, vertex: u32, host: u32) -> i64 {
        let site = self.problem.site_of[host as usize] as usize;
        self.ties.of_host[host as usize] + (self.problem.far - 1) * self.ties.of_site[site]
            - self.problem.price(vertex, host)
    }

    /// The best move or swap of a vertex that gains anything.
    fn best_change(&mut self, vertex: u32) -> Option<Change> {
        self.gather(vertex);
        let from = self.host[vertex as usize];
        let here = self.pull(vertex, from);
        let tied = self.ties.hosts.len();
        self.add_untied(vertex);
        let mut best: Option<Change> = None;
        for place in 0..self.ties.hosts.len() {
            let to = self.ties.hosts[place];
            if to == from {
                continue;
            }
            let gain = self.pull(vertex, to) - here;
            let homeward = self.homeward(vertex, to);
            self.work += 1;
            if self.admits(vertex, to) {
                let gain = (gain, homeward);
                if gain > best.map_or((0, 0), |best| best.gain) {
                    best = Some(Change {
                        gain,
                        to,
                        against: None,
                    });
                }
                continue;
            }
            if !self.problem.may(vertex, to) || (place >= tied && gain < 0) {
                continue;
            }
            for &other in &self.members[to as usize] {
                self.work += 1;
                if !self.admits_for(vertex, to, other) || !self.admits_for(other, from, vertex) {
                    continue;
                }
                let between = self.ties.of_vertex[other as usize];
                let both = 2 * between * self.problem.distance(from, to);
                let gain = (
                    gain + self.gain(other, from) - both,
                    homeward + self.homeward(other, from),
                );
                if gain > best.map_or((0, 0), |best| best.gain) {
                    best = Some(Change {
                        gain,
                        to,
                        against: Some(other),
                    });
                }
            }
        }
        self.ties.hosts.truncate(tied);
        self.forget(vertex);
        best
    }

    /// Where a vertex could gain without being tied to anybody there: at home, and on any host of a site where it is
    /// tied to more than in its own.
    fn add_untied(&mut self, vertex: u32) {
        let start = self.problem.start[vertex as usize];
        if start != NOWHERE {
            self.ties.hosts.push(start);
        }
        if self.problem.far > 1 && !self.sites.is_empty() {
            let own = self.problem.site_of[self.host[vertex as usize] as usize] as usize;
            for site in 0..self.sites.len() {
                if self.ties.of_site[site] > self.ties.of_site[own] {
                    self.ties.hosts.extend_from_slice(&self.sites[site]);
                }
            }
        }
    }

    /// Whether a vertex comes home (1), leaves it (-1), or neither.
    fn homeward(&self, vertex: u32, to: u32) -> i64 {
        let start = self.problem.start[vertex as usize];
        i64::from(start == to) - i64::from(start == self.host[vertex as usize])
    }

    /// What a vertex gains by going elsewhere.
    pub fn gain(&self, vertex: u32, to: u32) -> i64 {
        let from = self.host[vertex as usize];
        let row = self.problem.graph.of(vertex as usize);
        let mut gain = self.problem.price(vertex, from) - self.problem.price(vertex, to);
        let one_site = self.problem.site_of[from as usize] == self.problem.site_of[to as usize];
        let table = &self.tables[vertex as usize];
        if one_site && !table.is_empty() {
            return gain + table[to as usize] - table[from as usize];
        }
        for &(other, weight) in row {
            let other = self.host[other as usize];
            gain +=
                weight * (self.problem.distance(from, other) - self.problem.distance(to, other));
        }
        gain
    }
}

/// Those that talk to more than this many have a table.
const MANY: usize = 128;
/// As long as all tables together have no more places than this.
const MOST_PLACES: usize = 1 << 24;

fn tables(problem: &Problem, host: &[u32]) -> Vec<Vec<i64>> {
    let mut left = MOST_PLACES;
    (0..host.len())
        .map(|vertex| {
            let row = problem.graph.of(vertex);
            let hosts = problem.rooms.len();
            if row.len() <= MANY || left < hosts {
                return Vec::new();
            }
            left -= hosts;
            let mut table = vec![0; hosts];
            for &(to, weight) in row {
                table[host[to as usize] as usize] += weight;
            }
            table
        })
        .collect()
}
