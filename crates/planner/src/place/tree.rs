//! Hosts in trees, one for each model, so that the best for a domain that comes from nowhere is found without a look at each.
//!
//! A node knows, of all hosts under it, the least of each mark and the most room of each kind. What the least marks weigh is
//! never above what any of these hosts weighs, to the last bit ([`crate::objectives::Weighing`]); so that what is passed
//! over is never better than what is found. A change of a host costs its way to the root.

use estive_world::{HostIx, Indexed};

use crate::KINDS;
use crate::books::Books;
use crate::objectives::{Arrivals, MARKS, Weighing};
use crate::room::Amounts;

/// Hosts below a lowest node, at the most.
const LEAF: usize = 4;
/// Fewer hosts for each model on average, and a look at each costs no more.
const EACH_AT_LEAST: usize = 8;

/// What is known of a host, or of all below a node.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// The least of each mark.
    marks: [f64; MARKS],
    /// The most that is free of each kind.
    free: [u64; KINDS],
    /// The first host.
    first: HostIx,
}

impl Node {
    fn of(books: &Books<'_>, term: &dyn Arrivals, host: HostIx) -> Self {
        let (taken, room) = (books.taken(host), books.ground.rooms.open(host));
        Self {
            marks: term.marks(books, host),
            free: std::array::from_fn(|kind| room.0[kind].saturating_sub(taken.0[kind])),
            first: host,
        }
    }

    fn join(&mut self, other: &Self) {
        for mark in 0..MARKS {
            self.marks[mark] = self.marks[mark].min(other.marks[mark]);
        }
        for kind in 0..KINDS {
            self.free[kind] = self.free[kind].max(other.free[kind]);
        }
        self.first = self.first.min(other.first);
    }

    fn admits(&self, needs: &Amounts) -> bool {
        (0..KINDS).all(|kind| needs.0[kind] <= self.free[kind])
    }
}

/// The hosts of one model: single ones in an order in which neighbours are alike, and a full binary tree over them, its root
/// at 1. Of n hosts, node k of the 2^d at depth d has those from k × n ÷ 2^d to (k + 1) × n ÷ 2^d.
#[derive(Debug, Clone)]
struct Stand {
    hosts: Vec<Node>,
    nodes: Vec<Node>,
    /// How many nodes are lowest ones.
    lowest: usize,
}

impl Stand {
    fn below(&self, node: usize) -> std::ops::Range<usize> {
        let (number, count) = (node - self.lowest, self.hosts.len());
        number * count / self.lowest..(number + 1) * count / self.lowest
    }

    /// Sorts hosts so that halves of halves are alike in the mark in which they differ most, as far as that matters.
    fn sort(hosts: &mut [Node], parts: usize, matters: &[f64; MARKS]) {
        if parts < 2 {
            return;
        }
        let spread = |mark: usize| {
            let of = hosts.iter().map(|host| host.marks[mark]);
            let (low, high) = of.fold((f64::MAX, f64::MIN), |(low, high), mark| {
                (low.min(mark), high.max(mark))
            });
            (high - low) * matters[mark]
        };
        let widest = (0..MARKS)
            .map(|mark| (mark, spread(mark)))
            .fold(
                (0, 0.0),
                |most, next| if next.1 > most.1 { next } else { most },
            );
        let middle = hosts.len() / 2;
        if widest.1 > 0.0 {
            let key = |host: &Node| host.marks[widest.0];
            hosts.select_nth_unstable_by(middle, |one, other| {
                key(one)
                    .total_cmp(&key(other))
                    .then(one.first.cmp(&other.first))
            });
        } else {
            hosts.sort_unstable_by_key(|host| host.first);
            return;
        }
        let (low, high) = hosts.split_at_mut(middle);
        Self::sort(low, parts / 2, matters);
        Self::sort(high, parts / 2, matters);
    }

