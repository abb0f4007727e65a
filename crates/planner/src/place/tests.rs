//! Single cases of initial placement.

use estive_world::{Relation, Scope, User, UserIx};

use super::*;
use crate::{Term, Weighted, samples};

fn balance() -> Objective {
    Objective {
        ranks: vec![vec![Weighted {
            term: Term::Balance,
            weight: 1.0,
        }]],
    }
}

fn hosts(count: usize) -> Vec<estive_world::Host> {
    (0..count)
        .map(|n| samples::host(&format!("h{n}"), [8, 8192, 0, 0]))
        .collect()
}

#[test]
fn equal_domains_spread_over_equal_hosts() {
    let domains = (0..4)
        .map(|n| samples::domain(&format!("d{n}"), None, [1, 1024, 0, 0]))
        .collect();
    let world = samples::world(hosts(3), domains);
    let all: Vec<DomainIx> = (0..4).map(DomainIx).collect();
    let placed = Placer::new(&world, &balance())
        .unwrap()
        .place_all(&all)
        .unwrap();
    let where_to: Vec<u32> = placed.iter().map(|placed| placed.host.0).collect();
    assert_eq!(where_to, [0, 1, 2, 0]);
}

#[test]
fn what_finds_no_place_is_told_with_counts_and_nothing_is_placed() {
    let domains = vec![
        samples::domain("a", None, [1, 8000, 0, 0]),
        samples::domain("b", None, [1, 8000, 0, 0]),
        samples::domain("c", None, [1, 8000, 0, 0]),
    ];
    let world = samples::world(hosts(2), domains);
    let mut placer = Placer::new(&world, &balance()).unwrap();
    let failed = placer
        .place_all(&[DomainIx(0), DomainIx(1), DomainIx(2)])
        .unwrap_err();
    assert_eq!(failed.domain, DomainIx(2));
    assert_eq!(failed.hindrances[0].what, "too little memory");
    assert_eq!(failed.hindrances[0].count, 2);
    assert_eq!(
        placer.ledger().spot(DomainIx(0)).host,
        placer.ledger().ground().nowhere()
    );
}

#[test]
fn those_that_wait_together_go_where_all_have_room() {
    let domains = (0..3)
        .map(|n| samples::domain(&format!("d{n}"), None, [1, 1024, 0, 0]))
        .chain([samples::domain("there", Some(1), [1, 1024, 0, 0])])
        .collect();
    let mut world = samples::world(hosts(2), domains);
    world.hosts[0].capacity[estive_world::ReservedKind::MemoryMib] = 2048;
    let all: Vec<DomainIx> = (0..3).map(DomainIx).collect();
    let relation = Relation::Together(Scope::Host, all.clone());
    world.rules.relations.push(relation);
    // By itself each goes to the empty host, where the third has no room.
    let of = |placed: &[Placed]| -> Vec<u32> { placed.iter().map(|it| it.host.0).collect() };
    let mut placer = Placer::new(&world, &balance()).unwrap();
    assert_eq!(of(&placer.place_all(&all).unwrap()), [1, 1, 1]);
    let mut placer = Placer::new(&world, &balance()).unwrap();
    let one_by_one: Vec<Placed> = (all.iter())
        .map(|&domain| placer.place(domain).unwrap())
        .collect();
    assert_eq!(of(&one_by_one), [1, 1, 1]);
    world.rules.relations.clear();
    let mut placer = Placer::new(&world, &balance()).unwrap();
    assert_eq!(placer.place(all[0]).unwrap().host, HostIx(0));
}

#[test]
fn who_comes_later_goes_to_those_he_must_be_with() {
    let mut domains: Vec<_> = (0..2)
        .map(|n| samples::domain(&format!("d{n}"), None, [1, 1024, 0, 0]))
        .collect();
    domains.push(samples::domain("there", Some(1), [1, 7000, 0, 0]));
    let mut world = samples::world(hosts(3), domains);
    let members = vec![DomainIx(0), DomainIx(1), DomainIx(2)];
    (world.rules.relations).push(Relation::Together(Scope::Host, members));
    let mut placer = Placer::new(&world, &balance()).unwrap();
    assert_eq!(placer.place(DomainIx(1)).unwrap().host, HostIx(1));
    // There is room for one more and no other host will do.
    let failed = placer.place(DomainIx(0)).unwrap_err();
    let of_all: u64 = failed.hindrances.iter().map(|it| it.count).sum();
    assert_eq!(of_all, 3);
}

#[test]
fn a_group_tries_one_site_after_the_other() {
    let domains = (0..4)
        .map(|n| samples::domain(&format!("d{n}"), None, [1, 3000, 0, 0]))
        .collect();
    let mut world = samples::world(hosts(4), domains);
    let mut there = world.sites[0].clone();
    there.name = "there".to_owned();
    world.sites.push(there);
    for host in 0..2 {
        // Room for two, in halves that are too small for one and a half.
        world.hosts[host].capacity[estive_world::ReservedKind::MemoryMib] = 5000;
        world.hosts[host + 2].site = estive_world::SiteIx(1);
    }
    let all: Vec<DomainIx> = (0..4).map(DomainIx).collect();
    let relation = Relation::Together(Scope::Site, all.clone());
    world.rules.relations.push(relation);
    // What is on the hosts of the second site makes the first one look better.
    for host in 2..4 {
        world.hosts[host].system[estive_world::ReservedKind::Vcpus] = 4;
    }
    let mut placer = Placer::new(&world, &balance()).unwrap();
    let placed = placer.place_all(&all).unwrap();
    assert!(placed.iter().all(|it| it.host.0 >= 2), "{placed:?}");
}

#[test]
fn those_that_must_be_apart_are_and_a_quota_holds() {
    let mut domains: Vec<_> = (0..3)
        .map(|n| samples::domain(&format!("d{n}"), None, [1, 1024, 0, 0]))
        .collect();
    domains[2].user = Some(UserIx(0));
    let mut world = samples::world(hosts(2), domains);
    world
        .rules
        .relations
        .push(Relation::Apart(Scope::Host, vec![DomainIx(0), DomainIx(1)]));
    world.users.push(User {
        name: "ann".to_owned(),
        quota: Reserved([u64::MAX, 512, u64::MAX, u64::MAX]),
        share: 1,
    });
    let mut placer = Placer::new(&world, &balance()).unwrap();
    let one = placer.place(DomainIx(0)).unwrap();
    let other = placer.place(DomainIx(1)).unwrap();
    assert_ne!(one.host, other.host);
    let failed = placer.place(DomainIx(2)).unwrap_err();
    assert_eq!(failed.hindrances[0].what, "ann has as much as he may");
}

#[test]
fn what_a_host_leaves_when_it_fails_keeps_its_place() {
    // Two hosts of 8 GiB: as far as room goes 14 more of 1 GiB fit, but either must be able to take over the other's.
    let domains = (0..2)
        .map(|n| samples::domain(&format!("there{n}"), Some(n), [1, 1024, 0, 0]))
        .chain((0..8).map(|n| samples::domain(&format!("d{n}"), None, [1, 1024, 0, 0])))
        .collect();
    let mut world = samples::world(hosts(2), domains);
    world.rules.one_may_fail = true;
    let place = |count: u32| {
        let all: Vec<DomainIx> = (2..2 + count).map(DomainIx).collect();
        let placed = Placer::new(&world, &balance()).unwrap().place_all(&all);
        placed.map(|placed| placed.len())
    };
    assert_eq!(place(6), Ok(6));
    let failed = place(7).unwrap_err();
    assert_eq!(failed.hindrances[0].what, "no spare if another host failed");
}
