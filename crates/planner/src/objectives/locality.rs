//! The term `locality`: bytes per second that cross hosts, those that cross sites counted ten times.
//!
//! Whole numbers, so that a value does not depend on the way that led to it. A change costs the row of who the domain
//! talks to. What is nowhere yet counts as at another site, so that placing it is never held against it.

use std::sync::Arc;

use estive_world::{DomainIx, HostIx, Indexed, World};

use super::Meter;
use super::arrival::{Arrivals, MARKS, Wakes, Weighing};
use crate::books::Books;
use crate::places::Change;

/// How many times as much a byte between sites counts.
pub(crate) const FAR: i64 = 10;
/// Bytes per second above this are counted as this: sums over 2^20 pairs, ten times, still fit.
const MOST_BYTES_PER_S: u64 = 1 << 38;
/// Of so many that a domain talks to most, the hosts are worth a look for it.
const SUGGESTED: usize = 16;

/// Bytes per second that cross something.
#[derive(Debug, Clone)]
pub struct Locality {
    talk: Arc<Talk>,
    hosts: i64,
    sites: i64,
}

/// Who talks to whom, each row with the most first.
#[derive(Debug)]
struct Talk {
    rows: Vec<Vec<(DomainIx, i64)>>,
    site_of: Vec<u32>,
}

impl Locality {
    /// Measures a state.
    pub fn new(books: &Books<'_>) -> Self {
        let world = books.ground.world;
        let mut sites: Vec<u32> = world.hosts.iter().map(|host| host.site.0).collect();
        sites.push(u32::MAX);
        let mut locality = Self {
            talk: Arc::new(Talk {
                rows: rows(world),
                site_of: sites,
            }),
            hosts: 0,
            sites: 0,
        };
        for domain in (0..world.domains.len()).map(DomainIx::of) {
            let host = books.places.spot(domain).host;
            let (hosts, sites) = locality.crossing(books, domain, host, &[]);
            locality.hosts += hosts;
            locality.sites += sites;
        }
        locality.hosts /= 2;
        locality.sites /= 2;
        locality
    }

    /// What of a domain's talk crosses hosts, and what sites, if it is on a host and some others have changed.
    fn crossing(
        &self,
        books: &Books<'_>,
        domain: DomainIx,
        host: HostIx,
        changes: &[Change],
    ) -> (i64, i64) {
        let site = self.talk.site_of[host.at()];
        let (mut hosts, mut sites) = (0, 0);
        for &(other, bytes) in &self.talk.rows[domain.at()] {
            let changed = changes.iter().find(|change| change.domain == other);
            let at = changed.map_or_else(|| books.places.spot(other).host, |change| change.to.host);
            if at != host || host == books.nowhere() {
                hosts += bytes;
                if self.talk.site_of[at.at()] != site || host == books.nowhere() {
                    sites += bytes;
                }
            }
        }
        (hosts, sites)
    }

    fn rise(&self, books: &Books<'_>, changes: &[Change]) -> (i64, i64) {
        let (mut hosts, mut sites) = (0, 0);
        for (nth, change) in changes.iter().enumerate() {
            // One after the other, so that a pair that changes both ends is counted once.
            let done = &changes[..nth];
            let now = self.crossing(
                books,
                change.domain,
                books.places.spot(change.domain).host,
                done,
            );
            let then = self.crossing(books, change.domain, change.to.host, done);
            hosts += then.0 - now.0;
            sites += then.1 - now.1;
        }
        (hosts, sites)
    }
}

fn rows(world: &World) -> Vec<Vec<(DomainIx, i64)>> {
    let mut rows = vec![Vec::new(); world.domains.len()];
    for talk in &world.talks {
        let bytes = talk.bytes_per_s.min(MOST_BYTES_PER_S) as i64;
        let (one, other) = talk.pair;
        if one != other && bytes > 0 {
            rows[one.at()].push((other, bytes));
            rows[other.at()].push((one, bytes));
        }
    }
    for row in &mut rows {
        row.sort_by_key(|&(other, bytes)| (-bytes, other));
    }
    rows
}

fn value(hosts: i64, sites: i64) -> f64 {
    (hosts + (FAR - 1) * sites) as f64
}

/// Only who talks to nobody is weighed by the host alone: it is the same on each.
impl Arrivals for Locality {
    fn model(&self, _host: HostIx) -> u32 {
        0
    }

    fn marks(&self, _books: &Books<'_>, _host: HostIx) -> [f64; MARKS] {
        [0.0; MARKS]
    }

    fn weighing(&self, _books: &Books<'_>, domain: DomainIx, _host: HostIx) -> Option<Weighing> {
        let alone = self.talk.rows[domain.at()].is_empty();
        alone.then_some(Weighing::Wakes(Wakes {
            lack: 0.0,
            lack_then: 0.0,
            unit: 1.0,
        }))
    }
}

impl Meter for Locality {
    fn value(&self) -> f64 {
        value(self.hosts, self.sites)
    }

    fn delta(&self, books: &Books<'_>, changes: &[Change]) -> f64 {
        let (hosts, sites) = self.rise(books, changes);
        value(hosts, sites)
    }

    fn apply(&mut self, books: &Books<'_>, change: Change) {
        let (hosts, sites) = self.rise(books, &[change]);
        self.hosts += hosts;
        self.sites += sites;
    }

    fn scan(&self, books: &Books<'_>, domain: DomainIx, to: &[HostIx], deltas: &mut Vec<f64>) {
        let row = &self.talk.rows[domain.at()];
        deltas.clear();
        if row.is_empty() {
            deltas.resize(to.len(), 0.0);
            return;
        }
        let now = self.crossing(books, domain, books.places.spot(domain).host, &[]);
        let all: i64 = row.iter().map(|&(_, bytes)| bytes).sum();
        // Most hosts of a long list are tied to nothing: what is tied to which is found once.
        let mut ends: Vec<(HostIx, u32, i64)> = (row.iter())
            .map(|&(other, bytes)| {
                let host = books.places.spot(other).host;
                (host, self.talk.site_of[host.at()], bytes)
            })
            .collect();
        ends.sort_unstable();
        ends.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.2 += next.2;
            }
            same
        });
        deltas.extend(to.iter().map(|&host| {
            let site = self.talk.site_of[host.at()];
            let (mut beside, mut near) = (0, 0);
            if host != books.nowhere() {
                for &(end, its_site, bytes) in &ends {
                    beside += if end == host { bytes } else { 0 };
                    near += if its_site == site { bytes } else { 0 };
                }
            }
            value(all - beside - now.0, all - near - now.1)
        }));
    }

    fn suggest(&self, books: &Books<'_>, domain: DomainIx, into: &mut Vec<HostIx>) {
        let row = self.talk.rows[domain.at()].iter().take(SUGGESTED);
        into.extend(row.map(|&(other, _)| books.places.spot(other).host));
    }

    fn arrivals(&self) -> Option<&dyn Arrivals> {
        Some(self)
    }

    fn parts(&self) -> Vec<(String, f64)> {
        vec![
            (
                "bytes per second between hosts".to_owned(),
                self.hosts as f64,
            ),
            ("of these between sites".to_owned(), self.sites as f64),
        ]
    }

    fn copy(&self) -> Box<dyn Meter> {
        Box::new(self.clone())
    }
}
