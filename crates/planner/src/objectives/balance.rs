//! The term `balance`: unevenness over hosts, by the measure of Ganeti's `hbal`.
//!
//! The sum of population standard deviations over the hosts that count, of: free memory, free disk, virtual processors
//! a core, spindles (half each for what is there and what is to come, which is the same here), what is used of
//! processors, memory, disk and network as a share of the host, and memory that must be kept free for replicas; a quarter
//! of the sum of the last; and the domains and replicas on each host that could not take over what it should if one
//! other failed. Source: hbal(1), "cluster scoring", and the fields that `hbal -v -v` prints.
//!
//! Shares are held as whole multiples of 2⁻²⁶, less their first mean: sums over hosts are exact, so that a value does not
//! depend on the way that led to it, and a change is weighed in constant time.
#![allow(
    clippy::needless_range_loop,
    reason = "a dimension is a column of several arrays at once"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use estive_world::{DomainIx, HostIx, HostPower, Indexed, Reserved, ReservedKind, Used, World};

use super::Meter;
use super::arrival::{Arrivals, MARKS, Roots, Weighing};
use super::owed::{Owed, owing};
use crate::books::{Books, MEMORY};
use crate::places::{Change, Spot};
use crate::room::{expected_use, held, ratio_of};

/// What adds up over the domains of a host: four kinds that are promised, four that are used.
const SUMS: usize = 8;
/// And memory kept free for replicas.
const DIMENSIONS: usize = SUMS + 1;
const SPARE: usize = SUMS;
/// Which of the sums a replica has a part in: disk, spindles, and disk traffic.
const OF_REPLICAS: [bool; SUMS] = [false, false, true, true, false, false, true, false];
/// Adding and taking off 1.5 × 2⁵² rounds a double to a whole number.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
/// One.
const UNIT: f64 = (1u64 << 26) as f64;
/// Share of the sum of memory kept free that counts.
const SPARE_TOTAL: f64 = 0.25;

/// The unevenness, and what it is made of.
#[derive(Debug, Clone)]
pub struct Balance {
    fixed: Arc<Fixed>,
    /// By host: each share, less its centre.
    shares: Vec<[f64; DIMENSIONS]>,
    sums: [f64; DIMENSIONS],
    squares: [i128; DIMENSIONS],
    squares_f: [f64; DIMENSIONS],
    /// Domains and replicas on hosts without enough spare.
    at_risk: i64,
    /// Memory that replicas would need, where a table of it is kept.
    owed: Option<Owed>,
    value: f64,
}

#[derive(Debug)]
struct Fixed {
    /// By host: units of a share that one of each sum makes; 0 for hosts that do not count.
    scale: Vec<[f64; SUMS]>,
    /// By host: the same number where the scale is the same.
    models: Vec<u32>,
    /// Units of share that a unit of room of memory makes.
    spare_scale: Vec<f64>,
    counted: Vec<bool>,
    count: f64,
    /// By domain.
    parts: Vec<[f64; SUMS]>,
    replicated: bool,
    centre: [f64; DIMENSIONS],
}

/// What changes on one host.
#[derive(Clone, Copy)]
struct Touch {
    host: HostIx,
    by: [f64; SUMS],
    domains: i64,
}

/// What changes on the hosts that changes touch: at most four by each.
struct Touches {
    list: [Touch; 8],
    count: usize,
}

impl Touches {
    fn none(nowhere: HostIx) -> Self {
        let none = Touch {
            host: nowhere,
            by: [0.0; SUMS],
            domains: 0,
        };
        Self {
            list: [none; 8],
            count: 0,
        }
    }

    fn at(&mut self, host: HostIx) -> &mut Touch {
        let known = self.list[..self.count]
            .iter()
            .position(|touch| touch.host == host);
        let at = known.unwrap_or_else(|| {
            self.list[self.count].host = host;
            self.count += 1;
            self.count - 1
        });
        &mut self.list[at]
    }
}

