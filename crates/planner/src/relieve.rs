//! The first built-in policy: relieve a hot host, and bring home who visits a host that has little to do.
//!
//! After the experiment with TUNe (2010): a host that stays at the high threshold or above for the hold time gives one domain
//! away. It is the one whose move leaves the lower maximum of the two hosts, as they are expected to be *after* it; it goes to
//! its home if that stays below the high threshold, else to the host with the least load, and nowhere if that would not stay
//! below. A host that has only visitors and stays below the low threshold sends them all home, if every home stays below the
//! high threshold with them; then nobody needs it any more.
//!
//! Pure: what was seen before ([`Watch`]) and the moment (the world's) are given. One move for each hot host in a decision; the
//! next is made when its windows have come. Cost: O(d × h) for d domains on hot hosts and h hosts.

use std::collections::BTreeMap;
use std::sync::Arc;

use estive_world::{DomainIx, DomainLife, HostIx, HostPower, Indexed, UsedKind, World};
use serde::{Deserialize, Serialize};

use crate::books::Books;
use crate::ground::Ground;
use crate::obstacle::Obstacle;
use crate::place::counted;
use crate::places::{Change, Spot};

/// When this policy acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// A host is hot from this share of its processors on, in thousandths.
    pub high_milli: u32,
    /// And idle below this one.
    pub low_milli: u32,
    /// It must be so for as long, in seconds.
    pub hold_s: u32,
    /// No more moves in an hour; none: any number.
    pub moves_per_h: Option<u32>,
}

impl Default for Thresholds {
    /// The source's 45 % and 10 %, for a minute, 60 moves an hour.
    fn default() -> Self {
        Self {
            high_milli: 450,
            low_milli: 100,
            hold_s: 60,
            moves_per_h: Some(60),
        }
    }
}

/// What was seen before: since when hosts are hot or idle, and when something was moved. By name, since numbers are a
/// world's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watch {
    hot_since_s: BTreeMap<String, u64>,
    idle_since_s: BTreeMap<String, u64>,
    moved_s: Vec<u64>,
}

impl Watch {
    /// Looks at a world. A host that cannot be told of is neither hot nor idle.
    pub fn see(&mut self, world: &World, thresholds: &Thresholds) {
        let load = Load::of(world);
        let at_s = world.at_s;
        self.moved_s
            .retain(|&moved_s| moved_s.saturating_add(3600) > at_s);
        let mut hot = BTreeMap::new();
        let mut idle = BTreeMap::new();
        for host in (0..world.hosts.len()).map(HostIx::of) {
            let Some(share) = load.milli(host) else {
                continue;
            };
            let name = &world.hosts[host].name;
            let since = |before: &BTreeMap<String, u64>| {
                before.get(name).copied().unwrap_or(at_s).min(at_s)
            };
            if share >= f64::from(thresholds.high_milli) {
                hot.insert(name.clone(), since(&self.hot_since_s));
            }
            if share < f64::from(thresholds.low_milli) {
                idle.insert(name.clone(), since(&self.idle_since_s));
            }
        }
        (self.hot_since_s, self.idle_since_s) = (hot, idle);
    }

    /// A move was begun at a moment of the world's clock.
    pub fn moved(&mut self, at_s: u64) {
        self.moved_s.push(at_s);
    }

    fn may_move(&self, thresholds: &Thresholds, at_s: u64) -> u64 {
        let Some(most) = thresholds.moves_per_h else {
            return u64::MAX;
        };
        let within_the_hour = (self.moved_s.iter())
            .filter(|&&moved_s| moved_s.saturating_add(3600) > at_s)
            .count();
        u64::from(most).saturating_sub(within_the_hour as u64)
    }
}

/// A move that this policy wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relief {
    /// Which domain.
    pub domain: DomainIx,
    /// Where it is.
    pub from: HostIx,
    /// Where it should go.
    pub to: HostIx,
    /// Why there.
    pub why: Whither,
    /// The two hosts' use before and after, in thousandths: source, then target.
    pub before_milli: [f64; 2],
    /// As expected.
    pub after_milli: [f64; 2],
}

/// Why a domain goes where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whither {
    /// Its host is hot, and it belongs there.
    Home,
    /// Its host is hot, and that one has the least load.
    LeastLoaded,
    /// It visits a host that has little to do.
    Return,
}

/// What was decided about a host, with the figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Which host.
    pub host: HostIx,
    /// Its use, in thousandths of its processors; none: cannot be told.
    pub use_milli: Option<f64>,
    /// What.
    pub verdict: Verdict,
}