    fn new(mut hosts: Vec<Node>, matters: &[f64; MARKS]) -> Self {
        let lowest = hosts.len().div_ceil(LEAF).next_power_of_two();
        // A node's part of the hosts may differ by one from the half that was sorted into it: its bound is right anyway.
        Self::sort(&mut hosts, lowest, matters);
        let mut stand = Self {
            nodes: vec![hosts[0]; lowest * 2],
            hosts,
            lowest,
        };
        for node in (1..stand.lowest * 2).rev() {
            stand.sum_up(node);
        }
        stand
    }

    fn sum_up(&mut self, node: usize) {
        let mut sum;
        if node >= self.lowest {
            let below = &self.hosts[self.below(node)];
            // With at least as many hosts as lowest nodes, none is without.
            sum = below[0];
            below[1..].iter().for_each(|host| sum.join(host));
        } else {
            sum = self.nodes[node * 2];
            sum.join(&self.nodes[node * 2 + 1]);
        }
        self.nodes[node] = sum;
    }

    /// Sums up from a host to the root.
    fn renew(&mut self, seat: usize) {
        let mut node = self.lowest + ((seat + 1) * self.lowest - 1) / self.hosts.len();
        while node > 0 {
            self.sum_up(node);
            node /= 2;
        }
    }
}

/// A domain that looks for a host.
pub(super) struct Seek<'a> {
    /// What there must be room for.
    pub needs: &'a Amounts,
    /// The term's weight.
    pub weight: f64,
    /// What else a host must pass; asked of few.
    pub may: &'a mut dyn FnMut(HostIx) -> bool,
}

/// Trees over some hosts.
#[derive(Debug, Clone)]
pub(super) struct HostTree {
    stands: Vec<Stand>,
    /// By host: its stand and its place there.
    seats: Vec<Option<(u32, u32)>>,
    matters: [f64; MARKS],
    hosts: Vec<HostIx>,
    renewed: usize,
}

impl HostTree {
    /// Over these hosts; none where they are of so many models that it gains nothing. `matters`: how much each mark does.
    pub fn new(
        books: &Books<'_>,
        term: &dyn Arrivals,
        hosts: &[HostIx],
        matters: [f64; MARKS],
    ) -> Option<Self> {
        let mut tree = Self {
            stands: Vec::new(),
            seats: vec![None; books.nowhere().at() + 1],
            matters,
            hosts: hosts.to_vec(),
            renewed: 0,
        };
        tree.grow(books, term);
        (tree.stands.len() * EACH_AT_LEAST <= hosts.len()).then_some(tree)
    }

    fn grow(&mut self, books: &Books<'_>, term: &dyn Arrivals) {
        let mut hosts = self.hosts.clone();
        hosts.sort_by_key(|&host| (term.model(host), host));
        self.stands = hosts
            .chunk_by(|&one, &other| term.model(one) == term.model(other))
            .map(|hosts| {
                let known = hosts.iter().map(|&host| Node::of(books, term, host));
                Stand::new(known.collect(), &self.matters)
            })
            .collect();
        for (number, stand) in self.stands.iter().enumerate() {
            for (seat, host) in stand.hosts.iter().enumerate() {
                self.seats[host.first.at()] = Some((number as u32, seat as u32));
            }
        }
        self.renewed = 0;
    }

    /// Follows what has become of some hosts. Once in a while hosts are sorted anew, as neighbours are no longer alike.
    pub fn follow(&mut self, books: &Books<'_>, term: &dyn Arrivals, changed: &[HostIx]) {
        if self.renewed + changed.len() > self.hosts.len() {
            return self.grow(books, term);
        }
        self.renewed += changed.len();
        for &host in changed {
            let Some((stand, seat)) = self.seats[host.at()] else {
                continue;
            };
            let (stand, seat) = (&mut self.stands[stand as usize], seat as usize);
            stand.hosts[seat] = Node::of(books, term, host);
            stand.renew(seat);
        }
    }

    /// How a domain weighs, by stand; none if for this one more than hosts' marks decide.
    pub fn weigh(
        &self,
        mut of: impl FnMut(HostIx) -> Option<Weighing>,
        into: &mut Vec<Weighing>,
    ) -> Option<()> {
        into.clear();
        for stand in &self.stands {
            into.push(of(stand.hosts[0].first)?);
        }
        Some(())
    }

