//! Bad input and trouble: one clear message with the right exit code, and nothing half-made stays.
//!
//! The clones are tiny (one static program as their whole system), so that many cases cost little. `./x test` says by the
//! environment what they are made of, see `common`.
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
mod common;

mod boots;
mod clean_up;
mod input;
mod silence;

const FAILED: i32 = 1;
const IMPOSSIBLE: i32 = 2;
const REFUSED: i32 = 3;
const UNREACHABLE: i32 = 4;