/// What is done about a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// It is neither hot nor idle with visitors.
    Fine,
    /// It does not answer, or nobody knows what its processors can do: nothing is done.
    CannotTell,
    /// It is hot or idle, but for too short a time.
    Waits {
        /// For so many seconds more.
        left_s: u64,
    },
    /// These moves.
    Moves {
        /// One if it was hot, all visitors if it was idle.
        moves: Vec<Relief>,
    },
    /// It is hot or idle, and nothing can be done.
    Nothing {
        /// Why, in words with figures.
        because: String,
    },
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Decision {
    /// By host; all hosts.
    pub judged: Vec<Judged>,
}

impl Decision {
    /// All moves, in the order of the hosts that they leave.
    pub fn moves(&self) -> impl Iterator<Item = &Relief> {
        self.judged.iter().flat_map(|judged| match &judged.verdict {
            Verdict::Moves { moves } => moves.as_slice(),
            _ => &[],
        })
    }
}

/// What each host's processors do.
struct Load {
    /// Used on a host, in thousandths of a common core's millionth.
    used: Vec<u128>,
    /// What it has of that; 0: not known.
    speed: Vec<u128>,
    of_domain: Vec<u128>,
    known: Vec<bool>,
}

impl Load {
    fn of(world: &World) -> Self {
        let core = |host: HostIx| u128::from(world.hosts[host].core_speed_milli.max(1));
        let cpu = UsedKind::CpuMicrocores;
        let hosts = || (0..world.hosts.len()).map(HostIx::of);
        let mut used: Vec<u128> = hosts()
            .map(|host| u128::from(world.hosts[host].own_use[cpu]) * core(host))
            .collect();
        let of_domain: Vec<u128> = (world.domains.iter())
            .map(|domain| match domain.host {
                Some(host) if domain.life != DomainLife::Stopped => {
                    u128::from(domain.used[cpu]) * core(host)
                }
                _ => 0,
            })
            .collect();
        for (domain, amount) in world.domains.iter().zip(&of_domain) {
            if let Some(host) = domain.host {
                used[host.at()] += amount;
            }
        }
        Self {
            used,
            speed: hosts()
                .map(|host| u128::from(world.hosts[host].speed[cpu]) * core(host))
                .collect(),
            of_domain,
            known: hosts()
                .map(|host| world.hosts[host].state == HostPower::On)
                .collect(),
        }
    }

    fn share(&self, host: HostIx, used: u128) -> Option<f64> {
        let (speed, known) = (self.speed[host.at()], self.known[host.at()]);
        (known && speed > 0).then(|| used as f64 * 1000.0 / speed as f64)
    }

    fn milli(&self, host: HostIx) -> Option<f64> {
        self.share(host, self.used[host.at()])
    }

    fn with(&self, host: HostIx, domain: DomainIx) -> Option<f64> {
        self.share(host, self.used[host.at()] + self.of_domain[domain.at()])
    }

    fn without(&self, host: HostIx, domain: DomainIx) -> Option<f64> {
        let left = self.used[host.at()].saturating_sub(self.of_domain[domain.at()]);
        self.share(host, left)
    }

    fn moves(&mut self, domain: DomainIx, from: HostIx, to: HostIx) {
        let amount = self.of_domain[domain.at()];
        self.used[from.at()] = self.used[from.at()].saturating_sub(amount);
        self.used[to.at()] += amount;
    }
}

/// Decides. `watch` must have seen this world.
pub fn relieve(world: &World, thresholds: &Thresholds, watch: &Watch) -> Decision {
    let mut deciding = Deciding {
        world,
        thresholds,
        load: Load::of(world),
        books: Books::new(Arc::new(Ground::new(world, false))),
        left: watch.may_move(thresholds, world.at_s),
    };
    let judged = (0..world.hosts.len()).map(HostIx::of).map(|host| Judged {
        host,
        use_milli: deciding.load.milli(host),
        verdict: deciding.judge(host, watch),
    });
    Decision {
        judged: judged.collect(),
    }
}

struct Deciding<'w> {
    world: &'w World,
    thresholds: &'w Thresholds,
    /// As it will be after what was decided.
    load: Load,
    books: Books<'w>,
    left: u64,
}