impl Balance {
    /// Measures a state.
    pub fn new(books: &Books<'_>) -> Self {
        let world = books.ground.world;
        let counted: Vec<bool> = (world.hosts.iter())
            .map(|host| host.state == HostPower::On && !host.maintenance)
            .chain([false])
            .collect();
        let scale = scales(world, &counted);
        let mut fixed = Fixed {
            models: models(&scale),
            scale,
            spare_scale: spare_scales(books, &counted),
            count: counted.iter().filter(|&&counted| counted).count() as f64,
            parts: (0..world.domains.len())
                .map(|domain| parts(world, DomainIx::of(domain)))
                .collect(),
            replicated: books.replicated(),
            centre: [0.0; DIMENSIONS],
            counted,
        };
        let mut shares = system_shares(world, &fixed);
        for (number, part) in fixed.parts.iter().enumerate() {
            let spot = books.places.spot(DomainIx::of(number));
            for (host, replica) in [(spot.host, false), (spot.replica, true)] {
                let share = share(part, &fixed.scale[host], replica);
                for dimension in 0..SUMS {
                    shares[host][dimension] += share[dimension];
                }
            }
        }
        let mut at_risk = 0;
        for host in (0..=world.hosts.len()).map(HostIx::of) {
            let due = books.spare_due(host).0;
            shares[host][SPARE] = rounded(due as f64 * fixed.spare_scale[host]);
            at_risk += risk(books, &fixed, host, books.taken(host).0[MEMORY], due, 0);
        }
        // Around their mean, sums of squares lose nothing when they are subtracted.
        for dimension in 0..DIMENSIONS {
            let of = |host: usize| {
                if fixed.counted[host] {
                    shares[host][dimension]
                } else {
                    0.0
                }
            };
            let sum: f64 = (0..shares.len()).map(of).sum();
            fixed.centre[dimension] = rounded(sum / fixed.count.max(1.0));
        }
        let mut balance = Self {
            shares,
            sums: [0.0; DIMENSIONS],
            squares: [0; DIMENSIONS],
            squares_f: [0.0; DIMENSIONS],
            at_risk,
            owed: Owed::new(books),
            value: 0.0,
            fixed: Arc::new(fixed),
        };
        for (host, share) in balance.shares.iter_mut().enumerate() {
            for dimension in 0..DIMENSIONS {
                if !balance.fixed.counted[host] {
                    share[dimension] = 0.0;
                    continue;
                }
                share[dimension] -= balance.fixed.centre[dimension];
                balance.sums[dimension] += share[dimension];
                balance.squares[dimension] += square(share[dimension]);
            }
        }
        balance.settle();
        balance
    }

    fn settle(&mut self) {
        self.squares_f = self.squares.map(|square| square as f64);
        self.value = self.of(&self.sums, &self.squares_f, self.at_risk);
    }

    /// The value for sums and sums of squares.
    fn of(&self, sums: &[f64; DIMENSIONS], squares: &[f64; DIMENSIONS], at_risk: i64) -> f64 {
        let count = self.fixed.count;
        if count == 0.0 {
            return 0.0;
        }
        let each = 1.0 / count;
        let mut value = 0.0;
        for dimension in 0..DIMENSIONS {
            let mean = sums[dimension] * each;
            value += (squares[dimension] * each - mean * mean).max(0.0).sqrt();
        }
        let spare = sums[SPARE] + self.fixed.centre[SPARE] * count;
        (value + SPARE_TOTAL * spare) / UNIT + at_risk as f64
    }

