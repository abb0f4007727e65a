//! What a move costs before it has gained anything: bytes, time, standing still and risk, and the least that it must gain.

use estive_world::{Domain, DomainIx, HostIx, Indexed, SiteIx, World};

use crate::places::Spot;
use crate::sequence::hops;
use crate::transfer::{self, Transfer};

/// So many rates are told apart; in a world with more of them a move is priced at the next lower one of these, so that it
/// never seems cheaper than it is.
const RATES_AT_MOST: usize = 16;

/// A second in which a domain stands still counts as so many in which it moves.
pub const STANDING_STILL: f64 = 60.0;

/// What moves cost, for every domain.
#[derive(Debug, Clone)]
pub struct Toll {
    rates: Rates,
    /// By domain and class of rate.
    moves: Vec<Cost>,
    copies: Vec<Cost>,
    least: f64,
    pays_back_s: f64,
    nowhere: HostIx,
}

/// One move, or several of one domain.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Bytes that it carries.
    pub bytes: u64,
    /// Seconds that it lasts.
    pub duration_s: f64,
    /// Milliseconds in which the domain stands still.
    pub downtime_ms: f64,
    /// How likely it is not to converge, from 0 to 1.
    pub risk: f64,
    /// All of it in seconds of moving: duration, time lost while the domain was slowed, and [`STANDING_STILL`] times the
    /// downtime; over what is left of certainty, since what does not converge is tried again.
    pub price_s: f64,
}

impl From<Transfer> for Cost {
    fn from(transfer: Transfer) -> Self {
        let felt_s = transfer.duration_s
            + transfer.slowed_s
            + STANDING_STILL * transfer.downtime_ms / 1000.0;
        Self {
            bytes: transfer.bytes,
            duration_s: transfer.duration_s,
            downtime_ms: transfer.downtime_ms,
            risk: transfer.risk,
            price_s: felt_s / (1.0 - transfer.risk),
        }
    }
}

impl Cost {
    /// One after the other.
    fn then(self, next: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(next.bytes),
            duration_s: self.duration_s + next.duration_s,
            downtime_ms: self.downtime_ms + next.downtime_ms,
            risk: 1.0 - (1.0 - self.risk) * (1.0 - next.risk),
            price_s: self.price_s + next.price_s,
        }
    }
}

impl Toll {
    /// Computes it for every domain.
    pub fn new(world: &World) -> Self {
        let rates = Rates::new(world);
        let by_rate = |cost: fn(&Domain, u64) -> Transfer| -> Vec<Cost> {
            (world.domains.iter())
                .flat_map(|domain| rates.known.iter().map(move |&rate| (domain, rate)))
                .map(|(domain, rate)| cost(domain, rate).into())
                .collect()
        };
        let hysteresis = &world.rules.hysteresis;
        Self {
            moves: by_rate(transfer::expected),
            copies: by_rate(transfer::copied),
            rates,
            least: f64::from(hysteresis.gain_at_least_ppm) / 1e6,
            pays_back_s: f64::from(hysteresis.pays_back_within_s),
            nowhere: HostIx::of(world.hosts.len()),
        }
    }

    /// What going from one spot to another takes, by the same hops as a plan's steps. One that has no place yet moves for
    /// nothing.
    pub fn cost(&self, domain: DomainIx, from: Spot, to: Spot) -> Cost {
        if from == to || from.host == self.nowhere {
            return Cost::default();
        }
        let first = domain.at() * self.rates.known.len();
        if from.replica == self.nowhere {
            return self.moves[first + self.rates.class(from.host, to.host)];
        }
        let place = |host: HostIx| (host != self.nowhere).then_some(host);
        let mut at = hops::Spot {
            host: place(from.host),
            replica: place(from.replica),
        };
        let mut cost = Cost::default();
        while let Some(hop) = hops::next(at, place(to.host), place(to.replica)) {
            let class = self.rates.class(at.host.unwrap_or(hop.to()), hop.to());
            cost = cost.then(match hop {
                hops::Hop::Place(_) => Cost::default(),
                hops::Hop::Move(_) => self.moves[first + class],
                hops::Hop::Replica(_) => self.copies[first + class],
            });
            at = hop.done(at);
        }
        cost
    }

