//! Whether what runs on a host that fails has a place on the others.

use std::collections::{BTreeMap, BTreeSet};

use estive_world::{DomainIx, DomainLife, HostIx, HostPower, Indexed, Relation, Scope, World};

use crate::lint::places::{Fences, cannot_come, lacks};
use crate::{Amounts, Rooms};

/// A host whose domains have nowhere to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The host that fails.
    pub host: HostIx,
    /// The first of its domains for which no place was found.
    pub domain: DomainIx,
}

/// Which hosts are on.
pub fn powered(world: &World) -> Vec<bool> {
    world
        .hosts
        .iter()
        .map(|host| host.state == HostPower::On)
        .collect()
}

/// Hosts that may not fail, where domains are on `hosts`, their replicas on `replicas` (by domain) and hosts are `on`: for each, whether those that run
/// there can be started on others that are on, beside what runs there, the largest first, each on the first host where it
/// fits. Those with a replica go to it, and are there first. A packing is hard: where this finds none there may be one still,
/// where it finds one there is. Whether replicas' hosts have room for them is a sum, and looked at elsewhere.
///
/// Cost: O(hosts) for a domain at the worst; a host that takes the last one is asked first for the next.
pub fn without_place(
    world: &World,
    rooms: &Rooms,
    hosts: &[Option<HostIx>],
    replicas: &[Option<HostIx>],
    on: &[bool],
) -> Vec<Failure> {
    let fences = Fences::new(world);
    let mut taken = vec![Amounts::NONE; world.hosts.len()];
    let mut guests: Vec<Vec<DomainIx>> = vec![Vec::new(); world.hosts.len()];
    // By host: who goes to a replica when it fails, and where that is.
    let mut over: Vec<Vec<(usize, DomainIx)>> = vec![Vec::new(); world.hosts.len()];
    for (at, domain) in world.domains.iter().enumerate() {
        let number = DomainIx::of(at);
        let runs = domain.life != DomainLife::Stopped;
        let replica = replicas[at];
        if let Some(host) = hosts[at] {
            taken[host.at()].add(&rooms.takes(number));
            match replica {
                None if runs => guests[host.at()].push(number),
                Some(replica) if runs && replica != host => {
                    over[host.at()].push((replica.at(), number));
                }
                _ => {}
            }
        }
        if let Some(replica) = replica.filter(|&replica| Some(replica) != hosts[at]) {
            taken[replica.at()].add(rooms.kept(number));
        }
    }
    let apart = Apart::new(world);
    (0..world.hosts.len())
        .filter_map(|failing| {
            let mut evacuated = guests[failing].clone();
            evacuated.sort_by_key(|&it| (std::cmp::Reverse(rooms.live(it).0[1]), it));
            let mut added: Vec<(usize, DomainIx)> = Vec::new();
            let mut more: BTreeMap<usize, Amounts> = BTreeMap::new();
            if !evacuated.is_empty() {
                for &(at, domain) in &over[failing] {
                    more.entry(at).or_default().add(rooms.live(domain));
                }
            }
            let mut first = 0;
            let homeless = evacuated.into_iter().find(|&domain| {
                let what = &world.domains[domain];
                let takes = rooms.takes(domain);
                let place = (0..world.hosts.len())
                    .map(|at| (first + at) % world.hosts.len())
                    .find(|&at| {
                        let host = HostIx::of(at);
                        at != failing
                            && on[at]
                            && (more.get(&at).map_or(taken[at], |more| taken[at].with(more)))
                                .admits(&takes, rooms.room(host))
                            && cannot_come(world, None, &world.hosts[at]).is_none()
                            && lacks(world, what, host).is_none()
                            && fences.fenced(domain, host).is_none()
                            && apart.admits(world, domain, host, hosts, &added, HostIx::of(failing))
                    });
                match place {
                    Some(at) => {
                        added.push((at, domain));
                        more.entry(at).or_default().add(&takes);
                        first = at;
                        false
                    }
                    None => true,
                }
            });
            homeless.map(|domain| Failure {
                host: HostIx::of(failing),
                domain,
            })
        })
        .collect()
}

