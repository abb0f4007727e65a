//! What else was looked at: what shorter plans would reach, or, where nothing is done, which single moves came nearest.
//!
//! Shorter plans are made of the moves that were found: of those that are left, the one that gains most is taken next, as
//! in a search for so many moves, but with a choice of these only. A move's gain is looked at again when it comes first;
//! as gains mostly shrink as others are taken, that is some two looks a move.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use estive_world::{Alternative, DomainIx, Indexed};

use crate::ledger::Ledger;
use crate::objectives::Value;
use crate::places::{Change, Spot};
use crate::search::{Limits, Seeker};

/// Quarters of a plan's moves that are told.
const QUARTERS: [usize; 3] = [1, 2, 3];
/// Looks for each move, on the mean.
const LOOKS: usize = 8;
/// Moves that are told where nothing is done.
const NEAREST: usize = 3;
/// Candidates that are looked at for them.
const CANDIDATES: u64 = 200_000;

/// What was not taken, shortest first. `ledger` stands where the world does; `spots`: where everything is to be.
pub(crate) fn alternatives(ledger: Ledger<'_>, spots: &[Spot]) -> Vec<Alternative> {
    let moves: Vec<Change> = (spots.iter().enumerate())
        .map(|(number, &to)| Change {
            domain: DomainIx::of(number),
            to,
        })
        .filter(|change| ledger.spot(change.domain) != change.to)
        .collect();
    if moves.is_empty() {
        nearest(ledger)
    } else {
        shorter(ledger, &moves)
    }
}

/// A move with what it was last seen to gain.
struct Seen {
    by: Value,
    change: Change,
    /// How many were taken then.
    taken: usize,
}

impl Ord for Seen {
    /// The greatest is the one that gains most.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.by.broken.cmp(&self.by.broken))
            .then_with(|| {
                let ranks = other.by.ranks.iter().zip(&self.by.ranks);
                ranks.fold(Ordering::Equal, |order, (other, own)| {
                    order.then_with(|| other.total_cmp(own))
                })
            })
            .then_with(|| other.change.cmp(&self.change))
    }
}

impl PartialOrd for Seen {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Seen {}

fn shorter(mut ledger: Ledger<'_>, moves: &[Change]) -> Vec<Alternative> {
    let count = moves.len();
    let lengths: Vec<usize> = (QUARTERS.iter())
        .map(|quarter| count * quarter / 4)
        .filter(|&length| length > 0)
        .collect();
    let mut order = Vec::with_capacity(count);
    let mut told = Vec::new();
    let mut heap: BinaryHeap<Seen> = (moves.iter())
        .map(|&change| Seen {
            by: ledger.delta(&[change]),
            change,
            taken: 0,
        })
        .collect();
    // What has no room yet waits for whatever is taken next.
    let mut waiting: Vec<Change> = Vec::new();
    let mut looks = count * LOOKS;
    while let Some(seen) = heap.pop() {
        let change = seen.change;
        if ledger.books().may(change.domain, change.to).is_err() {
            waiting.push(change);
            continue;
        }
        if seen.taken < order.len() && looks > 0 {
            looks -= 1;
            let by = ledger.delta(&[change]);
            heap.push(Seen {
                by,
                change,
                taken: order.len(),
            });
            continue;
        }
        let start = ledger.spot(change.domain);
        let bytes = (ledger.ground().toll)
            .cost(change.domain, start, change.to)
            .bytes;
        ledger.apply(change);
        order.push(bytes);
        if lengths.contains(&order.len()) {
            told.push((order.len(), order.iter().sum::<u64>(), ledger.value()));
        }
        for change in waiting.drain(..) {
            if looks > 0 {
                looks -= 1;
                heap.push(Seen {
                    by: ledger.delta(&[change]),
                    change,
                    taken: order.len(),
                });
            }
        }
    }
    // Whatever could only go together with others is there in the end.
    for &change in moves {
        if ledger.spot(change.domain) != change.to {
            ledger.apply(change);
        }
    }
    let whole = ledger.value();
    told.into_iter()
        .map(|(length, bytes, value)| shorter_one(length, count, bytes, value, whole))
        .collect()
}

fn shorter_one(length: usize, count: usize, bytes: u64, value: Value, whole: Value) -> Alternative {
    let rest = count - length;
    let because = if value.broken > whole.broken {
        format!("the other {rest} mend what would stay broken")
    } else {
        let more = value.ranks[0] - whole.ranks[0];
        format!("the other {rest} gain {more:.6} more")
    };
    Alternative {
        what: format!("{length} of the {count} moves"),
        moves: length as u64,
        bytes,
        value: value.ranks[0],
        because,
    }
}

/// Single moves that would have been better but for what they cost.
fn nearest(ledger: Ledger<'_>) -> Vec<Alternative> {
    let before = ledger.value();
    let mut seeker = Seeker::new(ledger, Limits::NONE);
    let mut found: Vec<(f64, DomainIx, Spot, f64)> = Vec::new();
    for domain in (0..seeker.spots().len()).map(DomainIx::of) {
        if seeker.work() >= CANDIDATES {
            break;
        }
        let Some((value, to)) = seeker.best_of(domain) else {
            continue;
        };
        let gain = seeker.ledger().delta(&[Change { domain, to }]);
        if gain.broken == 0 && gain.ranks[0] < 0.0 {
            found.push((value.ranks[0], domain, to, gain.ranks[0]));
        }
    }
    found.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    found.truncate(NEAREST);
    let (ledger, world) = (seeker.ledger(), seeker.ledger().ground().world);
    (found.into_iter())
        .map(|(with_price, domain, to, gain)| {
            let start = ledger.spot(domain);
            let name = &world.domains[domain].name;
            let what = if to.host == start.host {
                format!("the replica of {name} to {}", world.hosts[to.replica].name)
            } else {
                format!("{name} to {}", world.hosts[to.host].name)
            };
            Alternative {
                what,
                moves: 1,
                bytes: ledger.ground().toll.cost(domain, start, to).bytes,
                value: before.ranks[0] + gain,
                because: if with_price < 0.0 {
                    "it is beyond the limits of the question".to_owned()
                } else {
                    format!("gains {:.6}, which costs {:.6}", -gain, with_price - gain)
                },
            }
        })
        .collect()
}
