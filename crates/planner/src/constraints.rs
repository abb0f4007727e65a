//! What must hold: whether a domain may come to a spot, and how much is broken now.
//!
//! A change is only let through if it breaks nothing that was whole; what was broken before is counted, and a search
//! mends it before it looks at anything else.

use estive_world::{DomainIx, HostIx, Indexed, Scope};

use crate::books::{Books, MEMORY};
use crate::ground::Bond;
use crate::obstacle::Obstacle;
use crate::places::{Change, Spot};
use crate::room::{Amounts, KINDS, Kind};

/// One thing that is broken counts so much; what is beyond a host's room adds its share of that.
pub(crate) const ONE_BROKEN: i64 = 1_000_000;

impl Books<'_> {
    /// Whether a domain that is where it is now may come to a spot.
    ///
    /// # Errors
    /// The first obstacle: fixed rules first, then room, then other domains.
    pub fn may(&self, domain: DomainIx, to: Spot) -> Result<(), Obstacle> {
        let now = self.places.spot(domain);
        let ground = &self.ground;
        if now == to {
            return Ok(());
        }
        if let Some(obstacle) = ground.still(domain) {
            return Err(obstacle.clone());
        }
        if to.host == to.replica {
            return Err(Obstacle::SamePlace);
        }
        // What has no place gets one of its own before anything else: not none, and not its replica's.
        if to.host == self.nowhere() || (now.host == self.nowhere() && to.host == now.replica) {
            return Err(Obstacle::SamePlace);
        }
        let home = ground.start[domain.at()];
        // A replica is left where the domain was; but the domain may not go wherever its replica is, and where it goes to a
        // third host its replica is made anew even where it was.
        let stays = [
            to.host == home.host,
            to.replica == home.host || to == home || to.replica == self.nowhere(),
        ];
        for (host, stays) in [to.host, to.replica].into_iter().zip(stays) {
            if !stays && !ground.may_come(domain, host) {
                let obstacle = ground.hinders_coming(domain, host);
                return Err(obstacle.unwrap_or(Obstacle::NotOn(host)));
            }
        }
        if to.host != now.host {
            let takes = if to.host == now.replica {
                *ground.rooms.live(domain)
            } else {
                ground.rooms.takes(domain)
            };
            self.has_room(to.host, &takes, &Amounts::NONE)?;
            self.has_company(domain, to.host, None)?;
        }
        if to.replica != now.replica && to.replica != now.host && to.replica != self.nowhere() {
            self.has_room(to.replica, ground.rooms.kept(domain), &Amounts::NONE)?;
        }
        self.has_spare(&[Change { domain, to }])
    }

    /// Whether two domains on two hosts may change places, as far as room and others go; replicas stay.
    ///
    /// # Errors
    /// The first obstacle.
    pub fn may_swap(&self, one: DomainIx, other: DomainIx) -> Result<(), Obstacle> {
        let ground = &self.ground;
        let (here, there) = (self.places.spot(one), self.places.spot(other));
        for (domain, now, to, gone) in [(one, here, there, other), (other, there, here, one)] {
            if let Some(obstacle) = ground.still(domain) {
                return Err(obstacle.clone());
            }
            if to.host == now.replica {
                return Err(Obstacle::SamePlace);
            }
            if to.host != ground.start[domain.at()].host && !ground.may_come(domain, to.host) {
                let obstacle = ground.hinders_coming(domain, to.host);
                return Err(obstacle.unwrap_or(Obstacle::NotOn(to.host)));
            }
            let takes = ground.rooms.takes(domain);
            self.has_room(to.host, &takes, &ground.rooms.takes(gone))?;
            self.has_company(domain, to.host, Some(gone))?;
        }
        let to = |domain, host, replica| Change {
            domain,
            to: Spot { host, replica },
        };
        self.has_spare(&[
            to(one, there.host, here.replica),
            to(other, here.host, there.replica),
        ])
    }

    /// Whether a host has room for `more` once `gone` has left it.
    pub(crate) fn has_room(
        &self,
        host: HostIx,
        more: &Amounts,
        gone: &Amounts,
    ) -> Result<(), Obstacle> {
        if host == self.nowhere() {
            return Ok(());
        }
        let rooms = &self.ground.rooms;
        let room = rooms.open(host);
        let mut taken = *self.taken(host);
        taken.take(gone);
        // What is taken off and put back of a kind is no more than before: a host that is beyond its room may keep it.
        let lacking = (0..KINDS).find(|&kind| {
            more.0[kind] > gone.0[kind] && taken.0[kind] + more.0[kind] > room.0[kind]
        });
        let Some(kind) = lacking else { return Ok(()) };
        let milli = |amount: u64| (rooms.shown(kind, amount) * 1000.0) as u64;
        Err(Obstacle::Full {
            kind: Kind::of(kind),
            free_milli: milli(room.0[kind].saturating_sub(taken.0[kind])),
            needs_milli: milli(more.0[kind]),
        })
    }

    /// Whether those that a domain must be apart from and together with let it come to a host.
    fn has_company(
        &self,
        domain: DomainIx,
        host: HostIx,
        gone: Option<DomainIx>,
    ) -> Result<(), Obstacle> {
        if host == self.nowhere() {
            return Ok(());
        }
        let now = self.places.spot(domain).host;
        for &bond in &self.ground.apart_of[domain.at()] {
            let bond = &self.ground.apart[bond as usize];
            let there = self.others(bond, domain).find(|&(other, at)| {
                Some(other) != gone
                    && self.alike(bond.scope, at, host)
                    && !self.alike(bond.scope, now, host)
            });
            if let Some((other, _)) = there {
                return Err(Obstacle::Apart(other));
            }
        }
        for &bond in &self.ground.together_of[domain.at()] {
            let bond = &self.ground.together[bond as usize];
            // It may join more of its fellows than it leaves, not fewer.
            let (mut left, mut joined, mut away) = (0u32, 0u32, None);
            // One that had no place joins some of them.
            let least = u32::from(now == self.nowhere());
            for (other, at) in self.others(bond, domain) {
                let (was, will) = (
                    self.alike(bond.scope, at, now),
                    self.alike(bond.scope, at, host),
                );
                left += u32::from(was);
                joined += u32::from(will);
                if !will {
                    away = away.or(Some(other));
                }
            }
            if let Some(other) = away.filter(|_| joined < left.max(least)) {
                return Err(Obstacle::Together(other));
            }
        }
        Ok(())
    }

    /// Members of a bond that are somewhere, but for one.
    fn others<'b>(
        &'b self,
        bond: &'b Bond,
        but: DomainIx,
    ) -> impl Iterator<Item = (DomainIx, HostIx)> + 'b {
        (bond.members.iter())
            .filter(move |&&other| other != but)
            .map(|&other| (other, self.places.spot(other).host))
            .filter(|(_, at)| *at != self.nowhere())
    }

    pub(crate) fn alike(&self, scope: Scope, one: HostIx, other: HostIx) -> bool {
        let hosts = &self.ground.world.hosts;
        match scope {
            Scope::Host => one == other,
            Scope::Site => match (hosts.get(one.at()), hosts.get(other.at())) {
                (Some(one), Some(other)) => one.site == other.site,
                _ => false,
            },
        }
    }

    /// Whether memory must be kept free for replicas, so that room alone does not let a domain come to a host.
    pub(crate) fn keeps_spare(&self) -> bool {
        self.ground.world.rules.one_may_fail && self.replicated()
    }

    /// Whether, if one host may fail, each host that these changes touch still keeps enough memory for its replicas.
    fn has_spare(&self, changes: &[Change]) -> Result<(), Obstacle> {
        if !self.keeps_spare() {
            return Ok(());
        }
        let nowhere = self.nowhere();
        let mut touched: Vec<HostIx> = Vec::with_capacity(8);
        for change in changes {
            touched.extend([change.to.host, change.to.replica]);
        }
        touched.sort_unstable();
        touched.dedup();
        for host in touched.into_iter().filter(|&host| host != nowhere) {
            let room = self.ground.rooms.room(host).0[MEMORY];
            let now = self.taken(host).0[MEMORY] + self.spare_due(host).0;
            let (taken, due) = self.memory_with(host, changes);
            if taken + due > room && taken + due > now {
                return Err(Obstacle::NoSpare {
                    failing: self.spare_due(host).1,
                });
            }
        }
        Ok(())
    }

    /// Memory that a host would have taken, and would have to keep spare, after some changes.
    pub(crate) fn memory_with(&self, host: HostIx, changes: &[Change]) -> (u64, u64) {
        let mut taken = self.taken(host).0[MEMORY];
        let mut owed: Vec<(HostIx, i64)> = Vec::with_capacity(4);
        for change in changes {
            let memory = self.ground.rooms.live(change.domain).0[MEMORY];
            let old = self.places.spot(change.domain);
            if change.to.host == host {
                taken += memory;
            }
            if old.host == host {
                taken -= memory;
            }
            if old.replica == host {
                owed.push((old.host, -(memory as i64)));
            }
            if change.to.replica == host {
                owed.push((change.to.host, memory as i64));
            }
        }
        (taken, self.spare_due_with(host, &owed))
    }

    /// How much is broken on a host by what is on it: 0 where nothing is.
    pub(crate) fn broken_host(&self, host: HostIx, taken: &Amounts, due: u64) -> i64 {
        if host == self.nowhere() {
            return 0;
        }
        let room = self.ground.rooms.room(host);
        let mut broken = 0;
        for kind in 0..KINDS {
            broken += beyond(taken.0[kind], room.0[kind]);
        }
        if self.ground.world.rules.one_may_fail && due > 0 {
            broken += beyond(taken.0[MEMORY] + due, room.0[MEMORY]);
        }
        broken
    }

    /// In words, of what a host is beyond its room, if it is.
    pub(crate) fn beyond(&self, host: HostIx) -> Option<String> {
        if self.broken_host(host, self.taken(host), self.spare_due(host).0) == 0 {
            return None;
        }
        let (taken, room) = (self.taken(host), self.ground.rooms.room(host));
        let name = &self.ground.world.hosts[host].name;
        let kinds: Vec<String> = (0..KINDS)
            .filter(|&kind| taken.0[kind] > room.0[kind])
            .map(|kind| {
                let shown = |amount| self.ground.rooms.shown(kind, amount);
                format!(
                    "{} ({:.1} of {:.1} {})",
                    Kind::of(kind).name(),
                    shown(taken.0[kind]),
                    shown(room.0[kind]),
                    Kind::of(kind).unit()
                )
            })
            .collect();
        if kinds.is_empty() {
            return Some(format!(
                "{name} could not take over what it should if one other host failed"
            ));
        }
        Some(format!("{name} is beyond its room: {}", kinds.join(", ")))
    }

    /// How much is broken by a domain being on a spot: it has no place, or must not be there.
    pub(crate) fn broken_spot(&self, domain: DomainIx, spot: Spot) -> i64 {
        let ground = &self.ground;
        let bad = |host: HostIx| i64::from(!ground.may_stay(domain, host)) * ONE_BROKEN;
        if spot.host == self.nowhere() {
            ONE_BROKEN
        } else if spot.replica == self.nowhere() {
            bad(spot.host)
        } else {
            bad(spot.host) + bad(spot.replica)
        }
    }

    /// How many bonds of a domain would be broken if it were on a host.
    pub(crate) fn broken_bonds(&self, domain: DomainIx, host: HostIx) -> i64 {
        let ground = &self.ground;
        let count = |of: &[u32], bonds: &[Bond], same: bool| -> usize {
            (of.iter())
                .map(|&bond| {
                    let bond = &bonds[bond as usize];
                    (self.others(bond, domain))
                        .filter(|&(_, at)| self.alike(bond.scope, at, host) == same)
                        .count()
                })
                .sum()
        };
        if host == self.nowhere() {
            return 0;
        }
        let together = count(&ground.together_of[domain.at()], &ground.together, false);
        let apart = count(&ground.apart_of[domain.at()], &ground.apart, true);
        (together + apart) as i64 * ONE_BROKEN
    }

    /// How much is broken in all.
    pub fn broken(&self) -> i64 {
        let world = self.ground.world;
        let hosts: i64 = (0..world.hosts.len())
            .map(HostIx::of)
            .map(|host| self.broken_host(host, self.taken(host), self.spare_due(host).0))
            .sum();
        let domains: i64 = (0..world.domains.len())
            .map(DomainIx::of)
            .map(|domain| {
                let spot = self.places.spot(domain);
                // Each pair of a bond is seen from both its ends.
                self.broken_spot(domain, spot) + self.broken_bonds(domain, spot.host) / 2
            })
            .sum();
        hosts + domains
    }

    /// How much more, or less, is broken after some changes that [`Self::may`] let through.
    pub fn broken_by(&self, changes: &[Change]) -> i64 {
        let mut by = 0;
        let mut hosts: Vec<HostIx> = Vec::new();
        for change in changes {
            let old = self.places.spot(change.domain);
            by += self.broken_spot(change.domain, change.to) - self.broken_spot(change.domain, old);
            let bonds = &self.ground;
            let at = change.domain.at();
            if !bonds.apart_of[at].is_empty() || !bonds.together_of[at].is_empty() {
                by += self.broken_bonds(change.domain, change.to.host)
                    - self.broken_bonds(change.domain, old.host);
            }
            // What comes to a host breaks nothing there; what leaves it may mend it.
            hosts.extend([old.host, old.replica]);
            if self.ground.world.rules.one_may_fail {
                hosts.extend([change.to.host, change.to.replica]);
            }
        }
        for (nth, &host) in hosts.iter().enumerate() {
            if hosts[..nth].contains(&host) || host == self.nowhere() {
                continue;
            }
            let now = self.broken_host(host, self.taken(host), self.spare_due(host).0);
            if now == 0 {
                continue;
            }
            let mut taken = *self.taken(host);
            for change in changes {
                let old = self.places.spot(change.domain);
                let (all, kept) = self.takes(change.domain);
                if old.host == host {
                    taken.take(&all);
                } else if old.replica == host {
                    taken.take(kept);
                }
                if change.to.host == host {
                    taken.add(&all);
                } else if change.to.replica == host {
                    taken.add(kept);
                }
            }
            let due = self.memory_with(host, changes).1;
            by += self.broken_host(host, &taken, due) - now;
        }
        by
    }
}

fn beyond(taken: u64, room: u64) -> i64 {
    if taken <= room {
        return 0;
    }
    let share = u128::from(taken - room) * 1_000_000 / u128::from(room.max(1));
    ONE_BROKEN + share.min(1_000_000) as i64
}
