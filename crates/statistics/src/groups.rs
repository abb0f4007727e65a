//! Groups of domains that talk to each other: the paper's greedy algorithm (Dib 2010, section 4.3.3), completed.
//!
//! Pairs are taken by how much goes between them, the most first. Two of whom neither is in a group found one. Where one
//! is, the other joins if their volume passes the group's threshold, a share of the mean volume of the pairs that talk
//! inside it. The paper breaks off there; from here on the rules are ours. A pair below the threshold changes nothing. Two
//! groups become one if the volume between two of their members passes both thresholds. Pairs of equal volume are taken
//! together, against the groups as they were before any of them, so that names and their order mean nothing. Who was in one
//! group before passes more easily, who was not less easily, so that a small change changes nothing.
//!
//! Cost: O(p log p) for p pairs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::matrix::Matrix;

/// How groups are made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GroupRule {
    /// The share of the mean volume inside a group that a pair must reach to let another in.
    pub share: f64,
    /// Below this volume, in the matrix's unit and a window's time, a pair founds nothing and joins nothing: two that say
    /// hardly anything are no group, even where nobody says more.
    pub least: f64,
    /// By this share a threshold is lower for those that were together before, and higher for the others.
    pub hold: f64,
}

impl Default for GroupRule {
    /// Half the mean; ten packets a second in a window of 30 s; a fifth.
    fn default() -> Self {
        Self {
            share: 0.5,
            least: 300.0,
            hold: 0.2,
        }
    }
}

/// Groups, and why they are as they are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Grouping {
    /// Each with two members or more, in the order of their first members.
    pub groups: Vec<Group>,
}

/// Domains that belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// By name.
    pub members: BTreeMap<Arc<str>, Why>,
    /// The mean volume of the pairs that talk inside it.
    pub mean: f64,
    /// What a pair must reach to let another in.
    pub threshold: f64,
}

/// Why a domain is in its group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// With whom it came in.
    pub with: Arc<str>,
    /// How much goes between the two.
    pub volume: f64,
    /// How it came in.
    pub found: Found,
}

/// How a domain came into its group.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum Found {
    /// Neither was in a group: they founded one.
    Founded,
    /// The other was in the group.
    Joined {
        /// What their volume had to reach.
        threshold: f64,
    },
}

/// Groups of a matrix, as far as they can be like those before.
pub fn groups(matrix: &Matrix, rule: &GroupRule, before: Option<&Grouping>) -> Grouping {
    let mut pairs: Vec<(f64, (u32, u32))> = (matrix.pairs())
        .filter(|(_, volume)| *volume >= rule.least)
        .map(|(pair, volume)| (volume, pair))
        .collect();
    pairs.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
    let mut growing = Growing::new(matrix, rule, before);
    let mut rest = pairs.as_slice();
    while let Some(&(volume, _)) = rest.first() {
        let count = (rest.iter())
            .take_while(|(other, _)| *other == volume)
            .count();
        let (equal, later) = rest.split_at(count);
        growing.take(volume, equal);
        rest = later;
    }
    growing.end()
}

struct Growing<'m> {
    matrix: &'m Matrix,
    rule: &'m GroupRule,
    /// The group before, by domain.
    before: Vec<Option<usize>>,
    /// Union-find: the smallest number of each group.
    parent: Vec<u32>,
    grouped: Vec<bool>,
    why: BTreeMap<u32, Why>,
    /// By a group's smallest number: pairs that talk inside, and their volume in all.
    inside: BTreeMap<u32, (u64, f64)>,
}

impl<'m> Growing<'m> {
    fn new(matrix: &'m Matrix, rule: &'m GroupRule, before: Option<&Grouping>) -> Self {
        let count = matrix.names().len();
        let groups = before
            .iter()
            .flat_map(|before| before.groups.iter().enumerate());
        let was_in: BTreeMap<&Arc<str>, usize> = groups
            .flat_map(|(at, group)| group.members.keys().map(move |name| (name, at)))
            .collect();
        Self {
            matrix,
            rule,
            before: (matrix.names().iter())
                .map(|name| was_in.get(name).copied())
                .collect(),
            parent: (0..count as u32).collect(),
            grouped: vec![false; count],
            why: BTreeMap::new(),
            inside: BTreeMap::new(),
        }
    }

