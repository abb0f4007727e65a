//! One that was moved goes back, and another is moved in its place: where a limit is reached, nothing else leads on.

use estive_world::{DomainIx, Indexed};

use super::descend::{Queue, descend};
use super::seeker::Seeker;

/// Of the queue, so many are looked at for the place of one.
const TRIES: u32 = 6;

/// Goes down by single changes and, where a limit is reached, by exchanges, until neither gains or so much work is done.
pub(super) fn exchange(seeker: &mut Seeker<'_>, until: u64) {
    while let Some(mut queue) = descend(seeker, until) {
        if seeker.has_slack() || !pass(seeker, &mut queue, until) {
            return;
        }
    }
}

/// The same, each domain looked at once only.
pub(super) fn exchange_roughly(seeker: &mut Seeker<'_>, until: u64) {
    let Some((mut queue, _)) = Queue::of_all(seeker, until) else {
        return;
    };
    while queue.step(seeker, u32::MAX, &[]) {
        if seeker.work() >= until {
            return;
        }
    }
    pass(seeker, &mut queue, until);
}

/// Tries to put another in the place of each that was moved; whether any was.
fn pass(seeker: &mut Seeker<'_>, queue: &mut Queue, until: u64) -> bool {
    let is_moved = |domain: &DomainIx| seeker.ledger().spot(*domain) != seeker.base()[domain.at()];
    let all = (0..seeker.base().len()).map(DomainIx::of);
    let moved: Vec<DomainIx> = all.filter(is_moved).collect();
    let mut any = false;
    for one in moved {
        if seeker.work() >= until {
            break;
        }
        let (mark, before) = (seeker.mark(), seeker.total());
        if !seeker.take_back(one) {
            continue;
        }
        seeker.looked_at(1);
        let other = queue.best(seeker, TRIES, &[one]);
        let better = other.is_some_and(|change| {
            seeker.apply(change);
            seeker.less(&seeker.total(), &before)
        });
        if better {
            any = true;
            queue.look(seeker, one);
        } else {
            seeker.back_to(mark);
        }
    }
    any
}
