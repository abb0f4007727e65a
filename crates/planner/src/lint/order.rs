//! What comes before what: the order of a plan's steps, closed, for the pairs that somebody asks about.

use estive_world::{Indexed, Step};

/// How many steps are carried through the plan at once.
const LANES: usize = 512;

/// For each step of a group which others of it must have ended before it begins.
#[derive(Debug, Clone, Default)]
pub struct Ancestors {
    words: usize,
    rows: Vec<u64>,
}

impl Ancestors {
    fn new(size: usize) -> Self {
        let words = size.div_ceil(64);
        Self {
            words,
            rows: vec![0; words * size],
        }
    }

    /// Whether the group's `earlier` must have ended before its `later` begins.
    pub fn has(&self, later: usize, earlier: usize) -> bool {
        self.rows[later * self.words + earlier / 64] >> (earlier % 64) & 1 == 1
    }
}

/// For each group of steps (numbers, ascending) their order. Every `after` is smaller than its step's own number.
pub fn ancestors(steps: &[Step], groups: &[Vec<usize>]) -> Vec<Ancestors> {
    let mut found: Vec<Ancestors> = groups
        .iter()
        .map(|group| Ancestors::new(group.len()))
        .collect();
    // Groups that begin near each other are walked together: their walk is short.
    let mut by_begin: Vec<usize> = (0..groups.len())
        .filter(|&group| groups[group].len() > 1)
        .collect();
    by_begin.sort_by_key(|&group| groups[group][0]);
    let mut batch: Vec<usize> = Vec::new();
    let mut lanes = 0;
    for group in by_begin {
        if lanes > 0 && lanes + groups[group].len() > LANES {
            walk(steps, groups, &batch, &mut found);
            batch.clear();
            lanes = 0;
        }
        lanes += groups[group].len();
        batch.push(group);
    }
    if !batch.is_empty() {
        walk(steps, groups, &batch, &mut found);
    }
    found
}

/// Carries a bit for each step of a batch of groups through the plan, and reads at each of these steps which have come by.
fn walk(steps: &[Step], groups: &[Vec<usize>], batch: &[usize], found: &mut [Ancestors]) {
    let mut members: Vec<(usize, usize, usize, usize)> = Vec::new();
    let mut first_lane = 0;
    for &group in batch {
        for (place, &step) in groups[group].iter().enumerate() {
            members.push((step, group, place, first_lane));
        }
        first_lane += groups[group].len();
    }
    members.sort_unstable();
    let words = first_lane.div_ceil(64);
    let (Some(first), Some(last)) = (members.first(), members.last()) else {
        return;
    };
    let (low, high) = (first.0, last.0);
    let mut passed = vec![0u64; (high - low + 1) * words];
    let mut next = 0;
    for (at, planned) in steps[low..=high].iter().enumerate() {
        let step = low + at;
        let (before, mine) = passed.split_at_mut(at * words);
        let mine = &mut mine[..words];
        for earlier in &planned.after {
            if earlier.at() >= low {
                let theirs = &before[(earlier.at() - low) * words..][..words];
                for (word, more) in mine.iter_mut().zip(theirs) {
                    *word |= more;
                }
            }
        }
        let begin = next;
        while members.get(next).is_some_and(|member| member.0 == step) {
            let (_, group, place, lane) = members[next];
            let row_words = found[group].words;
            let row = &mut found[group].rows[place * row_words..][..row_words];
            read(mine, lane, groups[group].len(), row);
            next += 1;
        }
        for &(_, _, place, lane) in &members[begin..next] {
            mine[(lane + place) / 64] |= 1 << ((lane + place) % 64);
        }
    }
}

/// Reads `count` bits from bit `from` on.
fn read(bits: &[u64], from: usize, count: usize, row: &mut [u64]) {
    let shift = from % 64;
    for (at, word) in row.iter_mut().enumerate() {
        let low = from / 64 + at;
        let upper = bits.get(low + 1).copied().unwrap_or(0);
        *word = bits[low] >> shift | if shift == 0 { 0 } else { upper << (64 - shift) };
        let left = count - at * 64;
        if left < 64 {
            *word &= (1 << left) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::step;
    use estive_world::{Act, HostIx, StepIx};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_a_search_from_each_step_finds(
            edges in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..120),
            groups in prop::collection::vec(prop::collection::btree_set(0..120usize, 0..90), 0..12),
        ) {
            let steps: Vec<Step> = edges.iter().enumerate().map(|(number, after)| {
                let after = after.iter().filter(|_| number > 0);
                step(Act::SwitchOn { host: HostIx(0) }, after.map(|index| index.index(number) as u32))
            }).collect();
            let groups: Vec<Vec<usize>> = groups.into_iter()
                .map(|group| group.into_iter().filter(|&step| step < steps.len()).collect())
                .collect();
            let found = ancestors(&steps, &groups);
            for (group, found) in groups.iter().zip(&found) {
                for (later, &step) in group.iter().enumerate() {
                    let mut reached = vec![false; steps.len()];
                    let mut open: Vec<StepIx> = steps[step].after.clone();
                    while let Some(next) = open.pop() {
                        if !std::mem::replace(&mut reached[next.at()], true) {
                            open.extend(&steps[next.at()].after);
                        }
                    }
                    for (earlier, &other) in group.iter().enumerate() {
                        prop_assert_eq!(found.has(later, earlier), reached[other]);
                    }
                }
            }
        }
    }
}