    /// The hosts that some changes touch, and by what.
    fn touches(&self, books: &Books<'_>, changes: &[Change]) -> Touches {
        let mut touches = Touches::none(books.nowhere());
        for change in changes {
            let part = &self.fixed.parts[change.domain.at()];
            let old = books.places.spot(change.domain);
            let mut touch = |host: HostIx, replica: bool, sign: f64| {
                if host == books.nowhere() {
                    return;
                }
                let share = share(part, &self.fixed.scale[host], replica);
                let touch = touches.at(host);
                for dimension in 0..SUMS {
                    touch.by[dimension] += sign * share[dimension];
                }
                touch.domains += sign as i64;
            };
            touch(old.host, false, -1.0);
            touch(change.to.host, false, 1.0);
            if old.replica != change.to.replica {
                touch(old.replica, true, -1.0);
                touch(change.to.replica, true, 1.0);
            }
            if self.fixed.replicated && old.replica != books.nowhere() {
                // It needs more or less spare when the domain's own host changes.
                touches.at(old.replica);
            }
        }
        touches
    }

    /// Sums, sums of squares and what is at risk after some changes; shares too if they are to be kept.
    fn after(
        &self,
        books: &Books<'_>,
        changes: &[Change],
        mut keep: Option<&mut Vec<(HostIx, [f64; DIMENSIONS])>>,
    ) -> ([f64; DIMENSIONS], [f64; DIMENSIONS], i64) {
        let (mut sums, mut squares, mut at_risk) = (self.sums, self.squares_f, self.at_risk);
        let touches = self.touches(books, changes);
        let (owing, owing_count) = owing(books, changes);
        for touch in &touches.list[..touches.count] {
            if !self.fixed.counted[touch.host.at()] {
                continue;
            }
            let now = &self.shares[touch.host.at()];
            let mut new = *now;
            for dimension in 0..SUMS {
                new[dimension] += touch.by[dimension];
            }
            if self.fixed.replicated {
                let (was, taken, due) = match &self.owed {
                    Some(owed) => (
                        owed.due(touch.host),
                        taken_with(books, touch.host, changes),
                        owed.due_with(touch.host, &owing[..owing_count]),
                    ),
                    None => {
                        let (taken, due) = books.memory_with(touch.host, changes);
                        (books.spare_due(touch.host).0, taken, due)
                    }
                };
                let spare = rounded(due as f64 * self.fixed.spare_scale[touch.host.at()]);
                new[SPARE] = spare - self.fixed.centre[SPARE];
                let held = books.taken(touch.host).0[MEMORY];
                at_risk += risk(books, &self.fixed, touch.host, taken, due, touch.domains)
                    - risk(books, &self.fixed, touch.host, held, was, 0);
            }
            for dimension in 0..DIMENSIONS {
                let by = new[dimension] - now[dimension];
                sums[dimension] += by;
                squares[dimension] += by * (new[dimension] + now[dimension]);
            }
            if let Some(keep) = keep.as_deref_mut() {
                keep.push((touch.host, new));
            }
        }
        (sums, squares, at_risk)
    }
}

/// Sums, and mean squares, once a domain has left its host: the same wherever it goes.
struct Left {
    sums: [f64; SUMS],
    squares: [f64; SUMS],
}

impl Balance {
    fn leaving(&self, domain: DomainIx, from: HostIx) -> Left {
        let each = 1.0 / self.fixed.count;
        let gone = share(
            &self.fixed.parts[domain.at()],
            &self.fixed.scale[from],
            false,
        );
        let here = &self.shares[from.at()];
        Left {
            sums: std::array::from_fn(|dimension| self.sums[dimension] - gone[dimension]),
            squares: std::array::from_fn(|dimension| {
                let gone = gone[dimension];
                (self.squares_f[dimension] + gone * (gone - 2.0 * here[dimension])) * each
            }),
        }
    }

    /// What coming does on hosts of the model of this one.
    fn coming(&self, left: &Left, domain: DomainIx, host: HostIx) -> Roots {
        let each = 1.0 / self.fixed.count;
        let (part, scale) = (&self.fixed.parts[domain.at()], &self.fixed.scale[host.at()]);
        let mut roots = Roots::new(self.value, UNIT);
        for dimension in 0..SUMS {
            let come = rounded(part[dimension] * scale[dimension]);
            let mean = (left.sums[dimension] + come) * each;
            let base = left.squares[dimension] + come * come * each - mean * mean;
            roots.add(dimension, base, 2.0 * come * each);
        }
        roots
    }
}

