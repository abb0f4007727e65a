//! Chains: one comes to a host that is full for it, a guest of that host leaves for another, from which one leaves in its
//! turn, and so on, where neither a move nor a swap gains. (Ejection chains, Glover 1996; as long as all that was done so
//! far has gained, as in Lin and Kernighan's, Operations Research 21, 1973.)
//!
//! What is full meanwhile counts as broken, so the same value says when a chain is closed. Whoever must be with others
//! brings them along.

use estive_world::{DomainIx, HostIx, Indexed};

use super::groups;
use super::seeker::Seeker;
use crate::objectives::Value;
use crate::places::Change;
use crate::room::KINDS;

/// Moves of a chain.
const LONGEST: usize = 4;
/// Hosts that are tried for the first of a chain.
const FIRST: usize = 4;
/// Guests that are tried as the next, and of these, who may push another out.
const GUESTS: usize = 16;
const PUSHERS: [usize; LONGEST] = [0, 4, 2, 0];
/// Hosts that are tried for each of those.
const HOSTS: usize = 2;

/// Makes chains that gain until none does or so much work is done; says whether any did.
pub(super) fn chains(seeker: &mut Seeker<'_>, until: u64) -> bool {
    let mut any = false;
    for (_, domain, host) in beginnings(seeker, until) {
        if seeker.work() >= until {
            break;
        }
        any |= Chain::new(seeker, until).made(domain, host);
    }
    any
}

/// Who would like to go where, by what the first rank would rise by: those who gain if only there were room come first.
fn beginnings(seeker: &mut Seeker<'_>, until: u64) -> Vec<(f64, DomainIx, HostIx)> {
    let groups = seeker.groups();
    let mut found = Vec::new();
    for domain in (0..seeker.base().len()).map(DomainIx::of) {
        if seeker.work() >= until {
            break;
        }
        let leads = (groups.with(domain).first()).is_none_or(|&first| first == domain);
        if !leads || seeker.ledger().ground().still(domain).is_some() {
            continue;
        }
        let now = seeker.ledger().spot(domain).host;
        let toll = seeker.least_gain(domain);
        let wanted = seeker.wanted(domain, FIRST);
        let others = wanted.into_iter().filter(|&(_, host)| host != now);
        found.extend(others.map(|(by, host)| (by + toll, domain, host)));
    }
    found.sort_unstable_by(|one, other| {
        (one.0.total_cmp(&other.0)).then((one.1, one.2).cmp(&(other.1, other.2)))
    });
    found
}

/// A chain that is being tried.
struct Chain<'s, 'w> {
    seeker: &'s mut Seeker<'w>,
    mark: (usize, Value),
    until: u64,
    /// Who has moved.
    moved: Vec<DomainIx>,
}

impl<'s, 'w> Chain<'s, 'w> {
    fn new(seeker: &'s mut Seeker<'w>, until: u64) -> Self {
        Self {
            mark: seeker.mark(),
            seeker,
            until,
            moved: Vec::new(),
        }
    }

    /// Tries chains that begin with a domain coming to a host; whether one gained, and was made.
    fn made(&mut self, domain: DomainIx, host: HostIx) -> bool {
        if self.put(domain, host) && (self.is_done() || self.goes_on(host, 1)) {
            return true;
        }
        self.seeker.back_to(self.mark);
        false
    }

    fn is_done(&self) -> bool {
        let total = self.seeker.total();
        self.seeker.less(&total, &self.mark.1) && self.seeker.is_sound_since(self.mark)
    }

    /// Brings a domain to a host with all who must be with it, whatever room there is.
    fn put(&mut self, domain: DomainIx, host: HostIx) -> bool {
        let groups = self.seeker.groups();
        let alone = [domain];
        let fellows = match groups.with(domain) {
            [] => &alone[..],
            fellows => fellows,
        };
        for &fellow in fellows {
            let to = self.seeker.spot_to(fellow, host);
            let there = self.seeker.ledger().spot(fellow) == to;
            if !there && !self.seeker.force(Change { domain: fellow, to }) {
                return false;
            }
            self.moved.push(fellow);
        }
        self.seeker.is_within_limits()
    }

