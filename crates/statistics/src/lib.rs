//! What was counted: windows of a herd, questions about them, and who belongs together.
//!
//! No I/O and no clock: the moment is given with each question.

mod collected;
mod communities;
mod groups;
mod matrix;
mod query;
mod window;

#[cfg(test)]
mod patterns;
#[cfg(test)]
mod tests;

pub use collected::{Added, Collected, Global, Keep};
pub use communities::{Unfit, communities};
pub use groups::{Found, Group, GroupRule, Grouping, Why, groups};
pub use matrix::{Matrix, Unit};
pub use query::{Answer, Kind, Mean, Query, Refusal, Result, Row};
pub use window::{Flow, Party, Period, Volume, Window};
