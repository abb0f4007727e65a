//! Large neighbourhoods: some of what was changed is taken back or something is moved away, and the best single changes
//! go on from there. What is not better is undone. ("Ruin and recreate", Schrimpf et al., J. Comput. Phys. 159, 2000;
//! large neighbourhood search, Shaw, CP 1998.)

use estive_world::{DomainIx, HostIx, Indexed};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::descend::{Queue, touched};
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
        let mark = seeker.mark();
        let before = seeker.total();
        let touched = disturb(seeker, &mut random, &moved.list);
        if touched.is_empty() {
            continue;
        }
        queue.look_around(seeker, &touched);
        for _ in 0..STEPS {
            if !queue.step(seeker, TRIES) {
                break;
            }
        }
        if seeker.less(&seeker.total(), &before) {
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
    let back = !moved.is_empty() && (below(random, 4) > 0 || !seeker.may_move_more());
    for _ in 0..how_many {
        let domain = if back {
            moved[below(random, moved.len() as u64) as usize]
        } else {
            DomainIx::of(below(random, seeker.base().len() as u64) as usize)
        };
        let old = seeker.ledger().spot(domain);
        let done = if back {
            seeker.take_back(domain)
        } else {
            move_away(seeker, random, domain)
        };
        if done {
            hosts.extend(touched(old, seeker.ledger().spot(domain)));
        }
    }
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// Moves a domain to some host that may take it.
fn move_away(seeker: &mut Seeker<'_>, random: &mut ChaCha8Rng, domain: DomainIx) -> bool {
    let list = seeker.ledger().ground().come_list(domain);
    if list.is_empty() {
        return false;
    }
    let host = list[below(random, list.len() as u64) as usize];
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
fn below(random: &mut ChaCha8Rng, bound: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as u64
}
