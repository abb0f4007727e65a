//! Two domains change places, where no single change gains.

use estive_world::{DomainIx, HostIx, Indexed};

use super::seeker::Seeker;
use crate::ground::Bond;
use crate::objectives::Value;
use crate::places::{Change, Spot};

/// Up to so many pairs, all are looked at; of more, those with domains on hosts that would take them best.
const ALL_PAIRS: u64 = 4_000_000;

/// Swaps and then single changes, until neither gains or so much work is done.
pub(super) fn swaps(seeker: &mut Seeker<'_>, until: u64) {
    let count = seeker.base().len();
    let movable: Vec<DomainIx> = (0..count)
        .map(DomainIx::of)
        .filter(|&domain| seeker.ledger().ground().still(domain).is_none())
        .collect();
    let pairs = movable.len() as u64 * movable.len() as u64 / 2;
    loop {
        let mut any = false;
        if pairs <= ALL_PAIRS {
            for (nth, &one) in movable.iter().enumerate() {
                if seeker.work() >= until {
                    return;
                }
                any |= best_partner(seeker, one, &movable[nth + 1..]);
            }
        } else {
            for &one in &movable {
                if seeker.work() >= until {
                    return;
                }
                let near = likely(seeker, one);
                any |= best_partner(seeker, one, &near);
            }
        }
        if !any {
            return;
        }
        super::descend::descend(seeker, until);
    }
}

/// Swaps a domain with the best of some others, if that gains.
pub(super) fn best_partner(seeker: &mut Seeker<'_>, one: DomainIx, others: &[DomainIx]) -> bool {
    let here = seeker.ledger().spot(one);
    let mut best: Option<(Value, [Change; 2])> = None;
    seeker.looked_at(others.len());
    for &other in others {
        let there = seeker.ledger().spot(other);
        let Some(changes) = swap(seeker, (one, here), (other, there)) else {
            continue;
        };
        let value = seeker.weigh(&changes);
        let better = match &best {
            Some((best, _)) => seeker.less(&value, best),
            None => seeker.gains(&value),
        };
        if better {
            best = Some((value, changes));
        }
    }
    let Some((_, [first, second])) = best else {
        return false;
    };
    // Room was looked at for both together: between the two, one host may be beyond its own; nobody sees that.
    seeker.apply(first);
    seeker.apply(second);
    true
}

fn swap(
    seeker: &Seeker<'_>,
    one: (DomainIx, Spot),
    other: (DomainIx, Spot),
) -> Option<[Change; 2]> {
    let nowhere = seeker.ledger().books().nowhere();
    let (here, there) = (one.1, other.1);
    if here.host == there.host || here.host == nowhere || there.host == nowhere {
        return None;
    }
    let changes = [(one, there), (other, here)].map(|((domain, now), to)| Change {
        domain,
        to: Spot {
            host: to.host,
            replica: now.replica,
        },
    });
    let ledger = seeker.ledger();
    // What a swap breaks is counted against where the other was: of two that one bond holds that is not true, unless both
    // places are one to it.
    let (ground, books) = (ledger.ground(), ledger.books());
    let parts = |of: &[Vec<u32>], bonds: &[Bond]| {
        (of[one.0.at()].iter())
            .filter(|bond| of[other.0.at()].contains(bond))
            .any(|&bond| !books.alike(bonds[bond as usize].scope, here.host, there.host))
    };
    if parts(&ground.apart_of, &ground.apart) || parts(&ground.together_of, &ground.together) {
        return None;
    }
    // Domains that take the same gain nothing, and most pairs of a large world do not fit.
    ledger.books().may_swap(one.0, other.0).ok()?;
    seeker.within_limits_both(&changes).then_some(changes)
}

/// Guests of the hosts that would take a domain best if they had room.
fn likely(seeker: &mut Seeker<'_>, domain: DomainIx) -> Vec<DomainIx> {
    let hosts = seeker.best_hosts(domain, 4);
    let places = &seeker.ledger().books().places;
    let guests = hosts
        .iter()
        .flat_map(|&host: &HostIx| places.guests(host).iter().take(32).copied());
    guests.collect()
}
