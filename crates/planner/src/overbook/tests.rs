//! How many may be sold: by hand, and against every set of active ones.

use estive_world::{DomainIx, DomainLife, HostIx, Relation};
use proptest::prelude::*;

use super::*;
use crate::samples::{domain, host, world};

fn idle(mut domain: Domain) -> Domain {
    domain.life = DomainLife::Idle;
    domain
}

#[test]
fn as_many_more_as_have_nothing_to_do() {
    // Two hosts of two cores, with memory for three each: four places, one of them idle.
    let each = [1, 2, 0, 0];
    let world = world(
        vec![host("a", [2, 6, 0, 0]), host("b", [2, 6, 0, 0])],
        vec![
            domain("w", Some(0), each),
            domain("x", Some(0), each),
            domain("y", Some(1), each),
            idle(domain("z", Some(1), each)),
        ],
    );
    let found = overbook(&world, &domain("new", None, each));
    assert_eq!(
        (
            found.sold,
            found.idle,
            found.may_be_sold,
            found.active_at_most
        ),
        (4, 1, 5, 4)
    );
    assert!(found.exact && found.holds && found.check());
    assert_eq!(
        found.stops.as_ref().map(|cut| (cut.need, cut.reach)),
        Some((5, 4))
    );
    let seated = found.arrange(&[4]).expect("seats");
    assert_eq!(seated.iter().map(|it| it.active + it.idle).sum::<u64>(), 5);
    assert_eq!(found.arrange(&[5]), None);
}

#[test]
fn idle_ones_keep_their_memory() {
    let each = [1, 3, 0, 0];
    let world = world(
        vec![host("a", [4, 6, 0, 0])],
        vec![
            idle(domain("x", Some(0), each)),
            idle(domain("y", Some(0), each)),
        ],
    );
    let found = overbook(&world, &domain("new", None, each));
    assert_eq!((found.may_be_sold, found.holds), (2, true));
    assert!(found.check());
}

#[test]
fn a_fence_leaves_less() {
    let each = [1, 1, 0, 0];
    let mut world = world(
        vec![host("a", [1, 9, 0, 0]), host("b", [3, 9, 0, 0])],
        vec![
            domain("x", Some(0), each),
            idle(domain("y", Some(0), each)),
            idle(domain("z", Some(1), each)),
        ],
    );
    assert_eq!(overbook(&world, &domain("new", None, each)).may_be_sold, 6);
    // x and y only on a, which has one core: both may be active, if two may be.
    let fenced = vec![DomainIx(0), DomainIx(1)];
    world
        .rules
        .relations
        .push(Relation::Only(fenced, vec![HostIx(0)]));
    let found = overbook(&world, &domain("new", None, each));
    assert_eq!((found.may_be_sold, found.active_at_most), (3, 1));
    assert!(found.check() && found.exact);
}

#[test]
fn places_of_many_sizes_give_a_lower_bound() {
    let world = world(
        vec![host("a", [4, 10, 0, 0])],
        vec![
            domain("x", Some(0), [1, 1, 0, 0]),
            idle(domain("y", Some(0), [1, 1, 0, 0])),
        ],
    );
    let found = overbook(&world, &domain("new", None, [2, 3, 0, 0]));
    assert_eq!((found.may_be_sold, found.exact), (3, false));
    assert!(found.check());
}

#[test]
fn what_does_not_hold_now_says_so() {
    let each = [1, 1, 0, 0];
    let world = world(
        vec![host("a", [1, 9, 0, 0])],
        vec![domain("x", Some(0), each), domain("y", Some(0), each)],
    );
    let found = overbook(&world, &domain("new", None, each));
    assert_eq!((found.may_be_sold, found.holds), (2, false));
    assert!(found.check());
}

/// Whether these can be seated, by trying every host for each.
fn seats(domains: &[(bool, Vec<usize>)], left: &mut Vec<(u64, u64)>) -> bool {
    let Some(((active, hosts), rest)) = domains.split_first() else {
        return true;
    };
    hosts.iter().any(|&host| {
        let (for_active, all) = left[host];
        if all == 0 || *active && for_active == 0 {
            return false;
        }
        left[host] = (for_active - u64::from(*active), all - 1);
        let found = seats(rest, left);
        left[host] = (for_active, all);
        found
    })
}

proptest! {
    #[test]
    fn the_inequalities_hold_just_where_every_set_can_be_seated(
        hosts in prop::collection::vec((0..3u64, 0..3u64), 1..4),
        groups in prop::collection::vec((0..3u64, prop::collection::vec(any::<bool>(), 3)), 1..4),
        at_most in 0..6u64,
    ) {
        let places: Vec<Places> = hosts.iter().enumerate().map(|(at, &(active, more))| Places {
            host: HostIx::of(at),
            active,
            all: active + more,
        }).collect();
        let groups: Vec<Seats> = groups.into_iter().map(|(count, allowed)| Seats {
            count,
            hosts: (0..places.len()).filter(|&at| allowed[at]).map(HostIx::of).collect(),
        }).collect();
        let pairs: Vec<(u64, u64)> = places.iter().map(|it| (it.active, it.all)).collect();
        let counts: Vec<u64> = groups.iter().map(|it| it.count).collect();
        // Every set of active ones, up to exchange within a group.
        let mut sets: Vec<Vec<u64>> = vec![Vec::new()];
        for &count in &counts {
            sets = sets.iter().flat_map(|set| (0..=count).map(|active| {
                let mut set = set.clone();
                set.push(active);
                set
            })).collect();
        }
        sets.retain(|set| set.iter().sum::<u64>() <= at_most);
        let proof = Overbooking {
            sold: 0, idle: 0, may_be_sold: 0, active_at_most: at_most, exact: true, holds: true,
            places: places.clone(), groups: groups.clone(), stops: None,
        };
        let mut all_seated = true;
        for set in &sets {
            let domains: Vec<(bool, Vec<usize>)> = groups.iter().zip(set).flat_map(|(group, &active)| {
                let hosts: Vec<usize> = group.hosts.iter().map(|host| host.at()).collect();
                (0..group.count).map(move |member| (member < active, hosts.clone()))
            }).collect();
            let seated = seats(&domains, &mut pairs.clone());
            prop_assert_eq!(proof.arrange(set).is_some(), seated, "{:?}", set);
            all_seated &= seated;
        }
        let hall = Hall::new(&places, &groups);
        prop_assert_eq!(hall.broken(&counts, at_most).is_none(), all_seated);
    }
}
