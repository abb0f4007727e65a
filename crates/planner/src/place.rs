//! Places for domains that have none yet: one in microseconds, thousands at once, by the same rules and terms as a plan.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use estive_world::{DomainIx, Hindrance, HostIx, Indexed, Reserved, World};

use crate::ground::Ground;
use crate::ledger::{Ledger, wakes};
use crate::obstacle::Obstacle;
use crate::places::{Change, Spot};
use crate::room::held;
use crate::{KINDS, Objective};

/// A domain that finds no place, and why: what stood in the way on how many hosts, the most frequent first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoPlace {
    /// Which.
    pub domain: DomainIx,
    /// What stands in the way, with the number of hosts.
    pub hindrances: Vec<Hindrance>,
}

/// Where a domain goes, and what that does to the objective's first rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placed {
    /// Which.
    pub domain: DomainIx,
    /// Where.
    pub host: HostIx,
    /// How much the value rises; it may fall.
    pub by: f64,
}

/// Gives places in one state after the other.
pub struct Placer<'w> {
    ledger: Ledger<'w>,
    /// What each user has promised to him by domains that are placed.
    had: Vec<Reserved>,
    targets: Vec<HostIx>,
    deltas: Vec<f64>,
    spare: Vec<f64>,
}

impl<'w> Placer<'w> {
    /// Over a world as it is.
    ///
    /// # Errors
    /// An objective that cannot be measured, in words.
    pub fn new(world: &'w World, objective: &Objective) -> Result<Self, String> {
        let ground = Arc::new(Ground::new(world, wakes(objective)));
        let mut had = vec![Reserved::NONE; world.users.len()];
        for domain in world.domains.iter().filter(|domain| domain.host.is_some()) {
            if let Some(user) = domain.user {
                had[user.at()] += held(domain);
            }
        }
        Ok(Self {
            ledger: Ledger::on(ground, objective)?,
            had,
            targets: Vec::new(),
            deltas: Vec::new(),
            spare: Vec::new(),
        })
    }

