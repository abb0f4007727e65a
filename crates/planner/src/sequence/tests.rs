//! Ways that are taken: what waits for what, who steps aside, and that no state of any is worse than the start.

use estive_world::{
    Act, DomainIx, HostIx, HostPower, Indexed, Plan, Reason, Relation, Scope, Step, World,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Goal, duration_s, sequence};
use crate::lint;
use crate::samples::{domain, host, plan, world};

fn hosts(numbers: &[u32]) -> Vec<Option<HostIx>> {
    numbers.iter().map(|&number| Some(HostIx(number))).collect()
}

fn clean(world: &World, steps: &[Step]) {
    let plan: Plan = plan(steps.to_vec());
    let faults: Vec<String> = lint(world, &plan)
        .iter()
        .map(|fault| fault.say(world))
        .collect();
    assert_eq!(faults, Vec::<String>::new(), "{steps:#?}");
}

fn moves(steps: &[Step]) -> Vec<(u32, u32, bool, Vec<u32>)> {
    (steps.iter())
        .filter_map(|step| match step.act {
            Act::Move {
                domain, to, pivot, ..
            } => Some((
                domain.0,
                to.0,
                pivot,
                step.after.iter().map(|step| step.0).collect(),
            )),
            _ => None,
        })
        .collect()
}

/// Where everything is after the steps.
fn end(world: &World, steps: &[Step]) -> (Vec<Option<HostIx>>, Vec<Option<HostIx>>) {
    let mut hosts: Vec<Option<HostIx>> = world.domains.iter().map(|it| it.host).collect();
    let mut replicas: Vec<Option<HostIx>> = world.domains.iter().map(|it| it.replica).collect();
    for step in steps {
        match step.act {
            Act::Move {
                domain, from, to, ..
            } => {
                hosts[domain.at()] = Some(to);
                replicas[domain.at()] = replicas[domain.at()].and(Some(from));
            }
            Act::Place { domain, to } => hosts[domain.at()] = Some(to),
            Act::MoveReplica { domain, to, .. } => replicas[domain.at()] = Some(to),
            Act::SwitchOn { .. } | Act::SwitchOff { .. } => {}
        }
    }
    (hosts, replicas)
}

#[test]
fn two_that_change_places_need_a_third_host() {
    let full = |name| host(name, [4, 4, 0, 0]);
    let world = world(
        vec![full("a"), full("b"), full("c")],
        vec![
            domain("x", Some(0), [1, 3, 0, 0]),
            domain("y", Some(1), [1, 4, 0, 0]),
        ],
    );
    let steps = sequence(&world, &Goal::of(&world, hosts(&[1, 0]))).expect("a way");
    // The smaller one steps aside, the other goes, then it goes on.
    assert_eq!(
        moves(&steps),
        [
            (0, 2, true, vec![]),
            (1, 0, false, vec![0]),
            (0, 1, false, vec![1])
        ]
    );
    assert_eq!(
        steps[0].reason,
        Reason::MakesRoom {
            for_domain: DomainIx(1)
        }
    );
    clean(&world, &steps);
}

#[test]
fn without_a_third_host_there_is_no_way_and_it_says_why() {
    let full = |name| host(name, [4, 4, 0, 0]);
    let world = world(
        vec![full("a"), full("b")],
        vec![
            domain("x", Some(0), [1, 3, 0, 0]),
            domain("y", Some(1), [1, 4, 0, 0]),
        ],
    );
    let stuck = sequence(&world, &Goal::of(&world, hosts(&[1, 0]))).expect_err("no way");
    assert_eq!(
        stuck.left[0].because,
        "x cannot go to b: b has no room for its memory"
    );
    assert_eq!(stuck.steps, []);
}

