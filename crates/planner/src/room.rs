//! What a host has room for, and what a domain takes of it: the one place that says what capacity is.
//!
//! Eight kinds, the four that are promised and then the four that are used. What is promised is divided by its class's
//! ratio, which gives fractions; so that sums stay exact, whole numbers of a smaller unit are held for each kind (the
//! unit is found once for a world, by least common multiples). Where no such unit fits in 64 bits, what is taken is rounded
//! up and room is rounded down: then something that just fits may be refused, and nothing that does not fit passes.

use estive_world::{
    Domain, DomainIx, DomainLife, HostIx, Indexed, RESERVED, Ratio, Reserved, ReservedKind, Rules,
    USED, Used, UsedKind, World,
};

/// How many kinds of room there are.
pub const KINDS: usize = 8;

/// A kind of room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Promised.
    Reserved(ReservedKind),
    /// Used.
    Used(UsedKind),
}

impl Kind {
    /// The kind at a place of [`Amounts`].
    ///
    /// # Panics
    /// If `place` is not below [`KINDS`].
    pub fn of(place: usize) -> Self {
        if place < 4 {
            Self::Reserved(RESERVED[place])
        } else {
            Self::Used(USED[place - 4])
        }
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reserved(ReservedKind::Vcpus) => "virtual processors",
            Self::Reserved(ReservedKind::MemoryMib) => "memory",
            Self::Reserved(ReservedKind::DiskMib) => "disk",
            Self::Reserved(ReservedKind::Spindles) => "spindles",
            Self::Used(UsedKind::CpuMicrocores) => "processor use",
            Self::Used(UsedKind::MemoryKib) => "memory in use",
            Self::Used(UsedKind::DiskBytesPerS) => "disk traffic",
            Self::Used(UsedKind::NetworkBytesPerS) => "network traffic",
        }
    }

    /// What it is counted in, for people.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Reserved(ReservedKind::Vcpus) => "cores",
            Self::Reserved(ReservedKind::MemoryMib | ReservedKind::DiskMib) => "MiB",
            Self::Reserved(ReservedKind::Spindles) => "spindles",
            Self::Used(UsedKind::CpuMicrocores) => "common cores",
            Self::Used(UsedKind::MemoryKib) => "MiB",
            Self::Used(UsedKind::DiskBytesPerS | UsedKind::NetworkBytesPerS) => "MB/s",
        }
    }
}

/// An amount of each kind, each in its world's own unit: to be added and compared, not to be shown ([`Rooms::shown`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Amounts(pub [u64; KINDS]);

impl Amounts {
    /// Nothing.
    pub const NONE: Self = Self([0; KINDS]);

    /// Adds; sums over a world never pass 64 bits.
    pub fn add(&mut self, more: &Self) {
        for kind in 0..KINDS {
            self.0[kind] += more.0[kind];
        }
    }

    /// Takes off what was added before.
    pub fn take(&mut self, part: &Self) {
        for kind in 0..KINDS {
            self.0[kind] -= part.0[kind];
        }
    }

    /// Both together.
    pub fn with(mut self, more: &Self) -> Self {
        self.add(more);
        self
    }

    /// The first kind of which `more` is something and `self + more` is beyond `room`. What adds nothing to a kind is not
    /// kept out by it, however full that is.
    pub fn lacks(&self, more: &Self, room: &Self) -> Option<usize> {
        (0..KINDS).find(|&kind| more.0[kind] > 0 && self.0[kind] + more.0[kind] > room.0[kind])
    }

    /// Whether `more` may come beside `self` within `room`.
    pub fn admits(&self, more: &Self, room: &Self) -> bool {
        self.lacks(more, room).is_none()
    }
}

/// The room of a world's hosts, and what its domains take.
#[derive(Debug, Clone)]
pub struct Rooms {
    rooms: Vec<Amounts>,
    open: Vec<Amounts>,
    live: Vec<Amounts>,
    kept: Vec<Amounts>,
    scales: [Scale; KINDS],
}

