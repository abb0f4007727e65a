//! A world as text, a noun a line: `host node1 cpus=16c memory=64G`. Read with limits, written so that it is read back.
//!
//! The form is described in `docs/world.md`. What is left out has its common value; what is written is canonical: the same
//! world is the same bytes. Lines that begin with `ask` are questions: they are handed on to who understands them.

mod fields;
mod hours;
mod lexer;
pub(crate) mod limits;
mod names;
mod read;
#[cfg(test)]
mod tests;
pub(crate) mod units;
mod write;

pub use fields::Fields;
pub use lexer::{Line, Value, quoted};
pub use read::Document;
pub use units::{CORES, COUNT, KIB, MIB, Measure, SHARE, read_real};

use crate::{World, WorldError};

/// The word of lines that ask something.
pub const ASK: &str = "ask";

/// Reads a text: a world, and what is asked about it.
///
/// # Errors
/// With the place of the first thing that is wrong, and what to do.
pub fn read(text: &str) -> Result<Document<'_>, WorldError> {
    read::document(text)
}

impl World {
    /// Reads a world; what is asked about it is passed over.
    ///
    /// # Errors
    /// As [`read`].
    pub fn from_text(text: &str) -> Result<Self, WorldError> {
        read(text).map(|document| document.world)
    }

    /// Its text. A world that was read, or keeps the same limits, is read back as the same value.
    pub fn to_text(&self) -> String {
        write::world(self)
    }
}

/// Keys of what is reserved, in the order of [`crate::RESERVED`].
const RESERVED_KEYS: [&str; 4] = ["cpus", "memory", "disk", "spindles"];
/// Keys of what a host's own system keeps.
const SYSTEM_KEYS: [&str; 4] = [
    "system-cpus",
    "system-memory",
    "system-disk",
    "system-spindles",
];
/// Keys of what a host can do.
const SPEED_KEYS: [&str; 4] = ["speed-cpu", "speed-memory", "speed-disk", "speed-net"];
/// Keys of what a host uses itself.
const OWN_KEYS: [&str; 4] = ["own-cpu", "own-memory", "own-disk", "own-net"];
/// Keys of what a domain uses.
const USES_KEYS: [&str; 4] = ["uses-cpu", "uses-memory", "uses-disk", "uses-net"];
/// Keys of what a domain is expected to use.
const FORECAST_KEYS: [&str; 4] = [
    "forecast-cpu",
    "forecast-memory",
    "forecast-disk",
    "forecast-net",
];
/// Keys of what a domain used before.
const WINDOWS_KEYS: [&str; 4] = [
    "windows-cpu",
    "windows-memory",
    "windows-disk",
    "windows-net",
];
/// Keys of the most that may be used.
const USE_AT_MOST_KEYS: [&str; 4] = ["use-cpu", "use-memory", "use-disk", "use-net"];
/// How each kind of what is reserved is measured.
const RESERVED_MEASURES: [&Measure; 4] = [&units::CORES, &units::MIB, &units::MIB, &units::COUNT];
/// How each kind of what is used is measured.
const USED_MEASURES: [&Measure; 4] = [&units::MICROCORES, &units::KIB, &units::RATE, &units::RATE];
