//! The boot report: JSON lines that PID 1 writes to the report port, read by the agent. Once the clone runs, its own
//! system writes there too: its registration (set `register`).
//!
//! The guest writes them, so they are hostile: bounded, and garbage between them is passed over.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The longest line that is looked at.
pub const LINE_BYTES_MAX: usize = 4096;
/// The steps that are kept of one boot, and the characters of what each says it did.
pub const STEPS_MAX: usize = 256;
pub const STEP_CHARACTERS_MAX: usize = 120;
/// How much of a report is looked at; a guest that reboots writes a few hundred bytes each time.
pub const REPORT_BYTES_MAX: usize = 256 << 10;

/// The steps of a boot, in their order. Each is reported when it is done, `init` when PID 1 starts,
/// `switch` just before the clone's own init is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Init,
    Modules,
    Identity,
    Layer,
    Root,
    Union,
    Network,
    Switch,
}

impl Phase {
    pub const ALL: [Phase; 8] = [
        Phase::Init,
        Phase::Modules,
        Phase::Identity,
        Phase::Layer,
        Phase::Root,
        Phase::Union,
        Phase::Network,
        Phase::Switch,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Phase::Init => "init",
            Phase::Modules => "modules",
            Phase::Identity => "identity",
            Phase::Layer => "layer",
            Phase::Root => "root",
            Phase::Union => "union",
            Phase::Network => "network",
            Phase::Switch => "switch",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    Failed {
        error: String,
        phase: Phase,
    },
    Done {
        phase: Phase,
        uptime_ms: u64,
    },
    Registered {
        registered: Registered,
    },
    /// It stops: what it registered holds no longer.
    Unregistered {
        unregistered: bool,
    },
    /// Part of a phase, when it is done.
    Step(Step),
}

/// A part of a phase: a stage of `root=`, a wait, a file fetched. Times are the guest kernel's uptime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was done, in a few words: `nfs 10.77.0.5:/srv/root`.
    pub step: String,
    pub began_ms: u64,
    pub ended_ms: u64,
}

impl Step {
    /// On one line, not too long, and never ending before it began.
    pub fn cleaned(self) -> Step {
        Step {
            step: clean_words(&self.step, STEP_CHARACTERS_MAX),
            began_ms: self.began_ms,
            ended_ms: self.ended_ms.max(self.began_ms),
        }
    }
}

/// A guest's words as they may be shown: on one line, without anything that moves a terminal's cursor or changes the
/// order in which others read, at most so many characters.
pub fn clean_words(text: &str, characters_max: usize) -> String {
    let shown = |c: char| match c {
        // Marks of writing direction, separators of lines, a byte order mark.
        '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => ' ',
        c if c.is_control() => ' ',
        c => c,
    };
    let text: String = text.chars().map(shown).take(characters_max).collect();
    text.trim().to_owned()
}

/// What a clone's own system says of it when it has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Of its interface, without prefix.
    pub address: Ipv4Addr,
    /// Processors that it uses.
    pub cpus: u32,
}

impl Line {
    /// The line with its end, at most 4096 bytes: a longer text is cut.
    pub fn to_json(&self) -> String {
        let mut line = self.clone();
        if let Line::Failed { error: text, .. } | Line::Step(Step { step: text, .. }) = &mut line {
            // Six bytes of JSON for one of text is the worst that escaping does.
            let mut end = text.len().min(LINE_BYTES_MAX / 8);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
        let mut json = serde_json::to_string(&line).unwrap_or_default();
        json.push('\n');
        json
    }
}

/// The failure at which PID 1 stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFailure {
    /// What was being done.
    pub phase: Phase,
    /// What is missing and what to try, in the guest's words.
    pub error: String,
}

/// What the last boot of a guest has reported so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootReport {
    /// The phases done, with the guest kernel's uptime.
    pub phases: Vec<(Phase, u64)>,
    /// Parts of phases, in the order in which they ended; the first [`STEPS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    pub failure: Option<BootFailure>,
    /// Lines that were not understood.
    pub garbage_lines: u64,
}

