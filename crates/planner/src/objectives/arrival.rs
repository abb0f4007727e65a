//! A domain that comes to a host, weighed by a few numbers of that host alone.
//!
//! A term that can say so much ([`Arrivals`]) lets hosts stand in a tree (`place/tree.rs`): the rise never falls where a
//! number rises, so the least numbers of many hosts bound what any of them would rise by.

use estive_world::{DomainIx, HostIx};

use crate::books::Books;

/// How many numbers of a host decide.
pub const MARKS: usize = 8;

/// How much a term's value rises on the hosts of one model: a constant, and roots of what is straight in a mark.
///
/// Additions, multiplications by what is not negative and roots are rounded monotonously, so that
/// [`Self::rise`] never falls where a mark rises, to the last bit.
#[derive(Debug, Clone, Copy)]
pub struct Weighing {
    now: f64,
    unit: f64,
    constant: f64,
    roots: [Root; MARKS],
    count: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Root {
    mark: usize,
    base: f64,
    slope: f64,
}

impl Weighing {
    /// Of nothing yet: the value is `now`, and what is added is so many units of it.
    pub fn new(now: f64, unit: f64) -> Self {
        Self {
            now,
            unit,
            constant: 0.0,
            roots: [Root::default(); MARKS],
            count: 0,
        }
    }

    /// Adds the root of `base + slope × mark`; `slope` is not negative.
    pub fn add(&mut self, mark: usize, base: f64, slope: f64) {
        debug_assert!(slope >= 0.0);
        if slope == 0.0 {
            self.constant += base.max(0.0).sqrt();
        } else {
            self.roots[self.count] = Root { mark, base, slope };
            self.count += 1;
        }
    }

    /// How much the value rises on a host with these marks.
    #[inline]
    pub fn rise(&self, marks: &[f64]) -> f64 {
        let mut value = self.constant;
        for root in &self.roots[..self.count] {
            value += (root.base + root.slope * marks[root.mark]).max(0.0).sqrt();
        }
        value / self.unit - self.now
    }

    /// How steeply the rise goes with each mark, about where the mark is 0.
    pub fn steepness(&self) -> [f64; MARKS] {
        let mut steepness = [0.0; MARKS];
        for root in &self.roots[..self.count] {
            steepness[root.mark] = root.slope / root.base.max(f64::MIN_POSITIVE).sqrt();
        }
        steepness
    }
}

/// A term that weighs who comes from nowhere by the host's marks alone.
pub trait Arrivals {
    /// Hosts of one model are told apart by their marks and by nothing else.
    fn model(&self, host: HostIx) -> u32;
    /// The marks of a host now.
    fn marks(&self, host: HostIx) -> [f64; MARKS];
    /// How a domain that is nowhere weighs on a host, and on all of its model: bit for bit what [`super::Meter::scan`] says.
    fn weighing(&self, books: &Books<'_>, domain: DomainIx, host: HostIx) -> Weighing;
}