impl Arrivals for Balance {
    fn model(&self, host: HostIx) -> u32 {
        self.fixed.models[host.at()]
    }

    fn marks(&self, _books: &Books<'_>, host: HostIx) -> [f64; MARKS] {
        let shares = &self.shares[host.at()];
        std::array::from_fn(|mark| shares[mark])
    }

    fn weighing(&self, books: &Books<'_>, domain: DomainIx, host: HostIx) -> Option<Weighing> {
        let left = self.leaving(domain, books.nowhere());
        Some(Weighing::Roots(self.coming(&left, domain, host)))
    }
}

impl Balance {
    /// [`Meter::delta`] of one or two changes where nothing has a replica.
    fn delta_plain(&self, books: &Books<'_>, changes: &[Change]) -> f64 {
        let fixed = &*self.fixed;
        if fixed.count == 0.0 {
            return 0.0;
        }
        let mut touched = [(books.nowhere(), [0.0; SUMS]); 4];
        let mut count = 0;
        for change in changes {
            let part = &fixed.parts[change.domain.at()];
            let from = books.places.spot(change.domain).host;
            for (host, sign) in [(from, -1.0), (change.to.host, 1.0)] {
                if !fixed.counted[host.at()] {
                    continue;
                }
                let known = touched[..count].iter().position(|known| known.0 == host);
                let at = known.unwrap_or_else(|| {
                    touched[count].0 = host;
                    count += 1;
                    count - 1
                });
                let scale = &fixed.scale[host.at()];
                for dimension in 0..SUMS {
                    touched[at].1[dimension] += sign * rounded(part[dimension] * scale[dimension]);
                }
            }
        }
        let (mut sums, mut squares) = ([0.0; SUMS], [0.0; SUMS]);
        for (host, by) in &touched[..count] {
            let now = &self.shares[host.at()];
            for dimension in 0..SUMS {
                sums[dimension] += by[dimension];
                squares[dimension] += by[dimension] * (by[dimension] + 2.0 * now[dimension]);
            }
        }
        let each = 1.0 / fixed.count;
        let mut value = 0.0;
        for dimension in 0..SUMS {
            let mean = (self.sums[dimension] + sums[dimension]) * each;
            let square = (self.squares_f[dimension] + squares[dimension]) * each;
            value += (square - mean * mean).max(0.0).sqrt();
        }
        value / UNIT - self.value
    }
}

impl Meter for Balance {
    fn value(&self) -> f64 {
        self.value
    }

    fn degree(&self) -> f64 {
        self.value - self.at_risk as f64
    }

    fn delta(&self, books: &Books<'_>, changes: &[Change]) -> f64 {
        if !self.fixed.replicated && changes.len() <= 2 {
            return self.delta_plain(books, changes);
        }
        let (sums, squares, at_risk) = self.after(books, changes, None);
        self.of(&sums, &squares, at_risk) - self.value
    }

    fn apply(&mut self, books: &Books<'_>, change: Change) {
        let mut kept = Vec::with_capacity(4);
        let (_, _, at_risk) = self.after(books, &[change], Some(&mut kept));
        if let Some(owed) = &mut self.owed {
            owed.apply(books, change);
        }
        self.at_risk = at_risk;
        for (host, new) in kept {
            let now = self.shares[host];
            for dimension in 0..DIMENSIONS {
                self.sums[dimension] += new[dimension] - now[dimension];
                self.squares[dimension] += square(new[dimension]) - square(now[dimension]);
            }
            self.shares[host] = new;
        }
        self.settle();
    }

