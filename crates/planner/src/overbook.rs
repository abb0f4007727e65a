//! How many domains may be sold where some have nothing to do: n+m, with a proof.
//!
//! Whoever rents n places and sees m domains without anything to do may sell m more, if it is certain that whichever of the
//! n+m are active, each active one can be put beside idle ones (AttiTUNe's overbooking). A host has two numbers of places of
//! one size: how many active ones it holds (each its own cores and memory) and how many in all (memory, disk and spindles, which an idle one
//! keeps). Domains fall into groups by the hosts where they may be.
//!
//! That a set of active ones can be seated is a flow: groups' active and idle members to hosts. That every set of no more
//! than g can is Hall's condition with the adversary's choice in it: for groups V ⊆ U, all members of V, and of the others in
//! U as many as may be active, must fit on what V reaches in all and what U reaches beside for active ones,
//!
//! > n(V) + min(g, n(U∖V)) ≤ all(N(V)) + active(N(U)∖N(V)).
//!
//! With k groups these are 3ᵏ inequalities: they are the proof ([`Overbooking::check`] goes through them again), and the
//! first that one more domain would break is why no more may be sold. It is exact for places of one size and up to
//! [`GROUPS_AT_MOST`] groups. Otherwise every domain counts as large as the largest, or groups that are much alike count as
//! confined to the hosts that they share: then it is a lower bound, and says so.

mod flow;
#[cfg(test)]
mod tests;

use estive_world::{Domain, DomainIx, DomainLife, HostIx, HostPower, Indexed, ReservedKind, World};
use serde::Serialize;

use crate::lint::places::{Fences, cannot_come, lacks};
use crate::{Amounts, KINDS, Kind, Rooms};
use flow::Flow;

/// Up to so many groups of domains are told apart.
pub const GROUPS_AT_MOST: usize = 8;

/// How many may be sold, and why it is certain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overbooking {
    /// How many there are: n.
    pub sold: u64,
    /// How many of these have nothing to do: m.
    pub idle: u64,
    /// How many may be there in all: n+m, or fewer where idle ones keep too much.
    pub may_be_sold: u64,
    /// How many of them may be active at once, whichever they are.
    pub active_at_most: u64,
    /// Whether no more could be sold; if not, `may_be_sold` is a lower bound.
    pub exact: bool,
    /// Whether it holds for what is sold already; if not, nothing more may be sold.
    pub holds: bool,
    /// Places by host.
    pub places: Vec<Places>,
    /// Groups by the hosts where they may be; the last is what may be sold more of.
    pub groups: Vec<Seats>,
    /// Why not one more: an inequality that it would break; none if nothing bounds it.
    pub stops: Option<Cut>,
}

/// Places of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Places {
    /// Which.
    pub host: HostIx,
    /// For active ones.
    pub active: u64,
    /// In all.
    pub all: u64,
}

/// A group of domains that may be on the same hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seats {
    /// How many there may be: of the last group with those that may be sold more.
    pub count: u64,
    /// Where.
    pub hosts: Vec<HostIx>,
}

/// Groups, by number: all of the first and the active of the second do not fit on what they reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// V.
    pub all_of: Vec<usize>,
    /// U∖V.
    pub active_of: Vec<usize>,
    /// Places that they need.
    pub need: u64,
    /// Places that they reach.
    pub reach: u64,
}

/// Where members of a group are seated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seated {
    /// Which group.
    pub group: usize,
    /// Where.
    pub host: HostIx,
    /// How many active ones.
    pub active: u64,
    /// How many idle ones.
    pub idle: u64,
}