    fn root(&mut self, mut at: u32) -> u32 {
        while self.parent[at as usize] != at {
            let above = self.parent[self.parent[at as usize] as usize];
            self.parent[at as usize] = above;
            at = above;
        }
        at
    }

    /// What a pair must reach to be let into a group.
    fn threshold(&mut self, of: u32, pair: (u32, u32)) -> f64 {
        let root = self.root(of);
        let (pairs, volume) = self.inside.get(&root).copied().unwrap_or((1, 0.0));
        let plain = self.rule.share * volume / pairs as f64;
        let [one, other] = [pair.0, pair.1].map(|it| self.before[it as usize]);
        match (one, other) {
            (Some(one), Some(other)) if one == other => plain * (1.0 - self.rule.hold),
            (None, None) => plain,
            _ => plain * (1.0 + self.rule.hold),
        }
    }

    /// Takes pairs of equal volume.
    fn take(&mut self, volume: f64, pairs: &[(f64, (u32, u32))]) {
        let mut joined: Vec<(u32, u32, Found)> = Vec::new();
        for &(_, pair) in pairs {
            let [one, other] = [pair.0, pair.1];
            let found = match [one, other].map(|it| self.grouped[it as usize]) {
                [false, false] => Some(Found::Founded),
                [true, false] => self.passes(volume, one, pair),
                [false, true] => self.passes(volume, other, pair),
                [true, true] if self.root(one) == self.root(other) => None,
                [true, true] => {
                    let both = [one, other].map(|it| self.passes(volume, it, pair));
                    both[0].and(both[1])
                }
            };
            joined.extend(found.map(|found| (one, other, found)));
        }
        for &(one, other, found) in &joined {
            for (member, with) in [(one, other), (other, one)] {
                if !std::mem::replace(&mut self.grouped[member as usize], true) {
                    let why = Why {
                        with: Arc::clone(&self.matrix.names()[with as usize]),
                        volume,
                        found,
                    };
                    self.why.insert(member, why);
                }
            }
            self.unite(one, other);
        }
        // Whatever let somebody in or not: what is inside a group counts for its mean.
        for &(_, (one, other)) in pairs {
            let both = [one, other].map(|it| self.grouped[it as usize]);
            if both == [true, true] && self.root(one) == self.root(other) {
                let root = self.root(one);
                let inside = self.inside.entry(root).or_default();
                inside.0 += 1;
                inside.1 += volume;
            }
        }
    }

    fn passes(&mut self, volume: f64, of: u32, pair: (u32, u32)) -> Option<Found> {
        let threshold = self.threshold(of, pair);
        (volume >= threshold).then_some(Found::Joined { threshold })
    }

    fn unite(&mut self, one: u32, other: u32) {
        let (one, other) = (self.root(one), self.root(other));
        if one == other {
            return;
        }
        let (kept, gone) = (one.min(other), one.max(other));
        self.parent[gone as usize] = kept;
        if let Some((pairs, volume)) = self.inside.remove(&gone) {
            let inside = self.inside.entry(kept).or_default();
            inside.0 += pairs;
            inside.1 += volume;
        }
    }

    fn end(mut self) -> Grouping {
        let mut members: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for at in 0..self.parent.len() as u32 {
            if self.grouped[at as usize] {
                let root = self.root(at);
                members.entry(root).or_default().insert(at);
            }
        }
        let groups = members.into_iter().map(|(root, members)| {
            let (pairs, volume) = self.inside.get(&root).copied().unwrap_or((1, 0.0));
            let mean = volume / pairs as f64;
            Group {
                members: (members.into_iter())
                    .filter_map(|at| {
                        let name = Arc::clone(&self.matrix.names()[at as usize]);
                        Some((name, self.why.remove(&at)?))
                    })
                    .collect(),
                mean,
                threshold: mean * self.rule.share,
            }
        });
        Grouping {
            groups: groups.collect(),
        }
    }
}
