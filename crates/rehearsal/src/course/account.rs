//! What a course costs, and what users and owners feel of it.

use estive_world::{DomainIx, HostPower, UsedKind, World};
use serde::{Deserialize, Serialize};

/// The figures of a course.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Energy, boots included.
    pub kwh: f64,
    /// Hosting, energy by tariff, and bytes between sites, in the currency.
    pub cost: f64,
    /// Mean number of hosts that are on.
    pub hosts_on: f64,
    /// Share of the time of hosts with domains in which more processor time is asked than there is.
    pub overloaded: f64,
    /// Processor time asked and not given, as a share of what was asked.
    pub short: f64,
    /// Moves that ended where they should.
    pub moves: u64,
    /// Moves that did not.
    pub moves_failed: u64,
    /// Bytes of all moves.
    pub moved_bytes: u64,
    /// Milliseconds in which moved domains stood still, together.
    pub downtime_ms: f64,
    /// And the longest of them.
    pub longest_downtime_ms: f64,
    /// Hosts switched on.
    pub boots: u64,
    /// Hosts that failed.
    pub faults: u64,
    /// Seconds in which domains did not run because their host had failed, together.
    pub down_s: f64,
    /// Seconds that domains were on a host while its owner was there, together.
    pub beside_owner_s: f64,
    /// Bytes that domains sent between sites.
    pub crossed_bytes: f64,
    /// Plans asked for.
    pub plans: u64,
    /// Those with nothing to do.
    pub plans_of_nothing: u64,
    /// Steps that could not be begun when it was their turn.
    pub refused_steps: u64,
}

/// What was at the end of a period.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Period {
    /// When, in seconds from the begin.
    pub at_s: f64,
    /// Hosts that are on.
    pub hosts_on: u64,
    /// Watts of all hosts.
    pub watts: f64,
    /// Hosts with domains that ask more than there is.
    pub overloaded: u64,
    /// Moves under way.
    pub moving: u64,
    /// Domains that do not run because their host failed.
    pub down: u64,
}

/// Sums until now, and what they grow by.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    pub figures: Figures,
    /// Microcores used on each host by domains that run.
    pub used: Vec<u64>,
    /// Domains on each host.
    pub domains: Vec<u32>,
    active_s: f64,
    overloaded_s: f64,
    on_s: f64,
    asked: f64,
    short: f64,
}

/// Seconds of an hour, for rates by the hour.
const HOUR_S: f64 = 3600.0;

impl Account {
    /// Counts anew what is used where.
    pub fn recount(&mut self, world: &World) {
        self.used = vec![0; world.hosts.len()];
        self.domains = vec![0; world.hosts.len()];
        for domain in &world.domains {
            if let Some(host) = domain.host {
                let place = host.0 as usize;
                self.domains[place] += 1;
                if world.hosts[host].state == HostPower::On {
                    self.used[place] += domain.used[UsedKind::CpuMicrocores];
                }
            }
        }
    }

    /// Watts of a host now.
    pub fn watts(&self, world: &World, place: usize) -> f64 {
        let host = &world.hosts[place];
        if host.state != HostPower::On {
            return host.power.off_watts;
        }
        let speed = host.speed[UsedKind::CpuMicrocores].max(1) as f64;
        let used = (self.used[place] + host.own_use[UsedKind::CpuMicrocores]) as f64;
        host.power.watts_at(used / speed)
    }

    fn is_short(&self, world: &World, place: usize) -> bool {
        let host = &world.hosts[place];
        let used = self.used[place] + host.own_use[UsedKind::CpuMicrocores];
        self.domains[place] > 0 && used > host.speed[UsedKind::CpuMicrocores]
    }

    /// Adds what a time costs in which nothing changes, from `at_s` of the world's clock on.
    pub fn pass(&mut self, world: &World, at_s: u64, length_s: f64) {
        let tariffs: Vec<f64> = world
            .sites
            .iter()
            .map(|site| {
                let known = site
                    .energy
                    .iter()
                    .rev()
                    .find(|tariff| tariff.from_s <= at_s);
                known.map_or(0.0, |tariff| tariff.micro_per_kwh as f64 / 1e6)
            })
            .collect();
        for (place, host) in world.hosts.iter().enumerate() {
            let kwh = self.watts(world, place) * length_s / HOUR_S / 1000.0;
            self.figures.kwh += kwh;
            let tariff = tariffs.get(host.site.0 as usize).copied().unwrap_or(0.0);
            self.figures.cost += kwh * tariff;
            if host.state != HostPower::On {
                continue;
            }
            self.on_s += length_s;
            self.figures.cost += host.price_micro_per_h as f64 / 1e6 * length_s / HOUR_S;
            if self.domains[place] == 0 {
                continue;
            }
            self.active_s += length_s;
            self.asked += self.used[place] as f64 * length_s;
            if host.owner_present {
                self.figures.beside_owner_s += f64::from(self.domains[place]) * length_s;
            }
            if self.is_short(world, place) {
                self.overloaded_s += length_s;
                let there = host.speed[UsedKind::CpuMicrocores]
                    .saturating_sub(host.own_use[UsedKind::CpuMicrocores]);
                self.short += self.used[place].saturating_sub(there) as f64 * length_s;
            }
        }
        for (place, host) in world.hosts.iter().enumerate() {
            if host.state == HostPower::Unknown {
                self.figures.down_s += f64::from(self.domains[place]) * length_s;
            }
        }
        self.talk(world, length_s);
    }

    fn talk(&mut self, world: &World, length_s: f64) {
        for talk in &world.talks {
            let site = |domain: DomainIx| {
                let host = world.domains[domain].host?;
                Some(world.hosts[host].site)
            };
            let (Some(one), Some(other)) = (site(talk.pair.0), site(talk.pair.1)) else {
                continue;
            };
            if one == other {
                continue;
            }
            let bytes = talk.bytes_per_s as f64 * length_s;
            self.figures.crossed_bytes += bytes;
            if let Some(link) = world.link(one, other) {
                let gib = bytes / f64::from(1 << 30);
                self.figures.cost += gib * link.micro_per_gib as f64 / 1e6;
            }
        }
    }

    /// What is now.
    pub fn period(&self, world: &World, at_s: f64) -> Period {
        let on = |host: &&estive_world::Host| host.state == HostPower::On;
        Period {
            at_s,
            hosts_on: world.hosts.iter().filter(on).count() as u64,
            watts: (0..world.hosts.len())
                .map(|place| self.watts(world, place))
                .sum(),
            overloaded: (0..world.hosts.len())
                .filter(|&place| {
                    world.hosts[place].state == HostPower::On && self.is_short(world, place)
                })
                .count() as u64,
            moving: world.operations.len() as u64,
            down: world
                .hosts
                .iter()
                .zip(&self.domains)
                .filter(|(host, _)| host.state == HostPower::Unknown)
                .map(|(_, domains)| u64::from(*domains))
                .sum(),
        }
    }

    /// The figures of a whole course.
    pub fn close(mut self, length_s: f64) -> Figures {
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        self.figures.hosts_on = share(self.on_s, length_s);
        self.figures.overloaded = share(self.overloaded_s, self.active_s);
        self.figures.short = share(self.short, self.asked);
        self.figures
    }
}