#[test]
fn one_that_has_nothing_to_do_steps_aside_and_comes_back() {
    // x goes to b and y to a, but both are too large for c, where only z fits.
    let world = world(
        vec![
            host("a", [9, 6, 0, 0]),
            host("b", [9, 6, 0, 0]),
            host("c", [9, 2, 0, 0]),
        ],
        vec![
            domain("x", Some(0), [1, 4, 0, 0]),
            domain("y", Some(1), [1, 4, 0, 0]),
            domain("z", Some(1), [1, 2, 0, 0]),
        ],
    );
    let steps = sequence(&world, &Goal::of(&world, hosts(&[1, 0, 1])));
    // Even so 4 and 4 do not fit beside each other.
    assert!(steps.is_err());
    let mut roomy = world.clone();
    roomy.hosts[1].capacity.0[1] = 8;
    roomy.domains[2].reserved.0[1] = 2;
    let steps = sequence(&roomy, &Goal::of(&roomy, hosts(&[1, 0, 1]))).expect("a way");
    assert_eq!(moves(&steps).len(), 4);
    assert_eq!(end(&roomy, &steps).0, hosts(&[1, 0, 1]));
    clean(&roomy, &steps);
}

#[test]
fn a_host_is_waited_for_and_an_empty_one_is_switched_off_last() {
    let mut off = host("b", [4, 4, 0, 0]);
    off.state = HostPower::Off;
    let world = world(
        vec![host("a", [4, 4, 0, 0]), off],
        vec![
            domain("x", Some(0), [1, 2, 0, 0]),
            domain("y", Some(0), [1, 2, 0, 0]),
        ],
    );
    let mut target = Goal::of(&world, hosts(&[1, 1]));
    target.off.push(HostIx(0));
    let steps = sequence(&world, &target).expect("a way");
    assert_eq!(steps[0].act, Act::SwitchOn { host: HostIx(1) });
    assert_eq!(steps[0].figures.duration_s, 60.0);
    assert_eq!(
        moves(&steps),
        [(0, 1, false, vec![0]), (1, 1, false, vec![0])]
    );
    assert_eq!(steps[3].act, Act::SwitchOff { host: HostIx(0) });
    assert_eq!(steps[3].after.len(), 2);
    assert!(duration_s(&steps) > 70.0);
    clean(&world, &steps);
}

#[test]
fn a_host_that_is_not_empty_stays_on() {
    let world = world(vec![host("a", [4; 4])], vec![domain("x", Some(0), [1; 4])]);
    let mut target = Goal::now(&world);
    target.off.push(HostIx(0));
    let stuck = sequence(&world, &target).expect_err("no way");
    assert_eq!(stuck.left[0].because, "a is not empty");
}

#[test]
fn no_more_moves_at_once_than_a_host_bears() {
    let domains = (0..7)
        .map(|at| domain(&format!("d{at}"), Some(0), [1, 100 * at, 0, 0]))
        .collect();
    let world = world(
        vec![host("a", [99; 4]), host("b", [99, 9999, 0, 0])],
        domains,
    );
    let steps = sequence(&world, &Goal::of(&world, hosts(&[1; 7]))).expect("a way");
    assert_eq!(moves(&steps).iter().filter(|it| it.3.is_empty()).count(), 2);
    clean(&world, &steps);
}

#[test]
fn a_domain_with_a_replica_goes_where_its_disks_are() {
    let mut x = domain("x", Some(0), [1, 2, 3, 0]);
    x.replica = Some(HostIx(1));
    let world = world(
        (0..4).map(|at| host(&format!("h{at}"), [4; 4])).collect(),
        vec![x],
    );
    let to = |host: u32, replica: u32| {
        let mut target = Goal::of(&world, hosts(&[host]));
        target.replicas[0] = Some(HostIx(replica));
        let steps = sequence(&world, &target).expect("a way");
        clean(&world, &steps);
        assert_eq!(end(&world, &steps), (hosts(&[host]), hosts(&[replica])));
        steps.len()
    };
    assert_eq!(to(0, 1), 0);
    assert_eq!(to(1, 0), 1);
    assert_eq!(to(0, 2), 1);
    assert_eq!(to(1, 2), 2);
    assert_eq!(to(2, 0), 2);
    assert_eq!(to(2, 1), 3);
    assert_eq!(to(2, 3), 3);
}