impl Rooms {
    /// Computes them: one pass over hosts and domains.
    pub fn new(world: &World) -> Self {
        let scales: [Scale; KINDS] = std::array::from_fn(|place| Scale::of(world, Kind::of(place)));
        let taken = |domain: &Domain, wanted: fn(Kind) -> bool| {
            Amounts(std::array::from_fn(|place| {
                let kind = Kind::of(place);
                if wanted(kind) {
                    scales[place].taken(raw_of_domain(world, domain, kind), &domain.class)
                } else {
                    0
                }
            }))
        };
        let rooms: Vec<Amounts> = (0..world.hosts.len())
            .map(|host| {
                Amounts(std::array::from_fn(|place| {
                    let kind = Kind::of(place);
                    scales[place].room(raw_of_host(world, HostIx::of(host), kind))
                }))
            })
            .collect();
        Self {
            open: rooms.clone(),
            rooms,
            live: (world.domains.iter().map(|domain| taken(domain, goes_along))).collect(),
            kept: (world.domains.iter())
                .map(|domain| taken(domain, |kind| !goes_along(kind)))
                .collect(),
            scales,
        }
    }

    /// What a host has for domains, its own system and its owner's use taken off.
    pub fn room(&self, host: HostIx) -> &Amounts {
        &self.rooms[host]
    }

    /// What of that a search fills: all, unless a share is kept free.
    pub fn open(&self, host: HostIx) -> &Amounts {
        &self.open[host]
    }

    /// Keeps a share of each host free, in thousandths: a search does not fill it. What is there already may stay.
    pub fn keep_free(&mut self, milli: u32) {
        let part = |room: u64| (u128::from(room) * u128::from(milli.min(1000)) / 1000) as u64;
        for (open, room) in self.open.iter_mut().zip(&self.rooms) {
            *open = Amounts(room.0.map(|room| room - part(room)));
        }
    }

    /// What goes along with a domain that runs: processors, memory, use.
    pub fn live(&self, domain: DomainIx) -> &Amounts {
        &self.live[domain]
    }

    /// What each copy of a domain's disks keeps: disk, spindles. A replica takes this and nothing else; a domain that
    /// moves to its replica's host leaves it behind and finds it there.
    pub fn kept(&self, domain: DomainIx) -> &Amounts {
        &self.kept[domain]
    }

    /// All that a domain takes where it is.
    pub fn takes(&self, domain: DomainIx) -> Amounts {
        self.live[domain].with(&self.kept[domain])
    }

    /// What is taken of each host now; what is under way counts at both ends.
    pub fn taken(&self, world: &World) -> Vec<Amounts> {
        let mut taken = vec![Amounts::NONE; world.hosts.len()];
        for (at, domain) in world.domains.iter().enumerate() {
            let number = DomainIx::of(at);
            if let Some(host) = domain.host {
                taken[host.at()].add(&self.takes(number));
            }
            if let Some(replica) = domain
                .replica
                .filter(|&replica| Some(replica) != domain.host)
            {
                taken[replica.at()].add(self.kept(number));
            }
        }
        for operation in &world.operations {
            let domain = &world.domains[operation.domain];
            if domain.host == Some(operation.to) {
                continue;
            }
            taken[operation.to.at()].add(self.live(operation.domain));
            if domain.replica != Some(operation.to) {
                taken[operation.to.at()].add(self.kept(operation.domain));
            }
        }
        taken
    }

    /// What a shape that is in no world yet would take, on the same scale: for `capacity`. It must not be larger than what
    /// a host of this world can hold; what is, is held to be as large as no host.
    pub fn of_shape(&self, world: &World, shape: &Domain) -> Amounts {
        Amounts(std::array::from_fn(|place| {
            let kind = Kind::of(place);
            self.scales[place].taken(raw_of_domain(world, shape, kind), &shape.class)
        }))
    }

