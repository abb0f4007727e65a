//! Memory that replicas would need: how much each host must keep free for the worst failure of one other.

use estive_world::{DomainIx, HostIx, Indexed};

use crate::books::{Books, MEMORY};
use crate::places::Change;

/// Of a world with more hosts than this no table is kept.
const HOSTS: usize = 512;
/// The largest of each row that are kept in order.
const LARGEST: usize = 3;

/// For each host, what it would need if each other failed.
#[derive(Debug, Clone)]
pub(super) struct Owed {
    hosts: usize,
    /// By host, then by the one that fails.
    rows: Vec<u64>,
    /// The largest of each row, and whose failures they are.
    largest: Vec<[(u64, HostIx); LARGEST]>,
}

/// That so much more or less would be needed at one host if another failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owing {
    at: HostIx,
    failing: HostIx,
    by: i64,
}

impl Owed {
    /// Of a state; none if nothing has a replica, or there are too many hosts.
    pub(super) fn new(books: &Books<'_>) -> Option<Self> {
        let hosts = books.nowhere().at();
        if !books.replicated() || hosts > HOSTS {
            return None;
        }
        let mut owed = Self {
            hosts,
            rows: vec![0; hosts * hosts],
            largest: vec![[(0, books.nowhere()); LARGEST]; hosts],
        };
        for (number, &spot) in books.places.spots().iter().enumerate() {
            if spot.host != books.nowhere() && spot.replica != books.nowhere() {
                let memory = books.ground.rooms.live(DomainIx::of(number)).0[MEMORY];
                owed.rows[spot.replica.at() * hosts + spot.host.at()] += memory;
            }
        }
        for host in 0..hosts {
            owed.sort(host);
        }
        Some(owed)
    }

    fn sort(&mut self, host: usize) {
        let mut largest = [(0, HostIx::of(self.hosts)); LARGEST];
        let row = &self.rows[host * self.hosts..][..self.hosts];
        for (failing, &memory) in row.iter().enumerate() {
            if memory <= largest[LARGEST - 1].0 {
                continue;
            }
            let at = largest.iter().position(|entry| memory > entry.0);
            let at = at.unwrap_or(LARGEST - 1);
            largest[at..].rotate_right(1);
            largest[at] = (memory, HostIx::of(failing));
        }
        self.largest[host] = largest;
    }

    /// What a host must keep free.
    pub(super) fn due(&self, host: HostIx) -> u64 {
        self.largest
            .get(host.at())
            .map_or(0, |largest| largest[0].0)
    }

    /// The same after some changes.
    pub(super) fn due_with(&self, host: HostIx, owing: &[Owing]) -> u64 {
        let Some(largest) = self.largest.get(host.at()) else {
            return 0;
        };
        let row = &self.rows[host.at() * self.hosts..][..self.hosts];
        let is_here = |owing: &&Owing| owing.at == host;
        let (mut most, mut touched) = (0, 0);
        for one in owing.iter().filter(is_here) {
            let all = owing.iter().filter(is_here);
            let by: i64 = all
                .filter(|other| other.failing == one.failing)
                .map(|other| other.by)
                .sum();
            most = most.max(row[one.failing.at()] as i64 + by);
            touched += 1;
        }
        let is_touched = |failing: HostIx| {
            owing
                .iter()
                .filter(is_here)
                .any(|one| one.failing == failing)
        };
        let unchanged = largest.iter().find(|entry| !is_touched(entry.1));
        let unchanged = match unchanged {
            Some(entry) => entry.0,
            // Only where more change than are kept in order.
            None if touched >= LARGEST => (row.iter().enumerate())
                .filter(|(failing, _)| !is_touched(HostIx::of(*failing)))
                .map(|(_, &memory)| memory)
                .max()
                .unwrap_or(0),
            None => 0,
        };
        (most.max(0) as u64).max(unchanged)
    }

    /// Follows a change; `books` are as they are before it.
    pub(super) fn apply(&mut self, books: &Books<'_>, change: Change) {
        let (list, count) = owing(books, &[change]);
        for one in &list[..count] {
            let place = one.at.at() * self.hosts + one.failing.at();
            self.rows[place] = (self.rows[place] as i64 + one.by) as u64;
            self.sort(one.at.at());
        }
    }
}

/// What one or two changes make hosts owe each other more or less: so many of the first of the list.
pub(super) fn owing(books: &Books<'_>, changes: &[Change]) -> ([Owing; 4], usize) {
    let nowhere = books.nowhere();
    let none = Owing {
        at: nowhere,
        failing: nowhere,
        by: 0,
    };
    let (mut list, mut count) = ([none; 4], 0);
    for change in changes {
        let memory = books.ground.rooms.live(change.domain).0[MEMORY] as i64;
        let old = books.places.spot(change.domain);
        for (spot, by) in [(old, -memory), (change.to, memory)] {
            if spot.host != nowhere && spot.replica != nowhere {
                list[count] = Owing {
                    at: spot.replica,
                    failing: spot.host,
                    by,
                };
                count += 1;
            }
        }
    }
    (list, count)
}