/// For each domain those that it must be apart from.
struct Apart(Vec<Vec<(Scope, BTreeSet<DomainIx>)>>);

impl Apart {
    fn new(world: &World) -> Self {
        let mut of = vec![Vec::new(); world.domains.len()];
        for relation in &world.rules.relations {
            if let Relation::Apart(scope, members) = relation {
                let members: BTreeSet<DomainIx> = members.iter().copied().collect();
                for member in &members {
                    of[member.at()].push((*scope, members.clone()));
                }
            }
        }
        Self(of)
    }

    fn admits(
        &self,
        world: &World,
        domain: DomainIx,
        to: HostIx,
        hosts: &[Option<HostIx>],
        added: &[(usize, DomainIx)],
        failing: HostIx,
    ) -> bool {
        self.0[domain.at()].iter().all(|(scope, members)| {
            members
                .iter()
                .filter(|&&other| other != domain)
                .all(|&other| {
                    let moved = added
                        .iter()
                        .find(|(_, it)| *it == other)
                        .map(|(at, _)| HostIx::of(*at));
                    // Another that ran on the failing host and has no place yet is nowhere.
                    let at = moved.or(hosts[other.at()].filter(|&host| host != failing));
                    at.is_none_or(|at| match scope {
                        Scope::Host => at != to,
                        Scope::Site => world.hosts[at].site != world.hosts[to].site,
                    })
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{domain, host, world};

    #[test]
    fn what_one_host_leaves_must_fit_beside_the_rest() {
        let mut world = world(
            vec![
                host("a", [9, 4, 0, 0]),
                host("b", [9, 4, 0, 0]),
                host("c", [9, 4, 0, 0]),
            ],
            vec![
                domain("x", Some(0), [1, 2, 0, 0]),
                domain("y", Some(0), [1, 2, 0, 0]),
                domain("z", Some(1), [1, 2, 0, 0]),
            ],
        );
        let hosts: Vec<Option<HostIx>> = world.domains.iter().map(|it| it.host).collect();
        let failures = |world: &World| {
            without_place(
                world,
                &Rooms::new(world),
                &hosts,
                &[None; 3],
                &powered(world),
            )
        };
        assert_eq!(failures(&world), []);
        let failure = |host, domain| Failure {
            host: HostIx(host),
            domain: DomainIx(domain),
        };
        world.hosts[2].state = HostPower::Off;
        assert_eq!(failures(&world), [failure(0, 1), failure(1, 2)]);
        world.hosts[2].state = HostPower::On;
        world
            .rules
            .relations
            .push(Relation::Never(vec![DomainIx(0)], vec![HostIx(2)]));
        assert_eq!(failures(&world), []);
        world
            .rules
            .relations
            .push(Relation::Never(vec![DomainIx(1)], vec![HostIx(2)]));
        assert_eq!(failures(&world), [failure(0, 1)]);
    }

    #[test]
    fn who_goes_to_a_replica_takes_room_from_who_has_none() {
        let mut world = world(
            vec![host("f", [99, 12, 0, 0]), host("x", [99, 12, 0, 0])],
            vec![
                domain("r", Some(0), [1, 6, 0, 0]),
                domain("s", Some(0), [1, 6, 0, 0]),
                domain("u", Some(1), [1, 4, 0, 0]),
            ],
        );
        let hosts: Vec<Option<HostIx>> = world.domains.iter().map(|it| it.host).collect();
        // Of what x would leave nothing fits on f; that is not asked here.
        let failing = |world: &World, replica: Option<HostIx>| {
            let replicas = [replica, None, None];
            let rooms = Rooms::new(world);
            let found = without_place(world, &rooms, &hosts, &replicas, &powered(world));
            found.into_iter().any(|failure| failure.host == HostIx(0))
        };
        assert!(failing(&world, Some(HostIx(1))));
        world.domains[1].reserved.0[1] = 2;
        assert!(!failing(&world, Some(HostIx(1))));
    }
}
