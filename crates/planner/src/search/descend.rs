//! The best single change, again and again.
//!
//! A queue holds what each domain was last seen to gain. The first are looked at anew until one is found that gains no
//! less than the next was last seen to; it is made, and the guests of the hosts that it touched are looked at anew.
//! What the queue has not seen change is found in a last pass over all domains; only when that finds nothing is it done.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use estive_world::{DomainIx, HostIx, Indexed};

use super::seeker::Seeker;
use crate::objectives::Value;
use crate::places::{Change, Spot};

/// So many of the first are looked at anew before the best of them is taken.
const LOOKS: u32 = 24;
/// On hosts with more guests than this, not all are looked at anew after each change.
const GUESTS: usize = 64;

/// A place in the queue.
#[derive(Clone, Copy)]
struct Entry {
    broken: i64,
    rank: f64,
    domain: DomainIx,
    /// Of the domain when this was seen: an older one is void.
    version: u32,
}

impl Entry {
    fn new(domain: DomainIx, version: u32, value: &Value) -> Self {
        Self {
            broken: value.broken,
            rank: value.ranks[0],
            domain,
            version,
        }
    }
}

impl Ord for Entry {
    /// The greatest is the one that gains most; among equals the one with the smallest number.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.broken.cmp(&self.broken))
            .then_with(|| other.rank.total_cmp(&self.rank))
            .then_with(|| other.domain.cmp(&self.domain))
            .then_with(|| self.version.cmp(&other.version))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

/// What domains were last seen to gain.
#[derive(Clone, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Entry>,
    versions: Vec<u32>,
}

impl Queue {
    pub(super) fn new(domains: usize) -> Self {
        Self {
            heap: BinaryHeap::with_capacity(domains),
            versions: vec![0; domains],
        }
    }

    /// Looks at a domain anew.
    pub(super) fn look(
        &mut self,
        seeker: &mut Seeker<'_>,
        domain: DomainIx,
    ) -> Option<(Value, Spot)> {
        let found = seeker.best_of(domain);
        let version = &mut self.versions[domain.at()];
        *version += 1;
        if let Some((value, _)) = &found {
            self.heap.push(Entry::new(domain, *version, value));
        }
        found
    }

    /// Looks at all guests of some hosts anew.
    pub(super) fn look_around(&mut self, seeker: &mut Seeker<'_>, hosts: &[HostIx]) {
        for &host in hosts {
            if host == seeker.ledger().books().nowhere() {
                continue;
            }
            let guests = seeker.ledger().books().places.guests(host);
            let guests: Vec<DomainIx> = guests.iter().take(GUESTS).copied().collect();
            for guest in guests {
                self.look(seeker, guest);
            }
        }
    }

    /// The best change among the first of the queue, if it gains.
    fn best(&mut self, seeker: &mut Seeker<'_>) -> Option<Change> {
        let mut best: Option<(Value, Change)> = None;
        for _ in 0..LOOKS {
            let entry = loop {
                match self.heap.pop() {
                    Some(entry) if self.versions[entry.domain.at()] == entry.version => {
                        break Some(entry);
                    }
                    Some(_) => {}
                    None => break None,
                }
            };
            let Some(entry) = entry else { break };
            let seen = (entry.broken, entry.rank);
            if let Some((value, _)) = &best
                && (value.broken, value.ranks[0]) <= seen
            {
                self.heap.push(entry);
                break;
            }
            let Some((value, to)) = self.look(seeker, entry.domain) else {
                continue;
            };
            if best
                .as_ref()
                .is_none_or(|(best, _)| seeker.less(&value, best))
            {
                let domain = entry.domain;
                best = Some((value, Change { domain, to }));
            }
        }
        best.filter(|(value, _)| seeker.gains(value))
            .map(|(_, change)| change)
    }

    /// Makes the best change, if any of the first gains; says whether it did.
    pub(super) fn step(&mut self, seeker: &mut Seeker<'_>) -> bool {
        let Some(change) = self.best(seeker) else {
            return false;
        };
        let old = seeker.ledger().spot(change.domain);
        seeker.apply(change);
        self.look_around(seeker, &touched(old, change.to));
        true
    }
}

/// The hosts of two spots, each once.
pub(super) fn touched(one: Spot, other: Spot) -> Vec<HostIx> {
    let mut hosts = vec![one.host, one.replica, other.host, other.replica];
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// Goes down until no single change gains, or so much work is done.
pub(super) fn descend(seeker: &mut Seeker<'_>, until: u64) {
    let count = seeker.base().len();
    loop {
        let mut queue = Queue::new(count);
        let mut any = false;
        for number in 0..count {
            if seeker.work() >= until {
                return;
            }
            let found = queue.look(seeker, DomainIx::of(number));
            any |= found.is_some_and(|(value, _)| seeker.gains(&value));
        }
        if !any {
            return;
        }
        while queue.step(seeker) {
            if seeker.work() >= until {
                return;
            }
        }
    }
}
