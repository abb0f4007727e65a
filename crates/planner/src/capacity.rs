//! How many more domains of one shape fit: n+m's first half.

use estive_world::{Domain, HostIx, HostPower, Indexed, Scope, World};
use serde::Serialize;

use crate::lint::places::{cannot_come, lacks};
use crate::{KINDS, Kind, Rooms, failover};

/// How many more of a shape fit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Capacity {
    /// On hosts that are on, by the rules as they are.
    pub more: u64,
    /// And how many on hosts that would have to be switched on.
    pub more_when_on: u64,
    /// Whether `more` is exact: domains of one shape on hosts that do not depend on each other are counted. Where a host
    /// may fail it is a lower bound: so many do fit, and more may.
    pub exact: bool,
    /// By host.
    pub hosts: Vec<OfHost>,
    /// The user's quota stops it before hosts do.
    pub stopped_by_quota: bool,
}

/// How many more fit on one host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OfHost {
    /// Which.
    pub host: HostIx,
    /// How many, the others left as they are.
    pub more: u64,
    /// What stops the next, in words.
    pub because: String,
}

/// How many more of `shape` fit (its `host` and `replica` are not looked at), without moving anything. With `apart`, no two
/// of them on one host or in one site.
///
/// Cost: O(hosts + domains); where a host may fail, that packing a logarithmic number of times.
pub fn capacity(world: &World, shape: &Domain, apart: Option<Scope>) -> Capacity {
    let rooms = Rooms::new(world);
    let taken = rooms.taken(world);
    let takes = rooms.of_shape(world, shape);
    let mut hosts: Vec<OfHost> = (0..world.hosts.len())
        .map(|at| {
            let host = HostIx::of(at);
            let none = |because: String| OfHost {
                host,
                more: 0,
                because,
            };
            if let Some(because) = cannot_come(world, None, &world.hosts[at]) {
                return none(because);
            }
            if let Some(because) = lacks(world, shape, host) {
                return none(because);
            }
            let room = rooms.room(host);
            let (more, kind) = (0..KINDS)
                .filter(|&kind| takes.0[kind] > 0)
                .map(|kind| {
                    (
                        room.0[kind].saturating_sub(taken[at].0[kind]) / takes.0[kind],
                        kind,
                    )
                })
                .min()
                .unwrap_or((u64::from(u32::MAX), 0));
            OfHost {
                host,
                more,
                because: format!("no more {}", Kind::of(kind).name()),
            }
        })
        .collect();
    match apart {
        None => {}
        Some(Scope::Host) => {
            for host in hosts.iter_mut().filter(|host| host.more > 1) {
                host.more = 1;
                host.because = "no two on one host".to_owned();
            }
        }
        Some(Scope::Site) => one_a_site(world, &mut hosts),
    }
    let sum = |state: HostPower, hosts: &[OfHost]| -> u64 {
        (hosts
            .iter()
            .filter(|it| world.hosts[it.host].state == state))
        .map(|it| it.more)
        .sum()
    };
    let more_when_on = sum(HostPower::Off, &hosts);
    let mut capacity = Capacity {
        more: sum(HostPower::On, &hosts),
        more_when_on,
        exact: true,
        hosts,
        stopped_by_quota: false,
    };
    if world.rules.one_may_fail {
        keep_one_free(world, shape, &mut capacity);
    }
    quota(world, shape, &mut capacity);
    capacity
}

/// In each site only the first host that is on counts, else the first that is not.
fn one_a_site(world: &World, hosts: &mut [OfHost]) {
    for site in 0..world.sites.len() {
        let place = |state: HostPower, hosts: &[OfHost]| {
            hosts.iter().position(|it| {
                let host = &world.hosts[it.host];
                it.more > 0 && host.site.at() == site && host.state == state
            })
        };
        let kept = place(HostPower::On, hosts).or_else(|| place(HostPower::Off, hosts));
        for (at, host) in hosts.iter_mut().enumerate() {
            if world.hosts[host.host].site.at() == site && host.more > 0 {
                host.more = u64::from(Some(at) == kept);
                host.because = "no two in one site".to_owned();
            }
        }
    }
}