#[test]
fn what_is_under_way_is_left_alone_and_counts_at_both_ends() {
    let mut world = world(
        vec![host("a", [4, 4, 0, 0]), host("b", [4, 4, 0, 0])],
        vec![
            domain("x", Some(0), [1, 3, 0, 0]),
            domain("y", Some(1), [1, 2, 0, 0]),
        ],
    );
    world.operations.push(estive_world::Operation {
        domain: DomainIx(0),
        to: HostIx(1),
    });
    let stuck = sequence(&world, &Goal::of(&world, hosts(&[0, 0]))).expect_err("y must wait");
    assert_eq!(
        stuck.left[0].because,
        "y cannot go to a: a has no room for its memory"
    );
}

#[test]
fn those_that_are_apart_change_places_without_meeting() {
    let mut world = world(
        (0..3).map(|at| host(&format!("h{at}"), [9; 4])).collect(),
        vec![domain("x", Some(0), [1; 4]), domain("y", Some(1), [1; 4])],
    );
    let both = vec![DomainIx(0), DomainIx(1)];
    world
        .rules
        .relations
        .push(Relation::Apart(Scope::Host, both));
    let steps = sequence(&world, &Goal::of(&world, hosts(&[1, 0]))).expect("a way");
    assert_eq!(steps.len(), 3);
    clean(&world, &steps);
}

/// Fills hosts twice at random: the first is the world, the second the target.
pub fn random(random: &mut StdRng) -> (World, Goal) {
    let count = random.random_range(2..9usize);
    let mut world = world(
        (0..count)
            .map(|at| {
                host(
                    &format!("h{at}"),
                    [
                        random.random_range(4..12),
                        random.random_range(8..24),
                        20,
                        9,
                    ],
                )
            })
            .collect(),
        Vec::new(),
    );
    world.rules.moves_per_host = random.random_range(1..4);
    let replicas = random.random_bool(0.3);
    let mut hosts = Vec::new();
    let mut loads = vec![[[0u64; 3]; 2]; count];
    let tries = random.random_range(5..40);
    for at in 0..tries {
        let size = [
            random.random_range(1..5),
            random.random_range(1..8),
            random.random_range(0..4),
        ];
        let room = |loads: &[[[u64; 3]; 2]], when: usize, host: usize| {
            let has = world.hosts[host].capacity.0;
            let cpu = loads[host][when][0] + size[0] <= has[0] * 4;
            cpu && (1..3).all(|kind| loads[host][when][kind] + size[kind] <= has[kind])
        };
        let (from, to) = (random.random_range(0..count), random.random_range(0..count));
        let replica = (from + 1) % count;
        let disk_room = |when: usize, host: usize| loads[host][when][2] + size[2] <= 20;
        if !room(&loads, 0, from) || !room(&loads, 1, to) {
            continue;
        }
        let mut new = domain(
            &format!("d{at}"),
            Some(from as u32),
            [size[0], size[1], size[2], 0],
        );
        let with = replicas
            && replica != from
            && disk_room(0, replica)
            && replica != to
            && disk_room(1, replica);
        if with {
            new.replica = Some(HostIx::of(replica));
            loads[replica][0][2] += size[2];
            loads[replica][1][2] += size[2];
        }
        for kind in 0..3 {
            loads[from][0][kind] += size[kind];
            loads[to][1][kind] += size[kind];
        }
        world.domains.push(new);
        hosts.push((Some(HostIx::of(to)), with.then(|| HostIx::of(replica))));
    }
    let mut target = Goal::of(&world, hosts.iter().map(|it| it.0).collect());
    target.replicas = hosts.iter().map(|it| it.1).collect();
    (world, target)
}

#[test]
fn every_way_is_clean_and_ends_where_it_should() {
    let (mut found, mut pivots) = (0, 0);
    for seed in 0..1000 {
        let (world, target) = random(&mut StdRng::seed_from_u64(seed));
        match sequence(&world, &target) {
            Ok(steps) => {
                clean(&world, &steps);
                assert_eq!(
                    end(&world, &steps),
                    (target.hosts, target.replicas),
                    "seed {seed}"
                );
                found += 1;
                pivots += moves(&steps).iter().filter(|it| it.2).count();
            }
            Err(stuck) => clean(&world, &stuck.steps),
        }
    }
    assert!(found > 800, "{found} ways, {pivots} pivots");
    assert!(pivots > 20, "{pivots} pivots");
}