impl BootReport {
    /// Reads a report, complete or still growing: an unfinished last line waits for its end.
    /// A new `init` is a reboot of the guest and begins again.
    pub fn parse(bytes: &[u8]) -> BootReport {
        let mut report = BootReport::default();
        let bytes = &bytes[bytes.len().saturating_sub(REPORT_BYTES_MAX)..];
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            return report;
        };
        for line in bytes[..end].split(|byte| *byte == b'\n') {
            report.take(line);
        }
        report
    }

    pub fn uptime_ms(&self, phase: Phase) -> Option<u64> {
        self.phases
            .iter()
            .find(|(done, _)| *done == phase)
            .map(|(_, uptime_ms)| *uptime_ms)
    }

    /// Whether the guest has left the early userspace for its own init.
    pub fn is_switched(&self) -> bool {
        self.uptime_ms(Phase::Switch).is_some()
    }

    fn take(&mut self, line: &[u8]) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        let parsed = (line.len() <= LINE_BYTES_MAX)
            .then(|| serde_json::from_slice::<Line>(line).ok())
            .flatten();
        match parsed {
            Some(Line::Done { phase, uptime_ms }) => {
                if phase == Phase::Init {
                    self.phases.clear();
                    self.steps.clear();
                    self.failure = None;
                }
                if self.uptime_ms(phase).is_none() {
                    self.phases.push((phase, uptime_ms));
                }
            }
            Some(Line::Failed { error, phase }) => {
                // It is shown on terminals: nothing in it may move the cursor.
                let error = clean_words(&error, LINE_BYTES_MAX);
                self.failure = Some(BootFailure { phase, error });
            }
            Some(Line::Step(step)) => {
                if self.steps.len() < STEPS_MAX {
                    self.steps.push(step.cleaned());
                }
            }
            // Of the running system, not of its boot.
            Some(Line::Registered { .. } | Line::Unregistered { .. }) => {}
            None => self.garbage_lines += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_contract_are_read() {
        let text = b"{\"phase\":\"init\",\"uptime_ms\":1234}\nnoise\n{\"phase\":\"modules\",\"uptime_ms\":1300}\n{\"error\":\"no disk\\u001b[2J\",\"phase\":\"root\"}\n{\"phase\":\"ro";
        let report = BootReport::parse(text);
        assert_eq!(report.phases, [(Phase::Init, 1234), (Phase::Modules, 1300)]);
        let failure = report.failure.unwrap();
        assert_eq!(failure.phase, Phase::Root);
        assert_eq!(failure.error, "no disk [2J");
        assert_eq!(report.garbage_lines, 1);
    }

    #[test]
    fn what_the_running_system_says_is_told_from_a_phase() {
        let line = |text: &str| serde_json::from_str::<Line>(text).ok();
        assert_eq!(
            line(r#"{"registered":{"address":"10.77.0.101","cpus":2}}"#),
            Some(Line::Registered {
                registered: Registered {
                    address: Ipv4Addr::new(10, 77, 0, 101),
                    cpus: 2
                }
            })
        );
        let unregistered = true;
        assert_eq!(
            line(r#"{"unregistered":true}"#),
            Some(Line::Unregistered { unregistered })
        );
        for text in [
            "{}",
            r#"{"registered":{"address":"me","cpus":2}}"#,
            r#"{"registered":null}"#,
        ] {
            assert_eq!(line(text), None, "{text}");
        }
        let report = BootReport::parse(b"{\"unregistered\":true}\n");
        assert_eq!(report, BootReport::default());
    }

    #[test]
    fn a_step_is_a_line_of_its_own_and_hostile() {
        let line = Line::Step(Step {
            step: "nfs 10.77.0.5:/srv/root".into(),
            began_ms: 1500,
            ended_ms: 1720,
        });
        let json = line.to_json();
        assert_eq!(
            json,
            "{\"step\":\"nfs 10.77.0.5:/srv/root\",\"began_ms\":1500,\"ended_ms\":1720}\n"
        );
        assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line);
        let report = BootReport::parse(
            b"{\"step\":\" a\\u001b[2J\\u202eb\",\"began_ms\":9,\"ended_ms\":3}\n{\"step\":1,\"began_ms\":9,\"ended_ms\":3}\n",
        );
        let [step] = &report.steps[..] else {
            panic!("{report:?}")
        };
        assert_eq!(
            (step.step.as_str(), step.began_ms, step.ended_ms),
            ("a [2J b", 9, 9)
        );
        assert_eq!(report.garbage_lines, 1);
        let long = Line::Step(Step {
            step: "\u{1}".repeat(9000),
            began_ms: 0,
            ended_ms: u64::MAX,
        })
        .to_json();
        assert!(long.len() <= LINE_BYTES_MAX);
        let many = long.repeat(STEPS_MAX + 9) + "{\"phase\":\"root\",\"uptime_ms\":7}\n";
        let report = BootReport::parse(many.as_bytes());
        assert!(report.steps.len() <= STEPS_MAX);
        assert_eq!(report.phases, [(Phase::Root, 7)]);
    }

    #[test]
    fn a_reboot_begins_again() {
        let mut text = String::new();
        for phase in Phase::ALL {
            text += &Line::Done {
                phase,
                uptime_ms: 5,
            }
            .to_json();
        }
        text += "{\"step\":\"a\",\"began_ms\":1,\"ended_ms\":2}\n";
        let report = BootReport::parse(text.as_bytes());
        assert!(report.is_switched() && report.steps.len() == 1);
        text += &Line::Done {
            phase: Phase::Init,
            uptime_ms: 7,
        }
        .to_json();
        let report = BootReport::parse(text.as_bytes());
        assert_eq!(report.phases, [(Phase::Init, 7)]);
        assert!(report.steps.is_empty());
    }

    #[test]
    fn an_error_of_any_length_fits_a_line() {
        let line = Line::Failed {
            error: "\u{1}ü".repeat(9000),
            phase: Phase::Layer,
        }
        .to_json();
        assert!(line.len() <= LINE_BYTES_MAX);
        assert!(BootReport::parse(line.as_bytes()).failure.is_some());
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2000)) {
            BootReport::parse(&bytes);
        }
    }
}
