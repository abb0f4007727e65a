//! What is wrong in a herd file, said with its place.

use std::fmt;

use crate::yaml::Position;

/// More than this many are not listed: the first ones explain the rest.
pub(crate) const MAX_PROBLEMS: usize = 20;

/// So many are kept while a file is read, however many it has.
const MAX_KEPT: usize = 1_000;

/// A message may quote keys and names of levels, which may be as long as the file.
const MAX_MESSAGE_BYTES: usize = 2_000;

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
pub(crate) struct Problems {
    kept: Vec<Problem>,
    /// Those that are not kept, all further on in the file.
    dropped: usize,
}

impl Problems {
    pub fn add(&mut self, at: Position, message: impl Into<String>) {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE_BYTES {
            let mut ends = (0..=MAX_MESSAGE_BYTES).rev();
            let end = ends.find(|end| message.is_char_boundary(*end));
            message.truncate(end.unwrap_or_default());
            message.push('…');
            message.shrink_to_fit();
        }
        self.kept.push(Problem { at, message });
        if self.kept.len() >= 2 * MAX_KEPT {
            self.sort();
            self.dropped += self.kept.len().saturating_sub(MAX_KEPT);
            self.kept.truncate(MAX_KEPT);
        }
    }

    fn sort(&mut self) {
        self.kept
            .sort_by(|a, b| (a.at, &a.message).cmp(&(b.at, &b.message)));
        self.kept.dedup();
    }

    /// The one problem that ends the reading.
    pub fn only(file: &str, at: Position, message: impl Into<String>) -> HerdError {
        let message = message.into();
        HerdError {
            file: file.to_owned(),
            problems: vec![Problem { at, message }],
        }
    }

    /// As they were added, as far as they were kept.
    pub fn take(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.kept)
    }

    /// `Err` when there was any.
    pub fn check(&mut self, file: &str) -> Result<(), HerdError> {
        if self.kept.is_empty() {
            return Ok(());
        }
        Err(HerdError {
            file: file.to_owned(),
            problems: self.take_sorted(),
        })
    }

    /// The first ones in the order of the file.
    pub fn take_sorted(&mut self) -> Vec<Problem> {
        self.sort();
        let mut problems = self.take();
        if problems.len() > MAX_PROBLEMS {
            let more = problems.len() - MAX_PROBLEMS + self.dropped;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_without_end_take_a_bounded_place() {
        let mut problems = Problems::default();
        let at = |line| Position { line, column: 1 };
        for line in (1..=50_000).rev() {
            problems.add(at(line), "x".repeat(5_000));
        }
        assert!(problems.kept.capacity() <= 4 * MAX_KEPT);
        let told = problems.take_sorted();
        assert_eq!((told[0].at, told[19].at), (at(1), at(20)));
        assert!(told.iter().all(|problem| problem.message.len() < 3_000));
        assert!(
            told[19].message.ends_with("… (and 49980 more problems)"),
            "{}",
            told[19].message
        );
    }
}