    /// The share of one host's part in an objective that going from one spot to another must gain: the least gain of
    /// the rules, and its price over the time that is left, once it has ended, of that within which it must have paid for
    /// itself. 0 if it stays. What lasts longer than that must gain a thousand hosts' parts: it never does.
    pub fn share(&self, domain: DomainIx, from: Spot, to: Spot) -> f64 {
        if from == to {
            return 0.0;
        }
        self.of(&self.cost(domain, from, to))
    }

    /// The least of [`Self::share`] over all hosts that a domain could go to.
    pub fn least_share(&self, domain: DomainIx, from: Spot) -> f64 {
        if from.host == self.nowhere {
            return self.least;
        }
        let first = domain.at() * self.rates.known.len();
        let classes = self.rates.classes_from(from.host);
        let shares = classes.map(|class| self.of(&self.moves[first + class]));
        shares.fold(f64::INFINITY, f64::min)
    }

    /// Whether moves cost the same to every host.
    pub fn has_one_rate(&self) -> bool {
        self.rates.known.len() == 1
    }

    fn of(&self, cost: &Cost) -> f64 {
        if self.pays_back_s <= 0.0 {
            return self.least;
        }
        let left_s = (self.pays_back_s - cost.duration_s).max(self.pays_back_s / 1000.0);
        self.least + cost.price_s / left_s
    }
}

/// Rates between sites, each as a number of one of a few that are told apart.
#[derive(Debug, Clone)]
struct Rates {
    /// Bytes per second, the slowest first; never empty.
    known: Vec<u64>,
    /// By site and site.
    classes: Vec<u8>,
    sites: usize,
    /// By host; one row more for "nowhere".
    site_of: Vec<SiteIx>,
}

impl Rates {
    fn new(world: &World) -> Self {
        let sites = world.sites.len().max(1);
        // A link is looked for once, not once for each pair.
        let within =
            |site: usize| transfer::rate_between(world, SiteIx::of(site), SiteIx::of(site));
        let own: Vec<u64> = (0..sites).map(within).collect();
        let mut rates: Vec<u64> = (0..sites * sites)
            .map(|pair| own[pair / sites].min(own[pair % sites]))
            .collect();
        for link in &world.links {
            let (one, other) = (link.ends.0.at(), link.ends.1.at());
            if one >= sites || other >= sites {
                continue;
            }
            let rate = transfer::rate_between(world, link.ends.0, link.ends.1);
            rates[one * sites + other] = rate;
            rates[other * sites + one] = rate;
        }
        let mut known = rates.clone();
        known.sort_unstable();
        known.dedup();
        let known = fewer(known);
        let classes = (rates.iter())
            .map(|rate| {
                let above = known.partition_point(|known| known <= rate);
                u8::try_from(above.max(1) - 1).unwrap_or(u8::MAX)
            })
            .collect();
        let hosts = world.hosts.iter().map(|host| host.site);
        Self {
            known,
            classes,
            sites,
            site_of: hosts.chain([SiteIx(0)]).collect(),
        }
    }

    fn class(&self, from: HostIx, to: HostIx) -> usize {
        let (from, to) = (self.site_of[from.at()].at(), self.site_of[to.at()].at());
        usize::from(self.classes[from * self.sites + to])
    }

    fn classes_from(&self, from: HostIx) -> impl Iterator<Item = usize> {
        let from = self.site_of[from.at()].at() * self.sites;
        let row = &self.classes[from..from + self.sites];
        row.iter().map(|&class| usize::from(class))
    }
}

/// At most so many as are told apart, the slowest among them; `rates` ascend.
fn fewer(rates: Vec<u64>) -> Vec<u64> {
    let count = rates.len();
    if count <= RATES_AT_MOST {
        return rates;
    }
    let mut fewer: Vec<u64> = (0..RATES_AT_MOST)
        .map(|nth| rates[nth * (count - 1) / (RATES_AT_MOST - 1)])
        .collect();
    fewer.dedup();
    fewer
}

#[cfg(test)]
mod tests {
    use estive_world::{Link, Site};

    use super::*;
    use crate::samples::{domain, host, world};