    /// After so many moves a guest leaves a host: the best of those that close the chain, or else one that pushes
    /// another out.
    fn goes_on(&mut self, host: HostIx, moves: usize) -> bool {
        let guests = self.leavers(host);
        let (here, moved) = (self.seeker.mark(), self.moved.len());
        if let Some((guest, to)) = self.best_end(&guests, host) {
            if self.put(guest, to) && self.is_done() {
                return true;
            }
            self.back_to(here, moved);
        }
        // Not in the first rank worse than where it began: else whatever comes would have to make up for it.
        let lost = self.seeker.total().ranks[0] > self.mark.1.ranks[0];
        if moves + 2 > LONGEST || lost {
            return false;
        }
        for &guest in guests.iter().take(PUSHERS[moves]) {
            let wanted = self.seeker.wanted(guest, HOSTS + 1);
            let others = wanted.into_iter().filter(|&(_, to)| to != host);
            for (_, to) in others.take(HOSTS) {
                if self.seeker.work() >= self.until {
                    return false;
                }
                if self.put(guest, to) && (self.is_done() || self.goes_on(to, moves + 1)) {
                    return true;
                }
                self.back_to(here, moved);
            }
        }
        false
    }

    fn back_to(&mut self, mark: (usize, Value), moved: usize) {
        self.seeker.back_to(mark);
        self.moved.truncate(moved);
    }

    /// The guest that gains most by leaving a host, and where to, if all gains together then.
    fn best_end(&mut self, guests: &[DomainIx], host: HostIx) -> Option<(DomainIx, HostIx)> {
        let mut best: Option<(Value, DomainIx, HostIx)> = None;
        for &guest in guests {
            if self.seeker.work() >= self.until {
                return None;
            }
            let Some((total, to)) = self.best_way_out(guest, host) else {
                continue;
            };
            let least = best.as_ref().map_or(&self.mark.1, |(least, ..)| least);
            if self.seeker.less(&total, least) {
                best = Some((total, guest, to));
            }
        }
        best.map(|(_, guest, to)| (guest, to))
    }

    /// Where a guest may go from a host, and what is gained in all then.
    fn best_way_out(&mut self, guest: DomainIx, host: HostIx) -> Option<(Value, HostIx)> {
        let groups = self.seeker.groups();
        let fellows = groups.with(guest);
        if !fellows.is_empty() {
            return groups::best_host(self.seeker, fellows, Some(host));
        }
        let (by, to) = self.seeker.best_of(guest)?;
        let mut total = self.seeker.total();
        total.broken += by.broken;
        for (rank, by) in total.ranks.iter_mut().zip(by.ranks) {
            *rank += by;
        }
        total.toll += by.toll;
        (to.host != host).then_some((total, to.host))
    }

    /// Guests of a host that would mend what is broken there if they left, or any where nothing is.
    fn leavers(&self, host: HostIx) -> Vec<DomainIx> {
        let ledger = self.seeker.ledger();
        let (books, ground) = (ledger.books(), ledger.ground());
        let (taken, room) = (books.taken(host), ground.rooms.open(host));
        let lacking = (0..KINDS).find(|&kind| taken.0[kind] > room.0[kind]);
        let broken = self.seeker.total().broken > self.mark.1.broken;
        let groups = self.seeker.groups();
        let mends = |&guest: &DomainIx| {
            if lacking.is_some() {
                let takes = ground.rooms.takes(guest);
                let fits = |kind: usize| taken.0[kind] - takes.0[kind] <= room.0[kind];
                !groups.with(guest).is_empty() || (0..KINDS).all(fits)
            } else {
                !broken || books.broken_bonds(guest, host) > 0
            }
        };
        let mut guests: Vec<DomainIx> = (books.places.guests(host).iter().copied())
            .filter(|guest| !self.moved.contains(guest) && ground.still(*guest).is_none())
            .filter(mends)
            .collect();
        // The smallest that do: the least is left behind.
        guests.sort_unstable_by_key(|&guest| {
            let takes = ground.rooms.takes(guest);
            (lacking.map_or(0, |kind| takes.0[kind]), guest)
        });
        guests.truncate(GUESTS);
        guests
    }
}
