//! Where each domain should be, the way there, and why: pure functions of a world and a question.
//!
//! No I/O, no clock, no randomness but a seed.

mod ask;
mod question;
mod room;
#[cfg(test)]
mod samples;
mod schedule;

pub use ask::{Asked, asked};
pub use question::{Budget, Objective, Question, Term, Weighted};
pub use room::{Amounts, KINDS, Kind, Rooms, expected_use, held, ratio_of};
pub use schedule::{Schedule, Stage};
