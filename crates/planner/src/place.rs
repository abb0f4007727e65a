//! Places for domains that have none yet: one in microseconds, thousands at once, by the same rules and terms as a plan.
//!
//! A domain goes where the first rank rises least; of what is equal there, where the next does; of what is equal in all, to
//! the first host. Where the first rank is one term, and a few numbers of a host say what it gains there, hosts stand in
//! trees ([`tree`]), and some dozens of them are looked at whatever their number: so it is for `balance` without replicas
//! and `guests_out`, and for a domain of which no use is known yet (of talk for `locality`, of processors for `fair`, for
//! `consolidate` and, with talk, `cost`). Else each host is looked at, as are all that are equal in the first rank where
//! there is a second one.

mod company;
#[cfg(test)]
mod laws;
mod many;
#[cfg(test)]
mod tests;
mod tree;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use estive_world::{DomainIx, Hindrance, HostIx, Indexed, Reserved, World};

use crate::Objective;
use crate::ground::Ground;
use crate::host_set::HostSet;
use crate::ledger::{Ledger, wakes};
use crate::objectives::{MARKS, Weighing};
use crate::obstacle::Obstacle;
use crate::places::{Change, Spot};
use crate::room::{Amounts, held};
use tree::{HostTree, Seek};

/// Values are equal within this: sums of roots of sums are not known better.
const EQUAL: f64 = 1e-12;
/// To fewer hosts than this a domain finds its way without a tree.
const TREE_FROM: usize = 48;
/// Sorts of domains, by where they may come to, that have a tree; what is left looks at each host.
const MOST_TREES: usize = 8;
/// Of so many that wait is looked at which marks of hosts matter.
const SAMPLE: usize = 256;

/// A domain that finds no place, and why: what stood in the way on how many hosts, the most frequent first.
#[derive(Debug, Clone, PartialEq)]
pub struct NoPlace {
    /// Which.
    pub domain: DomainIx,
    /// What stands in the way, with the number of hosts.
    pub hindrances: Vec<Hindrance>,
    /// Of those that were to be placed with it, which had found a place before; they have none now.
    pub beside: Vec<Placed>,
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
    objective: Objective,
    /// What each user has promised to him by domains that are placed.
    had: Vec<Reserved>,
    trees: Vec<Planted>,
    /// By kind of domain: its tree.
    tree_of: Vec<Option<u32>>,
    /// Hosts that have changed, one after the other.
    changed: Vec<HostIx>,
    targets: Vec<HostIx>,
    deltas: Vec<f64>,
    spare: Vec<f64>,
    weighings: Vec<Weighing>,
}

/// A tree, and how many of the changes it has followed.
struct Planted {
    tree: HostTree,
    followed: usize,
}

impl<'w> Placer<'w> {
    /// Over a world as it is.
    ///
    /// # Errors
    /// An objective that cannot be measured, in words.
    pub fn new(world: &'w World, objective: &Objective) -> Result<Self, String> {
        Self::with_trees(world, objective, TREE_FROM, 0)
    }

    /// The same with trees from so many hosts on, where so many thousandths of each host are not filled.
    fn with_trees(
        world: &'w World,
        objective: &Objective,
        tree_from: usize,
        free_milli: u32,
    ) -> Result<Self, String> {
        let mut ground = Ground::new(world, wakes(objective));
        ground.rooms.keep_free(free_milli);
        let ground = Arc::new(ground);
        let mut had = vec![Reserved::NONE; world.users.len()];
        for domain in world.domains.iter().filter(|domain| domain.host.is_some()) {
            if let Some(user) = domain.user {
                had[user.at()] += held(domain);
            }
        }
        let mut placer = Self {
            tree_of: vec![None; ground.kinds()],
            ledger: Ledger::on(ground, objective)?,
            objective: objective.clone(),
            had,
            trees: Vec::new(),
            changed: Vec::new(),
            targets: Vec::new(),
            deltas: Vec::new(),
            spare: Vec::new(),
            weighings: Vec::new(),
        };
        placer.plant(tree_from);
        Ok(placer)
    }

