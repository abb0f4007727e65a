//! Seeded worlds without a wall clock: the machine of `estive-moves` among two hosts, one manager and everything that
//! can go wrong.
//!
//! - [`World`]: two agents with their journals, an instance on each, the manager with its store, and the one
//!   transition function [`World::apply`].
//! - [`explore`]: every world that can be reached, breadth first, with a shortest trace to whatever is broken.
//! - [`Run`]: the same world driven fairly, one named step at a time, until it rests; with it, the fault table
//!   ([`table`]) and random walks ([`walk`]).
//!
//! **Architecture invariant:** the rules under test come in as function pointers ([`Rules`]), so that a planted bug is
//! explored by exactly what explores the real rules.

mod apply;
mod explore;
mod faults;
mod rest;
mod walk;
mod words;
mod world;

pub use explore::{Bounds, Report, Trace, explore};
pub use faults::{Case, CaseCount, Ended, Process, Scenario, Tally, pairs, table};
pub use rest::{Run, StepName, When};
pub use walk::{Walked, walk};
pub use world::{
    Action, Broken, Failure, File, Host, HostState, Life, ManagerState, Message, Queue, Rules,
    Violation, World,
};
