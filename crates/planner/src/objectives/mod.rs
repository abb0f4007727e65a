//! What is better: terms, each measured by a meter that follows changes one by one, in ranks.

mod arrival;
mod balance;
mod consolidate;
mod cost;
mod fair;
mod guests_out;
mod locality;
mod occupied;
mod owed;
mod time;

pub(crate) use occupied::{may_be_off, processor_power, processor_use};

use estive_world::{DomainIx, HostIx};

use crate::books::Books;
use crate::places::{Change, Spot};
use crate::{Objective, Term};

pub(crate) use arrival::{Arrivals, MARKS, Weighing};
pub(crate) use locality::FAR;

/// The most ranks of an objective.
pub const MOST_RANKS: usize = 4;

/// A term's value over a state, kept up to date by what is applied, never by looking at the whole again.
///
/// A meter that looks at more than the hosts a change touches (who talks to whom) finds them in the books it is given.
pub trait Meter: Send + Sync {
    /// The value: less is better, 0 or more.
    fn value(&self) -> f64;
    /// How much of the value is a matter of degree, which the price of a move is measured by; the rest is whether
    /// something is safe or not.
    fn degree(&self) -> f64 {
        self.value()
    }
    /// How much the value would rise by these changes of different domains together, one or two.
    fn delta(&self, books: &Books<'_>, changes: &[Change]) -> f64;
    /// Follows one change; `books` are as they are before it.
    fn apply(&mut self, books: &Books<'_>, change: Change);
    /// [`Self::delta`] of one domain, whose replica stays, for many hosts.
    fn scan(&self, books: &Books<'_>, domain: DomainIx, to: &[HostIx], deltas: &mut Vec<f64>) {
        let replica = books.places.spot(domain).replica;
        deltas.clear();
        deltas.extend(to.iter().map(|&host| {
            let to = Spot { host, replica };
            self.delta(books, &[Change { domain, to }])
        }));
    }
    /// Itself, if who comes from nowhere is weighed by a few numbers of the host alone.
    fn arrivals(&self) -> Option<&dyn Arrivals> {
        None
    }
    /// The less, the rather a domain that nobody knows should be brought to this host; the more, the rather one
    /// should leave it. Only the order over hosts counts.
    fn load(&self, _books: &Books<'_>, _host: HostIx) -> f64 {
        0.0
    }
    /// Hosts that are worth a look for this domain, whatever their load.
    fn suggest(&self, _books: &Books<'_>, _domain: DomainIx, _into: &mut Vec<HostIx>) {}
    /// Whether it only gains when a host is emptied whole: then a search tries that too.
    fn empties(&self) -> bool {
        false
    }
    /// What it is made of, by name, for the report.
    fn parts(&self) -> Vec<(String, f64)>;
    /// Another one in the same state.
    fn copy(&self) -> Box<dyn Meter>;
}

/// The meters of an objective, by rank, each with its weight.
pub struct Gauge {
    ranks: Vec<Vec<(f64, Box<dyn Meter>)>>,
}

impl Clone for Gauge {
    fn clone(&self) -> Self {
        let rank = |rank: &Vec<(f64, Box<dyn Meter>)>| {
            rank.iter()
                .map(|(weight, meter)| (*weight, meter.copy()))
                .collect()
        };
        Self {
            ranks: self.ranks.iter().map(rank).collect(),
        }
    }
}

/// A value of an objective, or a difference of two: what is broken first, then rank by rank.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Value {
    /// How much is broken.
    pub broken: i64,
    /// The ranks that there are, the most important first; 0 for the others.
    pub ranks: [f64; MOST_RANKS],
    /// What the moves of a search cost that are contained in each rank, as a share of one host's part; 0 of a state.
    pub toll: f64,
}

impl Gauge {
    /// Meters for an objective over a state.
    ///
    /// # Errors
    /// The term that there is no meter for, by its place; an objective has [`MOST_RANKS`] at the most.
    pub fn new(books: &Books<'_>, objective: &Objective) -> Result<Self, String> {
        if objective.ranks.len() > MOST_RANKS {
            return Err(format!("an objective has at most {MOST_RANKS} ranks"));
        }
        let meter = |term: &Term| -> Result<Box<dyn Meter>, String> {
            match term {
                Term::Balance => Ok(Box::new(balance::Balance::new(books))),
                Term::GuestsOut { hosts } => Ok(Box::new(guests_out::GuestsOut::new(books, hosts))),
                Term::Consolidate { spare_milli } => {
                    Ok(Box::new(consolidate::Consolidate::new(books, *spare_milli)))
                }
                Term::Cost => Ok(Box::new(cost::Cost::new(books))),
                Term::Fair => Ok(Box::new(fair::Fair::new(books))),
                Term::Locality => Ok(Box::new(locality::Locality::new(books))),
                Term::Time => Ok(Box::new(time::Time::new(books))),
            }
        };
        let mut ranks = Vec::new();
        for rank in &objective.ranks {
            let mut meters = Vec::new();
            for weighted in rank {
                if !(weighted.weight.is_finite() && weighted.weight >= 0.0) {
                    return Err(format!("{} is no weight", weighted.weight));
                }
                meters.push((weighted.weight, meter(&weighted.term)?));
            }
            ranks.push(meters);
        }
        Ok(Self { ranks })
    }

    /// How many ranks there are.
    pub fn count(&self) -> usize {
        self.ranks.len()
    }

    /// The value of each rank.
    pub fn values(&self) -> [f64; MOST_RANKS] {
        self.sum(|meter| meter.value())
    }

    /// How much of each rank is a matter of degree: a share of it is what moves cost.
    pub fn degrees(&self) -> [f64; MOST_RANKS] {
        self.sum(|meter| meter.degree())
    }

    /// How much each rank would rise.
    pub fn delta(&self, books: &Books<'_>, changes: &[Change]) -> [f64; MOST_RANKS] {
        self.sum(|meter| meter.delta(books, changes))
    }

    /// How much one rank would rise.
    pub fn delta_of(&self, rank: usize, books: &Books<'_>, changes: &[Change]) -> f64 {
        let meters = self.ranks[rank].iter();
        meters
            .map(|(weight, meter)| weight * meter.delta(books, changes))
            .sum()
    }

    /// [`Self::delta`] of the first rank for many hosts. `spare` is room to work in.
    pub fn scan(
        &self,
        books: &Books<'_>,
        domain: DomainIx,
        to: &[HostIx],
        deltas: &mut Vec<f64>,
        spare: &mut Vec<f64>,
    ) {
        deltas.clear();
        deltas.resize(to.len(), 0.0);
        for (weight, meter) in self.ranks.first().into_iter().flatten() {
            meter.scan(books, domain, to, spare);
            for (sum, delta) in deltas.iter_mut().zip(spare.iter()) {
                *sum += weight * delta;
            }
        }
    }

    /// The first rank, if it is one term that weighs who comes from nowhere by the host alone, and its weight.
    pub(crate) fn arrivals(&self) -> Option<(f64, &dyn Arrivals)> {
        match self.ranks.first()?.as_slice() {
            [(weight, meter)] => Some((*weight, meter.arrivals()?)),
            _ => None,
        }
    }

    /// Follows one change.
    pub fn apply(&mut self, books: &Books<'_>, change: Change) {
        for (_, meter) in self.ranks.iter_mut().flatten() {
            meter.apply(books, change);
        }
    }

    /// The order in which hosts should receive, by the first rank.
    pub fn load(&self, books: &Books<'_>, host: HostIx) -> f64 {
        let meters = self.ranks.first().into_iter().flatten();
        meters
            .map(|(weight, meter)| weight * meter.load(books, host))
            .sum()
    }

    /// Hosts worth a look for a domain.
    pub fn suggest(&self, books: &Books<'_>, domain: DomainIx, into: &mut Vec<HostIx>) {
        for (_, meter) in self.ranks.iter().flatten() {
            meter.suggest(books, domain, into);
        }
    }

    /// Whether any term gains by whole hosts only.
    pub fn empties(&self) -> bool {
        self.ranks
            .iter()
            .flatten()
            .any(|(_, meter)| meter.empties())
    }

    /// Parts of all terms, by name.
    pub fn parts(&self) -> Vec<(String, f64)> {
        self.ranks
            .iter()
            .flatten()
            .flat_map(|(_, meter)| meter.parts())
            .collect()
    }

    fn sum(&self, of: impl Fn(&dyn Meter) -> f64) -> [f64; MOST_RANKS] {
        let mut sums = [0.0; MOST_RANKS];
        for (sum, meters) in sums.iter_mut().zip(&self.ranks) {
            *sum = meters
                .iter()
                .map(|(weight, meter)| weight * of(meter.as_ref()))
                .sum();
        }
        sums
    }
}
