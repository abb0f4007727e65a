//! What hosts cost by whether anybody is on them and how much is used: the common part of `consolidate` and `cost`.

use std::sync::Arc;

use estive_world::{DomainIx, DomainLife, HostIx, HostPower, Indexed, UsedKind, World};

use super::arrival::{MARKS, Wakes};
use crate::books::Books;
use crate::places::Change;

/// What a host costs, in millionths of whatever the term counts.
#[derive(Debug, Clone)]
pub(super) struct HostCost {
    /// While nobody is on it.
    pub empty: i64,
    /// While somebody is, whatever he does.
    pub occupied: i64,
    /// And for each tenth of its load, straight between: as in `PowerCurve`, of any length.
    pub by_load: Vec<f64>,
}

impl HostCost {
    /// With so many guests that use so much of so much.
    fn of(&self, guests: usize, used: u64, whole: u64) -> i64 {
        if guests == 0 {
            return self.empty;
        }
        let Some(last) = self.by_load.len().checked_sub(1) else {
            return self.occupied;
        };
        let load = used as f64 / whole.max(1) as f64;
        let place = load.clamp(0.0, 1.0) * last as f64;
        let below = (place.floor() as usize).min(last);
        let (low, high) = (self.by_load[below], self.by_load[(below + 1).min(last)]);
        self.occupied + (low + (high - low) * (place - below as f64)) as i64
    }
}

/// Processor use by host, and what all hosts cost together: whole numbers, so that sums are exact.
#[derive(Debug, Clone)]
pub(super) struct Occupied {
    fixed: Arc<Fixed>,
    used: Vec<u64>,
    total: i64,
    /// Processor power of the hosts with guests, on the scale of [`processor_use`].
    capacity: u64,
}

#[derive(Debug)]
struct Fixed {
    costs: Vec<HostCost>,
    /// Processor use of each domain.
    uses: Vec<u64>,
    whole: Vec<u64>,
}

/// What some changes would make of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub total: i64,
    pub capacity: i64,
}

impl Occupied {
    pub(super) fn new(books: &Books<'_>, costs: Vec<HostCost>) -> Self {
        let world = books.ground.world;
        let hosts = world.hosts.len();
        let uses: Vec<u64> = (0..world.domains.len())
            .map(|domain| processor_use(world, DomainIx::of(domain)))
            .collect();
        let whole = (0..hosts)
            .map(|host| processor_power(world, HostIx::of(host)))
            .collect();
        let mut used: Vec<u64> = (world.hosts.iter())
            .map(|host| {
                bounded(
                    world,
                    host.own_use[UsedKind::CpuMicrocores],
                    host.core_speed_milli,
                )
            })
            .chain([0])
            .collect();
        for (number, amount) in uses.iter().enumerate() {
            used[books.places.spot(DomainIx::of(number)).host] += amount;
        }
        let mut occupied = Self {
            fixed: Arc::new(Fixed { costs, uses, whole }),
            used,
            total: 0,
            capacity: 0,
        };
        for host in (0..hosts).map(HostIx::of) {
            let guests = books.places.guests(host).len();
            occupied.total += occupied.cost(host, guests, occupied.used[host]);
            if guests > 0 {
                occupied.capacity += occupied.fixed.whole[host.at()];
            }
        }
        occupied
    }

    fn cost(&self, host: HostIx, guests: usize, used: u64) -> i64 {
        match self.fixed.costs.get(host.at()) {
            Some(cost) => cost.of(guests, used, self.fixed.whole[host.at()]),
            None => 0,
        }
    }

    /// What all hosts cost.
    pub(super) fn total(&self) -> i64 {
        self.total
    }

    /// Processor power of the hosts with guests.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Load of a host.
    pub(super) fn load(&self, host: HostIx) -> f64 {
        self.used[host.at()] as f64 / self.fixed.whole[host.at()].max(1) as f64
    }

