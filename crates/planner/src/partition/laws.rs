//! What must hold of every partition, whatever the graph.

use proptest::prelude::*;

use super::placing::Placing;
use super::{Effort, Graph, NOWHERE, Problem, Sizes, partition};

const EFFORT: Effort = Effort {
    seed: 1,
    lanes: 4,
    work: 10_000,
};

fn cliques(count: u32, size: u32) -> Graph {
    let mut pairs = Vec::new();
    for clique in 0..count {
        for one in 0..size {
            for other in one + 1..size {
                pairs.push((clique * size + one, clique * size + other, 10));
            }
        }
        let next = (clique + 1) % count;
        pairs.push((clique * size, next * size, 1));
    }
    Graph::of_pairs((count * size) as usize, &pairs)
}

fn grid(side: u32) -> Graph {
    let mut pairs = Vec::new();
    for row in 0..side {
        for column in 0..side {
            let own = row * side + column;
            if column + 1 < side {
                pairs.push((own, own + 1, 40));
            }
            if row + 1 < side {
                pairs.push((own, own + side, 40));
            }
        }
    }
    Graph::of_pairs((side * side) as usize, &pairs)
}

/// `hosts` with room for so many.
fn even(graph: Graph, hosts: usize, room: u64) -> Problem {
    let sizes = Sizes::equal(graph.vertices(), &[1]);
    Problem::new(graph, sizes, Sizes::equal(hosts, &[room]))
}

#[test]
fn what_talks_most_is_together_where_there_is_no_room_to_spare() {
    let problem = even(cliques(6, 5), 6, 5);
    let answer = partition(&problem, EFFORT).unwrap();
    assert_eq!(answer.cost, 6);
}

#[test]
fn a_grid_is_tiled() {
    let problem = even(grid(16), 16, 16);
    let answer = partition(
        &problem,
        Effort {
            work: 1_000_000,
            ..EFFORT
        },
    )
    .unwrap();
    // Four by four: three cuts of 16 edges in each direction.
    assert_eq!(answer.cost, 2 * 3 * 16 * 40);
}

#[test]
fn who_talks_to_very_many_is_followed_too() {
    // Two in the middle of 200 each, a few of which are tied to each other.
    let hub = |hub: u32, first: u32| (0..200).map(move |nth| (hub, first + nth, 3));
    let mut pairs: Vec<(u32, u32, u64)> = hub(0, 2).chain(hub(1, 202)).collect();
    pairs.extend((0..40).map(|nth| (2 + 5 * nth, 202 + 5 * nth, 1)));
    let problem = even(Graph::of_pairs(402, &pairs), 2, 201);
    let answer = partition(&problem, EFFORT).unwrap();
    assert_eq!(answer.cost, 40);
    assert_eq!(answer.cost, cost_of(&problem, &answer.host));
}

#[test]
fn sites_are_cut_where_least_is_said() {
    let mut problem = even(cliques(4, 4), 8, 2);
    problem.site_of = vec![0, 0, 0, 0, 1, 1, 1, 1];
    problem.far = 10;
    let answer = partition(&problem, EFFORT).unwrap();
    let site = |vertex: usize| problem.site_of[answer.host[vertex] as usize];
    for vertex in 0..16 {
        assert_eq!(site(vertex), site(vertex / 4 * 4));
    }
}

#[test]
fn a_move_is_made_when_it_gains_more_than_it_costs() {
    let graph = Graph::of_pairs(4, &[(0, 1, 100), (2, 3, 100)]);
    for (price, moves) in [(49, 2), (101, 0)] {
        let mut problem = even(graph.clone(), 2, 2);
        problem.start = vec![0, 1, 0, 1];
        problem.price = vec![price; 4];
        let answer = partition(&problem, EFFORT).unwrap();
        let moved = answer
            .host
            .iter()
            .zip(&problem.start)
            .filter(|(then, now)| then != now);
        assert_eq!(moved.count(), moves, "at {price}");
    }
}

#[test]
fn nobody_is_where_he_may_not_be() {
    let mut problem = even(cliques(2, 3), 3, 3);
    problem.class_of = vec![0, 0, 0, 0, 0, 1];
    problem.open = vec![vec![true; 3], vec![false, false, true]];
    problem.start = vec![1, NOWHERE, NOWHERE, NOWHERE, NOWHERE, NOWHERE];
    problem.still = vec![true, false, false, false, false, false];
    problem.apart = vec![vec![7], vec![7], vec![], vec![], vec![], vec![]];
    let answer = partition(&problem, EFFORT).unwrap();
    assert_eq!(answer.host[5], 2);
    assert_eq!(answer.host[0], 1);
    assert_ne!(answer.host[0], answer.host[1]);
}

