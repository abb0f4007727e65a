//! The term `time`: how long the deployments' steps of work take, in seconds for each second of work as it is now.
//!
//! A step of a deployment is what its domains compute and say in one second now. It takes as long as its slowest domain:
//! its computing, on the host's cores and with the host's other guests if together they want more than there is, and its
//! communication, messages by latency and bytes by rate; on one host both are nothing. Deployments are added up; domains
//! of none take processors but are waited for by nobody. Source: Dib, "Migration dynamique d'applications réparties
//! virtualisées dans les fédérations d'infrastructures distribuées" (2010), chapter 4, which leaves the estimate open.
//!
//! Whole nanoseconds. A change costs the guests of the hosts it touches, if those want more than there is, the row of
//! who the domain talks to, and the members of the deployments concerned.
//!
//! Weakness: computing and communication are added though a program may do both at once; links are not shared.

use std::collections::BTreeMap;
use std::sync::Arc;

use estive_world::{DomainIx, HostIx, Indexed, ReservedKind, SiteIx, UsedKind, World};

use super::Meter;
use super::occupied::{processor_power, processor_use};
use crate::books::Books;
use crate::places::Change;

/// Nanoseconds in a second.
const NANO: f64 = 1e9;
/// What a domain takes that is nowhere, and at the most.
const FOREVER_NS: u64 = 1_000_000_000_000;
/// Of so many that a domain talks to most, the hosts are worth a look for it.
const SUGGESTED: usize = 16;

/// Time of all steps.
#[derive(Debug, Clone)]
pub struct Time {
    fixed: Arc<Fixed>,
    /// Processor use by host, in thousandths of a common core's millionth.
    used: Vec<u64>,
    /// By domain.
    times_ns: Vec<u64>,
    /// By deployment.
    longest_ns: Vec<u64>,
    total_ns: u64,
}

#[derive(Debug)]
struct Fixed {
    /// The deployment of each domain.
    job_of: Vec<Option<u32>>,
    members: Vec<Vec<DomainIx>>,
    /// By domain: nanoseconds on a common core that one of its processors is busy.
    busy_ns: Vec<u64>,
    uses: Vec<u64>,
    /// By host: what it has of processors.
    whole: Vec<u64>,
    speed_milli: Vec<u32>,
    site_of: Vec<usize>,
    talk: Vec<Vec<Said>>,
    /// By site and site.
    ways: Vec<Vec<Way>>,
}

/// What one domain says to another in a second.
#[derive(Debug, Clone, Copy)]
struct Said {
    to: DomainIx,
    bytes: u64,
    messages: u64,
}

#[derive(Debug, Clone, Copy)]
struct Way {
    latency_ns: u64,
    rate_bytes_per_s: u64,
}

/// What some changes make of it.
struct After {
    times_ns: BTreeMap<DomainIx, u64>,
    longest_ns: Vec<(u32, u64)>,
    total_ns: u64,
}

impl Time {
    /// Measures a state.
    pub fn new(books: &Books<'_>) -> Self {
        let world = books.ground.world;
        let fixed = Fixed::new(world);
        let mut used: Vec<u64> = (world.hosts.iter())
            .map(|host| {
                let own = host.own_use[UsedKind::CpuMicrocores];
                own.saturating_mul(u64::from(host.core_speed_milli))
            })
            .chain([0])
            .collect();
        for (number, uses) in fixed.uses.iter().enumerate() {
            let host = books.places.spot(DomainIx::of(number)).host;
            used[host] = used[host].saturating_add(*uses);
        }
        let mut time = Self {
            times_ns: vec![0; world.domains.len()],
            longest_ns: vec![0; fixed.members.len()],
            fixed: Arc::new(fixed),
            used,
            total_ns: 0,
        };
        for domain in (0..world.domains.len()).map(DomainIx::of) {
            let host = books.places.spot(domain).host;
            let taken = time
                .fixed
                .time_ns(books, domain, host, time.used[host.at()], &[]);
            time.times_ns[domain] = taken;
            if let Some(job) = time.fixed.job_of[domain.at()] {
                let longest = &mut time.longest_ns[job as usize];
                *longest = taken.max(*longest);
            }
        }
        time.total_ns = time.longest_ns.iter().sum();
        time
    }

