//! A layer and a root on this machine's file systems: unpacking the one, settling it over the
//! other, comparing the two; and unpacking a tar stream over a tree that is there.
//!
//! PID 1 of every clone links this: dependencies stay few, and every path that an archive names is
//! opened beneath its tree, with no link followed.

mod compare;
mod entry;
mod error;
mod over;
mod settle;
mod unpack;

pub use compare::{Difference, Look, Verdict, compare};
pub use error::{Result, UnionError};
pub use over::{DirectoriesThere, Over, OverLimits};
pub use settle::settle;
pub use unpack::{Rights, Unpacked, unpack};