    /// Whether a domain uses processors: then what it costs depends on the load of each host.
    pub(super) fn is_used_by(&self, domain: DomainIx) -> bool {
        self.fixed.uses[domain.at()] > 0
    }

    /// Processor power of a host.
    pub(super) fn whole(&self, host: HostIx) -> u64 {
        self.fixed.whole.get(host.at()).copied().unwrap_or(0)
    }

    /// What one more guest that uses nothing does to a host.
    pub(super) fn marks(&self, books: &Books<'_>, host: HostIx) -> [f64; MARKS] {
        let (guests, used) = (books.places.guests(host).len(), self.used[host.at()]);
        let more = self.cost(host, guests + 1, used) - self.cost(host, guests, used);
        Wakes::marks(more as f64, guests > 0)
    }

    pub(super) fn difference(&self, books: &Books<'_>, changes: &[Change]) -> Difference {
        let mut hosts: [(HostIx, i64, i64); 4] = [(books.nowhere(), 0, 0); 4];
        let mut count = 0;
        for change in changes {
            let uses = self.fixed.uses[change.domain.at()] as i64;
            let from = books.places.spot(change.domain).host;
            for (host, sign) in [(from, -1), (change.to.host, 1)] {
                let at = hosts[..count]
                    .iter()
                    .position(|entry| entry.0 == host)
                    .unwrap_or_else(|| {
                        hosts[count].0 = host;
                        count += 1;
                        count - 1
                    });
                hosts[at].1 += sign;
                hosts[at].2 += sign * uses;
            }
        }
        let mut by = Difference::default();
        for &(host, guests_by, used_by) in &hosts[..count] {
            if host == books.nowhere() {
                continue;
            }
            let (guests, used) = (books.places.guests(host).len(), self.used[host.at()]);
            let (will, uses) = (
                (guests as i64 + guests_by) as usize,
                (used as i64 + used_by) as u64,
            );
            by.total += self.cost(host, will, uses) - self.cost(host, guests, used);
            let whole = self.fixed.whole[host.at()] as i64;
            by.capacity += whole * (i64::from(will > 0) - i64::from(guests > 0));
        }
        by
    }

    pub(super) fn apply(&mut self, books: &Books<'_>, change: Change) {
        let by = self.difference(books, &[change]);
        let uses = self.fixed.uses[change.domain.at()];
        self.used[books.places.spot(change.domain).host] -= uses;
        self.used[change.to.host] += uses;
        self.total += by.total;
        self.capacity = (self.capacity as i64 + by.capacity) as u64;
    }
}

/// What a domain uses of processors now, in thousandths of a common core's millionth.
pub(crate) fn processor_use(world: &World, domain: DomainIx) -> u64 {
    let domain = &world.domains[domain];
    if domain.life == DomainLife::Stopped {
        return 0;
    }
    let speed = domain
        .host
        .map_or(1000, |host| world.hosts[host].core_speed_milli);
    bounded(world, domain.used[UsedKind::CpuMicrocores], speed)
}

/// So much that sums over a world fit in 63 bits: that is some 10,000 cores each where there are a million.
fn bounded(world: &World, micro: u64, speed_milli: u32) -> u64 {
    let most = (1u64 << 62) / (world.domains.len() + world.hosts.len() + 1) as u64;
    micro.saturating_mul(u64::from(speed_milli)).min(most)
}

/// What a host has of processors, on the same scale.
pub(crate) fn processor_power(world: &World, host: HostIx) -> u64 {
    let host = &world.hosts[host];
    bounded(
        world,
        host.speed[UsedKind::CpuMicrocores],
        host.core_speed_milli,
    )
}

/// Whether a host may be off while nobody is on it: it is ours for all hours, and it tells what it does.
pub(crate) fn may_be_off(world: &World, host: HostIx) -> bool {
    let host = &world.hosts[host];
    host.owner.is_none() && !host.owner_present && host.state != HostPower::Unknown
}
