//! Laws that hold for every world: what a change is said to gain is what it gains, nothing whole is broken, nothing gets
//! worse, what was found cannot be bettered by one move or swap, and asking again finds nothing.

use std::collections::BTreeMap;

use estive_world::{
    Deployment, Domain, DomainIx, DomainLife, HostIx, Indexed, Link, PowerCurve, Relation, Scope,
    SiteIx, Talk, Tariff, Used, User, UserIx, World,
};
use proptest::prelude::*;

use crate::samples;
use crate::{Budget, Change, Ledger, Objective, Question, Spot, Term, Weighted, after, target};

fn domains(hosts: u32) -> impl Strategy<Value = Domain> {
    let place = prop_oneof![9 => (0..hosts).prop_map(Some), 1 => Just(None)];
    let replica = proptest::option::weighted(0.3, 0..hosts);
    let reserved = (1u64..5, 1u64..9, 0u64..20);
    let used = (
        0u64..2_000_000,
        0u64..20_000_000,
        0u64..90_000_000,
        0u64..9_000_000,
    );
    (place, replica, reserved, used, 0u8..20, 0u32..3).prop_map(
        |(host, replica, (vcpus, gib, disk), used, dice, user)| {
            let mut domain = samples::domain("d", host, [vcpus, gib * 1024, disk * 1024, 1]);
            domain.used = Used([used.0, used.1, used.2, used.3]);
            domain.user = (user > 0).then(|| UserIx(user - 1));
            domain.pinned = dice == 0;
            if dice == 1 {
                domain.life = DomainLife::Stopped;
            }
            if host.is_some() && host != replica.map(Some).unwrap_or_default() {
                domain.replica = replica
                    .map(HostIx)
                    .filter(|replica| Some(replica.0) != host);
            }
            domain
        },
    )
}

/// Who talks to whom, how many bytes and how many messages.
fn talks() -> impl Strategy<Value = Vec<(usize, usize, u64, u32)>> {
    proptest::collection::vec(
        (0usize..40, 0usize..40, 0u64..50_000_000, 0u32..2000),
        0..30,
    )
}

fn talk(world: &mut World, talks: Vec<(usize, usize, u64, u32)>) {
    let count = world.domains.len();
    let mut said = BTreeMap::new();
    for (one, other, bytes, messages) in talks {
        let (one, other) = (one % count, other % count);
        if one != other {
            said.insert((one.min(other), one.max(other)), (bytes, messages));
        }
    }
    world.talks = (said.into_iter())
        .map(|((one, other), (bytes_per_s, messages_per_s))| Talk {
            pair: (DomainIx::of(one), DomainIx::of(other)),
            bytes_per_s,
            messages_per_s,
        })
        .collect();
    world.deployments = ["web", "sums"]
        .map(|name| Deployment {
            name: name.to_owned(),
        })
        .to_vec();
    for (number, domain) in world.domains.iter_mut().enumerate() {
        domain.deployment = (number % 3 < 2).then_some(number as u32 % 3);
    }
}

/// The later hosts stand elsewhere.
fn second_site(world: &mut World) {
    let mut there = world.sites[0].clone();
    there.name = "there".to_owned();
    world.sites.push(there);
    world.links.push(Link {
        ends: (SiteIx(0), SiteIx(1)),
        rate_bytes_per_s: 12_500_000,
        latency_us: 20_000,
        micro_per_gib: 10_000,
    });
    let half = world.hosts.len() / 2;
    for host in &mut world.hosts[half..] {
        host.site = SiteIx(1);
    }
}