/// The most that can be added, spread over hosts in turn, so that any host may fail still: found by halving.
fn keep_one_free(world: &World, shape: &Domain, capacity: &mut Capacity) {
    let on: Vec<(HostIx, u64)> = (capacity.hosts.iter())
        .filter(|it| world.hosts[it.host].state == HostPower::On)
        .map(|it| (it.host, it.more))
        .collect();
    let survives = |count: u64| {
        let mut filled = world.clone();
        let mut left = count;
        let mut turn = 0;
        while left > 0 {
            for (host, _) in on.iter().filter(|(_, more)| *more > turn) {
                if left > 0 {
                    left -= 1;
                    let mut new = shape.clone();
                    new.host = Some(*host);
                    new.replica = None;
                    filled.domains.push(new);
                }
            }
            turn += 1;
        }
        let hosts: Vec<Option<HostIx>> = filled.domains.iter().map(|it| it.host).collect();
        let on = failover::powered(&filled);
        let replicas: Vec<Option<HostIx>> = filled.domains.iter().map(|it| it.replica).collect();
        failover::without_place(&filled, &Rooms::new(&filled), &hosts, &replicas, &on).is_empty()
    };
    capacity.exact = false;
    // More than this nobody counts one by one.
    let (mut fits, mut too_many) = (0, capacity.more.min(1 << 20) + 1);
    while too_many - fits > 1 {
        let middle = fits + (too_many - fits) / 2;
        if survives(middle) {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    capacity.more = fits;
}

/// What the user may still have.
fn quota(world: &World, shape: &Domain, capacity: &mut Capacity) {
    let Some(user) = shape.user else { return };
    let quota = world.users[user].quota;
    let has = (world.domains.iter())
        .filter(|domain| domain.user == Some(user) && domain.host.is_some())
        .fold(estive_world::Reserved::NONE, |sum, domain| {
            sum + crate::room::held(domain)
        });
    let left = (0..4)
        .filter(|&kind| quota.0[kind] != u64::MAX && shape.reserved.0[kind] > 0)
        .map(|kind| quota.0[kind].saturating_sub(has.0[kind]) / shape.reserved.0[kind])
        .min()
        .unwrap_or(u64::MAX);
    if left < capacity.more {
        capacity.more = left;
        capacity.stopped_by_quota = true;
    }
    capacity.more_when_on = capacity.more_when_on.min(left - capacity.more);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{domain, host, world};
    use estive_world::{Reserved, User, UserIx};

    #[test]
    fn what_fits_is_counted_by_the_scarcest_kind() {
        let mut off = host("c", [8, 8, 0, 0]);
        off.state = HostPower::Off;
        let mut full = host("d", [8, 8, 0, 0]);
        full.maintenance = true;
        let world = world(
            vec![host("a", [1, 10, 0, 0]), host("b", [8, 8, 0, 0]), off, full],
            vec![domain("x", Some(1), [1, 3, 0, 0])],
        );
        // Four virtual processors a core: a has room for four by those, and five by memory.
        let found = capacity(&world, &domain("new", None, [1, 2, 0, 0]), None);
        assert_eq!(
            (found.more, found.more_when_on, found.exact),
            (4 + 2, 4, true)
        );
        assert_eq!(found.hosts[0].because, "no more virtual processors");
        assert_eq!(found.hosts[1].because, "no more memory");
        assert_eq!(found.hosts[3].because, "the host is in maintenance");
        let apart = capacity(
            &world,
            &domain("new", None, [1, 2, 0, 0]),
            Some(Scope::Host),
        );
        assert_eq!((apart.more, apart.more_when_on), (2, 1));
        let apart = capacity(
            &world,
            &domain("new", None, [1, 2, 0, 0]),
            Some(Scope::Site),
        );
        assert_eq!((apart.more, apart.more_when_on), (1, 0));
    }

    #[test]
    fn a_quota_and_a_host_that_may_fail_leave_less() {
        let mut world = world(
            vec![host("a", [9, 8, 0, 0]), host("b", [9, 8, 0, 0])],
            vec![domain("x", Some(1), [1, 2, 0, 0])],
        );
        world.rules.one_may_fail = true;
        let mut shape = domain("new", None, [1, 2, 0, 0]);
        let found = capacity(&world, &shape, None);
        // Of eight places on two hosts only four may be used, one is.
        assert_eq!((found.more, found.exact), (3, false));
        world.users.push(User {
            name: "u".to_owned(),
            quota: Reserved([2, u64::MAX, u64::MAX, u64::MAX]),
            share: 1,
        });
        shape.user = Some(UserIx(0));
        let found = capacity(&world, &shape, None);
        assert_eq!((found.more, found.stopped_by_quota), (2, true));
    }
}