    fn scan(&self, books: &Books<'_>, domain: DomainIx, to: &[HostIx], deltas: &mut Vec<f64>) {
        deltas.clear();
        let fixed = &*self.fixed;
        let spot = books.places.spot(domain);
        if fixed.replicated || fixed.count == 0.0 {
            deltas.extend(to.iter().map(|&host| {
                let to = Spot {
                    host,
                    replica: spot.replica,
                };
                self.delta(books, &[Change { domain, to }])
            }));
            return;
        }
        let leaving = self.leaving(domain, spot.host);
        let mut known: Option<(u32, Roots)> = None;
        deltas.extend(to.iter().map(|&host| {
            if host == spot.host {
                return 0.0;
            }
            let model = fixed.models[host.at()];
            let roots = match known {
                Some((of, roots)) if of == model => roots,
                _ => self.coming(&leaving, domain, host),
            };
            known = Some((model, roots));
            roots.rise(&self.shares[host.at()])
        }));
    }

    fn arrivals(&self) -> Option<&dyn Arrivals> {
        (!self.fixed.replicated && self.fixed.count > 0.0).then_some(self)
    }

    fn load(&self, _books: &Books<'_>, host: HostIx) -> f64 {
        let (share, each) = (&self.shares[host.at()], 1.0 / self.fixed.count.max(1.0));
        let mut load = 0.0;
        for dimension in 0..SUMS {
            let mean = self.sums[dimension] * each;
            let spread = (self.squares_f[dimension] * each - mean * mean)
                .max(0.0)
                .sqrt();
            if spread > 0.0 {
                load += share[dimension] / spread.max(UNIT * 1e-3);
            }
        }
        load
    }

    fn parts(&self) -> Vec<(String, f64)> {
        let names = [
            "unevenness of free memory",
            "unevenness of virtual processors",
            "unevenness of free disk",
            "unevenness of spindles",
            "unevenness of processor use",
            "unevenness of memory use",
            "unevenness of disk traffic",
            "unevenness of network traffic",
            "unevenness of memory kept free",
        ];
        let each = 1.0 / self.fixed.count.max(1.0);
        let mut parts: Vec<(String, f64)> = (names.iter().enumerate())
            .map(|(dimension, name)| {
                let mean = self.sums[dimension] * each;
                let spread = (self.squares_f[dimension] * each - mean * mean)
                    .max(0.0)
                    .sqrt();
                ((*name).to_owned(), spread / UNIT)
            })
            .collect();
        if self.fixed.replicated {
            let spare = self.sums[SPARE] + self.fixed.centre[SPARE] * self.fixed.count;
            parts.push(("memory kept free, in hosts".to_owned(), spare / UNIT));
            parts.push((
                "domains and replicas on hosts without spare".to_owned(),
                self.at_risk as f64,
            ));
        }
        parts
    }

    fn copy(&self) -> Box<dyn Meter> {
        Box::new(self.clone())
    }
}

fn rounded(number: f64) -> f64 {
    (number + ROUNDER) - ROUNDER
}

fn square(whole: f64) -> i128 {
    // Far below 2^63: a share of one is 2^26.
    let whole = i128::from(whole as i64);
    whole * whole
}

/// Memory that would be taken of a host after some changes.
fn taken_with(books: &Books<'_>, host: HostIx, changes: &[Change]) -> u64 {
    let mut taken = books.taken(host).0[MEMORY];
    for change in changes {
        let memory = books.ground.rooms.live(change.domain).0[MEMORY];
        if change.to.host == host {
            taken += memory;
        }
        if books.places.spot(change.domain).host == host {
            taken -= memory;
        }
    }
    taken
}

fn share(part: &[f64; SUMS], scale: &[f64; SUMS], replica: bool) -> [f64; SUMS] {
    std::array::from_fn(|dimension| {
        if replica && !OF_REPLICAS[dimension] {
            0.0
        } else {
            rounded(part[dimension] * scale[dimension])
        }
    })
}