    /// An amount for people, in the unit of [`Kind::unit`].
    pub fn shown(&self, place: usize, amount: u64) -> f64 {
        let raw =
            amount as f64 / self.scales[place].unit * 2f64.powi(self.scales[place].coarse as i32);
        match Kind::of(place) {
            Kind::Reserved(_) => raw,
            Kind::Used(UsedKind::CpuMicrocores) => raw / 1e9,
            Kind::Used(UsedKind::MemoryKib) => raw / 1024.0,
            Kind::Used(UsedKind::DiskBytesPerS | UsedKind::NetworkBytesPerS) => raw / 1e6,
        }
    }
}

/// Whether a kind goes with a domain that moves, rather than being kept with each copy of its disks.
fn goes_along(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Reserved(ReservedKind::DiskMib | ReservedKind::Spindles)
    )
}

/// What a domain is expected to use at the most: now or as forecast, whichever is more; nothing while it is stopped.
pub fn expected_use(domain: &Domain) -> Used {
    if domain.life == DomainLife::Stopped {
        return Used::NONE;
    }
    let forecast = domain.forecast.unwrap_or_default();
    Used(std::array::from_fn(|kind| {
        domain.used.0[kind].max(forecast.0[kind])
    }))
}

/// What a domain holds of what is promised: all while it runs, disk and spindles while it is stopped.
pub fn held(domain: &Domain) -> Reserved {
    let mut held = domain.reserved;
    if domain.life == DomainLife::Stopped {
        held[ReservedKind::Vcpus] = 0;
        held[ReservedKind::MemoryMib] = 0;
    }
    held
}

/// Before scaling: promised as promised; processor use in thousandths of a common core's millionth, since a core of the
/// host where it was measured may be faster than one elsewhere.
fn raw_of_domain(world: &World, domain: &Domain, kind: Kind) -> u128 {
    match kind {
        Kind::Reserved(kind) => u128::from(held(domain)[kind]),
        Kind::Used(kind) if world.rules.use_at_most_milli[kind as usize] == 0 => 0,
        Kind::Used(kind) => {
            let used = u128::from(expected_use(domain)[kind]);
            if kind == UsedKind::CpuMicrocores {
                let speed = domain
                    .host
                    .map_or(1000, |host| world.hosts[host].core_speed_milli);
                used * u128::from(speed)
            } else {
                used
            }
        }
    }
}

/// What a host has of a kind before scaling; none: no rule bounds it.
fn raw_of_host(world: &World, host: HostIx, kind: Kind) -> Option<u128> {
    let host = &world.hosts[host];
    match kind {
        Kind::Reserved(kind) => Some(u128::from(
            host.capacity[kind].saturating_sub(host.system[kind]),
        )),
        Kind::Used(kind) => {
            let most_milli = world.rules.use_at_most_milli[kind as usize];
            if most_milli == 0 {
                return None;
            }
            let most = u128::from(host.speed[kind]) * u128::from(most_milli) / 1000;
            let left = most.saturating_sub(u128::from(host.own_use[kind]));
            Some(if kind == UsedKind::CpuMicrocores {
                left * u128::from(host.core_speed_milli)
            } else {
                left
            })
        }
    }
}

/// The ratios of a class; a class without its own has the common one's.
pub fn ratio_of(rules: &Rules, class: &str) -> Ratio {
    (rules.overbook.get(class).or_else(|| rules.overbook.get("")))
        .copied()
        .unwrap_or_default()
}

/// The unit of a kind in a world.
#[derive(Debug, Clone)]
struct Scale {
    /// Units that one raw amount of room is.
    unit: f64,
    per_room: u128,
    /// Units that one raw amount of each class takes; none: nothing may be promised to it at all.
    per_class: Vec<(String, Option<u128>)>,
    /// Bits that were cut off so that sums fit.
    coarse: u32,
    /// More than any host has.
    too_much: u64,
}