fn worlds(replicas: bool) -> impl Strategy<Value = World> {
    (2u32..7).prop_flat_map(move |hosts| {
        let relations = proptest::collection::vec((0u8..4, 0usize..40, 0usize..40, 0..hosts), 0..3);
        let flags = proptest::collection::vec(0u8..24, hosts as usize);
        (
            proptest::collection::vec(domains(hosts), 1..24),
            relations,
            flags,
            any::<bool>(),
            (talks(), any::<bool>()),
        )
            .prop_map(
                move |(mut domains, relations, flags, one_may_fail, (talks, two_sites))| {
                    if !replicas {
                        domains.iter_mut().for_each(|domain| domain.replica = None);
                    }
                    let hosts: Vec<_> = (flags.iter().enumerate())
                        .map(|(number, flag)| {
                            let cores = if number % 2 == 0 { 16 } else { 8 };
                            let mut host = samples::host("h", [cores, 32 * 1024, 400 * 1024, 1]);
                            host.maintenance = *flag == 0;
                            host.price_micro_per_h = 100_000;
                            host.power = PowerCurve {
                                watts: vec![80.0, 100.0, 130.0],
                                off_watts: 2.0,
                                boot_s: 60,
                                boot_wh: 2.0,
                                halt_s: 10,
                            };
                            host
                        })
                        .collect();
                    let mut world = samples::world(hosts, domains);
                    for (number, domain) in world.domains.iter_mut().enumerate() {
                        domain.name = format!("d{number}");
                    }
                    world.users = (0..2)
                        .map(|number| User {
                            name: format!("u{number}"),
                            quota: estive_world::Reserved([u64::MAX; 4]),
                            share: number + 1,
                        })
                        .collect();
                    world.sites[0].energy = vec![Tariff {
                        from_s: 0,
                        micro_per_kwh: 200_000,
                    }];
                    world.rules.one_may_fail = one_may_fail;
                    let count = world.domains.len();
                    talk(&mut world, talks);
                    if two_sites {
                        second_site(&mut world);
                    }
                    for (sort, one, other, host) in relations {
                        let members = vec![DomainIx::of(one % count), DomainIx::of(other % count)];
                        world.rules.relations.push(match sort {
                            0 => Relation::Apart(Scope::Host, members),
                            1 => Relation::Together(Scope::Host, members),
                            2 => Relation::Never(members, vec![HostIx(host)]),
                            _ => Relation::Apart(Scope::Site, members),
                        });
                    }
                    world
                },
            )
    })
}

fn objectives() -> impl Strategy<Value = Objective> {
    let one = |term| Weighted { term, weight: 1.0 };
    prop_oneof![
        Just(vec![vec![one(Term::Balance)]]),
        Just(vec![vec![one(Term::Consolidate { spare_milli: 200 })]]),
        Just(vec![vec![one(Term::Locality)], vec![one(Term::Balance)]]),
        Just(vec![vec![one(Term::Time)]]),
        Just(vec![vec![one(Term::Cost)], vec![one(Term::Balance)]]),
        Just(vec![vec![one(Term::Fair)], vec![one(Term::Balance)]]),
        Just(vec![
            vec![one(Term::GuestsOut {
                hosts: vec![HostIx(0)]
            })],
            vec![
                one(Term::Balance),
                one(Term::Consolidate { spare_milli: 0 })
            ]
        ]),
    ]
    .prop_map(|ranks| Objective { ranks })
}

fn question(objective: Objective) -> Question {
    Question {
        objective,
        moves_at_most: None,
        bytes_at_most: None,
        budget: Budget { work: 16_000 },
        seed: 7,
        lanes: 2,
    }
}

