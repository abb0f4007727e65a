//! Who belongs together in the patterns of the NAS parallel benchmarks, by the prose of the source (Dib 2010, section 5): the
//! volumes are made up to be as it says, until they are recorded from real runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use crate::{GroupRule, Grouping, Matrix, communities, groups};

fn matrix(pairs: &[(u32, u32, f64)]) -> Matrix {
    Matrix::of(pairs.iter().map(|&(one, other, volume)| {
        let name = |number| Arc::from(format!("vm{number}"));
        (name(one), name(other), volume)
    }))
}

fn members(grouping: &Grouping) -> Vec<Vec<&str>> {
    (grouping.groups.iter())
        .map(|group| group.members.keys().map(|name| &**name).collect())
        .collect()
}

fn all_to_all(count: u32, volume: f64) -> Vec<(u32, u32, f64)> {
    (1..=count)
        .flat_map(|one| (one + 1..=count).map(move |other| (one, other, volume)))
        .collect()
}

/// A ring of four from a number on.
fn ring(first: u32, volume: f64) -> Vec<(u32, u32, f64)> {
    let [a, b, c, d] = [first, first + 1, first + 2, first + 3];
    [(a, b), (b, d), (d, c), (c, a)]
        .map(|(one, other)| (one, other, volume))
        .to_vec()
}

#[test]
fn patterns_have_the_groups_that_the_source_saw() {
    let four = vec!["vm1", "vm2", "vm3", "vm4"];
    let rest = vec!["vm5", "vm6", "vm7", "vm8"];
    let eight = [four.clone(), rest.clone()].concat();
    let between = |volume| -> Vec<_> {
        let pairs = (1..=4).map(|one| (one, one + 4, volume));
        [ring(1, 30_000.0), ring(5, 30_000.0), pairs.collect()].concat()
    };
    let cg4 = vec![(1, 2, 1700.0), (3, 4, 1700.0), (2, 3, 420.0)];
    let ep = vec![(1, 2, 40.0), (1, 3, 4.0), (2, 4, 4.0)];
    type Pattern<'a> = (&'a str, Vec<(u32, u32, f64)>, Vec<Vec<&'a str>>);
    let table: [Pattern; 8] = [
        ("cg.A.4", cg4, vec![vec!["vm1", "vm2"], vec!["vm3", "vm4"]]),
        ("lu.A.4", ring(1, 31_000.0), vec![four.clone()]),
        ("lu.A.8", between(900.0), vec![four.clone(), rest]),
        ("mg.A.4", ring(1, 4_000.0), vec![four.clone()]),
        ("mg.A.8", between(20_000.0), vec![eight.clone()]),
        ("ep.A.4", ep, vec![]),
        ("bt.A.4", all_to_all(4, 9_000.0), vec![four]),
        ("ft.A.8", all_to_all(8, 700.0), vec![eight]),
    ];
    for (name, pairs, expected) in table {
        let found = groups(&matrix(&pairs), &GroupRule::default(), None);
        assert_eq!(members(&found), expected, "{name}");
    }
}

#[test]
fn communities_tell_two_rings_apart_and_say_nothing_of_silence() {
    let weak = (1..=4).map(|one| (one, one + 4, 900.0)).collect();
    let two = matrix(&[ring(1, 30_000.0), ring(5, 30_000.0), weak].concat());
    let found = communities(&two, 1.0, 7).unwrap();
    let sizes: Vec<usize> = found.iter().map(BTreeSet::len).collect();
    assert_eq!(sizes, [4, 4]);
    assert_eq!(communities(&two, 1.0, 7).unwrap(), found);
    assert!(communities(&matrix(&[]), 1.0, 7).unwrap().is_empty());
    assert!(communities(&two, f64::NAN, 7).is_err());
}

#[test]
fn a_group_stays_while_little_changes() {
    // vm3 reaches 0.5 of the mean, then a little less, then much less.
    let of = |volume| matrix(&[(1, 2, 10_000.0), (2, 3, volume)]);
    let rule = GroupRule::default();
    let first = groups(&of(5_000.0), &rule, None);
    assert_eq!(members(&first), [["vm1", "vm2", "vm3"]]);
    let second = groups(&of(4_500.0), &rule, Some(&first));
    assert_eq!(members(&second), [["vm1", "vm2", "vm3"]]);
    assert_eq!(
        members(&groups(&of(4_500.0), &rule, None)),
        [["vm1", "vm2"]]
    );
    let third = groups(&of(3_900.0), &rule, Some(&second));
    assert_eq!(members(&third), [["vm1", "vm2"]]);
    // Once out it does not come back as easily.
    let fourth = groups(&of(5_500.0), &rule, Some(&third));
    assert_eq!(members(&fourth), [["vm1", "vm2"]]);
    let why = &first.groups[0].members["vm3"];
    assert_eq!((&*why.with, why.volume), ("vm2", 5_000.0));
}

proptest! {
    #[test]
    fn names_mean_nothing(
        pairs in proptest::collection::vec((0u32..12, 0u32..12, 1u32..6), 0..40),
        turn in 1u32..12,
    ) {
        let of = |number: &dyn Fn(u32) -> u32| {
            let pairs: Vec<(u32, u32, f64)> = (pairs.iter())
                .map(|&(one, other, volume)| (number(one), number(other), f64::from(volume) * 400.0))
                .collect();
            let found = groups(&matrix(&pairs), &GroupRule::default(), None);
            let sets: BTreeSet<BTreeSet<u32>> = (found.groups.iter())
                .map(|group| group.members.keys().map(|name| name[2..].parse().unwrap()).collect())
                .collect();
            sets
        };
        let turned = |number: u32| (number + turn) % 12;
        let plain = of(&|number| number);
        let expected: BTreeSet<BTreeSet<u32>> = (plain.into_iter())
            .map(|set| set.into_iter().map(turned).collect())
            .collect();
        prop_assert_eq!(of(&turned), expected);
    }

    #[test]
    fn each_is_in_one_group_at_most_and_groups_hang_together(
        pairs in proptest::collection::vec((0u32..12, 0u32..12, 1u32..60), 0..60),
    ) {
        let pairs: Vec<(u32, u32, f64)> = (pairs.into_iter())
            .map(|(one, other, volume)| (one, other, f64::from(volume) * 100.0))
            .collect();
        let matrix = matrix(&pairs);
        let found = groups(&matrix, &GroupRule::default(), None);
        let mut seen = BTreeSet::new();
        for group in &found.groups {
            prop_assert!(group.members.len() > 1);
            for (name, why) in &group.members {
                prop_assert!(seen.insert(name.clone()));
                prop_assert!(group.members.contains_key(&why.with));
                prop_assert!(why.volume >= 300.0);
            }
        }
    }
}
