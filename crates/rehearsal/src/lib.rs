//! What would happen: a world replayed under a policy, and what it costs.
//!
//! No I/O and no clock; randomness only from a seed.

pub mod course;
mod day;
mod floor;
mod frugal;
mod made;
mod outlook;
pub mod peers;
mod policy;
mod replay;
mod share;
mod start;
pub mod table;
mod tally;
#[cfg(test)]
mod tests;
pub mod timeline;

pub use day::{BOOT_KWH, BOOT_S, Day, Guest, HostKind, Variant};
pub use floor::floor_kwh;
pub use frugal::{Frugal, Tuning};
pub use made::made_traces;
pub use policy::{HISTORY, Move, Policy, View};
pub use replay::{Error, Replayed, TickRecord, replay};
pub use tally::Outcome;