/// A spot that a number stands for.
fn spot(ledger: &Ledger<'_>, domain: DomainIx, number: usize) -> Spot {
    let hosts = ledger.ground().world.hosts.len();
    let (now, host) = (ledger.spot(domain), HostIx::of(number % hosts));
    let other = HostIx::of(number / hosts % hosts);
    if now.replica == ledger.ground().nowhere() {
        Spot {
            host,
            replica: now.replica,
        }
    } else if host == now.replica && other == host {
        Spot {
            host,
            replica: now.host,
        }
    } else {
        Spot {
            host,
            replica: if other == host { now.replica } else { other },
        }
    }
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * (1.0 + one.abs().max(other.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_change_gains_what_it_is_said_to_and_can_be_undone(
        world in worlds(true),
        objective in objectives(),
        tries in proptest::collection::vec((0usize..100, 0usize..100), 1..40),
    ) {
        let mut ledger = Ledger::new(&world, &objective).unwrap();
        let first = ledger.value();
        let mut undo = Vec::new();
        for (domain, number) in tries {
            let domain = DomainIx::of(domain % world.domains.len());
            let to = spot(&ledger, domain, number);
            if ledger.books().may(domain, to).is_err() {
                continue;
            }
            let change = Change { domain, to };
            let (before, said) = (ledger.value(), ledger.delta(&[change]));
            undo.push(ledger.apply(change));
            let now = ledger.value();
            prop_assert_eq!(now.broken - before.broken, said.broken);
            for rank in 0..objective.ranks.len() {
                let gained = now.ranks[rank] - before.ranks[rank];
                prop_assert!(close(gained, said.ranks[rank]), "rank {rank}: {gained} is not {}", said.ranks[rank]);
            }
            prop_assert_eq!(now.broken, ledger.books().broken());
        }
        while let Some(change) = undo.pop() {
            ledger.apply(change);
        }
        prop_assert_eq!(ledger.value(), first);
    }

    #[test]
    fn a_state_reached_is_worth_what_it_is_from_scratch(
        world in worlds(true),
        objective in objectives(),
        tries in proptest::collection::vec((0usize..100, 0usize..100), 1..40),
    ) {
        let mut ledger = Ledger::new(&world, &objective).unwrap();
        for (domain, number) in tries {
            let domain = DomainIx::of(domain % world.domains.len());
            let to = spot(&ledger, domain, number);
            if ledger.books().may(domain, to).is_ok() {
                ledger.apply(Change { domain, to });
            }
        }
        let there = after(&world, ledger.books().places.spots());
        let anew = Ledger::new(&there, &objective).unwrap();
        prop_assert_eq!(anew.value().broken, ledger.value().broken);
        for rank in 0..objective.ranks.len() {
            let (one, other) = (anew.value().ranks[rank], ledger.value().ranks[rank]);
            prop_assert!((one - other).abs() < 1e-5 * (1.0 + other.abs()), "rank {rank}: {one} is not {other}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn what_is_found_is_no_worse_and_asking_again_finds_nothing(
        world in worlds(false),
        objective in objectives(),
    ) {
        let question = question(objective);
        let found = target(&world, &question).unwrap();
        prop_assert!(found.after.broken <= found.before.broken);
        if found.after.broken == found.before.broken {
            prop_assert!(found.after.ranks[0] <= found.before.ranks[0] + 1e-9);
        }
        for (number, domain) in world.domains.iter().enumerate() {
            if domain.pinned && domain.host.is_some() {
                prop_assert_eq!(Some(found.spots[number].host), domain.host);
            }
        }
        let there = after(&world, &found.spots);
        let again = target(&there, &question).unwrap();
        let same = again.spots == found.spots;
        prop_assert!(same, "{:?} became {:?} and then {:?}", found.before, found.after, again.after);
    }

    #[test]
    fn what_is_found_cannot_be_bettered_by_one_move_or_one_swap(world in worlds(false)) {
        let objective = Objective { ranks: vec![vec![Weighted { term: Term::Balance, weight: 1.0 }]] };
        let question = question(objective.clone());
        let found = target(&world, &question).unwrap();
        let there = after(&world, &found.spots);
        let ledger = Ledger::new(&there, &objective).unwrap();
        let part = ledger.value().ranks[0] / there.hosts.len() as f64;
        let toll = |change: &Change| {
            let now = ledger.spot(change.domain);
            ledger.ground().toll.share(change.domain, now, change.to) * part
        };
        let all = || (0..there.domains.len()).map(DomainIx::of);
        for domain in all() {
            for host in (0..there.hosts.len()).map(HostIx::of) {
                let to = Spot { host, ..ledger.spot(domain) };
                let change = Change { domain, to };
                if host != ledger.spot(domain).host && ledger.books().may(domain, to).is_ok() {
                    let by = ledger.delta(&[change]);
                    prop_assert!(by.broken >= 0);
                    prop_assert!(by.broken > 0 || by.ranks[0] + toll(&change) > -1e-8);
                }
            }
            for other in all().filter(|&other| other > domain) {
                let (here, there) = (ledger.spot(domain), ledger.spot(other));
                let nowhere = ledger.ground().nowhere();
                let apart = here.host != there.host && here.host != nowhere && there.host != nowhere;
                if !apart || ledger.books().may_swap(domain, other).is_err() {
                    continue;
                }
                let changes = [Change { domain, to: there }, Change { domain: other, to: here }];
                let by = ledger.delta(&changes);
                let toll: f64 = changes.iter().map(toll).sum();
                prop_assert!(by.broken >= 0);
                prop_assert!(by.broken > 0 || by.ranks[0] + toll > -1e-8);
            }
        }
    }
}
