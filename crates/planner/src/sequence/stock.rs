//! All pools of a world: room of each host and kind, slots for moves on hosts and links, seats of those that are to be apart.

use std::collections::{BTreeMap, BTreeSet};

use estive_world::{DomainIx, HostIx, Indexed, Relation, Scope, SiteIx, World};

use super::Goal;
use super::hops::{self, Hop, Spot};
use super::pool::Pool;
use crate::{KINDS, Kind, Rooms};

/// Place of memory among the kinds of amounts.
const MEMORY: usize = 1;

/// The pools, by number.
pub struct Stock<'a> {
    world: &'a World,
    pub rooms: Rooms,
    pub pools: Vec<Pool>,
    names: Vec<What>,
    links: BTreeMap<(SiteIx, SiteIx), usize>,
    seats: BTreeMap<(usize, usize), usize>,
    /// How many of each group are in each place before anything moves.
    seated: BTreeMap<(usize, usize), u64>,
    apart_of: Vec<Vec<(usize, Scope)>>,
    /// By host: the pools of what it must be able to take over, by whose failure.
    spare: Vec<Vec<(HostIx, usize)>>,
}

/// What a pool is of, beside the room and the slots of hosts.
#[derive(Debug, Clone, Copy)]
enum What {
    Link(SiteIx, SiteIx),
    Seat,
    Spare(HostIx, HostIx),
}

/// What a step takes as it begins and gives back as it ends.
#[derive(Debug, Clone, Default)]
pub struct Deal {
    pub takes: Vec<(usize, u64)>,
    pub frees: Vec<(usize, u64)>,
}

impl<'a> Stock<'a> {
    pub fn new(world: &'a World, target: &Goal) -> Self {
        let rooms = Rooms::new(world);
        let taken = rooms.taken(world);
        let mut pools = Vec::with_capacity(world.hosts.len() * (KINDS + 1));
        for (host, taken) in taken.iter().enumerate() {
            let room = rooms.room(HostIx::of(host));
            pools.extend((0..KINDS).map(|kind| Pool::new(room.0[kind], taken.0[kind])));
        }
        let mut moving = vec![0; world.hosts.len()];
        let mut apart_of = vec![Vec::new(); world.domains.len()];
        let mut seated: BTreeMap<(usize, usize), BTreeSet<DomainIx>> = BTreeMap::new();
        for (number, relation) in world.rules.relations.iter().enumerate() {
            let Relation::Apart(scope, members) = relation else {
                continue;
            };
            for &member in members {
                if !apart_of[member.at()].contains(&(number, *scope)) {
                    apart_of[member.at()].push((number, *scope));
                }
                if let Some(host) = world.domains[member].host {
                    let place = place(world, *scope, host);
                    seated.entry((number, place)).or_default().insert(member);
                }
            }
        }
        for operation in &world.operations {
            moving[operation.to.at()] += 1;
            if let Some(from) = world.domains[operation.domain].host {
                moving[from.at()] += 1;
            }
            for &(number, scope) in &apart_of[operation.domain.at()] {
                let place = place(world, scope, operation.to);
                seated
                    .entry((number, place))
                    .or_default()
                    .insert(operation.domain);
            }
        }
        let slots = u64::from(world.rules.moves_per_host);
        pools.extend(moving.into_iter().map(|taken| Pool::new(slots, taken)));
        let spare = vec![Vec::new(); world.hosts.len()];
        let mut stock = Self {
            world,
            rooms,
            pools,
            names: Vec::new(),
            links: BTreeMap::new(),
            seats: BTreeMap::new(),
            seated: seated
                .into_iter()
                .map(|(at, members)| (at, members.len() as u64))
                .collect(),
            apart_of,
            spare,
        };
        if world.rules.one_may_fail {
            stock.keep_spare(target);
        }
        stock
    }

    /// Makes a pool for each pair of hosts of which one may have to take over domains of the other, ever in the plan.
    fn keep_spare(&mut self, target: &Goal) {
        let world = self.world;
        let mut due: BTreeMap<(HostIx, HostIx), u64> = BTreeMap::new();
        for (at, domain) in world.domains.iter().enumerate() {
            let mut spot = Spot {
                host: domain.host,
                replica: domain.replica,
            };
            if let (Some(host), Some(replica)) = (spot.host, spot.replica) {
                *due.entry((replica, host)).or_default() +=
                    self.rooms.live(DomainIx::of(at)).0[MEMORY];
            }
            let goal = target.hosts[at].or(domain.host);
            loop {
                if let (Some(host), Some(replica)) = (spot.host, spot.replica) {
                    due.entry((replica, host)).or_default();
                    due.entry((host, replica)).or_default();
                }
                match hops::next(spot, goal, target.replicas[at]) {
                    Some(hop) => spot = hop.done(spot),
                    None => break,
                }
            }
        }
        let taken = self.rooms.taken(world);
        for ((keeps, failing), due) in due {
            let room = self.rooms.room(keeps).0[MEMORY];
            let pool = Pool::new(room, taken[keeps.at()].0[MEMORY] + due);
            let number = self.add(pool, What::Spare(keeps, failing));
            self.spare[keeps.at()].push((failing, number));
        }
    }

