//! What is wrong in a herd file, said with its place.

use std::fmt;

use crate::yaml::Position;

/// More than this many are not listed: the first ones explain the rest.
const MAX_PROBLEMS: usize = 20;

/// One thing wrong, at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub at: Position,
    pub message: String,
}

/// Everything wrong in one herd file, in the order of the file: `file:line:column: message`, one
/// to a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HerdError {
    pub file: String,
    pub problems: Vec<Problem>,
}

impl fmt::Display for HerdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}: {}", self.file, problem.at, problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for HerdError {}

/// What may be a slip in a herd file and stops nothing, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HerdWarnings {
    pub file: String,
    pub warnings: Vec<Problem>,
}

impl HerdWarnings {
    /// `file:line:column: message` of each.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let line = |warning: &Problem| format!("{}:{}: {}", self.file, warning.at, warning.message);
        self.warnings.iter().map(line)
    }
}

/// Collects problems while a file is read.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    pub fn add(&mut self, at: Position, message: impl Into<String>) {
        self.0.push(Problem {
            at,
            message: message.into(),
        });
    }

    /// The one problem that ends the reading.
    pub fn only(file: &str, at: Position, message: impl Into<String>) -> HerdError {
        let message = message.into();
        HerdError {
            file: file.to_owned(),
            problems: vec![Problem { at, message }],
        }
    }

    /// As they were added.
    pub fn take(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.0)
    }

    /// `Err` when there was any.
    pub fn check(&mut self, file: &str) -> Result<(), HerdError> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(HerdError {
            file: file.to_owned(),
            problems: self.take_sorted(),
        })
    }

    /// The first ones in the order of the file.
    pub fn take_sorted(&mut self) -> Vec<Problem> {
        let mut problems = self.take();
        problems.sort_by(|a, b| (a.at, &a.message).cmp(&(b.at, &b.message)));
        problems.dedup();
        if problems.len() > MAX_PROBLEMS {
            let more = problems.len() - MAX_PROBLEMS;
            problems.truncate(MAX_PROBLEMS);
            if let Some(last) = problems.last_mut() {
                last.message
                    .push_str(&format!(" (and {more} more problems)"));
            }
        }
        problems
    }
}

/// A value from a file as a message shows it: quoted, on one line, not too long.
pub(crate) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() {
        format!("{cut:?}…")
    } else {
        format!("{cut:?}")
    }
}
