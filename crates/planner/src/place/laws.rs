//! Laws of initial placement: a tree finds the very host that a look at each one finds; what must be together is.

use std::collections::BTreeSet;

use estive_world::{
    Act, Domain, DomainIx, HostIx, Indexed, Relation, ReservedKind, Scope, SiteIx, Talk, Used,
    World,
};
use proptest::prelude::*;

use super::{EQUAL, Placer};
use crate::{Ledger, Objective, Term, Weighted, lint, samples};

/// Few kinds of sizes, so that many hosts are equal.
fn domains(hosts: u32) -> impl Strategy<Value = Domain> {
    let place = prop_oneof![1 => (0..hosts).prop_map(Some), 1 => Just(None)];
    (place, 1u64..3, 1u64..5, 0u8..3, 0u64..3).prop_map(|(host, vcpus, gib, dice, busy)| {
        let mut domain = samples::domain("d", host, [vcpus, gib * 1024, 1024, 1]);
        if dice == 0 {
            domain.used = Used([busy * 300_000, busy * 500_000, 0, busy * 1000]);
        }
        domain
    })
}

/// A relation by numbers: its sort, two domains, a host.
type Said = (u8, usize, usize, u32);

fn worlds(relations: usize) -> impl Strategy<Value = World> {
    (8u32..40).prop_flat_map(move |hosts| {
        let said = (0u8..6, 0usize..200, 0usize..200, 0..hosts);
        (
            proptest::collection::vec(domains(hosts), 1..120),
            proptest::collection::vec(said, 0..=relations),
            proptest::collection::vec(0u8..24, hosts as usize),
            proptest::collection::vec((0usize..200, 0usize..200), 0..20),
        )
            .prop_map(|(domains, relations, flags, talks)| world(domains, relations, &flags, talks))
    })
}

fn world(
    domains: Vec<Domain>,
    relations: Vec<Said>,
    flags: &[u8],
    talks: Vec<(usize, usize)>,
) -> World {
    let hosts = (flags.iter())
        .map(|flag| {
            let large = *flag % 5 == 0;
            let memory = if large { 64 * 1024 } else { 16 * 1024 };
            let mut host = samples::host("h", [8, memory, 400 * 1024, 8]);
            host.maintenance = *flag == 7;
            host.price_micro_per_h = u64::from(*flag % 3) * 1000;
            if *flag % 4 == 1 {
                host.power.watts = vec![80.0, 100.0, 130.0];
                host.power.off_watts = 5.0;
            }
            if *flag == 9 {
                host.state = estive_world::HostPower::Off;
            }
            host.system[ReservedKind::MemoryMib] = u64::from(*flag % 2) * 512;
            host
        })
        .collect();
    let mut world = samples::world(hosts, domains);
    let mut there = world.sites[0].clone();
    there.name = "there".to_owned();
    world.sites.push(there);
    let third = world.hosts.len() / 3;
    for host in &mut world.hosts[..third] {
        host.site = SiteIx(1);
    }
    let count = world.domains.len();
    for (sort, one, other, host) in relations {
        let members = vec![DomainIx::of(one % count), DomainIx::of(other % count)];
        world.rules.relations.push(match sort {
            0 => Relation::Apart(Scope::Host, members),
            1 => Relation::Apart(Scope::Site, members),
            2 => Relation::Never(members, vec![HostIx(host)]),
            3 => Relation::Only(members, vec![HostIx(host)]),
            4 => Relation::Together(Scope::Site, members),
            _ => Relation::Together(Scope::Host, members),
        });
    }
    let pairs: BTreeSet<(usize, usize)> = (talks.into_iter())
        .map(|(one, other)| (one % count, other % count))
        .filter(|(one, other)| one < other)
        .collect();
    world.talks = (pairs.into_iter())
        .map(|(one, other)| Talk {
            pair: (DomainIx::of(one), DomainIx::of(other)),
            bytes_per_s: 1_000_000,
            messages_per_s: 10,
        })
        .collect();
    world
}

fn objectives() -> impl Strategy<Value = Objective> {
    let one = |term| Weighted { term, weight: 1.0 };
    let twice = |term| Weighted { term, weight: 2.5 };
    let hosts = vec![HostIx(0), HostIx(3)];
    prop_oneof![
        4 => Just(vec![vec![one(Term::Balance)]]),
        1 => Just(vec![vec![twice(Term::Balance)]]),
        1 => Just(vec![vec![Weighted { term: Term::Balance, weight: 0.0 }], vec![one(Term::Balance)]]),
        1 => Just(vec![vec![one(Term::Balance)], vec![one(Term::Locality)]]),
        1 => Just(vec![vec![one(Term::GuestsOut { hosts })], vec![one(Term::Balance)]]),
        2 => Just(vec![vec![one(Term::Consolidate { spare_milli: 2000 })]]),
        1 => Just(vec![vec![one(Term::Consolidate { spare_milli: 0 })]]),
        1 => Just(vec![vec![one(Term::Cost)]]),
        1 => Just(vec![vec![one(Term::Locality)]]),
        1 => Just(vec![vec![one(Term::Fair)], vec![one(Term::Consolidate { spare_milli: 100 })]]),
        1 => Just(vec![vec![one(Term::Time)]]),
    ]
    .prop_map(|ranks| Objective { ranks })
}