impl Scale {
    fn of(world: &World, kind: Kind) -> Self {
        let (per_room, per_class) = match kind {
            Kind::Used(_) => (1, vec![(String::new(), Some(1))]),
            Kind::Reserved(kind) => units(&world.rules, kind),
        };
        let mut scale = Self {
            unit: per_room as f64,
            per_room,
            per_class,
            coarse: 0,
            too_much: u64::MAX,
        };
        // Sums must fit in 64 bits even with each domain counted four times (both ends, and a replica of each).
        let most_room = (0..world.hosts.len())
            .filter_map(|host| raw_of_host(world, HostIx::of(host), kind))
            .map(|raw| raw.saturating_mul(per_room))
            .max()
            .unwrap_or(0);
        let bound = (1u128 << 62) / (world.domains.len() as u128 * 4 + 4);
        while (most_room >> scale.coarse) >= bound {
            scale.coarse += 1;
        }
        // A domain that is larger than every host is held to be just that, so that its sums fit too.
        scale.too_much = u64::try_from((most_room >> scale.coarse) + 1).unwrap_or(u64::MAX);
        scale
    }

    fn taken(&self, raw: u128, class: &str) -> u64 {
        if raw == 0 {
            return 0;
        }
        let unit = (self.per_class.iter().find(|(name, _)| name == class))
            .unwrap_or(&self.per_class[0])
            .1;
        let Some(exact) = unit.and_then(|unit| raw.checked_mul(unit)) else {
            return self.too_much;
        };
        let rounded_up =
            (exact >> self.coarse) + u128::from(exact & ((1u128 << self.coarse) - 1) != 0);
        u64::try_from(rounded_up).map_or(self.too_much, |amount| amount.min(self.too_much))
    }

    fn room(&self, raw: Option<u128>) -> u64 {
        match raw {
            None => u64::MAX / 2,
            Some(raw) => u64::try_from(raw.saturating_mul(self.per_room) >> self.coarse)
                .unwrap_or(u64::MAX / 2),
        }
    }
}

/// Units of one of a host's room and of one promised to each class, the common class first. With ratios r in thousandths,
/// what is promised is within room where the sum of promised × 1000 ÷ r is: times L = lcm(r), all are whole.
fn units(rules: &Rules, kind: ReservedKind) -> (u128, Vec<(String, Option<u128>)>) {
    let mut ratios = vec![(String::new(), ratio_of(rules, "").0[kind as usize])];
    ratios.extend(
        (rules.overbook.iter().filter(|(class, _)| !class.is_empty()))
            .map(|(class, ratio)| (class.clone(), ratio.0[kind as usize])),
    );
    // Above 2^40 the unit would leave no bits for amounts; then it is 2^40 and what is taken is rounded up.
    const UNIT_AT_MOST: u128 = 1 << 40;
    let mut multiple: u128 = 1;
    for ratio in ratios
        .iter()
        .map(|(_, ratio)| u128::from(*ratio))
        .filter(|&ratio| ratio > 0)
    {
        multiple = multiple / gcd(multiple, ratio) * ratio;
        if multiple > UNIT_AT_MOST {
            multiple = UNIT_AT_MOST;
            break;
        }
    }
    let taken = |ratio: u32| (multiple * 1000).div_ceil(u128::from(ratio));
    let mut divisor = multiple;
    for (_, ratio) in ratios.iter().filter(|(_, ratio)| *ratio > 0) {
        divisor = gcd(divisor, taken(*ratio));
    }
    let per_class = (ratios.into_iter())
        .map(|(class, ratio)| (class, (ratio > 0).then(|| taken(ratio) / divisor)))
        .collect();
    (multiple / divisor, per_class)
}

