//! Books and what they are worth: the state that every search, placement and explanation works on.

use std::sync::Arc;

use estive_world::{DomainIx, HostIx, World};

use crate::Objective;
use crate::books::Books;
use crate::ground::Ground;
use crate::objectives::{Gauge, Value};
use crate::obstacle::Obstacle;
use crate::places::{Change, Spot};

/// A state with its value under an objective. A change costs what it touches, never the whole.
#[derive(Clone)]
pub struct Ledger<'w> {
    books: Books<'w>,
    gauge: Gauge,
    value: Value,
}

impl<'w> Ledger<'w> {
    /// A world as it is.
    ///
    /// # Errors
    /// An objective that cannot be measured, in words.
    pub fn new(world: &'w World, objective: &Objective) -> Result<Self, String> {
        Self::on(Arc::new(Ground::new(world, wakes(objective))), objective)
    }

    /// The same, where the ground is known.
    ///
    /// # Errors
    /// An objective that cannot be measured, in words.
    pub fn on(ground: Arc<Ground<'w>>, objective: &Objective) -> Result<Self, String> {
        let books = Books::new(ground);
        let gauge = Gauge::new(&books, objective)?;
        let value = Value {
            broken: books.broken(),
            ranks: gauge.values(),
            toll: 0.0,
        };
        Ok(Self {
            books,
            gauge,
            value,
        })
    }

    /// What stays.
    pub fn ground(&self) -> &Arc<Ground<'w>> {
        &self.books.ground
    }

    /// The state.
    pub fn books(&self) -> &Books<'w> {
        &self.books
    }

    /// The meters.
    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// The value now.
    pub fn value(&self) -> Value {
        self.value
    }

    /// Where a domain is.
    pub fn spot(&self, domain: DomainIx) -> Spot {
        self.books.places.spot(domain)
    }

    /// Whether a domain may come to a host, its replica staying; if its replica is there, the two change places.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn may(&self, domain: DomainIx, host: HostIx) -> Result<(), Obstacle> {
        let now = self.spot(domain);
        let replica = if host == now.replica {
            now.host
        } else {
            now.replica
        };
        self.books.may(domain, Spot { host, replica })
    }

    /// How much the value would rise by changes that are let through.
    pub fn delta(&self, changes: &[Change]) -> Value {
        Value {
            broken: self.books.broken_by(changes),
            ranks: self.gauge.delta(&self.books, changes),
            toll: 0.0,
        }
    }

    /// Makes a change; gives the one that undoes it.
    pub fn apply(&mut self, change: Change) -> Change {
        let old = self.spot(change.domain);
        let broken = self.broken_around(change.domain, old, change.to);
        self.gauge.apply(&self.books, change);
        let undo = self.books.apply(change);
        self.value.broken += self.broken_around(change.domain, old, change.to) - broken;
        self.value.ranks = self.gauge.values();
        undo
    }

    /// What is broken by a domain and on the hosts of two spots.
    fn broken_around(&self, domain: DomainIx, one: Spot, other: Spot) -> i64 {
        let books = &self.books;
        let hosts = [one.host, one.replica, other.host, other.replica];
        let spot = self.spot(domain);
        let mut broken = books.broken_spot(domain, spot) + books.broken_bonds(domain, spot.host);
        for (nth, &host) in hosts.iter().enumerate() {
            if !hosts[..nth].contains(&host) {
                broken += books.broken_host(host, books.taken(host), books.spare_due(host).0);
            }
        }
        broken
    }
}

/// Whether an objective is worth switching hosts on for.
pub(crate) fn wakes(objective: &Objective) -> bool {
    (objective.ranks.iter().flatten()).any(|weighted| {
        matches!(
            weighted.term,
            crate::Term::Consolidate { .. } | crate::Term::Cost
        )
    })
}
