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
/// In a world with more domains than this, guests are not looked at anew.
const MANY: usize = 4096;

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
    fn new(seeker: &Seeker<'_>, domain: DomainIx, version: u32, value: &Value) -> Self {
        Self {
            broken: value.broken,
            rank: seeker.first_of(value),
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
    fn new(domains: usize) -> Self {
        Self {
            heap: BinaryHeap::with_capacity(domains),
            versions: vec![0; domains],
        }
    }

    /// Looks at all domains; whether any of them gains. None if that is too much work.
    pub(super) fn of_all(seeker: &mut Seeker<'_>, until: u64) -> Option<(Self, bool)> {
        let count = seeker.base().len();
        let mut queue = Self::new(count);
        let mut any = false;
        for number in 0..count {
            if seeker.work() >= until {
                return None;
            }
            let found = queue.look(seeker, DomainIx::of(number));
            any |= found.is_some_and(|(value, _)| seeker.gains(&value));
        }
        Some((queue, any))
    }

    /// Looks at a domain anew, as if there were no limits: what is reached now may be free when its turn comes.
    pub(super) fn look(
        &mut self,
        seeker: &mut Seeker<'_>,
        domain: DomainIx,
    ) -> Option<(Value, Spot)> {
        let found = seeker.without_limits(|seeker| seeker.best_of(domain));
        let version = &mut self.versions[domain.at()];
        *version += 1;
        if let Some((value, _)) = &found {
            self.heap.push(Entry::new(seeker, domain, *version, value));
        }
        found
    }

    /// Looks at all guests of some hosts anew; not in a large world, where what was last seen is near enough for long.
    pub(super) fn look_around(&mut self, seeker: &mut Seeker<'_>, hosts: &[HostIx]) {
        if self.versions.len() > MANY {
            return;
        }
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

    /// The best change among the first of the queue, if it gains: of [`LOOKS`] at the most once one is found.
    pub(super) fn best(
        &mut self,
        seeker: &mut Seeker<'_>,
        mut tries: u32,
        but: &[DomainIx],
    ) -> Option<Change> {
        let mut best: Option<(Value, Change)> = None;
        // What may not be changed now comes back when the best is known.
        let mut aside: Vec<Entry> = Vec::new();
        let mut looks = 0;
        while looks < LOOKS && tries > 0 {
            let Some(entry) = self.pop() else { break };
            let seen = (entry.broken, entry.rank);
            let bound = best.as_ref().map_or((0, 0.0), |(value, _)| {
                (value.broken, seeker.first_of(value))
            });
            // Where the first rank is the same everywhere, only a later one can gain: it is not in the queue's order.
            let is_over = bound < seen || (best.is_some() && bound == seen);
            if is_over {
                self.heap.push(entry);
                break;
            }
            let domain = entry.domain;
            if but.contains(&domain) || seeker.is_kept_by_limits(domain) {
                aside.push(entry);
                continue;
            }
            tries -= 1;
            let Some((mut value, mut to)) = self.look(seeker, domain) else {
                continue;
            };
            looks += u32::from(best.is_some());
            if !seeker.within_limits(domain, to) {
                let version = &mut self.versions[domain.at()];
                *version += 1;
                aside.push(Entry::new(seeker, domain, *version, &value));
                // With a replica, something that carries less may be left.
                match seeker.best_of(domain) {
                    Some(found) => (value, to) = found,
                    None => continue,
                }
            }
            let better = match &best {
                Some((best, _)) => seeker.less(&value, best),
                None => seeker.gains(&value),
            };
            if better {
                best = Some((value, Change { domain, to }));
            } else if best.is_none() && seen == (value.broken, seeker.first_of(&value)) {
                // Nothing changed for it: it would come first again and again.
                self.versions[domain.at()] += 1;
            }
        }
        self.heap.extend(aside);
        best.map(|(_, change)| change)
    }

    fn pop(&mut self) -> Option<Entry> {
        loop {
            let entry = self.heap.pop()?;
            if self.versions[entry.domain.at()] == entry.version {
                return Some(entry);
            }
        }
    }

    /// Makes the best change of any domain but some, if any of the first `tries` gains; says whether it did.
    pub(super) fn step(&mut self, seeker: &mut Seeker<'_>, tries: u32, but: &[DomainIx]) -> bool {
        let Some(change) = self.best(seeker, tries, but) else {
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

/// Goes down until no single change gains, or so much work is done. The queue that it ends with, if all was looked at.
pub(super) fn descend(seeker: &mut Seeker<'_>, until: u64) -> Option<Queue> {
    loop {
        let (mut queue, any) = Queue::of_all(seeker, until)?;
        let mut steps = 0;
        while any && queue.step(seeker, u32::MAX, &[]) {
            steps += 1;
            if seeker.work() >= until {
                return None;
            }
        }
        if steps == 0 {
            return Some(queue);
        }
    }
}