    /// Trees for those that wait: one for each set of hosts that they may come to, the most asked for first.
    fn plant(&mut self, tree_from: usize) {
        let (ground, books) = (self.ledger.ground(), self.ledger.books());
        let Some((_, term)) = self.ledger.gauge().arrivals() else {
            return;
        };
        let mut waiting: Vec<(&[HostIx], Vec<DomainIx>)> = Vec::new();
        let mut set_of: Vec<Option<usize>> = vec![None; ground.kinds()];
        for &domain in books.places.guests(ground.nowhere()) {
            let hosts = ground.come_list(domain);
            if hosts.len() < tree_from.max(1) || term.weighing(books, domain, hosts[0]).is_none() {
                continue;
            }
            let known = &mut set_of[ground.kind_of(domain) as usize];
            let set = *known.get_or_insert_with(|| {
                let like = waiting.iter().position(|(of, _)| *of == hosts);
                like.unwrap_or_else(|| {
                    waiting.push((hosts, Vec::new()));
                    waiting.len() - 1
                })
            });
            waiting[set].1.push(domain);
        }
        let mut order: Vec<usize> = (0..waiting.len()).collect();
        order.sort_by_key(|&set| (Reverse(waiting[set].1.len()), set));
        let mut tree_of_set = vec![None; waiting.len()];
        for set in order.into_iter().take(MOST_TREES) {
            let (hosts, domains) = &waiting[set];
            let mut matters = [0.0; MARKS];
            let step = domains.len().div_ceil(SAMPLE);
            for &domain in domains.iter().step_by(step) {
                let weighing = term.weighing(books, domain, hosts[0]);
                let steepness = weighing.map(|weighing| weighing.steepness());
                for (sum, steepness) in matters.iter_mut().zip(steepness.unwrap_or_default()) {
                    *sum += steepness;
                }
            }
            if let Some(tree) = HostTree::new(books, term, hosts, matters) {
                tree_of_set[set] = Some(self.trees.len() as u32);
                self.trees.push(Planted { tree, followed: 0 });
            }
        }
        self.tree_of = (set_of.into_iter())
            .map(|set| set.and_then(|set| tree_of_set[set]))
            .collect();
    }

