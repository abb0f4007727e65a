//! The term `guests_out`: domains on hosts that are to be emptied.

use estive_world::{DomainIx, HostIx, Indexed};

use super::Meter;
use super::arrival::{Arrivals, MARKS, Wakes, Weighing};
use crate::books::Books;
use crate::host_set::HostSet;
use crate::places::Change;

/// How many domains are on some hosts.
#[derive(Debug, Clone)]
pub struct GuestsOut {
    hosts: HostSet,
    count: i64,
}

impl GuestsOut {
    /// Counts them.
    pub fn new(books: &Books<'_>, out: &[HostIx]) -> Self {
        let mut hosts = HostSet::none(books.nowhere().at() + 1);
        let mut count = 0;
        for &host in out.iter().filter(|&&host| host < books.nowhere()) {
            if !hosts.has(host) {
                count += books.places.guests(host).len() as i64;
                hosts.add(host);
            }
        }
        Self { hosts, count }
    }

    fn change(&self, books: &Books<'_>, change: Change) -> i64 {
        let old = books.places.spot(change.domain).host;
        i64::from(self.hosts.has(change.to.host)) - i64::from(self.hosts.has(old))
    }
}

impl Arrivals for GuestsOut {
    fn model(&self, _host: HostIx) -> u32 {
        0
    }

    fn marks(&self, books: &Books<'_>, host: HostIx) -> [f64; MARKS] {
        let more = f64::from(u8::from(self.hosts.has(host)));
        Wakes::marks(more, !books.places.guests(host).is_empty())
    }

    fn weighing(&self, _books: &Books<'_>, _domain: DomainIx, _host: HostIx) -> Option<Weighing> {
        Some(Weighing::Wakes(Wakes {
            lack: 0.0,
            lack_then: 0.0,
            unit: 1.0,
        }))
    }
}

impl Meter for GuestsOut {
    fn value(&self) -> f64 {
        self.count as f64
    }

    fn delta(&self, books: &Books<'_>, changes: &[Change]) -> f64 {
        changes
            .iter()
            .map(|&change| self.change(books, change))
            .sum::<i64>() as f64
    }

    fn apply(&mut self, books: &Books<'_>, change: Change) {
        self.count += self.change(books, change);
    }

    fn load(&self, _books: &Books<'_>, host: HostIx) -> f64 {
        f64::from(u8::from(self.hosts.has(host)))
    }

    fn arrivals(&self) -> Option<&dyn Arrivals> {
        Some(self)
    }

    fn parts(&self) -> Vec<(String, f64)> {
        vec![(
            "guests on hosts to be emptied".to_owned(),
            self.count as f64,
        )]
    }

    fn copy(&self) -> Box<dyn Meter> {
        Box::new(self.clone())
    }
}