    /// The state.
    pub fn ledger(&self) -> &Ledger<'w> {
        &self.ledger
    }

    /// Puts a domain that has no place where the objective rises least; the first host among equals.
    ///
    /// # Errors
    /// No host may take it.
    pub fn place(&mut self, domain: DomainIx) -> Result<Placed, NoPlace> {
        let ground = Arc::clone(self.ledger.ground());
        let what = &ground.world.domains[domain];
        if let Some(user) = what.user {
            let wants = self.had[user.at()] + held(what);
            if !wants.fits(&ground.world.users[user].quota) {
                return Err(no_place(domain, [Obstacle::Quota(user)], ground.world));
            }
        }
        let replica = self.ledger.spot(domain).replica;
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        targets.extend_from_slice(ground.come_list(domain));
        let books = self.ledger.books();
        let takes = ground.rooms.takes(domain);
        let free =
            ground.apart_of[domain.at()].is_empty() && ground.together_of[domain.at()].is_empty();
        targets.retain(|&host| {
            if free && replica == ground.nowhere() {
                books.taken(host).admits(&takes, ground.rooms.room(host))
            } else {
                books.may(domain, Spot { host, replica }).is_ok()
            }
        });
        let (mut deltas, mut spare) = (
            std::mem::take(&mut self.deltas),
            std::mem::take(&mut self.spare),
        );
        self.ledger
            .gauge()
            .scan(books, domain, &targets, &mut deltas, &mut spare);
        let mut best: Option<Placed> = None;
        for (&host, &by) in targets.iter().zip(&deltas) {
            let better = match &best {
                None => true,
                Some(best) if (by - best.by).abs() <= 1e-12 => {
                    self.later_ranks(domain, host, best.host, replica)
                }
                Some(best) => by < best.by,
            };
            if better {
                best = Some(Placed { domain, host, by });
            }
        }
        (self.targets, self.deltas, self.spare) = (targets, deltas, spare);
        let Some(placed) = best else {
            let obstacles = (0..ground.world.hosts.len()).filter_map(|host| {
                let spot = Spot {
                    host: HostIx::of(host),
                    replica,
                };
                self.ledger.books().may(domain, spot).err()
            });
            return Err(no_place(domain, obstacles, ground.world));
        };
        let host = placed.host;
        self.ledger.apply(Change {
            domain,
            to: Spot { host, replica },
        });
        if let Some(user) = what.user {
            self.had[user.at()] += held(what);
        }
        Ok(placed)
    }

    /// Whether, where the first rank does not tell two hosts apart, a later one prefers the first of them.
    fn later_ranks(&self, domain: DomainIx, one: HostIx, other: HostIx, replica: HostIx) -> bool {
        let of = |rank, host| {
            let to = Spot { host, replica };
            self.ledger
                .gauge()
                .delta_of(rank, self.ledger.books(), &[Change { domain, to }])
        };
        for rank in 1..self.ledger.gauge().count() {
            let (one, other) = (of(rank, one), of(rank, other));
            if (one - other).abs() > 1e-12 {
                return one < other;
            }
        }
        false
    }

    /// Puts many domains, all or none: those that may go to fewest hosts first, then the largest. Where that leaves one
    /// without a place, the largest first by each single kind is tried too.
    ///
    /// # Errors
    /// One that finds no place beside the others; nothing is placed then. A greedy order can fail where some other would
    /// just fit.
    pub fn place_all(&mut self, domains: &[DomainIx]) -> Result<Vec<Placed>, NoPlace> {
        let ground = Arc::clone(self.ledger.ground());
        let mut room = [1u64; KINDS];
        for host in (0..ground.world.hosts.len()).map(HostIx::of) {
            for (most, here) in room.iter_mut().zip(ground.rooms.room(host).0) {
                *most = (*most).max(here);
            }
        }
        // How large a domain is: its largest part of the largest host, in millionths.
        let part = |domain: DomainIx, kind: usize| {
            let takes = ground.rooms.takes(domain).0[kind];
            (u128::from(takes) * 1_000_000 / u128::from(room[kind])) as u64
        };
        let mut first: Option<NoPlace> = None;
        for only in std::iter::once(None).chain((0..KINDS).map(Some)) {
            let mut order = domains.to_vec();
            order.sort_by_key(|&domain| {
                let size = match only {
                    Some(kind) => part(domain, kind),
                    None => (0..KINDS).map(|kind| part(domain, kind)).max().unwrap_or(0),
                };
                (ground.come_list(domain).len(), Reverse(size), domain)
            });
            if let Some(kind) = only
                && domains.iter().all(|&domain| part(domain, kind) == 0)
            {
                continue;
            }
            match self.try_all(&order) {
                Ok(placed) => return Ok(placed),
                Err(failed) => first = first.or(Some(failed)),
            }
        }
        first.map_or(Ok(Vec::new()), Err)
    }

    fn try_all(&mut self, order: &[DomainIx]) -> Result<Vec<Placed>, NoPlace> {
        let had = self.had.clone();
        let mut placed = Vec::with_capacity(order.len());
        for &domain in order {
            match self.place(domain) {
                Ok(place) => placed.push(place),
                Err(failed) => {
                    for place in placed.iter().rev() {
                        let nowhere = self.ledger.ground().nowhere();
                        let spot = self.ledger.spot(place.domain);
                        self.ledger.apply(Change {
                            domain: place.domain,
                            to: Spot {
                                host: nowhere,
                                ..spot
                            },
                        });
                    }
                    self.had = had;
                    return Err(failed);
                }
            }
        }
        placed.sort_by_key(|place: &Placed| place.domain);
        Ok(placed)
    }
}

