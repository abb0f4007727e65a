//! A graph cut in two, and each side again, until each part is a host.

use super::dice::Dice;
use super::graph::Graph;
use super::halves::{Both, halved};
use super::problem::Problem;
use super::sizes::Sizes;

/// Everything over all hosts.
pub fn spread_all(problem: &Problem, dice: &mut Dice) -> Vec<u32> {
    let mut host = vec![0; problem.graph.vertices()];
    let mut number = vec![u32::MAX; host.len()];
    let members: Vec<u32> = (0..host.len() as u32).collect();
    let hosts: Vec<u32> = (0..problem.rooms.len() as u32).collect();
    let to = (&problem.rooms, &problem.site_of[..]);
    spread_on(
        problem,
        to,
        &members,
        &hosts,
        1,
        dice,
        &mut host,
        &mut number,
    );
    host
}

/// Cuts `members` over `hosts` of such rooms and sites, into `host`. Parts may come out over their room where sizes are
/// uneven.
///
/// `number` has a place for each vertex of the problem, all `u32::MAX`.
#[expect(
    clippy::too_many_arguments,
    reason = "scratch space is kept by who calls often"
)]
pub fn spread_on(
    problem: &Problem,
    (rooms, site_of): (&Sizes, &[u32]),
    members: &[u32],
    hosts: &[u32],
    tries: usize,
    dice: &mut Dice,
    host: &mut [u32],
    number: &mut [u32],
) {
    let graph = problem.graph.between(members, number);
    let sizes = problem.sizes.between(members);
    let mut cutter = Cutter {
        rooms,
        site_of,
        tries,
        dice,
        host,
    };
    cutter.cut(&graph, &sizes, members, hosts);
}

struct Cutter<'a> {
    rooms: &'a Sizes,
    site_of: &'a [u32],
    tries: usize,
    dice: &'a mut Dice,
    host: &'a mut [u32],
}

impl Cutter<'_> {
    fn cut(&mut self, graph: &Graph, sizes: &Sizes, members: &[u32], hosts: &[u32]) {
        if members.is_empty() {
            return;
        }
        if let [only] = hosts {
            for &member in members {
                self.host[member as usize] = *only;
            }
            return;
        }
        let sides = hosts.split_at(self.split_of(hosts));
        let room = [sides.0, sides.1].map(|side| {
            let hosts = side.iter().map(|&host| host as usize);
            self.rooms.sum_of(hosts)
        });
        let both = Both {
            graph,
            sizes,
            room: [&room[0], &room[1]],
        };
        let halves = halved(both, self.tries, self.dice);
        let mut number = vec![u32::MAX; members.len()];
        for (which, hosts) in [(0, sides.0), (1, sides.1)] {
            let there = 0..members.len() as u32;
            let there: Vec<u32> = there
                .filter(|&member| halves.side[member as usize] == which)
                .collect();
            let members: Vec<u32> = there.iter().map(|&at| members[at as usize]).collect();
            if let [only] = hosts {
                for &member in &members {
                    self.host[member as usize] = *only;
                }
                continue;
            }
            let graph = graph.between(&there, &mut number);
            self.cut(&graph, &sizes.between(&there), &members, hosts);
        }
    }

    /// Hosts stand site by site: in the middle of one site, else between the sites nearest to the middle.
    fn split_of(&self, hosts: &[u32]) -> usize {
        let site = |at: usize| self.site_of[hosts[at] as usize];
        let middle = hosts.len() / 2;
        if site(0) == site(hosts.len() - 1) {
            return middle;
        }
        (1..hosts.len())
            .filter(|&at| site(at - 1) != site(at))
            .min_by_key(|&at| at.abs_diff(middle))
            .expect("there are two sites")
    }
}
