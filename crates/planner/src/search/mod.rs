//! The search: from a state to a better one, within limits, counted in candidates looked at.
//!
//! 1. [`descend`]: the best single change again and again, by a queue of what each domain was last seen to gain.
//! 2. [`swaps`]: two domains change places, where no single change gains.
//! 3. [`empty`]: all guests leave a host together, where a term only gains by whole hosts.
//! 4. [`regroup`]: who talks a lot is brought together at once, where the objective is about that: before 1 to 3, or, where
//!    something is broken, after it was mended.
//! 5. [`ruin`]: some of what was changed is taken back, or something is moved away, and 1 goes on from there; kept if
//!    better. In lanes, each with its own random numbers; the best lane's state is where all go on from.
//!
//! What a search ends in is within the rules as far as the world was: a change is let through by [`crate::Ledger::may`] when it is
//! made, or, where several are made as one (swaps, chains, groups, exchanges), all are undone if one is not.

mod chains;
mod descend;
mod empty;
mod exchange;
mod groups;
mod limits;
mod price;
mod regroup;
mod ruin;
mod seeker;
#[cfg(test)]
mod small_worlds;
mod swaps;

use rayon::prelude::*;

pub use limits::Limits;
pub use seeker::Seeker;

use crate::Question;

/// Of what is left, so much is for chains.
const CHAINS: u64 = 8;
/// How often lanes meet.
const MEETINGS: u64 = 4;

/// Looks for a better state from where the seeker stands; it stands there in the end.
pub fn search(seeker: &mut Seeker<'_>, question: &Question) {
    let budget = question.budget.work;
    let whole = seeker.ledger().value().broken == 0;
    if whole {
        regroup::regroup(seeker, question, budget / 2);
    }
    price::find(seeker, budget);
    settle(seeker, budget);
    if !whole {
        regroup::regroup(seeker, question, budget / 2);
        settle(seeker, budget);
    }
    let lanes = u64::from(question.lanes.clamp(1, 64));
    let Some((mut queue, _)) = descend::Queue::of_all(seeker, budget) else {
        seeker.set_price(limits::Price::default());
        return;
    };
    // A part is kept for settling what the lanes find.
    let each = (budget.saturating_sub(seeker.work())) / 4 * 3 / (lanes * MEETINGS);
    for meeting in 0..MEETINGS {
        if !ruin::worthwhile(seeker) {
            break;
        }
        let found: Vec<(Seeker<'_>, descend::Queue)> = (0..lanes)
            .into_par_iter()
            .map(|lane| {
                let (mut own, mut queue) = (seeker.clone(), queue.clone());
                let until = own.work() + each;
                let seed = question.seed ^ (meeting << 32) ^ (lane << 8);
                ruin::ruin(&mut own, &mut queue, seed, until);
                (own, queue)
            })
            .collect();
        let work: u64 = found
            .iter()
            .map(|(lane, _)| lane.work() - seeker.work())
            .sum();
        let total = seeker.work() + work;
        let best = (found.into_iter())
            .reduce(|best, lane| if lane.0.beats(&best.0) { lane } else { best });
        let best = best.filter(|(best, _)| best.beats(seeker));
        let any = best.is_some();
        if let Some((best, left)) = best {
            (*seeker, queue) = (best, left);
        }
        seeker.set_work(total);
        // What no lane found in its time, they rarely find in as much again.
        if !any {
            break;
        }
    }
    seeker.set_price(limits::Price::default());
    // What the lanes left is settled to its end: what a limit on work cuts off is their part, not this.
    settle(seeker, budget.saturating_mul(2));
}

/// Until no single change, no group, no emptied host, no swap and no chain gains.
pub fn settle(seeker: &mut Seeker<'_>, until: u64) {
    loop {
        exchange::exchange(seeker, until);
        if groups::groups(seeker, until) {
            continue;
        }
        if seeker.ledger().gauge().empties() {
            empty::empty(seeker, until);
        }
        swaps::swaps(seeker, until);
        let share = until.saturating_sub(seeker.work()) / CHAINS;
        if !chains::chains(seeker, seeker.work() + share) {
            return;
        }
    }
}
