//! The term `consolidate`: watts, with what switching takes, and spare power kept on for a burst.
//!
//! A host with guests draws by its curve; one without draws what it does when it is off, if it may be off. A host that
//! is off now and gets guests pays its boot over the time within which moves must pay for themselves. If what is left on
//! has less power than what is used and the spare together, the missing part is counted at what idle hosts draw for it:
//! for so much has to stay on without guests.
//!
//! A host of which nobody has measured what it draws counts as much as the hungriest of the others does idle, whatever it
//! does; where none was measured, each counts 1 W: then as few hosts as possible are used.

use std::collections::BTreeMap;
use std::sync::Arc;

use estive_world::{DomainIx, HostIx, HostPower, Indexed, World};

use super::Meter;
use super::arrival::{Arrivals, MARKS, Wakes, Weighing};
use super::occupied::{HostCost, Occupied, may_be_off, processor_power, processor_use};
use crate::books::Books;
use crate::places::Change;

/// Millionths of a watt.
const MICRO: f64 = 1e6;

/// Watts of a state.
#[derive(Debug, Clone)]
pub struct Consolidate {
    hosts: Occupied,
    spare: Arc<Spare>,
    /// By host: the same number where the processors have the same power.
    models: Arc<[u32]>,
}

/// What has to stay on.
#[derive(Debug)]
struct Spare {
    /// Power that is needed, spare included.
    needed: u64,
    /// Microwatts that an idle host draws for one of power.
    price: f64,
}

impl Consolidate {
    /// Measures a state.
    pub fn new(books: &Books<'_>, spare_milli: u32) -> Self {
        let world = books.ground.world;
        let hosts = world.hosts.len();
        let used: u64 = (0..world.domains.len())
            .map(|domain| processor_use(world, DomainIx::of(domain)))
            .sum();
        let needed = u128::from(used) * (1000 + u128::from(spare_milli)) / 1000;
        let power: u64 = (0..hosts)
            .map(|host| processor_power(world, HostIx::of(host)))
            .sum();
        let unmeasured = unmeasured(world);
        let costs: Vec<HostCost> = (0..hosts)
            .map(|host| watts(world, HostIx::of(host), unmeasured))
            .collect();
        let idle: f64 = costs.iter().map(|cost| cost.by_load[0]).sum();
        Self {
            models: models(world),
            hosts: Occupied::new(books, costs),
            spare: Arc::new(Spare {
                needed: if spare_milli == 0 {
                    0
                } else {
                    u64::try_from(needed).unwrap_or(u64::MAX)
                },
                price: idle / power.max(1) as f64,
            }),
        }
    }

    fn short(&self, capacity: u64) -> f64 {
        self.spare.needed.saturating_sub(capacity) as f64 * self.spare.price
    }

    fn of(&self, total: i64, capacity: u64) -> f64 {
        (total as f64 + self.short(capacity)) / MICRO
    }
}

fn models(world: &World) -> Arc<[u32]> {
    let mut known = BTreeMap::new();
    (0..world.hosts.len())
        .map(|host| {
            let next = known.len() as u32;
            let power = processor_power(world, HostIx::of(host));
            *known.entry(power).or_insert(next)
        })
        .collect()
}

/// What a host draws that was not measured, in microwatts.
fn unmeasured(world: &World) -> f64 {
    let measured = world.hosts.iter().filter(|host| host.power.is_measured());
    let idle = measured.map(|host| host.power.watts_at(0.0));
    idle.reduce(f64::max).unwrap_or(1.0) * MICRO
}

/// What a host draws, in microwatts.
fn watts(world: &World, number: HostIx, unmeasured: f64) -> HostCost {
    let host = &world.hosts[number];
    let by_load: Vec<f64> = match host.power.is_measured() {
        true => host.power.watts.iter().map(|watts| watts * MICRO).collect(),
        false => vec![unmeasured],
    };
    let empty = if may_be_off(world, number) {
        host.power.off_watts * MICRO
    } else {
        by_load[0]
    };
    let boot = if host.state == HostPower::Off {
        let within_s = f64::from(world.rules.hysteresis.pays_back_within_s.max(1));
        host.power.boot_wh * 3600.0 / within_s * MICRO
    } else {
        0.0
    };
    HostCost {
        empty: empty as i64,
        occupied: boot as i64,
        by_load,
    }
}

impl Arrivals for Consolidate {
    fn model(&self, host: HostIx) -> u32 {
        self.models[host.at()]
    }

    fn marks(&self, books: &Books<'_>, host: HostIx) -> [f64; MARKS] {
        self.hosts.marks(books, host)
    }

    fn weighing(&self, _books: &Books<'_>, domain: DomainIx, host: HostIx) -> Option<Weighing> {
        if self.hosts.is_used_by(domain) {
            return None;
        }
        let capacity = self.hosts.capacity();
        Some(Weighing::Wakes(Wakes {
            lack: self.short(capacity),
            lack_then: self.short(capacity + self.hosts.whole(host)),
            unit: MICRO,
        }))
    }
}

impl Meter for Consolidate {
    fn value(&self) -> f64 {
        self.of(self.hosts.total(), self.hosts.capacity())
    }

    fn delta(&self, books: &Books<'_>, changes: &[Change]) -> f64 {
        let by = self.hosts.difference(books, changes);
        let capacity = (self.hosts.capacity() as i64 + by.capacity) as u64;
        (by.total as f64 + self.short(capacity) - self.short(self.hosts.capacity())) / MICRO
    }

    fn apply(&mut self, books: &Books<'_>, change: Change) {
        self.hosts.apply(books, change);
    }

    fn load(&self, books: &Books<'_>, host: HostIx) -> f64 {
        // The fullest first, and empty ones last.
        if books.places.guests(host).is_empty() {
            2.0
        } else {
            -self.hosts.load(host)
        }
    }

    fn arrivals(&self) -> Option<&dyn Arrivals> {
        Some(self)
    }

    fn empties(&self) -> bool {
        true
    }

    fn parts(&self) -> Vec<(String, f64)> {
        vec![
            (
                "watts of hosts".to_owned(),
                self.hosts.total() as f64 / MICRO,
            ),
            (
                "watts for spare power".to_owned(),
                self.short(self.hosts.capacity()) / MICRO,
            ),
        ]
    }

    fn copy(&self) -> Box<dyn Meter> {
        Box::new(self.clone())
    }
}
