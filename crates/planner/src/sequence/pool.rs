//! What steps take from a place and give back: room of a kind, a slot for a move, a seat beside others.
//!
//! Each step that begins is backed by room that is really free then: what was free from the start, or what certain earlier
//! steps freed as they ended; on those it waits in the plan. Nothing backs two steps. So whatever order the rest takes, all
//! that has begun is backed by something free: the same flow that the linter looks for, built from the other side.

use std::collections::{BTreeSet, VecDeque};

/// A place's stock of one thing.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// The most that may be taken.
    pub room: u64,
    /// What is taken now.
    pub taken: u64,
    /// What was free from the start and backs nothing yet.
    unclaimed: u64,
    /// What ended steps freed and backs nothing yet, the earliest first.
    freed: VecDeque<(u64, u32)>,
}

impl Pool {
    /// One with so much room, of which so much is taken. Where that is more than there is, it is the room: no state gets
    /// worse than the start.
    pub fn new(room: u64, taken: u64) -> Self {
        let room = room.max(taken);
        Self {
            room,
            taken,
            unclaimed: room - taken,
            freed: VecDeque::new(),
        }
    }

    /// Whether so much more may be taken now.
    pub fn admits(&self, amount: u64) -> bool {
        amount == 0 || self.taken + amount <= self.room
    }

    /// Takes it, and adds the steps that freed it.
    pub fn claim(&mut self, amount: u64, after: &mut BTreeSet<u32>) {
        self.taken += amount;
        let mut wanted = amount - amount.min(self.unclaimed);
        self.unclaimed -= amount - wanted;
        while wanted > 0 {
            let Some((left, step)) = self.freed.front_mut() else {
                unreachable!("what is free is unclaimed or was freed");
            };
            let part = wanted.min(*left);
            after.insert(*step);
            wanted -= part;
            *left -= part;
            if *left == 0 {
                self.freed.pop_front();
            }
        }
    }

    /// Gives back what a step has freed by its end.
    pub fn release(&mut self, amount: u64, step: u32) {
        if amount > 0 {
            self.taken -= amount;
            self.freed.push_back((amount, step));
        }
    }
}
