//! One level of a herd file and those around it: globals, a group, a host. Levels are shared by
//! all that stands below them, and joined only when a clone's values are asked for, so that a herd
//! of thousands is as large as its file.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::joined::{self, Joined, Lists, Written, Wrong};
use crate::provenance::Origin;
use crate::reserved;
use crate::yaml::{Node, Position};

/// Values that all levels with hosts of their own may have together, the inherited ones counted
/// for each: what joining them costs, in memory too.
pub(crate) const MAX_JOINED_VALUES: usize = 4_000_000;

/// What one level writes, and the levels around it.
pub(crate) struct Frame {
    pub outer: Option<Arc<Frame>>,
    pub origin: Arc<Origin>,
    pub own: OwnValues,
    /// What the values weigh that are looked at when all these levels are joined.
    weight: usize,
}

/// What one level writes, by the keys without their `+`.
#[derive(Debug, Default)]
pub(crate) struct OwnValues {
    pub reserved: BTreeMap<&'static str, OwnValue>,
    pub variables: BTreeMap<String, OwnValue>,
}

#[derive(Debug)]
pub(crate) struct OwnValue {
    pub key_at: Position,
    /// The key ended in `+`.
    pub appends: bool,
    pub node: Node,
}

impl OwnValue {
    fn written(&self) -> Written<'_> {
        Written {
            key_at: self.key_at,
            appends: self.appends,
            node: &self.node,
        }
    }
}

impl OwnValues {
    fn weight(&self) -> usize {
        let all = self.reserved.values().chain(self.variables.values());
        all.map(|own| own.node.value.weight()).sum()
    }
}

impl Frame {
    pub fn new(outer: Option<Arc<Frame>>, origin: Arc<Origin>, own: OwnValues) -> Self {
        let around = outer.as_ref().map_or(0, |outer| outer.weight);
        Self {
            weight: around.saturating_add(own.weight()),
            outer,
            origin,
            own,
        }
    }

    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Itself and the levels around it, outermost first.
    pub fn levels(&self) -> Vec<&Frame> {
        let mut levels: Vec<&Frame> =
            std::iter::successors(Some(self), |frame| frame.outer.as_deref()).collect();
        levels.reverse();
        levels
    }

    /// The reserved keys that any of the levels writes.
    pub fn reserved(&self, wrong: &mut Wrong<'_>) -> BTreeMap<&'static str, Joined> {
        let mut joined = BTreeMap::new();
        for level in self.levels() {
            for (key, own) in &level.own.reserved {
                let lists = if reserved::LISTS.contains(key) {
                    Lists::OneIsEnough
                } else {
                    Lists::Strict
                };
                let so_far = joined.remove(key);
                let now = joined::write(so_far, key, own.written(), &level.origin, lists, wrong);
                joined.extend(now.map(|now| (*key, now)));
            }
        }
        joined
    }

    /// The variables, over those of a lower level still.
    pub fn variables(
        &self,
        mut below: BTreeMap<String, Joined>,
        wrong: &mut Wrong<'_>,
    ) -> BTreeMap<String, Joined> {
        for level in self.levels() {
            for (name, own) in &level.own.variables {
                let so_far = below.remove(name);
                let origin = &level.origin;
                let written = own.written();
                let now = joined::write(so_far, name, written, origin, Lists::Strict, wrong);
                below.extend(now.map(|now| (name.clone(), now)));
            }
        }
        below
    }
}

/// Without the levels around it, which would be printed once for each clone.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("level", &self.origin.level)
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}