impl Deciding<'_> {
    fn judge(&mut self, host: HostIx, watch: &Watch) -> Verdict {
        if self.load.milli(host).is_none() {
            let off = self.world.hosts[host].state == HostPower::Off;
            return if off {
                Verdict::Fine
            } else {
                Verdict::CannotTell
            };
        }
        let name = &self.world.hosts[host].name;
        let left_s = |since_s: &u64| {
            let until_s = since_s.saturating_add(u64::from(self.thresholds.hold_s));
            until_s.saturating_sub(self.world.at_s)
        };
        if let Some(since_s) = watch.hot_since_s.get(name) {
            return match left_s(since_s) {
                0 => self.relieve(host),
                left_s => Verdict::Waits { left_s },
            };
        }
        let visitors = self.visitors(host);
        match watch.idle_since_s.get(name) {
            Some(since_s) if !visitors.is_empty() => match left_s(since_s) {
                0 => self.bring_home(host, &visitors),
                left_s => Verdict::Waits { left_s },
            },
            _ => Verdict::Fine,
        }
    }

    /// Who is on a host, by number.
    fn guests(&self, host: HostIx) -> Vec<DomainIx> {
        let mut guests = self.books.places.guests(host).to_vec();
        guests.sort_unstable();
        guests
    }

    /// Who runs on a host, if none of them belongs there and each belongs somewhere.
    fn visitors(&self, host: HostIx) -> Vec<DomainIx> {
        let here = self.guests(host);
        let visits = |domain: &DomainIx| {
            let home = self.world.domains[*domain].home;
            home.is_some_and(|home| home != host)
        };
        if here.iter().all(visits) {
            here
        } else {
            Vec::new()
        }
    }

    fn may(&self, domain: DomainIx, to: HostIx) -> Result<(), Obstacle> {
        let now = self.books.places.spot(domain);
        let replica = if to == now.replica {
            now.host
        } else {
            now.replica
        };
        self.books.may(domain, Spot { host: to, replica })
    }

    fn go(&mut self, domain: DomainIx, to: HostIx, why: Whither) -> Option<Relief> {
        let from = self.books.places.spot(domain).host;
        let before_milli = [self.load.milli(from)?, self.load.milli(to)?];
        let now = self.books.places.spot(domain);
        let replica = if to == now.replica {
            now.host
        } else {
            now.replica
        };
        self.load.moves(domain, from, to);
        self.books.apply(Change {
            domain,
            to: Spot { host: to, replica },
        });
        self.left = self.left.saturating_sub(1);
        Some(Relief {
            domain,
            from,
            to,
            why,
            before_milli,
            after_milli: [self.load.milli(from)?, self.load.milli(to)?],
        })
    }

    fn relieve(&mut self, host: HostIx) -> Verdict {
        if self.left == 0 {
            return self.enough();
        }
        let high = f64::from(self.thresholds.high_milli);
        let mut best: Option<(f64, DomainIx, HostIx, Whither)> = None;
        let mut hindrances = Vec::new();
        let mut nearest: Option<(f64, DomainIx, HostIx)> = None;
        for domain in self.guests(host) {
            let home = self.world.domains[domain].home;
            let home = home.filter(|&home| {
                let after = self.load.with(home, domain);
                home != host
                    && after.is_some_and(|after| after < high)
                    && self.may(domain, home).is_ok()
            });
            let (to, why) = match home {
                Some(home) => (home, Whither::Home),
                None => match self.least_loaded(host, domain) {
                    Ok(to) => (to, Whither::LeastLoaded),
                    Err(obstacles) => {
                        hindrances.extend(obstacles);
                        continue;
                    }
                },
            };
            let (Some(source), Some(target)) =
                (self.load.without(host, domain), self.load.with(to, domain))
            else {
                continue;
            };
            if target >= high {
                if nearest.is_none_or(|(least, ..)| target < least) {
                    nearest = Some((target, domain, to));
                }
                continue;
            }
            let worse = source.max(target);
            if best.is_none_or(|(least, ..)| worse < least) {
                best = Some((worse, domain, to, why));
            }
        }
        let moved = best.and_then(|(_, domain, to, why)| self.go(domain, to, why));
        match moved {
            Some(relief) => Verdict::Moves {
                moves: vec![relief],
            },
            None => Verdict::Nothing {
                because: self.nowhere(nearest, hindrances),
            },
        }
    }

    /// The host that has the least load after a domain has come, of those that it may come to; else what stands in the way.
    fn least_loaded(&self, from: HostIx, domain: DomainIx) -> Result<HostIx, Vec<Obstacle>> {
        let mut best: Option<(f64, HostIx)> = None;
        let mut obstacles = Vec::new();
        for host in (0..self.world.hosts.len()).map(HostIx::of) {
            let Some(after) = self.load.with(host, domain).filter(|_| host != from) else {
                continue;
            };
            if best.is_some_and(|(least, _)| after >= least) {
                continue;
            }
            match self.may(domain, host) {
                Ok(()) => best = Some((after, host)),
                Err(obstacle) => obstacles.push(obstacle),
            }
        }
        best.map(|(_, host)| host).ok_or(obstacles)
    }

    fn nowhere(&self, nearest: Option<(f64, DomainIx, HostIx)>, why: Vec<Obstacle>) -> String {
        if let Some((target, domain, to)) = nearest {
            return format!(
                "the least loaded host would be at {:.1} % with the next that could go ({} to {}), and {:.1} % is hot",
                target / 10.0,
                self.world.domains[domain].name,
                self.world.hosts[to].name,
                f64::from(self.thresholds.high_milli) / 10.0
            );
        }
        let mut words: Vec<String> = (counted(why, self.world).into_iter())
            .map(|hindrance| format!("{} ({})", hindrance.what, hindrance.count))
            .collect();
        if words.is_empty() {
            words.push("no other host is on".to_owned());
        }
        format!("no domain may go anywhere: {}", words.join(", "))
    }

    fn enough(&self) -> Verdict {
        Verdict::Nothing {
            because: format!(
                "{} moves were made within an hour, and no more may be",
                self.thresholds.moves_per_h.unwrap_or(0)
            ),
        }
    }

    /// All visitors go home, or none.
    fn bring_home(&mut self, host: HostIx, visitors: &[DomainIx]) -> Verdict {
        if self.left < visitors.len() as u64 {
            return self.enough();
        }
        let high = f64::from(self.thresholds.high_milli);
        let (load, books, left) = (self.load.used.clone(), self.books.clone(), self.left);
        let mut moves = Vec::new();
        for &domain in visitors {
            let what = &self.world.domains[domain];
            let Some(home) = what.home else { continue };
            let name = &self.world.hosts[home].name;
            let against = match (self.load.with(home, domain), self.may(domain, home)) {
                (None, _) => Some(format!("{name} cannot be told of")),
                (_, Err(obstacle)) => Some(obstacle.words(self.world)),
                (Some(after), _) if after >= high => Some(format!(
                    "{name} would be at {:.1} %, and {:.1} % is hot",
                    after / 10.0,
                    high / 10.0
                )),
                _ => None,
            };
            let against = match against {
                Some(against) => Some(against),
                None => {
                    moves.extend(self.go(domain, home, Whither::Return));
                    None
                }
            };
            if let Some(against) = against {
                (self.load.used, self.books, self.left) = (load, books, left);
                return Verdict::Nothing {
                    because: format!(
                        "{} cannot go home from {}: {against}",
                        what.name, self.world.hosts[host].name
                    ),
                };
            }
        }
        Verdict::Moves { moves }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{domain, host, world};

    /// Hosts of eight cores, and domains on them with their home and cores in use.
    fn herd(hosts: usize, domains: &[(u32, u32, f64)]) -> World {
        let hosts = (0..hosts)
            .map(|number| host(&format!("h{number}"), [8, 8192, 0, 0]))
            .collect();
        let domains = domains
            .iter()
            .enumerate()
            .map(|(number, &(at, home, cores))| {
                let mut domain = domain(&format!("d{number}"), Some(at), [1, 1024, 0, 0]);
                domain.home = Some(HostIx(home));
                domain.used[UsedKind::CpuMicrocores] = (cores * 1e6) as u64;
                domain
            });
        let domains = domains.collect();
        let mut world = world(hosts, domains);
        world.at_s = 10_000;
        world
    }

    fn decide(world: &World) -> Decision {
        let thresholds = Thresholds::default();
        let mut watch = Watch::default();
        let mut before = world.clone();
        before.at_s -= u64::from(thresholds.hold_s);
        watch.see(&before, &thresholds);
        watch.see(world, &thresholds);
        relieve(world, &thresholds, &watch)
    }

    fn moves(decision: &Decision) -> Vec<(u32, u32, u32, Whither)> {
        (decision.moves())
            .map(|relief| (relief.domain.0, relief.from.0, relief.to.0, relief.why))
            .collect()
    }

    #[test]
    fn two_on_one_host_part_when_it_is_hot_and_come_together_again() {
        let busy = herd(2, &[(0, 0, 2.0), (0, 0, 2.0)]);
        let decision = decide(&busy);
        assert_eq!(moves(&decision), [(0, 0, 1, Whither::LeastLoaded)]);
        let relief = decision.moves().next().unwrap();
        assert_eq!(relief.before_milli, [500.0, 0.0]);
        assert_eq!(relief.after_milli, [250.0, 250.0]);
        let calm = herd(2, &[(1, 0, 0.5), (0, 0, 0.5)]);
        assert_eq!(moves(&decide(&calm)), [(0, 1, 0, Whither::Return)]);
        // Between the thresholds nothing happens.
        let between = herd(2, &[(1, 0, 1.0), (0, 0, 1.0)]);
        assert_eq!(moves(&decide(&between)), []);
    }

    #[test]
    fn nothing_is_done_before_the_hold_time_or_about_a_silent_host() {
        let mut busy = herd(2, &[(0, 0, 2.0), (0, 0, 2.0)]);
        let thresholds = Thresholds::default();
        let mut watch = Watch::default();
        watch.see(&busy, &thresholds);
        busy.at_s += 59;
        watch.see(&busy, &thresholds);
        let decision = relieve(&busy, &thresholds, &watch);
        assert_eq!(decision.judged[0].verdict, Verdict::Waits { left_s: 1 });
        // A dip starts the time anew.
        let mut calm = busy.clone();
        calm.domains[0].used[UsedKind::CpuMicrocores] = 0;
        calm.at_s += 1;
        watch.see(&calm, &thresholds);
        busy.at_s += 2;
        watch.see(&busy, &thresholds);
        assert_eq!(moves(&relieve(&busy, &thresholds, &watch)), []);
        busy.hosts[0].state = HostPower::Unknown;
        let decision = decide(&busy);
        assert_eq!(decision.judged[0].verdict, Verdict::CannotTell);
    }

    #[test]
    fn home_comes_first_unless_it_would_be_hot() {
        // d0 visits h0 and belongs on h2, which has some load; h1 has none.
        let visits = herd(3, &[(0, 2, 1.6), (0, 0, 2.4), (2, 2, 0.5)]);
        assert_eq!(moves(&decide(&visits)), [(0, 0, 2, Whither::Home)]);
        let hot_home = herd(3, &[(0, 2, 1.6), (0, 0, 2.4), (2, 2, 2.1)]);
        let decision = decide(&hot_home);
        assert_eq!(moves(&decision), [(0, 0, 1, Whither::LeastLoaded)]);
    }

    #[test]
    fn nowhere_is_an_answer_with_figures() {
        let full = herd(2, &[(0, 0, 4.0), (1, 1, 3.0)]);
        let Verdict::Nothing { because } = &decide(&full).judged[0].verdict else {
            panic!("there is nowhere to go")
        };
        assert!(because.contains("87.5 %"), "{because}");
        let mut pinned = herd(2, &[(0, 0, 4.0)]);
        pinned.domains[0].pinned = true;
        let Verdict::Nothing { because } = &decide(&pinned).judged[0].verdict else {
            panic!("it is pinned")
        };
        assert!(because.contains("pinned"), "{because}");
    }

    #[test]
    fn rest_and_the_hours_limit_hold() {
        let mut busy = herd(2, &[(0, 0, 2.0), (0, 0, 2.0)]);
        busy.domains[0].moved_s = Some(busy.at_s - 10);
        assert_eq!(moves(&decide(&busy)), [(1, 0, 1, Whither::LeastLoaded)]);
        let thresholds = Thresholds {
            moves_per_h: Some(1),
            hold_s: 0,
            ..Thresholds::default()
        };
        let mut watch = Watch::default();
        watch.moved(busy.at_s - 3599);
        watch.see(&busy, &thresholds);
        assert_eq!(moves(&relieve(&busy, &thresholds, &watch)), []);
        busy.at_s += 1;
        watch.see(&busy, &thresholds);
        assert_eq!(moves(&relieve(&busy, &thresholds, &watch)).len(), 1);
    }

    #[test]
    fn visitors_go_home_together_or_not_at_all() {
        // Two visit h2; h1 would be hot with the second of them.
        let some = herd(3, &[(2, 0, 0.3), (2, 1, 0.3), (1, 1, 3.4)]);
        let decision = decide(&some);
        assert_eq!(moves(&decision), []);
        let Verdict::Nothing { because } = &decision.judged[2].verdict else {
            panic!("they stay")
        };
        assert!(because.contains("46.2 %"), "{because}");
        let all = herd(3, &[(2, 0, 0.3), (2, 1, 0.3), (1, 1, 1.0)]);
        let back = [(0, 2, 0, Whither::Return), (1, 2, 1, Whither::Return)];
        assert_eq!(moves(&decide(&all)), back);
    }
}
