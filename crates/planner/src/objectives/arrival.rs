//! A domain that comes to a host, weighed by a few numbers of that host alone.
//!
//! A term that can say so much ([`Arrivals`]) lets hosts stand in a tree (`place/tree.rs`): the rise never falls where a
//! number rises, so the least numbers of many hosts bound what any of them would rise by.

use estive_world::{DomainIx, HostIx};

use crate::books::Books;

/// How many numbers of a host decide.
pub const MARKS: usize = 8;

/// How much a term's value rises on the hosts of one model, by their marks.
///
/// What is computed is rounded monotonously, so that [`Self::rise`] never falls where a mark rises, to the last bit.
#[derive(Debug, Clone, Copy)]
pub enum Weighing {
    /// A sum of roots.
    Roots(Roots),
    /// The first mark itself, and what changes when an empty host gets its first guest.
    Wakes(Wakes),
}

impl Weighing {
    /// How much the value rises on a host with these marks.
    #[inline]
    pub fn rise(&self, marks: &[f64; MARKS]) -> f64 {
        match self {
            Self::Roots(roots) => roots.rise(marks),
            Self::Wakes(wakes) => wakes.rise(marks),
        }
    }

    /// How steeply the rise goes with each mark, about where the mark is 0.
    pub fn steepness(&self) -> [f64; MARKS] {
        let mut steepness = [0.0; MARKS];
        match self {
            Self::Roots(roots) => {
                for root in &roots.roots[..roots.count] {
                    steepness[root.mark] = root.slope / root.base.max(f64::MIN_POSITIVE).sqrt();
                }
            }
            Self::Wakes(_) => steepness[..2].fill(1.0),
        }
        steepness
    }
}

/// A constant, and roots of what is straight in a mark.
#[derive(Debug, Clone, Copy)]
pub struct Roots {
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

impl Roots {
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

    /// See [`Weighing::rise`]; the first marks are enough.
    #[inline]
    pub fn rise(&self, marks: &[f64]) -> f64 {
        let mut value = self.constant;
        for root in &self.roots[..self.count] {
            value += (root.base + root.slope * marks[root.mark]).max(0.0).sqrt();
        }
        value / self.unit - self.now
    }
}

/// What a host costs more, and what all lack then.
#[derive(Debug, Clone, Copy)]
pub struct Wakes {
    /// What all lack now.
    pub lack: f64,
    /// What all lack once an empty host of this model has a guest: no more than now.
    pub lack_then: f64,
    /// Of what there are so many in one of the value.
    pub unit: f64,
}

impl Wakes {
    /// The marks of a host on which one more costs so much, and which has guests or none.
    pub fn marks(more: f64, has_guests: bool) -> [f64; MARKS] {
        let mut marks = [0.0; MARKS];
        marks[0] = more;
        marks[1] = f64::from(u8::from(has_guests));
        marks
    }

    #[inline]
    fn rise(&self, marks: &[f64; MARKS]) -> f64 {
        let then = if marks[1] > 0.0 {
            self.lack
        } else {
            self.lack_then
        };
        (marks[0] + then - self.lack) / self.unit
    }
}

/// A term that weighs who comes from nowhere by the host's marks alone.
pub trait Arrivals {
    /// Hosts of one model are told apart by their marks and by nothing else.
    fn model(&self, host: HostIx) -> u32;
    /// The marks of a host now.
    fn marks(&self, books: &Books<'_>, host: HostIx) -> [f64; MARKS];
    /// How a domain that is nowhere weighs on a host, and on all of its model: bit for bit what [`super::Meter::scan`] says.
    /// None, on no host at all, if for this domain more than the marks decide.
    fn weighing(&self, books: &Books<'_>, domain: DomainIx, host: HostIx) -> Option<Weighing>;
}
