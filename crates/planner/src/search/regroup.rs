//! Who talks a lot is brought together, all at once: the placement by [`crate::partition`] from where everything is.
//!
//! Single moves and swaps gain nothing where a whole group has to go; and where hosts are full, no order of single moves
//! leads there. The partition knows rooms, who may be where, who must be apart, and what moves cost; what it does not
//! know (sites apart, memory kept for replicas, limits) is looked at in the end, and the whole is left if it does not
//! hold. What moves too many is asked again at a higher price.

use estive_world::{DomainIx, HostIx, Indexed, Scope};

use super::seeker::Seeker;
use crate::objectives::FAR;
use crate::partition::{Effort, Graph, NOWHERE, Problem, Sizes, partition};
use crate::places::{Change, Spot};
use crate::room::{Amounts, KINDS};
use crate::{Question, Term};

/// How often a dearer price is tried.
const DEARER: u32 = 6;

/// Tries; the seeker stands at the new state if that is better and within the rules.
pub(super) fn regroup(seeker: &mut Seeker<'_>, question: &Question, until: u64) {
    let Some(weight) = weight_of_locality(question) else {
        return;
    };
    if seeker.ledger().value().broken != 0 {
        return;
    }
    let mut table = Table::of(seeker, weight);
    let lanes = question.lanes.clamp(1, 64);
    if table.problem.graph.weight() == 0 {
        return;
    }
    for _ in 0..DEARER {
        if seeker.work() >= until {
            return;
        }
        let effort = Effort {
            seed: question.seed,
            lanes,
            work: (until - seeker.work()) / u64::from(DEARER),
        };
        let Some(answer) = partition(&table.problem, effort) else {
            return;
        };
        seeker.looked_at(answer.work as usize);
        match table.carry_out(seeker, &answer.host) {
            Outcome::Better | Outcome::NoBetter => return,
            Outcome::TooMuch => table.make_dearer(),
        }
    }
}

/// The weight of the term in the first rank.
fn weight_of_locality(question: &Question) -> Option<f64> {
    let mut first = question.objective.ranks.first()?.iter();
    let found = first.find(|weighted| weighted.term == Term::Locality && weighted.weight > 0.0)?;
    Some(found.weight)
}

enum Outcome {
    Better,
    NoBetter,
    TooMuch,
}

/// A problem, and what its numbers stand for.
struct Table {
    problem: Problem,
    /// By place in the problem: hosts stand there by site.
    hosts: Vec<HostIx>,
}

impl Table {
    fn of(seeker: &Seeker<'_>, weight: f64) -> Self {
        let ledger = seeker.ledger();
        let (books, ground) = (ledger.books(), ledger.ground());
        let world = ground.world;
        let mut hosts: Vec<HostIx> = (0..world.hosts.len()).map(HostIx::of).collect();
        hosts.sort_by_key(|&host| (world.hosts[host].site, host));
        let mut place_of = vec![NOWHERE; world.hosts.len() + 1];
        for (place, host) in hosts.iter().enumerate() {
            place_of[host.at()] = place as u32;
        }
        let domains = || (0..world.domains.len()).map(DomainIx::of);
        // Of each kind that bounds anything: what domains take, and what hosts have beside what is there for others.
        let mut theirs = vec![Amounts::NONE; world.hosts.len() + 1];
        for domain in domains() {
            theirs[books.places.spot(domain).host].add(&ground.rooms.takes(domain));
        }
        let mut total = Amounts::NONE;
        for amount in &theirs {
            total.add(amount);
        }
        let room = |host: HostIx| -> [u64; KINDS] {
            std::array::from_fn(|kind| {
                let others = books.taken(host).0[kind] - theirs[host].0[kind];
                let left = |room: &Amounts| room.0[kind].saturating_sub(others);
                // What is there already may stay, whatever is to be kept free.
                let stays = theirs[host].0[kind].min(left(ground.rooms.room(host)));
                left(ground.rooms.open(host)).max(stays).min(total.0[kind])
            })
        };
        let rooms_all: Vec<[u64; KINDS]> = hosts.iter().map(|&host| room(host)).collect();
        let bounds = |kind: &usize| {
            let least = rooms_all.iter().map(|room| room[*kind]).min().unwrap_or(0);
            least < total.0[*kind]
        };
        let kinds: Vec<usize> = (0..KINDS).filter(bounds).collect();
        let picked = |amounts: &[u64; KINDS]| -> Vec<u64> {
            kinds.iter().map(|&kind| amounts[kind]).collect()
        };
        let mut sizes = Sizes::new(kinds.len());
        for domain in domains() {
            sizes.push(&picked(&ground.rooms.takes(domain).0));
        }
        let mut rooms = Sizes::new(kinds.len());
        for room in &rooms_all {
            rooms.push(&picked(room));
        }
        let pairs: Vec<(u32, u32, u64)> = (world.talks.iter())
            .map(|talk| (talk.pair.0.0, talk.pair.1.0, talk.bytes_per_s))
            .collect();
        let mut problem = Problem::new(Graph::of_pairs(world.domains.len(), &pairs), sizes, rooms);
        problem.site_of = hosts.iter().map(|&host| world.hosts[host].site.0).collect();
        problem.far = FAR;
        problem.start = domains()
            .map(|domain| place_of[books.places.spot(domain).host.at()])
            .collect();
        problem.price = domains()
            .map(|domain| (seeker.least_gain(domain) / weight).ceil().clamp(1.0, 1e12) as i64)
            .collect();
        problem.still = domains()
            .map(|domain| {
                let bound = (ground.together_of[domain.at()].iter())
                    .any(|&bond| ground.together[bond as usize].scope == Scope::Host);
                let spot = books.places.spot(domain);
                ground.still(domain).is_some() || bound || spot.replica != ground.nowhere()
            })
            .collect();
        problem.class_of = domains().map(|domain| ground.kind_of(domain)).collect();
        problem.open = (0..ground.kinds())
            .map(|kind| {
                hosts
                    .iter()
                    .map(|&host| ground.kind_may_come(kind, host))
                    .collect()
            })
            .collect();
        let apart = |domain: DomainIx| -> Vec<u32> {
            let bonds = ground.apart_of[domain.at()].iter().copied();
            bonds
                .filter(|&bond| ground.apart[bond as usize].scope == Scope::Host)
                .collect()
        };
        if !ground.apart.is_empty() {
            problem.apart = domains().map(apart).collect();
        }
        Self { problem, hosts }
    }

    /// Puts everything where the partition has it, and takes it back if that is no better or breaks anything.
    fn carry_out(&self, seeker: &mut Seeker<'_>, host: &[u32]) -> Outcome {
        let mark = seeker.mark();
        let before = seeker.total();
        for (number, &place) in host.iter().enumerate() {
            let domain = DomainIx::of(number);
            let to = Spot {
                host: self.hosts[place as usize],
                replica: seeker.ledger().spot(domain).replica,
            };
            if seeker.ledger().spot(domain) != to {
                seeker.apply(Change { domain, to });
            }
        }
        let outcome = if !seeker.is_within_limits() {
            Outcome::TooMuch
        } else if seeker.ledger().value().broken == 0 && seeker.less(&seeker.total(), &before) {
            Outcome::Better
        } else {
            Outcome::NoBetter
        };
        match outcome {
            Outcome::Better => {
                seeker.forget();
            }
            _ => seeker.back_to(mark),
        }
        outcome
    }

    fn make_dearer(&mut self) {
        for price in &mut self.problem.price {
            *price = price.saturating_mul(4).min(1 << 40);
        }
    }
}
