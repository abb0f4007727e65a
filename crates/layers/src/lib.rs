//! From a herd file and template sets to each clone's layer. Pure: text in, bytes out; the only
//! thing read from outside is the tree of a template set.

mod address_plan;
mod cascade;
pub mod herd;
mod host_range;
mod plan;
mod problem;
mod reserved;
mod yaml;

pub use plan::{ClonePlan, HerdPlan, UpCheck};
pub use problem::{HerdError, Problem};
pub use yaml::Position;