    /// Four hosts in two sites of 1 Gbit/s with a link of a tenth of that; one domain of 1 GiB on the first.
    fn two_sites() -> World {
        let mut hosts = ["a", "b", "c", "d"].map(|name| host(name, [4, 8192, 100, 0]));
        hosts[2].site = SiteIx(1);
        hosts[3].site = SiteIx(1);
        let mut world = world(hosts.into(), vec![domain("d", Some(0), [1, 1024, 10, 0])]);
        world.sites.push(Site::named("there"));
        world.links.push(Link {
            ends: (SiteIx(0), SiteIx(1)),
            rate_bytes_per_s: 12_500_000,
            latency_us: 10_000,
            micro_per_gib: 0,
        });
        world
    }

    fn at(host: u32, replica: u32) -> Spot {
        Spot {
            host: HostIx(host),
            replica: HostIx(replica),
        }
    }

    #[test]
    fn a_move_costs_what_its_step_is_expected_to_take() {
        let mut world = two_sites();
        world.domains[0].dirtied_bytes_per_s = 5_000_000;
        let toll = Toll::new(&world);
        for (to, rate) in [(1, 125_000_000), (2, 12_500_000)] {
            let cost = toll.cost(DomainIx(0), at(0, 4), at(to, 4));
            let step = transfer::of_move(&world.domains[0], rate);
            assert_eq!((cost.bytes, cost.duration_s), (step.bytes, step.duration_s));
            assert_eq!(cost.downtime_ms, step.downtime_ms);
        }
        assert!(!toll.has_one_rate());
        assert_eq!(
            toll.least_share(DomainIx(0), at(0, 4)),
            toll.share(DomainIx(0), at(0, 4), at(1, 4))
        );
    }

    #[test]
    fn a_replica_goes_ahead_and_the_rest_is_made_anew() {
        let toll = Toll::new(&two_sites());
        let (gib, disk) = (1 << 30, 10 << 20);
        let bytes = |from, to| toll.cost(DomainIx(0), from, to).bytes;
        assert_eq!(bytes(at(0, 1), at(1, 0)), gib);
        assert_eq!(bytes(at(0, 1), at(0, 2)), disk);
        assert_eq!(bytes(at(0, 1), at(2, 0)), gib + disk);
        assert_eq!(bytes(at(0, 1), at(1, 2)), gib + disk);
        assert_eq!(bytes(at(0, 1), at(2, 3)), gib + 2 * disk);
        assert_eq!(bytes(at(0, 1), at(2, 1)), gib + 2 * disk);
    }

    #[test]
    fn what_writes_as_fast_as_the_link_carries_costs_ten_times_as_much() {
        let mut world = two_sites();
        let share = |world: &World, to| Toll::new(world).share(DomainIx(0), at(0, 4), at(to, 4));
        let calm = share(&world, 1);
        world.domains[0].dirtied_bytes_per_s = 125_000_000;
        assert!(share(&world, 1) > 10.0 * calm);
        // And over a link that it writes faster than, it does not pay at all.
        assert!(share(&world, 2) > 1.0, "{}", share(&world, 2));
    }

    #[test]
    fn what_lasts_longer_than_it_may_take_to_pay_back_never_pays() {
        let mut world = two_sites();
        world.rules.hysteresis.pays_back_within_s = 60;
        let toll = Toll::new(&world);
        assert!(toll.share(DomainIx(0), at(0, 4), at(1, 4)) < 1.0);
        assert!(toll.share(DomainIx(0), at(0, 4), at(2, 4)) > 1000.0);
    }

    #[test]
    fn of_many_rates_the_next_lower_one_is_counted() {
        let mut world = two_sites();
        for number in 2..40 {
            world.sites.push(Site::named(format!("s{number}")));
            world.links.push(Link {
                ends: (SiteIx(0), SiteIx(number)),
                rate_bytes_per_s: 10_000_000 + 1_000_000 * u64::from(number),
                latency_us: 0,
                micro_per_gib: 0,
            });
        }
        let rates = Rates::new(&world);
        assert!(rates.known.len() <= RATES_AT_MOST);
        for other in 0..40 {
            let rate = transfer::rate_between(&world, SiteIx(0), SiteIx(other));
            let class = rates.classes[other as usize];
            assert!(rates.known[usize::from(class)] <= rate);
        }
    }
}
