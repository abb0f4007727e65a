//! Who talks to whom: how much between each pair of domains, whichever of them sent it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::query::Mean;
use crate::window::Party;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Packets.
    Messages,
    /// Bytes.
    Bytes,
}

/// How much goes between each pair of domains in a window's time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matrix {
    names: Vec<Arc<str>>,
    /// By the two's numbers, the smaller first; only what is more than 0.
    pairs: BTreeMap<(u32, u32), f64>,
}

impl Matrix {
    /// Of a mean. What goes to or comes from outside is left out, and so is what a domain sends to itself.
    pub fn of_mean(mean: &BTreeMap<(Party, Party), Mean>, unit: Unit) -> Self {
        let between = mean.iter().filter_map(|((from, to), volume)| {
            let (Party::Domain(from), Party::Domain(to)) = (from, to) else {
                return None;
            };
            let amount = match unit {
                Unit::Messages => volume.messages,
                Unit::Bytes => volume.bytes,
            };
            Some((Arc::clone(from), Arc::clone(to), amount))
        });
        Self::of(between)
    }

    /// Of amounts between names, in any order; those of a pair are added.
    pub fn of(between: impl IntoIterator<Item = (Arc<str>, Arc<str>, f64)>) -> Self {
        let between: Vec<_> = between.into_iter().collect();
        let names: BTreeSet<&Arc<str>> = between
            .iter()
            .flat_map(|(one, other, _)| [one, other])
            .collect();
        let names: Vec<Arc<str>> = names.into_iter().cloned().collect();
        let number = |name: &Arc<str>| names.binary_search(name).map_or(u32::MAX, |at| at as u32);
        let mut pairs: BTreeMap<(u32, u32), f64> = BTreeMap::new();
        for (one, other, amount) in &between {
            let (one, other) = (number(one), number(other));
            if one != other && *amount > 0.0 && amount.is_finite() {
                *pairs.entry((one.min(other), one.max(other))).or_default() += amount;
            }
        }
        Self { names, pairs }
    }

    /// Names, in their order; a domain's number is its place among them.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Pairs that talk, with how much.
    pub fn pairs(&self) -> impl Iterator<Item = ((u32, u32), f64)> {
        self.pairs.iter().map(|(&pair, &amount)| (pair, amount))
    }

    /// How much goes between two.
    pub fn between(&self, one: u32, other: u32) -> f64 {
        (self.pairs.get(&(one.min(other), one.max(other))))
            .copied()
            .unwrap_or(0.0)
    }
}