    /// The state.
    pub fn ledger(&self) -> &Ledger<'w> {
        &self.ledger
    }

    /// Puts a domain that has no place where the objective rises least; the first host among equals.
    ///
    /// If others wait that it must be together with, it goes where there is a place for all of them; where there is none for all,
    /// by itself. Whether one host may fail then is not looked at but for replicas ([`Self::place_all`] does).
    ///
    /// # Errors
    /// No host may take it.
    pub fn place(&mut self, domain: DomainIx) -> Result<Placed, NoPlace> {
        let group = company::waiting_with(self.ledger.books(), domain);
        if group.len() > 1
            && let Ok(placed) = self.place_group(&group)
        {
            self.take_back(&placed);
            if let Some(own) = placed.iter().find(|own| own.domain == domain) {
                let by = self.rise(0, domain, own.host);
                self.put(domain, own.host);
                return Ok(Placed { by, ..*own });
            }
        }
        let takes = self.ledger.ground().rooms.takes(domain);
        self.place_one(domain, &takes, None)
    }

    /// Puts one where there is room for `needs`, and not on a host of `shunned`.
    fn place_one(
        &mut self,
        domain: DomainIx,
        needs: &Amounts,
        shunned: Option<&HostSet>,
    ) -> Result<Placed, NoPlace> {
        let ground = Arc::clone(self.ledger.ground());
        let what = &ground.world.domains[domain];
        if let Some(user) = what.user {
            let wants = self.had[user.at()] + held(what);
            if !wants.fits(&ground.world.users[user].quota) {
                return Err(no_place(domain, [Obstacle::Quota(user)], ground.world));
            }
        }
        if let Some(still) = ground.still(domain) {
            return Err(no_place(domain, [still.clone()], ground.world));
        }
        let near = company::near(self.ledger.books(), domain);
        let tree = self.tree_of[ground.kind_of(domain) as usize];
        let waits = self.ledger.spot(domain).host == ground.nowhere();
        let tree = tree.map(|tree| tree as usize);
        let found = match tree.filter(|_| near.is_none() && waits) {
            Some(tree) if self.weigh(tree, domain).is_some() => {
                self.look_in(tree, domain, needs, shunned)
            }
            _ => self.look_at_all(domain, needs, shunned, near.as_ref()),
        };
        let Some((host, by)) = found else {
            let replica = self.ledger.spot(domain).replica;
            let books = self.ledger.books();
            let obstacles = (0..ground.world.hosts.len()).map(HostIx::of).map(|host| {
                let room = || books.has_room(host, needs, &Amounts::NONE).err();
                let away = || near.as_ref().map(|near| Obstacle::Together(near.fellow));
                let may = books.may(domain, Spot { host, replica }).err();
                may.or_else(room).or_else(away)
            });
            return Err(no_place(domain, obstacles.flatten(), ground.world));
        };
        self.put(domain, host);
        Ok(Placed { domain, host, by })
    }

    /// Brings a tree up to date, and finds how a domain weighs on its hosts, if their marks say that.
    fn weigh(&mut self, tree: usize, domain: DomainIx) -> Option<()> {
        let books = self.ledger.books();
        let (_, term) = self.ledger.gauge().arrivals()?;
        let Planted { tree, followed } = &mut self.trees[tree];
        tree.follow(books, term, &self.changed[*followed..]);
        *followed = self.changed.len();
        let weighing = |host| term.weighing(books, domain, host);
        tree.weigh(weighing, &mut self.weighings)
    }

    /// The best host, and what it does to the first rank, by a look at some of them.
    fn look_in(
        &mut self,
        tree: usize,
        domain: DomainIx,
        needs: &Amounts,
        shunned: Option<&HostSet>,
    ) -> Option<(HostIx, f64)> {
        let (books, ground) = (self.ledger.books(), self.ledger.ground());
        let (weight, _) = self.ledger.gauge().arrivals()?;
        let (tree, weighings) = (&self.trees[tree].tree, &self.weighings);
        let looked_at = !ground.apart_of[domain.at()].is_empty() || books.keeps_spare();
        let replica = self.ledger.spot(domain).replica;
        let mut may = |host: HostIx| {
            shunned.is_none_or(|shunned| !shunned.has(host))
                && (!looked_at || books.may(domain, Spot { host, replica }).is_ok())
        };
        let mut seek = Seek {
            needs,
            weight,
            may: &mut may,
        };
        let most = tree.least(weighings, &mut seek)? + EQUAL;
        if self.ledger.gauge().count() < 2 {
            return tree.first_within(most, weighings, &mut seek);
        }
        let equals = tree.all_within(most, weighings, &mut seek);
        self.by_later_ranks(domain, equals)
    }

    /// The same by a look at each host.
    fn look_at_all(
        &mut self,
        domain: DomainIx,
        needs: &Amounts,
        shunned: Option<&HostSet>,
        near: Option<&company::Near>,
    ) -> Option<(HostIx, f64)> {
        let ground = Arc::clone(self.ledger.ground());
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        match near {
            Some(near) => {
                let may_come = |host: &HostIx| ground.may_come(domain, *host);
                targets.extend(near.hosts.iter().copied().filter(may_come));
            }
            None => targets.extend_from_slice(ground.come_list(domain)),
        }
        let books = self.ledger.books();
        let replica = self.ledger.spot(domain).replica;
        let free = ground.apart_of[domain.at()].is_empty()
            && ground.together_of[domain.at()].is_empty()
            && !books.keeps_spare();
        targets.retain(|&host| {
            shunned.is_none_or(|shunned| !shunned.has(host))
                && books.taken(host).admits(needs, ground.rooms.open(host))
                && (free && replica == ground.nowhere()
                    || books.may(domain, Spot { host, replica }).is_ok())
        });
        let (mut deltas, mut spare) = (
            std::mem::take(&mut self.deltas),
            std::mem::take(&mut self.spare),
        );
        let gauge = self.ledger.gauge();
        gauge.scan(books, domain, &targets, &mut deltas, &mut spare);
        let least = deltas.iter().copied().fold(f64::INFINITY, f64::min);
        let equals = (targets.iter().zip(&deltas))
            .map(|(&host, &by)| (host, by))
            .filter(|&(_, by)| by <= least + EQUAL);
        let best = self.by_later_ranks(domain, equals.collect());
        (self.targets, self.deltas, self.spare) = (targets, deltas, spare);
        best
    }

    /// Of hosts that are equal in the first rank, the first of those that are least in the next, and so on.
    fn by_later_ranks(
        &self,
        domain: DomainIx,
        mut equals: Vec<(HostIx, f64)>,
    ) -> Option<(HostIx, f64)> {
        for rank in 1..self.ledger.gauge().count() {
            if equals.len() < 2 {
                break;
            }
            let rises: Vec<f64> = (equals.iter())
                .map(|&(host, _)| self.rise(rank, domain, host))
                .collect();
            let least = rises.iter().copied().fold(f64::INFINITY, f64::min);
            let mut rises = rises.into_iter();
            equals.retain(|_| rises.next().is_some_and(|by| by <= least + EQUAL));
        }
        equals.first().copied()
    }

    fn rise(&self, rank: usize, domain: DomainIx, host: HostIx) -> f64 {
        let replica = self.ledger.spot(domain).replica;
        let to = Spot { host, replica };
        let change = [Change { domain, to }];
        let gauge = self.ledger.gauge();
        gauge.delta_of(rank, self.ledger.books(), &change)
    }

    /// Puts a domain on a host, or nowhere.
    fn put(&mut self, domain: DomainIx, host: HostIx) {
        let ground = Arc::clone(self.ledger.ground());
        let spot = self.ledger.spot(domain);
        if let Some(user) = ground.world.domains[domain].user {
            let holds = held(&ground.world.domains[domain]);
            if spot.host == ground.nowhere() && host != ground.nowhere() {
                self.had[user.at()] += holds;
            } else if spot.host != ground.nowhere() && host == ground.nowhere() {
                self.had[user.at()] -= holds;
            }
        }
        let to = Spot { host, ..spot };
        self.ledger.apply(Change { domain, to });
        if !self.trees.is_empty() {
            let hosts = [spot.host, host].into_iter();
            self.changed
                .extend(hosts.filter(|&host| host != ground.nowhere()));
        }
    }

    fn take_back(&mut self, placed: &[Placed]) {
        let nowhere = self.ledger.ground().nowhere();
        for place in placed.iter().rev() {
            self.put(place.domain, nowhere);
        }
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
        beside: Vec::new(),
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
