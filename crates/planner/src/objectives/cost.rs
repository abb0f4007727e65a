//! The term `cost`: currency an hour, for hosts that are in use, their energy by tariff, and bytes between sites.

use std::sync::Arc;

use estive_world::{DomainIx, HostIx, Indexed, SiteIx, World};

use super::Meter;
use super::arrival::{Arrivals, MARKS, Wakes, Weighing};
use super::occupied::{HostCost, Occupied, may_be_off};
use crate::books::Books;
use crate::places::Change;

/// Millionths of the currency.
const MICRO: f64 = 1e6;

/// Currency an hour.
#[derive(Debug, Clone)]
pub struct Cost {
    hosts: Occupied,
    traffic: Arc<Traffic>,
    carried: i64,
}

/// Who talks over what.
#[derive(Debug)]
struct Traffic {
    /// By domain: the other, and mebibytes an hour.
    talks: Vec<Vec<(DomainIx, u64)>>,
    /// Millionths of the currency for a GiB, by pair of sites.
    prices: Vec<Vec<u64>>,
}

impl Cost {
    /// Measures a state.
    pub fn new(books: &Books<'_>) -> Self {
        let world = books.ground.world;
        let mut talks = vec![Vec::new(); world.domains.len()];
        for talk in &world.talks {
            let mib_per_h =
                u64::try_from((u128::from(talk.bytes_per_s) * 3600) >> 20).unwrap_or(u64::MAX);
            talks[talk.pair.0.at()].push((talk.pair.1, mib_per_h));
            talks[talk.pair.1.at()].push((talk.pair.0, mib_per_h));
        }
        let sites = world.sites.len();
        let mut cost = Self {
            hosts: Occupied::new(
                books,
                (0..world.hosts.len())
                    .map(|host| price(world, HostIx::of(host)))
                    .collect(),
            ),
            traffic: Arc::new(Traffic {
                talks,
                prices: prices(world, sites),
            }),
            carried: 0,
        };
        cost.carried = (0..world.domains.len())
            .map(DomainIx::of)
            .map(|domain| cost.carried_by(books, domain, books.places.spot(domain).host, &[]))
            .sum::<i64>()
            / 2;
        cost
    }

    /// What the talk of a domain costs if it is on a host and some others have changed.
    fn carried_by(
        &self,
        books: &Books<'_>,
        domain: DomainIx,
        host: HostIx,
        changes: &[Change],
    ) -> i64 {
        let hosts = &books.ground.world.hosts;
        let Some(here) = hosts.get(host.at()) else {
            return 0;
        };
        (self.traffic.talks[domain.at()].iter())
            .map(|&(other, mib_per_h)| {
                let changed = changes.iter().find(|change| change.domain == other);
                let at =
                    changed.map_or_else(|| books.places.spot(other).host, |change| change.to.host);
                let Some(there) = hosts.get(at.at()) else {
                    return 0;
                };
                let price = self.traffic.prices[here.site.at()][there.site.at()];
                // So little of what there may be at the most that sums over all pairs fit.
                (u128::from(mib_per_h) * u128::from(price) / 1024).min(1 << 38) as i64
            })
            .sum()
    }

    fn carried_more(&self, books: &Books<'_>, changes: &[Change]) -> i64 {
        let mut by = 0;
        for (nth, change) in changes.iter().enumerate() {
            // One after the other, so that a pair that changes both ends is counted once.
            let (done, now) = (&changes[..nth], books.places.spot(change.domain).host);
            by += self.carried_by(books, change.domain, change.to.host, done)
                - self.carried_by(books, change.domain, now, done);
        }
        by
    }
}

/// What a host costs an hour, in millionths.
fn price(world: &World, number: HostIx) -> HostCost {
    let host = &world.hosts[number];
    let per_wh = micro_per_kwh(world, host.site) as f64 / 1000.0;
    let empty = if may_be_off(world, number) {
        host.power.off_watts * per_wh
    } else {
        host.price_micro_per_h as f64 + host.power.watts_at(0.0) * per_wh
    };
    HostCost {
        empty: empty as i64,
        occupied: i64::try_from(host.price_micro_per_h).unwrap_or(i64::MAX / 4),
        by_load: host
            .power
            .watts
            .iter()
            .map(|watts| watts * per_wh)
            .collect(),
    }
}

/// What a site's energy costs: the mean over the time within which a move must have paid for itself, so that nobody goes
/// where it is cheap for a moment.
fn micro_per_kwh(world: &World, site: SiteIx) -> u64 {
    let Some(site) = world.sites.get(site.at()) else {
        return 0;
    };
    let within_s = u64::from(world.rules.hysteresis.pays_back_within_s.max(1));
    let end_s = world.at_s.saturating_add(within_s);
    let mut sum: u128 = 0;
    for (nth, tariff) in site.energy.iter().enumerate() {
        let next = site.energy.get(nth + 1);
        let until_s = next.map_or(end_s, |next| next.from_s.min(end_s));
        let lasts_s = until_s.saturating_sub(tariff.from_s.max(world.at_s));
        sum += u128::from(tariff.micro_per_kwh) * u128::from(lasts_s);
    }
    u64::try_from(sum / u128::from(within_s)).unwrap_or(u64::MAX)
}

/// By site and site; each link is looked at once, the first of two between the same sites counts.
fn prices(world: &World, sites: usize) -> Vec<Vec<u64>> {
    let mut prices = vec![vec![0; sites]; sites];
    for link in world.links.iter().rev() {
        let (one, other) = (link.ends.0.at(), link.ends.1.at());
        if one < sites && other < sites && one != other {
            prices[one][other] = link.micro_per_gib;
            prices[other][one] = link.micro_per_gib;
        }
    }
    prices
}

impl Arrivals for Cost {
    fn model(&self, _host: HostIx) -> u32 {
        0
    }

    fn marks(&self, books: &Books<'_>, host: HostIx) -> [f64; MARKS] {
        self.hosts.marks(books, host)
    }

    fn weighing(&self, _books: &Books<'_>, domain: DomainIx, _host: HostIx) -> Option<Weighing> {
        let alone = self.traffic.talks[domain.at()].is_empty();
        (alone && !self.hosts.is_used_by(domain)).then_some(Weighing::Wakes(Wakes {
            lack: 0.0,
            lack_then: 0.0,
            unit: MICRO,
        }))
    }
}

impl Meter for Cost {
    fn value(&self) -> f64 {
        (self.hosts.total() + self.carried) as f64 / MICRO
    }

    fn delta(&self, books: &Books<'_>, changes: &[Change]) -> f64 {
        let hosts = self.hosts.difference(books, changes).total;
        (hosts + self.carried_more(books, changes)) as f64 / MICRO
    }

    fn apply(&mut self, books: &Books<'_>, change: Change) {
        self.carried += self.carried_more(books, &[change]);
        self.hosts.apply(books, change);
    }

    fn load(&self, books: &Books<'_>, host: HostIx) -> f64 {
        if books.places.guests(host).is_empty() {
            2.0
        } else {
            -self.hosts.load(host)
        }
    }

    fn suggest(&self, books: &Books<'_>, domain: DomainIx, into: &mut Vec<HostIx>) {
        let talks = self.traffic.talks[domain.at()].iter().take(8);
        into.extend(talks.map(|&(other, _)| books.places.spot(other).host));
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
                "hosts and energy an hour".to_owned(),
                self.hosts.total() as f64 / MICRO,
            ),
            (
                "bytes between sites an hour".to_owned(),
                self.carried as f64 / MICRO,
            ),
        ]
    }

    fn copy(&self) -> Box<dyn Meter> {
        Box::new(self.clone())
    }
}
