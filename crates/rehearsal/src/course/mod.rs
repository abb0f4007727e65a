//! A world's course: what would happen to it over hours, event by event, with a mind that plans in it every so often.
//!
//! Hosts are switched, fail and come back, owners sit down at theirs, prices change, moves take their time and some fail.
//! The clock is the world's own: milliseconds from its moment on. The same world, trace, setting and mind give the same course.

mod account;
mod engine;
mod foresight;
mod mind;
#[cfg(test)]
mod relieving;
pub mod report;
mod steps;
#[cfg(test)]
mod tests;

pub use account::{Figures, Period};
pub use foresight::Foresight;
pub use mind::{Mind, Nothing, Plans, Relieves};

use std::collections::BTreeMap;

use estive_world::{ReservedKind, Used, World, traces};
use serde::{Deserialize, Serialize};

/// What each domain uses over time; after its end it begins again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Trace {
    /// Seconds between rows.
    pub step_s: u32,
    /// A row for each moment, in it a value for each domain of the world, in its order.
    pub rows: Vec<Vec<Used>>,
}

impl Trace {
    /// From percentages of what each domain may have of processors, which are its virtual ones on common cores. A domain without a row
    /// goes on with what it uses.
    ///
    /// # Errors
    /// A row of a domain that is not in the world.
    pub fn of_percents(world: &World, trace: &traces::Trace) -> Result<Self, CourseError> {
        let places: BTreeMap<&str, usize> = world
            .domains
            .iter()
            .enumerate()
            .map(|(place, domain)| (domain.name.as_str(), place))
            .collect();
        let samples = trace
            .rows
            .iter()
            .map(|row| row.percent.len())
            .min()
            .unwrap_or(0);
        let now: Vec<Used> = world.domains.iter().map(|domain| domain.used).collect();
        let mut rows = vec![now; samples];
        for row in &trace.rows {
            let Some(&place) = places.get(row.name.as_str()) else {
                return Err(CourseError::Unknown {
                    name: row.name.clone(),
                });
            };
            let vcpus = world.domains[place].reserved[ReservedKind::Vcpus];
            for (sample, &percent) in rows.iter_mut().zip(&row.percent) {
                sample[place].0[0] = vcpus * u64::from(percent) * 10_000;
            }
        }
        Ok(Self {
            step_s: trace.period_s,
            rows,
        })
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Faults {
    /// How often a host fails, in failures for each 1,000 hours that it is on.
    pub host_fails_per_1000_h: f64,
    /// Seconds until it is back, with the domains that were on it.
    pub repair_s: u32,
    /// Moves that end where they began, in thousandths.
    pub move_fails_milli: u32,
}

/// How a course is run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Its length in seconds.
    pub length_s: u32,
    /// Seconds between the moments at which the mind is asked.
    pub period_s: u32,
    /// How far domains' use is foreseen from their windows, in seconds; 0: not at all.
    #[serde(default)]
    pub horizon_s: u32,
    /// For everything that is left to chance.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Faults,
}

impl Default for Setting {
    /// A day, asked every five minutes; nothing is foreseen, and nothing goes wrong.
    fn default() -> Self {
        Self {
            length_s: 86_400,
            period_s: 300,
            horizon_s: 0,
            seed: 0,
            faults: Faults::default(),
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    /// When, in seconds from the begin.
    pub at_s: f64,
    /// What, in words.
    pub what: String,
}

/// A course that was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// Who planned.
    pub policy: String,
    /// What it came to.
    pub figures: Figures,
    /// What was foreseen in it; none: nothing was, or there were no windows to foresee from.
    #[serde(default)]
    pub foresight: Option<Foresight>,
    /// Period by period.
    pub periods: Vec<Period>,
    /// What happened, in order; the first [`HAPPENINGS_AT_MOST`] of it.
    pub happenings: Vec<Happening>,
}

/// More is counted, not told.
pub const HAPPENINGS_AT_MOST: usize = 10_000;

/// The longest course in seconds: a year and a day.
pub const LENGTH_AT_MOST_S: u32 = 366 * 86_400;

/// What cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CourseError {
    /// The trace is not of this world.
    #[error(
        "row {row} of the trace has {found} values, the world has {domains} domains: take the trace that was made with this world"
    )]
    OtherTrace {
        /// Which row, from 0.
        row: usize,
        /// Values in it.
        found: usize,
        /// Domains of the world.
        domains: usize,
    },
    /// A row of nobody.
    #[error(
        "the trace has a row for {name}, which is no domain of this world: take it out, or take the world it was made with"
    )]
    Unknown {
        /// Whose.
        name: String,
    },
    /// A time of nothing, or without end.
    #[error("{what} is {given} s: it must be from 1 to {most}")]
    Length {
        /// What.
        what: &'static str,
        /// As given.
        given: u32,
        /// The most.
        most: u32,
    },
    /// The mind cannot answer.
    #[error("policy {policy}, {at_s} s after the begin: {because}")]
    Mind {
        /// Whose.
        policy: String,
        /// When.
        at_s: f64,
        /// Why.
        because: String,
    },
}

/// Runs a world's course.
///
/// # Errors
/// A trace that is not of this world, a length out of bounds, a mind that does not answer.
pub fn run(
    world: &World,
    trace: Option<&Trace>,
    setting: &Setting,
    mind: &mut dyn Mind,
) -> Result<Course, CourseError> {
    let bounded = |what, given: u32, most| {
        if given == 0 || given > most {
            return Err(CourseError::Length { what, given, most });
        }
        Ok(())
    };
    bounded("the length", setting.length_s, LENGTH_AT_MOST_S)?;
    bounded("the period", setting.period_s, LENGTH_AT_MOST_S)?;
    if let Some(trace) = trace {
        bounded("the trace's step", trace.step_s, LENGTH_AT_MOST_S)?;
        for (row, values) in trace.rows.iter().enumerate() {
            if values.len() != world.domains.len() {
                return Err(CourseError::OtherTrace {
                    row,
                    found: values.len(),
                    domains: world.domains.len(),
                });
            }
        }
    }
    engine::Engine::new(world, trace, setting).run(mind)
}
