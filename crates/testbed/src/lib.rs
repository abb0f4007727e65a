//! A whole herd's machines on one machine: hosts as network namespaces inside one outer namespace that the kernel
//! cleans up whatever dies, the real programs of Estive in them, loads on clones, and a witness that sees who sends.
//!
//! Used by `./x demo`, `./x bench` and the end-to-end tests. The wall clock is read here directly: nothing in this
//! crate is replayed in simulation.
#![allow(clippy::disallowed_methods)]

pub mod bed;
mod error;
pub mod outer;
mod outer_first;
mod outer_kept;
mod part;
pub mod topology;

pub use bed::{Bed, BedConfig, BedReference};
pub use error::Error;
pub use outer::{Outer, Running};
pub use outer_kept::Kept;
pub use topology::Topology;