fn gcd(one: u128, other: u128) -> u128 {
    if other == 0 {
        one
    } else {
        gcd(other, one % other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{domain, host, world};

    #[test]
    fn a_ratio_that_is_no_whole_number_is_exact() {
        let mut world = world(
            vec![host("a", [2, 100, 0, 0])],
            vec![domain("d", Some(0), [1, 10, 0, 0])],
        );
        for (milli, fit) in [(1500u32, 3u64), (3333, 6), (1000, 2), (999, 1), (0, 0)] {
            world
                .rules
                .overbook
                .insert(String::new(), Ratio([milli, 1000, 1000, 1000]));
            let rooms = Rooms::new(&world);
            let each = rooms.takes(DomainIx(0)).0[0];
            assert_eq!(
                rooms.room(HostIx(0)).0[0] / each,
                fit,
                "at {milli} thousandths"
            );
        }
    }

    #[test]
    fn classes_share_a_host_each_by_its_own_ratio() {
        let mut gold = domain("gold", Some(0), [2, 10, 0, 0]);
        gold.class = "gold".to_owned();
        let mut world = world(
            vec![host("a", [4, 100, 0, 0])],
            vec![gold, domain("d", Some(0), [5, 10, 0, 0])],
        );
        world
            .rules
            .overbook
            .insert("gold".to_owned(), Ratio([1000; 4]));
        world
            .rules
            .overbook
            .insert(String::new(), Ratio([2500, 1000, 1000, 1000]));
        let rooms = Rooms::new(&world);
        // 2 ÷ 1 + 5 ÷ 2.5 = 4: just so.
        assert_eq!(rooms.taken(&world)[0].0[0], rooms.room(HostIx(0)).0[0]);
        assert_eq!(rooms.shown(0, rooms.room(HostIx(0)).0[0]), 4.0);
    }

    #[test]
    fn absurd_amounts_neither_overflow_nor_fit() {
        let mut world = world(
            vec![host("a", [u64::MAX; 4]), host("b", [1; 4])],
            vec![
                domain("d", Some(0), [u64::MAX / 2; 4]),
                domain("e", Some(1), [u64::MAX; 4]),
            ],
        );
        world
            .rules
            .overbook
            .insert("x".to_owned(), Ratio([999_983, 999_979, 4_294_967_291, 3]));
        world.rules.overbook.insert(String::new(), Ratio([1000; 4]));
        let rooms = Rooms::new(&world);
        let taken = rooms.taken(&world);
        assert!(Amounts::NONE.admits(&rooms.takes(DomainIx(0)), rooms.room(HostIx(0))));
        assert!(!taken[0].admits(&rooms.takes(DomainIx(1)), rooms.room(HostIx(0))));
        assert!(!Amounts::NONE.admits(&rooms.takes(DomainIx(1)), rooms.room(HostIx(1))));
    }

    #[test]
    fn what_is_used_counts_by_the_speed_of_the_core_it_was_measured_on() {
        let mut fast = host("fast", [4; 4]);
        fast.core_speed_milli = 2000;
        let mut d = domain("d", Some(0), [1, 1, 0, 0]);
        d.used[UsedKind::CpuMicrocores] = 600_000;
        let world = world(vec![fast, host("slow", [1; 4])], vec![d]);
        let rooms = Rooms::new(&world);
        assert!(!Amounts::NONE.admits(&rooms.takes(DomainIx(0)), rooms.room(HostIx(1))));
        assert_eq!(rooms.shown(4, rooms.takes(DomainIx(0)).0[4]), 1.2);
    }

    #[test]
    fn what_is_under_way_counts_at_both_ends() {
        let mut moving = domain("d", Some(0), [1, 10, 5, 0]);
        moving.replica = Some(HostIx(1));
        let mut world = world(
            vec![host("a", [4, 100, 9, 9]), host("b", [4, 100, 9, 9])],
            vec![moving],
        );
        let before = Rooms::new(&world).taken(&world);
        world.operations.push(estive_world::Operation {
            domain: DomainIx(0),
            to: HostIx(1),
        });
        let rooms = Rooms::new(&world);
        let taken = rooms.taken(&world);
        assert_eq!(taken[0], before[0]);
        // Its disk was there before, as a replica.
        assert_eq!(taken[1], before[1].with(rooms.live(DomainIx(0))));
    }

    #[test]
    fn what_is_stopped_keeps_its_disk_and_nothing_else() {
        let mut stopped = domain("d", Some(0), [1, 10, 5, 2]);
        stopped.life = DomainLife::Stopped;
        stopped.used = Used([9; 4]);
        let world = world(vec![host("a", [4, 100, 9, 9])], vec![stopped]);
        let rooms = Rooms::new(&world);
        assert_eq!(rooms.live(DomainIx(0)), &Amounts::NONE);
        assert_eq!(rooms.shown(2, rooms.kept(DomainIx(0)).0[2]), 5.0);
    }
}