/// How many of `shape` may be sold beside what is there. Those that are sold more are taken to be active, and those that are
/// idle now to stay idle or to change with others: no more than `active_at_most` at once, which comes with the answer.
pub fn overbook(world: &World, shape: &Domain) -> Overbooking {
    let rooms = Rooms::new(world);
    let mut exact = true;
    let size = size(world, &rooms, shape, &mut exact);
    let places = places(world, &rooms, &size);
    let mut groups = groups(world, shape, &places);
    while groups.len() > GROUPS_AT_MOST {
        exact = false;
        merge_two(&mut groups);
    }
    let placed = || world.domains.iter().filter(|domain| domain.host.is_some());
    let sold = placed().count() as u64;
    let idle = placed()
        .filter(|domain| domain.life != DomainLife::Running)
        .count() as u64;
    let hall = Hall::new(&places, &groups);
    let counts: Vec<u64> = groups.iter().map(|group| group.count).collect();
    let broken = |more: u64| {
        let mut counts = counts.clone();
        *counts.last_mut().expect("the shape's own") += more;
        hall.broken(&counts, sold - idle + more)
    };
    let holds = broken(0).is_none();
    let most: u64 = places.iter().map(|places| places.all).sum();
    let (mut fits, mut too_many) = (0, if holds { most + 1 } else { 0 });
    while too_many > fits + 1 {
        let middle = fits + (too_many - fits) / 2;
        if broken(middle).is_none() {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    groups.last_mut().expect("the shape's own").count += fits;
    Overbooking {
        sold,
        idle,
        may_be_sold: sold + fits,
        active_at_most: sold - idle + fits,
        exact,
        holds,
        stops: broken(if holds { fits + 1 } else { 0 }),
        places,
        groups,
    }
}

impl Overbooking {
    /// Goes through the proof again: that every set of `active_at_most` active ones can be seated, and that `stops` would be
    /// broken by one more.
    pub fn check(&self) -> bool {
        let hall = Hall::new(&self.places, &self.groups);
        let mut counts: Vec<u64> = self.groups.iter().map(|group| group.count).collect();
        let stands = hall.broken(&counts, self.active_at_most).is_none();
        if let Some(last) = counts.last_mut() {
            *last += 1;
        }
        let stopped = self.stops.as_ref().is_none_or(|cut| {
            let more = u64::from(self.holds);
            let count = |groups: &[usize]| -> u64 {
                (groups.iter())
                    .map(|&group| counts[group] - u64::from(more == 0 && group + 1 == counts.len()))
                    .sum()
            };
            let need = count(&cut.all_of) + count(&cut.active_of).min(self.active_at_most + more);
            let (inner, outer) = (bits(&cut.all_of), bits(&cut.all_of) | bits(&cut.active_of));
            need == cut.need && hall.reach(inner, outer) == cut.reach && need > cut.reach
        });
        stands == self.holds && stopped
    }

    /// Seats these active ones of each group, and all others beside them; none if they are too many.
    pub fn arrange(&self, active: &[u64]) -> Option<Vec<Seated>> {
        let (groups, hosts) = (self.groups.len(), self.places.len());
        // Source, then active and idle of each group, then each host for active ones and for all, then sink.
        let (source, sink) = (0, 1 + 2 * groups + 2 * hosts);
        let mut flow = Flow::new(sink + 1);
        let mut seats = Vec::new();
        let mut wanted = 0;
        for (group, members) in self.groups.iter().enumerate() {
            let idle = members.count.checked_sub(active[group])?;
            flow.edge(source, 1 + group, active[group]);
            flow.edge(source, 1 + groups + group, idle);
            wanted += members.count;
            for (at, places) in self.places.iter().enumerate() {
                if members.hosts.binary_search(&places.host).is_ok() {
                    let for_active = flow.edge(1 + group, 1 + 2 * groups + at, members.count);
                    let for_idle = flow.edge(
                        1 + groups + group,
                        1 + 2 * groups + hosts + at,
                        members.count,
                    );
                    seats.push((group, places.host, for_active, for_idle));
                }
            }
        }
        for (at, places) in self.places.iter().enumerate() {
            flow.edge(
                1 + 2 * groups + at,
                1 + 2 * groups + hosts + at,
                places.active,
            );
            flow.edge(1 + 2 * groups + hosts + at, sink, places.all);
        }
        (flow.most(source, sink) == wanted).then(|| {
            (seats.into_iter())
                .map(|(group, host, for_active, for_idle)| Seated {
                    group,
                    host,
                    active: flow.on(for_active),
                    idle: flow.on(for_idle),
                })
                .filter(|seated| seated.active + seated.idle > 0)
                .collect()
        })
    }
}

/// What an idle one keeps of each kind, and the cores of an active one.
struct Size {
    kept: Amounts,
    cores: u64,
}

/// Whether an idle domain keeps a kind: memory, disk and spindles.
fn kept(kind: usize) -> bool {
    matches!(
        Kind::of(kind),
        Kind::Reserved(ReservedKind::MemoryMib | ReservedKind::DiskMib | ReservedKind::Spindles)
    )
}

fn size(world: &World, rooms: &Rooms, shape: &Domain, exact: &mut bool) -> Size {
    let of = |amounts: Amounts, domain: &Domain| Size {
        kept: Amounts(std::array::from_fn(|kind| {
            if kept(kind) { amounts.0[kind] } else { 0 }
        })),
        cores: domain.reserved[ReservedKind::Vcpus],
    };
    let mut running = shape.clone();
    running.life = DomainLife::Running;
    let mut largest = of(rooms.of_shape(world, &running), shape);
    for domain in world.domains.iter().filter(|domain| domain.host.is_some()) {
        let mut running = domain.clone();
        running.life = DomainLife::Running;
        let size = of(rooms.of_shape(world, &running), domain);
        *exact &= size.kept == largest.kept && size.cores == largest.cores;
        for kind in 0..KINDS {
            largest.kept.0[kind] = largest.kept.0[kind].max(size.kept.0[kind]);
        }
        largest.cores = largest.cores.max(size.cores);
    }
    largest
}

fn places(world: &World, rooms: &Rooms, size: &Size) -> Vec<Places> {
    let mut copies = vec![Amounts::NONE; world.hosts.len()];
    for (at, domain) in world.domains.iter().enumerate() {
        if let Some(replica) = domain
            .replica
            .filter(|&replica| Some(replica) != domain.host)
        {
            copies[replica.at()].add(rooms.kept(DomainIx::of(at)));
        }
    }
    // A host that takes nothing counts if something is there, which may stay.
    (world.hosts.iter().enumerate())
        .filter(|(_, host)| host.state == HostPower::On && cannot_come(world, None, host).is_none())
        .map(|(at, host)| {
            let number = HostIx::of(at);
            let room = rooms.room(number);
            let all = (0..KINDS)
                .filter(|&kind| size.kept.0[kind] > 0)
                .map(|kind| room.0[kind].saturating_sub(copies[at].0[kind]) / size.kept.0[kind])
                .min()
                .unwrap_or(u64::from(u32::MAX));
            let cores =
                host.capacity[ReservedKind::Vcpus].saturating_sub(host.system[ReservedKind::Vcpus]);
            Places {
                host: number,
                active: cores.checked_div(size.cores).unwrap_or(all).min(all),
                all,
            }
        })
        .collect()
}

/// Domains by the hosts where they may be, in the order in which these come up; the shape's own group last.
fn groups(world: &World, shape: &Domain, places: &[Places]) -> Vec<Seats> {
    let fences = Fences::new(world);
    let allowed = |domain: &Domain, number: Option<DomainIx>| -> Vec<HostIx> {
        (places.iter().map(|places| places.host))
            .filter(|&host| lacks(world, domain, host).is_none())
            .filter(|&host| {
                number.is_none_or(|number| {
                    let stays = domain.pinned && domain.host != Some(host);
                    !stays && fences.fenced(number, host).is_none()
                })
            })
            .collect()
    };
    let mut groups: Vec<Seats> = Vec::new();
    for (at, domain) in world.domains.iter().enumerate() {
        if domain.host.is_some() {
            let hosts = allowed(domain, Some(DomainIx::of(at)));
            match groups.iter_mut().find(|group| group.hosts == hosts) {
                Some(group) => group.count += 1,
                None => groups.push(Seats { count: 1, hosts }),
            }
        }
    }
    let hosts = allowed(shape, None);
    match groups.iter().position(|group| group.hosts == hosts) {
        Some(at) => {
            let own = groups.remove(at);
            groups.push(own);
        }
        None => groups.push(Seats { count: 0, hosts }),
    }
    groups
}

/// Makes one group of the two that share the most of their hosts, confined to those; the last stays the last.
fn merge_two(groups: &mut Vec<Seats>) {
    let shared = |one: &Seats, other: &Seats| -> Vec<HostIx> {
        let mut hosts = one.hosts.clone();
        hosts.retain(|host| other.hosts.binary_search(host).is_ok());
        hosts
    };
    let mut best = (usize::MAX, 0, 0);
    for one in 0..groups.len() {
        for other in one + 1..groups.len() {
            let hosts = shared(&groups[one], &groups[other]).len();
            let lost = groups[one].hosts.len() + groups[other].hosts.len() - 2 * hosts;
            best = best.min((lost, one, other));
        }
    }
    let (_, one, other) = best;
    let hosts = shared(&groups[one], &groups[other]);
    let merged = groups.remove(one);
    let kept = &mut groups[other - 1];
    kept.count += merged.count;
    kept.hosts = hosts;
}

/// Places that sets of groups reach.
struct Hall {
    groups: usize,
    all: Vec<u64>,
    active: Vec<u64>,
}

impl Hall {
    fn new(places: &[Places], groups: &[Seats]) -> Self {
        let sets = 1 << groups.len();
        let (mut all, mut active) = (vec![0u64; sets], vec![0u64; sets]);
        // Hosts by which groups may be there, then for each set of groups all hosts that one of them reaches.
        let mut by_who = vec![(0u64, 0u64); sets];
        for places in places {
            let who = (0..groups.len())
                .filter(|&group| groups[group].hosts.binary_search(&places.host).is_ok())
                .fold(0, |who, group| who | 1 << group);
            by_who[who].0 += places.all;
            by_who[who].1 += places.active;
        }
        for set in 0..sets {
            for (who, (all_there, active_there)) in by_who.iter().enumerate() {
                if who & set != 0 {
                    all[set] += all_there;
                    active[set] += active_there;
                }
            }
        }
        Self {
            groups: groups.len(),
            all,
            active,
        }
    }

    /// Places for all of `inner`, and for the active of `outer` beside.
    fn reach(&self, inner: usize, outer: usize) -> u64 {
        self.all[inner] + self.active[outer] - self.active[inner]
    }

    /// The first inequality that does not hold.
    fn broken(&self, counts: &[u64], active_at_most: u64) -> Option<Cut> {
        let count = |set: usize| -> u64 {
            (0..self.groups)
                .filter(|group| set >> group & 1 == 1)
                .map(|group| counts[group])
                .sum()
        };
        for outer in 0..1usize << self.groups {
            let mut inner = outer;
            loop {
                let need = count(inner) + count(outer & !inner).min(active_at_most);
                let reach = self.reach(inner, outer);
                if need > reach {
                    return Some(Cut {
                        all_of: members(inner),
                        active_of: members(outer & !inner),
                        need,
                        reach,
                    });
                }
                if inner == 0 {
                    break;
                }
                inner = (inner - 1) & outer;
            }
        }
        None
    }
}

fn members(set: usize) -> Vec<usize> {
    (0..usize::BITS as usize)
        .filter(|group| set >> group & 1 == 1)
        .collect()
}

fn bits(groups: &[usize]) -> usize {
    groups.iter().fold(0, |set, group| set | 1 << group)
}