    /// Processor use of a host with some changes.
    fn used_with(&self, books: &Books<'_>, host: HostIx, changes: &[Change]) -> u64 {
        let mut used = self.used[host.at()];
        for change in changes {
            let uses = self.fixed.uses[change.domain.at()];
            if change.to.host == host {
                used = used.saturating_add(uses);
            }
            if books.places.spot(change.domain).host == host {
                used = used.saturating_sub(uses);
            }
        }
        used
    }

    /// Times that change, the deployments' longest, and all together.
    fn after(&self, books: &Books<'_>, changes: &[Change]) -> After {
        let fixed = &*self.fixed;
        let place = |domain: DomainIx| {
            let changed = changes.iter().find(|change| change.domain == domain);
            changed.map_or_else(|| books.places.spot(domain).host, |change| change.to.host)
        };
        let mut concerned: Vec<DomainIx> = Vec::new();
        for change in changes {
            concerned.push(change.domain);
            concerned.extend(fixed.talk[change.domain.at()].iter().map(|said| said.to));
            for host in [books.places.spot(change.domain).host, change.to.host] {
                if host == books.nowhere() {
                    continue;
                }
                let most = self.used[host.at()].max(self.used_with(books, host, changes));
                if most > fixed.whole[host.at()] {
                    concerned.extend_from_slice(books.places.guests(host));
                }
            }
        }
        concerned.retain(|domain| fixed.job_of[domain.at()].is_some());
        let mut after = After {
            times_ns: BTreeMap::new(),
            longest_ns: Vec::new(),
            total_ns: self.total_ns,
        };
        let mut jobs = Vec::new();
        for domain in concerned {
            let host = place(domain);
            after.times_ns.entry(domain).or_insert_with(|| {
                jobs.extend(fixed.job_of[domain.at()]);
                let used = self.used_with(books, host, changes);
                fixed.time_ns(books, domain, host, used, changes)
            });
        }
        jobs.sort_unstable();
        jobs.dedup();
        for job in jobs {
            let members = fixed.members[job as usize].iter();
            let longest = members
                .map(|member| {
                    let changed = after.times_ns.get(member).copied();
                    changed.unwrap_or(self.times_ns[member.at()])
                })
                .max()
                .unwrap_or(0);
            after.total_ns = after.total_ns - self.longest_ns[job as usize] + longest;
            after.longest_ns.push((job, longest));
        }
        after
    }
}

impl Fixed {
    fn new(world: &World) -> Self {
        let mut members = vec![Vec::new(); world.deployments.len()];
        let mut job_of = Vec::with_capacity(world.domains.len());
        for (number, domain) in world.domains.iter().enumerate() {
            let job = domain
                .deployment
                .filter(|&job| (job as usize) < members.len());
            if let Some(job) = job {
                members[job as usize].push(DomainIx::of(number));
            }
            job_of.push(job);
        }
        let uses: Vec<u64> = (0..world.domains.len())
            .map(|domain| processor_use(world, DomainIx::of(domain)))
            .collect();
        let busy_ns = (world.domains.iter().zip(&uses))
            .map(|(domain, uses)| uses / domain.reserved[ReservedKind::Vcpus].max(1))
            .collect();
        let sites = world.sites.len();
        Self {
            job_of,
            members,
            busy_ns,
            uses,
            whole: (0..world.hosts.len())
                .map(|host| processor_power(world, HostIx::of(host)))
                .collect(),
            speed_milli: world
                .hosts
                .iter()
                .map(|host| host.core_speed_milli.max(1))
                .collect(),
            site_of: world.hosts.iter().map(|host| host.site.at()).collect(),
            talk: talk(world),
            ways: (0..sites)
                .map(|one| (0..sites).map(|other| way(world, one, other)).collect())
                .collect(),
        }
    }