/// A look at each host, as it can be read in a minute.
fn plain(ledger: &Ledger<'_>, domain: DomainIx) -> Option<HostIx> {
    let hosts: Vec<HostIx> = (0..ledger.ground().world.hosts.len())
        .map(HostIx::of)
        .filter(|&host| ledger.may(domain, host).is_ok())
        .collect();
    let (mut rises, mut spare) = (Vec::new(), Vec::new());
    let (gauge, books) = (ledger.gauge(), ledger.books());
    gauge.scan(books, domain, &hosts, &mut rises, &mut spare);
    let mut equals: Vec<(HostIx, f64)> = hosts.into_iter().zip(rises).collect();
    for rank in 0..gauge.count() {
        if rank > 0 {
            for (host, rise) in &mut equals {
                let to = crate::Spot {
                    host: *host,
                    ..ledger.spot(domain)
                };
                *rise = gauge.delta_of(rank, books, &[crate::Change { domain, to }]);
            }
        }
        let least = equals.iter().map(|it| it.1).fold(f64::INFINITY, f64::min);
        equals.retain(|it| it.1 <= least + EQUAL);
    }
    equals.first().map(|it| it.0)
}

fn waiting(world: &World) -> Vec<DomainIx> {
    (0..world.domains.len())
        .map(DomainIx::of)
        .filter(|&domain| world.domains[domain].host.is_none())
        .collect()
}

/// In how many places of a scope the placed ones of some domains are.
fn places(world: &World, scope: Scope, hosts: impl Iterator<Item = HostIx>) -> usize {
    let place = |host: HostIx| match scope {
        Scope::Host => host.at(),
        Scope::Site => world.hosts[host].site.at(),
    };
    hosts.map(place).collect::<BTreeSet<_>>().len()
}

/// Those that must be together are in no more places than before, and than one if they were in none.
fn are_together(world: &World, ledger: &Ledger<'_>) -> bool {
    let nowhere = ledger.ground().nowhere();
    world.rules.relations.iter().all(|relation| {
        let Relation::Together(scope, members) = relation else {
            return true;
        };
        let before = members
            .iter()
            .filter_map(|&member| world.domains[member].host);
        let now = members.iter().map(|&member| ledger.spot(member).host);
        places(world, *scope, now.filter(|&host| host != nowhere))
            <= places(world, *scope, before).max(1)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_finds_what_a_look_at_each_host_finds(
        world in worlds(3).prop_map(|mut world| {
            world.rules.relations.retain(|it| !matches!(it, Relation::Together(..)));
            world
        }),
        objective in objectives(),
        again in proptest::collection::vec(any::<bool>(), 200),
    ) {
        let mut placer = Placer::with_trees(&world, &objective, 1, 0).unwrap();
        let mut again = again.into_iter();
        for domain in waiting(&world) {
            // Once more from the start now and then: what was taken back leaves no trace.
            loop {
                let expected = plain(placer.ledger(), domain);
                let found = placer.place(domain);
                prop_assert_eq!(found.as_ref().ok().map(|placed| placed.host), expected);
                let Ok(placed) = found else { break };
                if !again.next().unwrap_or(false) {
                    break;
                }
                placer.take_back(&[placed]);
            }
        }
    }

    #[test]
    fn all_at_once_is_within_the_rules_and_what_must_be_together_is(
        world in worlds(6),
        objective in objectives(),
    ) {
        let mut placer = Placer::with_trees(&world, &objective, 1, 0).unwrap();
        let all = waiting(&world);
        let before = placer.ledger().value();
        match placer.place_all(&all) {
            Ok(placed) => {
                let now = placer.ledger().value();
                prop_assert!(now.broken <= before.broken);
                let mut those: Vec<DomainIx> = placed.iter().map(|it| it.domain).collect();
                those.sort_unstable();
                prop_assert_eq!(those, all);
                prop_assert!(are_together(&world, placer.ledger()));
            }
            Err(_) => prop_assert_eq!(placer.ledger().value(), before),
        }
    }

    #[test]
    fn the_linter_accepts_what_is_placed(world in worlds(6), one_may_fail in any::<bool>()) {
        let mut world = world;
        world.rules.one_may_fail = one_may_fail;
        let balance = Weighted { term: Term::Balance, weight: 1.0 };
        let objective = Objective { ranks: vec![vec![balance]] };
        let mut placer = Placer::with_trees(&world, &objective, 1, 0).unwrap();
        if let Ok(placed) = placer.place_all(&waiting(&world)) {
            let place = |it: super::Placed| Act::Place { domain: it.domain, to: it.host };
            let steps = placed.into_iter().map(|it| samples::step(place(it), [])).collect();
            let faults = lint(&world, &samples::plan(steps));
            prop_assert!(faults.is_empty(), "{faults:?}");
        }
    }

    #[test]
    fn one_after_the_other_what_must_be_together_is(
        world in worlds(6),
        objective in objectives(),
    ) {
        let mut placer = Placer::with_trees(&world, &objective, 1, 0).unwrap();
        for domain in waiting(&world) {
            let _ = placer.place(domain);
            prop_assert!(are_together(&world, placer.ledger()));
        }
    }
}