#[test]
fn what_fits_nowhere_has_no_answer() {
    let problem = even(cliques(2, 3), 2, 2);
    assert_eq!(partition(&problem, EFFORT), None);
    let nothing = even(Graph::of_pairs(0, &[]), 2, 2);
    assert!(partition(&nothing, EFFORT).unwrap().host.is_empty());
}

/// Graphs with sizes of two kinds, uneven rooms, and a placement that keeps them.
fn worlds() -> impl Strategy<Value = Problem> {
    let vertices = 2..40usize;
    vertices.prop_flat_map(|count| {
        let end = 0..count as u32;
        let pairs = prop::collection::vec((end.clone(), end, 0..1000u64), 0..4 * count);
        let sizes = prop::collection::vec((0..6u64, 1..9u64), count);
        let start = prop::collection::vec(0..6u32, count);
        let slack = prop::collection::vec((0..8u64, 0..8u64), 6);
        let price = prop::collection::vec(0..400i64, count);
        (pairs, sizes, start, slack, price, any::<bool>()).prop_map(
            move |(pairs, sizes, start, slack, price, two_sites)| {
                let mut all = Sizes::new(2);
                let mut rooms = Sizes::new(2);
                for &(one, other) in &slack {
                    rooms.push(&[one, other]);
                }
                for (vertex, &(one, other)) in sizes.iter().enumerate() {
                    all.push(&[one, other]);
                    rooms.add(start[vertex] as usize, &[one, other]);
                }
                let mut problem = Problem::new(Graph::of_pairs(count, &pairs), all, rooms);
                problem.start = start;
                problem.price = price;
                problem.far = 10;
                if two_sites {
                    problem.site_of = vec![0, 0, 1, 1, 1, 1];
                }
                problem
            },
        )
    })
}

fn cost_of(problem: &Problem, host: &[u32]) -> i64 {
    let mut cost = 0;
    for vertex in 0..host.len() {
        for &(to, weight) in problem.graph.of(vertex) {
            if vertex < to as usize {
                cost += weight * problem.distance(host[vertex], host[to as usize]);
            }
        }
        cost += problem.price(vertex as u32, host[vertex]);
    }
    cost
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_keeps_the_rooms_and_is_no_worse_than_now(problem in worlds()) {
        let answer = partition(&problem, EFFORT).expect("the present placement is one");
        prop_assert_eq!(answer.cost, cost_of(&problem, &answer.host));
        prop_assert!(answer.cost <= cost_of(&problem, &problem.start));
        let mut load = Sizes::equal(6, &[0, 0]);
        for (vertex, &host) in answer.host.iter().enumerate() {
            load.add(host as usize, problem.sizes.of(vertex));
        }
        for host in 0..6 {
            for kind in 0..2 {
                prop_assert!(load.of(host)[kind] <= problem.rooms.of(host)[kind]);
            }
        }
        prop_assert_eq!(&answer, &partition(&problem, EFFORT).unwrap());
    }

    #[test]
    fn no_move_and_no_swap_is_left_that_gains(problem in worlds()) {
        let answer = partition(&problem, EFFORT).unwrap();
        let placing = Placing::new(&problem, answer.host.clone());
        for vertex in 0..answer.host.len() as u32 {
            for to in 0..6 {
                if to != answer.host[vertex as usize] && placing.admits(vertex, to) {
                    let mut host = answer.host.clone();
                    host[vertex as usize] = to;
                    prop_assert!(cost_of(&problem, &host) >= answer.cost);
                }
            }
            for other in 0..vertex {
                let (one, two) = (answer.host[vertex as usize], answer.host[other as usize]);
                if one != two
                    && placing.admits_for(vertex, two, other)
                    && placing.admits_for(other, one, vertex)
                {
                    let mut host = answer.host.clone();
                    host.swap(vertex as usize, other as usize);
                    prop_assert!(cost_of(&problem, &host) >= answer.cost);
                }
            }
        }
    }

    #[test]
    fn what_is_nowhere_is_placed_within_the_rooms(problem in worlds()) {
        let mut problem = problem;
        problem.start[0] = NOWHERE;
        if let Some(answer) = partition(&problem, EFFORT) {
            prop_assert!(Placing::new(&problem, answer.host).keeps_rules());
        }
    }
}