    /// How long one domain's part of a step takes on a host of which so much is used.
    fn time_ns(
        &self,
        books: &Books<'_>,
        domain: DomainIx,
        host: HostIx,
        used: u64,
        changes: &[Change],
    ) -> u64 {
        let Some(&whole) = self.whole.get(host.at()) else {
            return FOREVER_NS;
        };
        let alone =
            u128::from(self.busy_ns[domain.at()]) * 1000 / u128::from(self.speed_milli[host.at()]);
        let mut time = match used > whole {
            true => alone * u128::from(used) / u128::from(whole.max(1)),
            false => alone,
        };
        for said in &self.talk[domain.at()] {
            let changed = changes.iter().find(|change| change.domain == said.to);
            let at =
                changed.map_or_else(|| books.places.spot(said.to).host, |change| change.to.host);
            let Some(&site) = self.site_of.get(at.at()) else {
                continue;
            };
            if at != host {
                let way = self.ways[self.site_of[host.at()]][site];
                time += u128::from(said.messages) * u128::from(way.latency_ns)
                    + u128::from(said.bytes) * 1_000_000_000 / u128::from(way.rate_bytes_per_s);
            }
        }
        u64::try_from(time).unwrap_or(FOREVER_NS).min(FOREVER_NS)
    }
}

fn talk(world: &World) -> Vec<Vec<Said>> {
    let mut rows = vec![Vec::new(); world.domains.len()];
    for talk in &world.talks {
        let (one, other) = talk.pair;
        for (from, to) in [(one, other), (other, one)] {
            rows[from.at()].push(Said {
                to,
                bytes: talk.bytes_per_s,
                messages: u64::from(talk.messages_per_s),
            });
        }
    }
    for row in &mut rows {
        row.sort_by_key(|said: &Said| (std::cmp::Reverse(said.bytes), said.to));
    }
    rows
}

/// Between two hosts of these sites. Where there is no link, as slow as never.
fn way(world: &World, one: usize, other: usize) -> Way {
    let found = if one == other {
        let site = &world.sites[one];
        Some((site.latency_us, site.rate_bytes_per_s))
    } else {
        let link = world.link(SiteIx::of(one), SiteIx::of(other));
        link.map(|link| (link.latency_us, link.rate_bytes_per_s))
    };
    let (latency_us, rate_bytes_per_s) = found.unwrap_or((1_000_000, 1000));
    Way {
        latency_ns: u64::from(latency_us) * 1000,
        rate_bytes_per_s: rate_bytes_per_s.max(1),
    }
}

impl Meter for Time {
    fn value(&self) -> f64 {
        self.total_ns as f64 / NANO
    }

    fn delta(&self, books: &Books<'_>, changes: &[Change]) -> f64 {
        let after = self.after(books, changes);
        (after.total_ns as f64 - self.total_ns as f64) / NANO
    }

    fn apply(&mut self, books: &Books<'_>, change: Change) {
        let after = self.after(books, &[change]);
        let (from, to) = (books.places.spot(change.domain).host, change.to.host);
        let will = [from, to].map(|host| self.used_with(books, host, &[change]));
        self.used[from] = will[0];
        self.used[to] = will[1];
        for (domain, time_ns) in after.times_ns {
            self.times_ns[domain] = time_ns;
        }
        for (job, longest_ns) in after.longest_ns {
            self.longest_ns[job as usize] = longest_ns;
        }
        self.total_ns = after.total_ns;
    }

    fn load(&self, _books: &Books<'_>, host: HostIx) -> f64 {
        let whole = self.fixed.whole[host.at()].max(1) as f64;
        self.used[host.at()] as f64 / whole - f64::from(self.fixed.speed_milli[host.at()]) / 1000.0
    }

    fn suggest(&self, books: &Books<'_>, domain: DomainIx, into: &mut Vec<HostIx>) {
        let row = self.fixed.talk[domain.at()].iter().take(SUGGESTED);
        into.extend(row.map(|said| books.places.spot(said.to).host));
    }

    fn parts(&self) -> Vec<(String, f64)> {
        let longest = self.longest_ns.iter().max().copied().unwrap_or(0);
        vec![
            (
                "seconds of all steps".to_owned(),
                self.total_ns as f64 / NANO,
            ),
            (
                "seconds of the longest step".to_owned(),
                longest as f64 / NANO,
            ),
        ]
    }

    fn copy(&self) -> Box<dyn Meter> {
        Box::new(self.clone())
    }
}