    /// What a hop changes of what hosts must be able to take over. A domain that goes to its replica has its memory there
    /// already, as far as the failure of the host that it leaves is meant.
    fn deal_spare(&self, domain: DomainIx, spot: Spot, hop: Hop, deal: &mut Deal) {
        let memory = self.rooms.live(domain).0[MEMORY];
        if memory == 0 || !self.world.rules.one_may_fail {
            return;
        }
        let pairs = |keeps: HostIx, but: Option<HostIx>| {
            (self.spare[keeps.at()].iter())
                .filter(move |(failing, _)| Some(*failing) != but)
                .map(move |&(_, pool)| (pool, memory))
        };
        let pair = |keeps: Option<HostIx>, failing: Option<HostIx>| {
            keeps.into_iter().flat_map(move |keeps| {
                (self.spare[keeps.at()].iter())
                    .filter(move |(of, _)| Some(*of) == failing)
                    .map(move |&(_, pool)| (pool, memory))
            })
        };
        match hop {
            Hop::Place(to) => {
                deal.takes.extend(pairs(to, None));
                deal.takes.extend(pair(spot.replica, Some(to)));
            }
            Hop::Move(to) => {
                let swaps = spot.replica.is_some();
                let from = spot.host;
                deal.takes.extend(pairs(to, from.filter(|_| swaps)));
                if let Some(from) = from {
                    deal.frees.extend(pairs(from, Some(to).filter(|_| swaps)));
                }
            }
            Hop::Replica(to) => {
                deal.takes.extend(pair(Some(to), spot.host));
                deal.frees.extend(pair(spot.replica, spot.host));
            }
        }
    }

    /// The pool of a host's slots for moves.
    pub fn slots(&self, host: HostIx) -> usize {
        self.world.hosts.len() * KINDS + host.at()
    }

    /// The pool of a kind of a host's room.
    pub fn room(&self, host: HostIx, kind: usize) -> usize {
        host.at() * KINDS + kind
    }

    /// What a hop takes and frees. Slots come first: where there is none, nothing else is worth looking at.
    pub fn deal(&mut self, domain: DomainIx, spot: Spot, hop: Hop) -> Deal {
        let mut deal = Deal::default();
        let to = hop.to();
        let (from, amounts) = match hop {
            Hop::Place(_) => (None, self.rooms.takes(domain)),
            Hop::Move(_) if spot.replica.is_some() => (spot.host, *self.rooms.live(domain)),
            Hop::Move(_) => (spot.host, self.rooms.takes(domain)),
            Hop::Replica(_) => (spot.replica, *self.rooms.kept(domain)),
        };
        if let Some(from) = from {
            let mut slots = vec![self.slots(from), self.slots(to)];
            slots.extend(self.link(from, to));
            deal.takes.extend(slots.iter().map(|&pool| (pool, 1)));
            deal.frees.extend(slots.iter().map(|&pool| (pool, 1)));
        }
        if !matches!(hop, Hop::Replica(_)) {
            for (number, scope) in self.apart_of[domain.at()].clone() {
                let to = place(self.world, scope, to);
                let from = from.map(|from| place(self.world, scope, from));
                if from != Some(to) {
                    deal.takes.push((self.seat(number, to), 1));
                    deal.frees
                        .extend(from.map(|from| (self.seat(number, from), 1)));
                }
            }
        }
        for kind in (0..KINDS).filter(|&kind| amounts.0[kind] > 0) {
            deal.takes.push((self.room(to, kind), amounts.0[kind]));
            deal.frees
                .extend(from.map(|from| (self.room(from, kind), amounts.0[kind])));
        }
        self.deal_spare(domain, spot, hop, &mut deal);
        deal
    }

    /// The pool of the slots of the link between two hosts' sites, if it is one.
    fn link(&mut self, from: HostIx, to: HostIx) -> Option<usize> {
        let world = self.world;
        let (from, to) = (world.hosts[from].site, world.hosts[to].site);
        let ends = (from.min(to), from.max(to));
        if from == to {
            return None;
        }
        if let Some(&pool) = self.links.get(&ends) {
            return Some(pool);
        }
        let site = |host: HostIx| world.hosts[host].site;
        let under_way = (world.operations.iter())
            .filter_map(|operation| {
                Some((
                    site(world.domains[operation.domain].host?),
                    site(operation.to),
                ))
            })
            .filter(|&(from, to)| (from.min(to), from.max(to)) == ends)
            .count();
        let pool = Pool::new(u64::from(world.rules.moves_per_link), under_way as u64);
        let number = self.add(pool, What::Link(ends.0, ends.1));
        self.links.insert(ends, number);
        Some(number)
    }

    fn seat(&mut self, relation: usize, place: usize) -> usize {
        if let Some(&pool) = self.seats.get(&(relation, place)) {
            return pool;
        }
        let taken = self.seated.get(&(relation, place)).copied().unwrap_or(0);
        let number = self.add(Pool::new(1, taken), What::Seat);
        self.seats.insert((relation, place), number);
        number
    }

    fn add(&mut self, pool: Pool, what: What) -> usize {
        self.pools.push(pool);
        self.names.push(what);
        self.pools.len() - 1
    }

    /// Why a pool keeps somebody out, in words.
    pub fn because(&self, pool: usize) -> String {
        let hosts = self.world.hosts.len();
        if pool < hosts * KINDS {
            let host = &self.world.hosts[pool / KINDS].name;
            return format!(
                "{host} has no room for its {}",
                Kind::of(pool % KINDS).name()
            );
        }
        if pool < hosts * (KINDS + 1) {
            let host = &self.world.hosts[pool - hosts * KINDS].name;
            return format!("{host} bears no more moves at once");
        }
        match self.names[pool - hosts * (KINDS + 1)] {
            What::Link(one, other) => format!(
                "the link between {} and {} bears no more moves at once",
                self.world.sites[one].name, self.world.sites[other].name
            ),
            What::Spare(keeps, failing) => format!(
                "{} could not take over from {} if that fails",
                self.world.hosts[keeps].name, self.world.hosts[failing].name
            ),
            What::Seat => "another is there that it must be apart from".to_owned(),
        }
    }
}

fn place(world: &World, scope: Scope, host: HostIx) -> usize {
    match scope {
        Scope::Host => host.at(),
        Scope::Site => world.hosts[host].site.at(),
    }
}
