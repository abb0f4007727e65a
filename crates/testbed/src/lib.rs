//! A whole herd's machines on one machine: hosts as network namespaces inside one outer namespace that the kernel
//! cleans up whatever dies, the real programs of Estive in them, loads on clones, and a witness that sees who sends.
//!
//! Used by `./x demo`, `./x bench` and the end-to-end tests. The wall clock is read here directly: nothing in this
//! crate is replayed in simulation.
#![allow(clippy::disallowed_methods)]

pub mod bed;
mod bed_files;
pub mod bench;
pub mod demo;
pub mod download;
mod error;
mod gauge;
pub mod guest_clock;
mod http_get;
pub mod instant;
pub mod judge;
pub mod load;
pub mod outer;
mod outer_first;
mod outer_kept;
mod part;
pub mod ping;
pub mod statistics;
pub mod topology;
pub mod trial;
pub mod witness;

pub use bed::{Bed, BedConfig, BedReference};
pub use download::{Download, DownloadConfig};
pub use error::{Error, chain as error_chain};
pub use guest_clock::{ClockOffset, clock_offset};
pub use instant::now_us;
pub use judge::{Judgement, judge};
pub use load::{Load, LoadConfig};
pub use outer::{Outer, Running};
pub use outer_kept::Kept;
pub use ping::Ping;
pub use topology::Topology;
pub use witness::Witness;