fn no_place(
    domain: DomainIx,
    obstacles: impl IntoIterator<Item = Obstacle>,
    world: &World,
) -> NoPlace {
    NoPlace {
        domain,
        hindrances: counted(obstacles, world),
    }
}

/// What stands in the way, in words without hosts' names, with counts, the most frequent first.
pub(crate) fn counted(
    obstacles: impl IntoIterator<Item = Obstacle>,
    world: &World,
) -> Vec<Hindrance> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for obstacle in obstacles {
        *counts.entry(obstacle.kind(world)).or_default() += 1;
    }
    let mut hindrances: Vec<Hindrance> = (counts.into_iter())
        .map(|(what, count)| Hindrance { what, count })
        .collect();
    hindrances.sort_by_key(|hindrance| Reverse(hindrance.count));
    hindrances
}

#[cfg(test)]
mod tests {
    use estive_world::{Relation, Scope, User, UserIx};

    use super::*;
    use crate::{Term, Weighted, samples};

    fn balance() -> Objective {
        Objective {
            ranks: vec![vec![Weighted {
                term: Term::Balance,
                weight: 1.0,
            }]],
        }
    }

    fn hosts(count: usize) -> Vec<estive_world::Host> {
        (0..count)
            .map(|n| samples::host(&format!("h{n}"), [8, 8192, 0, 0]))
            .collect()
    }

    #[test]
    fn equal_domains_spread_over_equal_hosts() {
        let domains = (0..4)
            .map(|n| samples::domain(&format!("d{n}"), None, [1, 1024, 0, 0]))
            .collect();
        let world = samples::world(hosts(3), domains);
        let all: Vec<DomainIx> = (0..4).map(DomainIx).collect();
        let placed = Placer::new(&world, &balance())
            .unwrap()
            .place_all(&all)
            .unwrap();
        let where_to: Vec<u32> = placed.iter().map(|placed| placed.host.0).collect();
        assert_eq!(where_to, [0, 1, 2, 0]);
    }

    #[test]
    fn what_finds_no_place_is_told_with_counts_and_nothing_is_placed() {
        let domains = vec![
            samples::domain("a", None, [1, 8000, 0, 0]),
            samples::domain("b", None, [1, 8000, 0, 0]),
            samples::domain("c", None, [1, 8000, 0, 0]),
        ];
        let world = samples::world(hosts(2), domains);
        let mut placer = Placer::new(&world, &balance()).unwrap();
        let failed = placer
            .place_all(&[DomainIx(0), DomainIx(1), DomainIx(2)])
            .unwrap_err();
        assert_eq!(failed.domain, DomainIx(2));
        assert_eq!(failed.hindrances[0].what, "too little memory");
        assert_eq!(failed.hindrances[0].count, 2);
        assert_eq!(
            placer.ledger().spot(DomainIx(0)).host,
            placer.ledger().ground().nowhere()
        );
    }

    #[test]
    fn those_that_must_be_apart_are_and_a_quota_holds() {
        let mut domains: Vec<_> = (0..3)
            .map(|n| samples::domain(&format!("d{n}"), None, [1, 1024, 0, 0]))
            .collect();
        domains[2].user = Some(UserIx(0));
        let mut world = samples::world(hosts(2), domains);
        world
            .rules
            .relations
            .push(Relation::Apart(Scope::Host, vec![DomainIx(0), DomainIx(1)]));
        world.users.push(User {
            name: "ann".to_owned(),
            quota: Reserved([u64::MAX, 512, u64::MAX, u64::MAX]),
            share: 1,
        });
        let mut placer = Placer::new(&world, &balance()).unwrap();
        let one = placer.place(DomainIx(0)).unwrap();
        let other = placer.place(DomainIx(1)).unwrap();
        assert_ne!(one.host, other.host);
        let failed = placer.place(DomainIx(2)).unwrap_err();
        assert_eq!(failed.hindrances[0].what, "ann has as much as he may");
    }
}
