//! Where each domain should be, the way there, and why: pure functions of a world and a question.
//!
//! No I/O, no clock, no randomness but a seed.

mod about;
mod alternatives;
mod ask;
mod books;
mod broken;
mod capacity;
mod constraints;
mod explain;
mod failover;
mod ground;
mod host_set;
#[cfg(test)]
mod laws;
mod ledger;
mod lint;
mod objectives;
mod obstacle;
pub mod overbook;
pub mod partition;
mod place;
mod places;
mod plan;
mod power;
mod question;
mod relieve;
mod room;
#[cfg(test)]
mod samples;
mod schedule;
mod search;
mod sequence;
mod toll;
pub mod transfer;
mod way;

pub use about::About;
pub use ask::{Asked, asked, asked_or};
pub use books::Books;
pub use capacity::{Capacity, OfHost, capacity};
pub use explain::{Choice, Gain, choice, choices, why, why_not};
pub use failover::{Failure, without_place};
pub use ground::Ground;
pub use ledger::Ledger;
pub use lint::{Fault, lint};
pub use objectives::{Gauge, MOST_RANKS, Meter, Value};
pub use obstacle::Obstacle;
pub use overbook::{Overbooking, overbook};
pub use place::{NoPlace, Placed, Placer};
pub use places::{Change, Places, Spot, spots_of};
pub use plan::{Target, after, carried_out, plan, target};
pub use question::{Budget, Objective, Question, Term, Weighted};
pub use relieve::{Decision, Judged, Relief, Thresholds, Verdict, Watch, Whither, relieve};
pub use room::{Amounts, KINDS, Kind, Rooms, expected_use, held, ratio_of};
pub use schedule::{Schedule, Stage};
pub use sequence::{Goal, Left, Stuck, duration_s, sequence};
pub use toll::{Cost, STANDING_STILL, Toll};
