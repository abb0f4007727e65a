//! All guests leave a host together: for terms that a single change does not gain by.

use std::cmp::Reverse;

use estive_world::{DomainIx, HostIx, Indexed};

use super::groups::{best_host, gather};
use super::seeker::Seeker;
use crate::places::Change;

/// A host with more guests than this is not emptied.
const GUESTS: usize = 256;

/// Empties hosts, those with the fewest guests first, until no more gains or so much work is done.
pub(super) fn empty(seeker: &mut Seeker<'_>, until: u64) {
    loop {
        let mut hosts: Vec<(usize, HostIx)> = (0..seeker.ledger().books().nowhere().at())
            .map(HostIx::of)
            .map(|host| (seeker.ledger().books().places.guests(host).len(), host))
            .filter(|&(guests, _)| guests > 0 && guests <= GUESTS)
            .collect();
        hosts.sort_unstable();
        let mut any = false;
        for (_, host) in hosts {
            if seeker.work() >= until {
                return;
            }
            any |= empty_one(seeker, host);
        }
        if !any {
            return;
        }
        super::descend::descend(seeker, until);
    }
}

/// Empties one host if that gains.
fn empty_one(seeker: &mut Seeker<'_>, host: HostIx) -> bool {
    let mark = seeker.mark();
    let before = seeker.total();
    let ground = std::sync::Arc::clone(seeker.ledger().ground());
    let mut guests: Vec<DomainIx> = seeker.ledger().books().places.guests(host).to_vec();
    if guests.iter().any(|&guest| ground.still(guest).is_some()) {
        return false;
    }
    // The largest first: the small ones fit in what they leave.
    guests.sort_by_key(|&guest| (Reverse(ground.rooms.takes(guest).0), guest));
    let groups = seeker.groups();
    for guest in guests {
        let fellows = groups.with(guest);
        let gone = if seeker.ledger().spot(guest).host != host {
            // With its group, a moment ago.
            true
        } else if fellows.is_empty() {
            let found = seeker.best_of(guest).filter(|(_, to)| to.host != host);
            found.is_some_and(|(_, to)| {
                seeker.apply(Change { domain: guest, to });
                true
            })
        } else {
            best_host(seeker, fellows, Some(host))
                .is_some_and(|(_, to)| gather(seeker, fellows, to))
        };
        if !gone {
            seeker.back_to(mark);
            return false;
        }
    }
    let better = seeker.less(&seeker.total(), &before);
    if !better {
        seeker.back_to(mark);
    }
    better
}
