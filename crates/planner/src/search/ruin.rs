//! Large neighbourhoods: some of what was changed is taken back or something is moved away, and the best single changes
//! go on from there. What is not better is undone. ("Ruin and recreate", Schrimpf et al., J. Comput. Phys. 159, 2000;
//! large neighbourhood search, Shaw, CP 1998.)

use estive_world::{DomainIx, HostIx, Indexed};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::descend::{Queue, touched};
use super::groups::gather;
use super::seeker::Seeker;
use crate::places::{Change, Spot};

/// The most domains that one attempt takes back or moves away.
const MOST: u64 = 4;
/// The most single changes after it.
const STEPS: u32 = 12;
/// The most domains that are looked at for one of them.
const TRIES: u32 = 24;

/// Whether there is anything that could be moved at all.
pub(super) fn worthwhile(seeker: &Seeker<'_>) -> bool {
    let ground = seeker.ledger().ground();
    (0..seeker.base().len()).any(|domain| ground.still(DomainIx::of(domain)).is_none())
}

/// Attempts until so much work is done.
pub(super) fn ruin(seeker: &mut Seeker<'_>, queue: &mut Queue, seed: u64, until: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut moved = Moved::new(seeker);
    while seeker.work() < until {
        // Each attempt costs something even where it finds nothing to do.
        seeker.looked_at(1);
        let (mark, before) = (seeker.mark(), seeker.unpriced());
        let touched = disturb(seeker, &mut random, &moved.list);
        if touched.is_empty() {
            continue;
        }
        queue.look_around(seeker, &touched);
        // Left to themselves they often go where they were: every other time they are to stay, and others go.
        let stay = if below(&mut random, 2) == 0 {
            seeker.changed_since(mark)
        } else {
            Vec::new()
        };
        for _ in 0..STEPS {
            if !queue.step(seeker, TRIES, &stay) {
                break;
            }
        }
        if seeker.less(&seeker.unpriced(), &before) {
            for domain in seeker.forget() {
                moved.add(domain);
            }
        } else {
            seeker.back_to(mark);
        }
    }
}

/// Domains that are, or were at some moment, elsewhere than at the base.
struct Moved {
    list: Vec<DomainIx>,
    known: Vec<bool>,
}

impl Moved {
    fn new(seeker: &Seeker<'_>) -> Self {
        let count = seeker.base().len();
        let mut moved = Self {
            list: Vec::new(),
            known: vec![false; count],
        };
        for domain in (0..count).map(DomainIx::of) {
            if seeker.ledger().spot(domain) != seeker.base()[domain.at()] {
                moved.add(domain);
            }
        }
        moved
    }

    fn add(&mut self, domain: DomainIx) {
        if !std::mem::replace(&mut self.known[domain.at()], true) {
            self.list.push(domain);
        }
    }
}

/// Takes some moved domains back, or moves some away; gives the hosts that this touched.
fn disturb(seeker: &mut Seeker<'_>, random: &mut ChaCha8Rng, moved: &[DomainIx]) -> Vec<HostIx> {
    let how_many = 1 + below(random, MOST);
    let mut hosts = Vec::new();
    let groups = seeker.groups();
    let back = !moved.is_empty() && (below(random, 4) > 0 || !seeker.may_move_more());
    for _ in 0..how_many {
        let domain = if back {
            moved[below(random, moved.len() as u64) as usize]
        } else {
            DomainIx::of(below(random, seeker.base().len() as u64) as usize)
        };
        let old = seeker.ledger().spot(domain);
        let fellows = groups.with(domain);
        let done = match (back, fellows.is_empty()) {
            (true, true) => seeker.take_back(domain),
            (true, false) => take_back_all(seeker, fellows),
            (false, _) => move_away(seeker, random, domain, fellows),
        };
        if done {
            hosts.extend(touched(old, seeker.ledger().spot(domain)));
        }
    }
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// Takes a group back to where it was.
fn take_back_all(seeker: &mut Seeker<'_>, fellows: &[DomainIx]) -> bool {
    let back = fellows.iter().map(|&domain| Change {
        domain,
        to: seeker.base()[domain.at()],
    });
    let back: Vec<Change> = back.collect();
    seeker.apply_all(&back)
}

/// Moves a domain to some host that may take it, with all who must be with it.
fn move_away(
    seeker: &mut Seeker<'_>,
    random: &mut ChaCha8Rng,
    domain: DomainIx,
    fellows: &[DomainIx],
) -> bool {
    let list = seeker.ledger().ground().come_list(domain);
    if list.is_empty() {
        return false;
    }
    let host = list[below(random, list.len() as u64) as usize];
    if !fellows.is_empty() {
        return seeker.ledger().spot(domain).host != host && gather(seeker, fellows, host);
    }
    let now = seeker.ledger().spot(domain);
    let replica = if host == now.replica {
        now.host
    } else {
        now.replica
    };
    let to = Spot { host, replica };
    seeker.looked_at(1);
    let may = host != now.host
        && seeker.ledger().books().may(domain, to).is_ok()
        && seeker.within_limits(domain, to);
    if may {
        seeker.apply(Change { domain, to });
    }
    may
}

/// A number below a bound, near enough alike for all.
pub(super) fn below(random: &mut ChaCha8Rng, bound: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as u64
}
