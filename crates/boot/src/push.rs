//! What a running clone answers when a layer is pushed to it: one JSON document on the standard
//! output of `estive-init apply`, read by the agent.
//!
//! The guest writes it, so it is hostile: bounded here, and bounded again where it is read.

use serde::{Deserialize, Serialize};

/// The program in a running clone, kept there by PID 1 of its early userspace.
pub const PROGRAM: &str = "/.unions/estive";
/// Its first argument.
pub const APPLY_WORD: &str = "apply";
/// Its second, to change nothing and say what would be.
pub const DRY_RUN_WORD: &str = "--dry-run";
/// No report is longer.
pub const REPORT_BYTES_MAX: usize = 512 << 10;
/// Of paths and reasons, so that the whole stays below with all that JSON adds.
const TEXT_BYTES_MAX: usize = REPORT_BYTES_MAX / 8;
const REASON_CHARS_MAX: usize = 200;

/// What came of a push.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PushReport {
    pub version: u32,
    /// Paths that were made, replaced, or given another mode or owner.
    pub written: Vec<String>,
    /// Paths that were taken away.
    pub removed: Vec<String>,
    /// Paths that differ from the layer and were not touched.
    pub left: Vec<Left>,
    /// How many more there are of each, when they are too many to name.
    pub unnamed: Unnamed,
    /// Services that were told, each once.
    pub services: Vec<ServiceAct>,
    #[serde(skip)]
    text_bytes: usize,
}

/// Counts beside the lists of [`PushReport`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unnamed {
    pub written: u64,
    pub removed: u64,
    pub left: u64,
}

/// A path that was not touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub path: String,
    pub why: WhyLeft,
    /// In a few words.
    pub reason: String,
}

/// Why a path was not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyLeft {
    /// The clone has changed it: it is its own.
    Own,
    /// It cannot be changed in a running clone; its next start takes it.
    NextStart,
    /// It was tried.
    Failed,
}

/// A service that was told of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAct {
    pub name: String,
    /// `restart`, `reload`.
    pub act: String,
    /// Why not, if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl PushReport {
    pub fn new() -> PushReport {
        PushReport {
            version: 1,
            ..PushReport::default()
        }
    }

    pub fn add_written(&mut self, path: &str) {
        match self.has_room(path.len()) {
            true => self.written.push(path.to_owned()),
            false => self.unnamed.written += 1,
        }
    }

    pub fn add_removed(&mut self, path: &str) {
        match self.has_room(path.len()) {
            true => self.removed.push(path.to_owned()),
            false => self.unnamed.removed += 1,
        }
    }

    pub fn add_left(&mut self, path: &str, why: WhyLeft, reason: &str) {
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        match self.has_room(path.len() + reason.len()) {
            true => self.left.push(Left {
                path: path.to_owned(),
                why,
                reason,
            }),
            false => self.unnamed.left += 1,
        }
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        // What one row costs beside its text.
        self.text_bytes += bytes + 60;
        self.text_bytes <= TEXT_BYTES_MAX
    }

    pub fn written_count(&self) -> u64 {
        (self.written.len() as u64).saturating_add(self.unnamed.written)
    }

    pub fn removed_count(&self) -> u64 {
        (self.removed.len() as u64).saturating_add(self.unnamed.removed)
    }

    pub fn left_count(&self) -> u64 {
        (self.left.len() as u64).saturating_add(self.unnamed.left)
    }

    /// Whether the clone was as the layer wants it already.
    pub fn did_nothing(&self) -> bool {
        self.written_count() == 0 && self.removed_count() == 0 && self.services.is_empty()
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From what a guest printed. What is longer than [`REPORT_BYTES_MAX`], or no report, is none.
    pub fn parse(bytes: &[u8]) -> Option<PushReport> {
        if bytes.len() > REPORT_BYTES_MAX {
            return None;
        }
        serde_json::from_slice(bytes)
            .ok()
            .filter(|report: &PushReport| report.version == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_stays_below_its_bound_and_counts_on() {
        let mut report = PushReport::new();
        // Every character of it is six in JSON.
        let path = "\u{1}".repeat(4000);
        for _ in 0..1000 {
            report.add_written(&path);
            report.add_removed("a");
            report.add_left("b", WhyLeft::Own, &"\u{1}".repeat(1000));
        }
        let json = report.to_json();
        assert!(json.len() < REPORT_BYTES_MAX, "{}", json.len());
        let read = PushReport::parse(json.as_bytes()).unwrap();
        assert_eq!(
            (
                read.written_count(),
                read.removed_count(),
                read.left_count()
            ),
            (1000, 1000, 1000)
        );
        assert!(!read.did_nothing());
    }

    #[test]
    fn what_is_no_report_is_none() {
        assert_eq!(PushReport::parse(b""), None);
        assert_eq!(PushReport::parse(b"{}"), None);
        assert_eq!(PushReport::parse(br#"{"version":2}"#), None);
        assert!(PushReport::parse(br#"{"version":1,"new":1}"#).is_some());
        // A guest may claim what it likes.
        let most = br#"{"version":1,"written":["a"],"unnamed":{"written":18446744073709551615}}"#;
        let report = PushReport::parse(most).unwrap();
        assert_eq!(report.written_count(), u64::MAX);
        assert!(!report.did_nothing());
    }
}
