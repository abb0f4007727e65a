//! Worlds and questions at random.

use std::collections::BTreeMap;

use estive_world::{
    Deployment, Domain, DomainIx, DomainLife, HostIx, HostPower, Indexed, Link, PowerCurve,
    Relation, Scope, SiteIx, Talk, Tariff, Used, User, UserIx, World,
};
use proptest::prelude::*;

use crate::samples;
use crate::{Budget, Objective, Question, Term, Weighted};

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

/// Hosts that are off, their owners', or of another processor.
fn special(world: &mut World, flags: &[u8]) {
    for (number, flag) in flags.iter().enumerate() {
        let here = Some(HostIx::of(number));
        let empty = (world.domains.iter()).all(|it| it.host != here && it.replica != here);
        let host = &mut world.hosts[number];
        match flag {
            1 | 2 if empty => host.state = HostPower::Off,
            3 => host.owner_present = true,
            4 => {
                host.cpu_model = "newer".to_owned();
                host.features = ["avx512".to_owned()].into();
            }
            5 => host.until_s = Some(1800),
            _ => {}
        }
    }
}

pub fn worlds(replicas: bool) -> impl Strategy<Value = World> {
    (2u32..7).prop_flat_map(move |hosts| {
        let relations = proptest::collection::vec((0u8..6, 0usize..40, 0usize..40, 0..hosts), 0..3);
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
                    special(&mut world, &flags);
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
                            4 => Relation::Together(Scope::Site, members),
                            5 => Relation::Only(members, vec![HostIx(host), HostIx(0)]),
                            _ => Relation::Apart(Scope::Site, members),
                        });
                    }
                    world
                },
            )
    })
}

pub fn objectives() -> impl Strategy<Value = Objective> {
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

pub fn question(objective: Objective) -> Question {
    Question {
        objective,
        moves_at_most: None,
        bytes_at_most: None,
        memory_bytes_at_most: None,
        budget: Budget { work: 16_000 },
        seed: 7,
        lanes: 2,
    }
}

/// Questions with and without limits.
pub fn questions() -> impl Strategy<Value = Question> {
    let most = proptest::option::weighted(0.4, 0u32..6);
    (objectives(), most).prop_map(|(objective, moves_at_most)| Question {
        moves_at_most,
        ..question(objective)
    })
}