    /// The least that the value rises on any host that will do.
    pub fn least(&self, weighings: &[Weighing], seek: &mut Seek<'_>) -> Option<f64> {
        let mut roots: Vec<(f64, usize)> = (self.stands.iter().zip(weighings).enumerate())
            .map(|(number, (stand, weighing))| {
                (seek.weight * weighing.rise(&stand.nodes[1].marks), number)
            })
            .collect();
        roots.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let mut least: Option<f64> = None;
        for (root, number) in roots {
            if least.is_some_and(|least| root >= least) {
                break;
            }
            let (stand, weighing) = (&self.stands[number], &weighings[number]);
            let rise = |node: &Node| seek.weight * weighing.rise(&node.marks);
            let mut left: Vec<(f64, usize)> = Vec::with_capacity(32);
            if stand.nodes[1].admits(seek.needs) {
                left.push((root, 1));
            }
            while let Some((bound, node)) = left.pop() {
                if least.is_some_and(|least| bound >= least) {
                    continue;
                }
                if node >= stand.lowest {
                    for host in &stand.hosts[stand.below(node)] {
                        let by = rise(host);
                        if least.is_none_or(|least| by < least)
                            && host.admits(seek.needs)
                            && (seek.may)(host.first)
                        {
                            least = Some(by);
                        }
                    }
                    continue;
                }
                let mut next = [node * 2, node * 2 + 1].map(|child| {
                    let known = &stand.nodes[child];
                    (known.admits(seek.needs).then(|| rise(known)), child)
                });
                // The better one is looked at first: it is put on top.
                if next[0].0 <= next[1].0 {
                    next.swap(0, 1);
                }
                left.extend(next.into_iter().filter_map(|(by, child)| {
                    let by = by?;
                    least.is_none_or(|least| by < least).then_some((by, child))
                }));
            }
        }
        least
    }

    /// The first host on which the value rises by no more than `most`, and by how much.
    pub fn first_within(
        &self,
        most: f64,
        weighings: &[Weighing],
        seek: &mut Seek<'_>,
    ) -> Option<(HostIx, f64)> {
        let mut found: Option<(HostIx, f64)> = None;
        self.within(most, weighings, seek, |host, by| {
            found = Some((host, by));
            Some(host)
        });
        found
    }

    /// All hosts on which the value rises by no more than `most`, in order.
    pub fn all_within(
        &self,
        most: f64,
        weighings: &[Weighing],
        seek: &mut Seek<'_>,
    ) -> Vec<(HostIx, f64)> {
        let mut found = Vec::new();
        self.within(most, weighings, seek, |host, by| {
            found.push((host, by));
            None
        });
        found.sort_unstable_by_key(|&(host, _)| host);
        found
    }

    /// Shows hosts on which the value rises by no more than `most`, and none from the one on that was answered last.
    fn within(
        &self,
        most: f64,
        weighings: &[Weighing],
        seek: &mut Seek<'_>,
        mut show: impl FnMut(HostIx, f64) -> Option<HostIx>,
    ) {
        let mut until: Option<HostIx> = None;
        for (stand, weighing) in self.stands.iter().zip(weighings) {
            let mut left: Vec<usize> = Vec::with_capacity(32);
            left.push(1);
            while let Some(node) = left.pop() {
                let passes = |known: &Node, until: Option<HostIx>| {
                    until.is_none_or(|until| known.first < until)
                        && known.admits(seek.needs)
                        && seek.weight * weighing.rise(&known.marks) <= most
                };
                if !passes(&stand.nodes[node], until) {
                    continue;
                }
                if node >= stand.lowest {
                    for host in &stand.hosts[stand.below(node)] {
                        if passes(host, until) && (seek.may)(host.first) {
                            let by = seek.weight * weighing.rise(&host.marks);
                            until = show(host.first, by).or(until);
                        }
                    }
                    continue;
                }
                let (one, other) = (node * 2, node * 2 + 1);
                // The one with the first host is looked at first.
                if stand.nodes[one].first < stand.nodes[other].first {
                    left.extend([other, one]);
                } else {
                    left.extend([one, other]);
                }
            }
        }
    }
}