/// Domains and replicas on a host that has less free than it must keep.
fn risk(books: &Books<'_>, fixed: &Fixed, host: HostIx, taken: u64, due: u64, more: i64) -> i64 {
    if !fixed.counted[host.at()] || due == 0 {
        return 0;
    }
    let room = books.ground.rooms.room(host).0[MEMORY];
    if taken + due <= room {
        return 0;
    }
    (books.places.guests(host).len() + books.places.copies(host).len()) as i64 + more
}

/// What a domain adds to the sums of its host, in the order memory, processors, disk, spindles, and then as used.
fn parts(world: &World, domain: DomainIx) -> [f64; SUMS] {
    let domain = &world.domains[domain];
    let (reserved, used) = (held(domain), expected_use(domain));
    let speed = domain.host.map_or(1.0, |host| speed(world, host));
    ordered(&reserved, &used, speed)
}

fn ordered(reserved: &Reserved, used: &Used, speed: f64) -> [f64; SUMS] {
    [
        reserved[ReservedKind::MemoryMib] as f64,
        reserved[ReservedKind::Vcpus] as f64,
        reserved[ReservedKind::DiskMib] as f64,
        reserved[ReservedKind::Spindles] as f64,
        used.0[0] as f64 * speed,
        used.0[1] as f64,
        used.0[2] as f64,
        used.0[3] as f64,
    ]
}

fn speed(world: &World, host: HostIx) -> f64 {
    f64::from(world.hosts[host].core_speed_milli) / 1000.0
}

fn scales(world: &World, counted: &[bool]) -> Vec<[f64; SUMS]> {
    let spindles =
        f64::from(ratio_of(&world.rules, "").0[ReservedKind::Spindles as usize]) / 1000.0;
    let mut scales: Vec<[f64; SUMS]> = (world.hosts.iter().enumerate())
        .map(|(number, host)| {
            let speed = speed(world, HostIx::of(number));
            let mut whole = ordered(&host.capacity, &host.speed, speed);
            whole[1] *= speed;
            whole[3] *= spindles;
            whole.map(|whole| {
                if whole > 0.0 && counted[number] {
                    UNIT / whole
                } else {
                    0.0
                }
            })
        })
        .collect();
    scales.push([0.0; SUMS]);
    scales
}

fn models(scales: &[[f64; SUMS]]) -> Vec<u32> {
    let mut known = BTreeMap::new();
    (scales.iter())
        .map(|scale| {
            let next = known.len() as u32;
            *known.entry(scale.map(f64::to_bits)).or_insert(next)
        })
        .collect()
}

fn spare_scales(books: &Books<'_>, counted: &[bool]) -> Vec<f64> {
    let world = books.ground.world;
    let mut scales: Vec<f64> = (world.hosts.iter().enumerate())
        .map(|(number, host)| {
            // Room is in units of the world's own; a MiB of memory is so many of them.
            let room = books.ground.rooms.room(HostIx::of(number)).0[MEMORY] as f64;
            let mib = (host.capacity[ReservedKind::MemoryMib])
                .saturating_sub(host.system[ReservedKind::MemoryMib]) as f64;
            let whole = host.capacity[ReservedKind::MemoryMib] as f64;
            let counts = counted[number] && room > 0.0 && whole > 0.0;
            if counts {
                UNIT * mib / (room * whole)
            } else {
                0.0
            }
        })
        .collect();
    scales.push(0.0);
    scales
}

fn system_shares(world: &World, fixed: &Fixed) -> Vec<[f64; DIMENSIONS]> {
    let mut shares: Vec<[f64; DIMENSIONS]> = (world.hosts.iter().enumerate())
        .map(|(number, host)| {
            let own = ordered(
                &host.system,
                &host.own_use,
                speed(world, HostIx::of(number)),
            );
            let mut shares = [0.0; DIMENSIONS];
            shares[..SUMS].copy_from_slice(&share(&own, &fixed.scale[number], false));
            shares
        })
        .collect();
    shares.push([0.0; DIMENSIONS]);
    shares
}
