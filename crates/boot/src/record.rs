//! What is known of one boot of a clone: facts with their times, as its host, its guest and its manager saw them.
//!
//! Three clocks meet here. *Host* times are milliseconds since the epoch by the clock of the host where the clone
//! booted. *Guest* times are the uptime of the guest's kernel. The *manager* measures spans from its own request. How
//! they are tied together is [`crate::timeline`]'s; here they stand as they were seen.
//!
//! What the guest says is hostile: [`BootRecord::cleaned`] bounds it, on every way in.

use crate::report::{Line, Phase, STEPS_MAX, clean_words};
use serde::{Deserialize, Serialize};

/// Units of a clone's own init that are kept of one boot: those that began first.
pub const UNITS_MAX: usize = 400;
/// The longest record of one boot, in bytes of JSON: what follows, and what its host and its manager say.
pub const RECORD_BYTES_MAX: usize = 96 << 10;
/// Of which the lines of the report, and the units of its own init, in bytes of JSON.
const LINES_BYTES_MAX: usize = 40 << 10;
const UNITS_BYTES_MAX: usize = 44 << 10;
const LINES_MAX: usize = STEPS_MAX + 64;
const FAILURES_MAX: usize = 4;
const NAME_CHARACTERS_MAX: usize = 100;
const REASON_CHARACTERS_MAX: usize = 300;
const ERROR_CHARACTERS_MAX: usize = 1000;

/// What is known of one boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootRecord {
    /// Counts the boots of this clone since it was made, from 1.
    pub number: u64,
    /// The host where it booted.
    #[serde(default)]
    pub host: String,
    /// The guest began again by itself, in a QEMU that ran before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rebooted: bool,
    /// When its host was asked to start it, by the host's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_ms: Option<u64>,
    /// What its host did, in the order in which it was done, by the host's clock.
    #[serde(default)]
    pub host_spans: Vec<HostSpan>,
    /// What `estive-init` reported.
    #[serde(default)]
    pub lines: Vec<ArrivedLine>,
    /// What the clone's own init says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemBoot>,
    /// Why it says nothing, once nobody asks it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_unknown: Option<String>,
    /// When the clone answered, as its manager saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Answered>,
}

/// Something that a host did for a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostWork {
    /// The clone's archive was received, checked and put in its place.
    Archive,
    /// The network interface was made and the clone's files were found.
    Interface,
    /// QEMU was started, until it answered, its processors halted.
    Emulator,
    /// The processors were started.
    Processors,
}

/// From when to when a host did something, by its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSpan {
    pub what: HostWork,
    pub began_ms: u64,
    pub ended_ms: u64,
}

/// A line of the boot report with its time of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivedLine {
    /// When the host saw it, by its clock.
    pub arrived_ms: u64,
    /// It was not there yet so long before; none when nobody was looking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_ms: Option<u64>,
    /// As init wrote it.
    pub line: Line,
}

/// How the clone's own init brought the system up. Guest times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemBoot {
    /// Which it is: `systemd 252`.
    pub init: String,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_ms: Option<u64>,
    /// When it had nothing left to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_ms: Option<u64>,
    /// When it was asked, by the host's clock: nothing it tells of is later.
    pub told_ms: u64,
    /// What it started, in the order in which that began.
    pub units: Vec<Unit>,
    /// How many more there are.
    #[serde(default)]
    pub left_out: u64,
}

/// Something that a clone's own init started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `nginx.service`
    pub name: String,
    /// When it began to be started; none when only its end is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_ms: Option<u64>,
    /// When it was there, or had failed; none when it is still being started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// It failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

/// A clone that answers, as its manager saw it. Spans by the manager's clock, since it was asked for the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Until it sent the order to the host.
    pub ordered_ms: u64,
    /// Until the clone answered.
    pub answered_ms: u64,
    /// What counted as answering: `http, ssh`.
    pub by: String,
}

impl BootRecord {
    /// The same without anything that could harm who reads it: bounded, and its texts on one line.
    pub fn cleaned(mut self) -> BootRecord {
        let name = |text: &mut String| *text = clean_words(text, NAME_CHARACTERS_MAX);
        name(&mut self.host);
        self.host_spans.truncate(8);
        for span in &mut self.host_spans {
            span.ended_ms = span.ended_ms.max(span.began_ms);
        }
        for line in std::mem::take(&mut self.lines) {
            self.take(line);
        }
        if let Some(system) = &mut self.system {
            system.clean();
        }
        if let Some(reason) = &mut self.system_unknown {
            *reason = clean_words(reason, REASON_CHARACTERS_MAX);
        }
        if let Some(answered) = &mut self.answered {
            name(&mut answered.by);
            answered.answered_ms = answered.answered_ms.max(answered.ordered_ms);
        }
        self
    }

    /// Takes a line of the report, if there is room for it, and a phase once: what begins the report anew is another
    /// boot's.
    pub fn take(&mut self, line: ArrivedLine) {
        let failures = || {
            let failed = |arrived: &&ArrivedLine| matches!(arrived.line, Line::Failed { .. });
            self.lines.iter().filter(failed).count()
        };
        let Some(line) = line.cleaned() else {
            return;
        };
        let has_room = match &line.line {
            // Each once, so that there is always room for it.
            Line::Done { phase, .. } => self.phase(*phase).is_none(),
            Line::Failed { .. } => failures() < FAILURES_MAX && self.has_room_for(&line),
            _ => self.has_room_for(&line),
        };
        if has_room {
            self.lines.push(line);
        }
    }

    fn has_room_for(&self, line: &ArrivedLine) -> bool {
        let bytes: usize = self.lines.iter().map(json_bytes).sum();
        self.lines.len() < LINES_MAX && bytes + json_bytes(line) <= LINES_BYTES_MAX
    }

    /// The guest time at which a phase was done, and when its host saw that.
    pub fn phase(&self, phase: Phase) -> Option<(u64, &ArrivedLine)> {
        self.lines.iter().find_map(|arrived| match arrived.line {
            Line::Done {
                phase: done,
                uptime_ms,
            } if done == phase => Some((uptime_ms, arrived)),
            _ => None,
        })
    }

    /// At which phase it stopped, and why.
    pub fn failure(&self) -> Option<(Phase, &str)> {
        self.lines.iter().find_map(|arrived| match &arrived.line {
            Line::Failed { error, phase } => Some((*phase, error.as_str())),
            _ => None,
        })
    }

    /// Early userspace is over: it was left for the clone's own init, or it has given up.
    pub fn is_over(&self) -> bool {
        self.failure().is_some() || self.phase(Phase::Switch).is_some()
    }

    /// What the host did, if it did it for this boot.
    pub fn host_span(&self, what: HostWork) -> Option<HostSpan> {
        self.host_spans
            .iter()
            .find(|span| span.what == what)
            .copied()
    }
}

impl ArrivedLine {
    fn cleaned(self) -> Option<ArrivedLine> {
        let line = match self.line {
            Line::Step(step) => Line::Step(step.cleaned()),
            Line::Failed { error, phase } => Line::Failed {
                error: clean_words(&error, ERROR_CHARACTERS_MAX),
                phase,
            },
            line @ Line::Done { .. } => line,
            // Of the running system, not of its boot.
            Line::Registered { .. } | Line::Unregistered { .. } => return None,
        };
        Some(ArrivedLine { line, ..self })
    }
}

impl SystemBoot {
    fn clean(&mut self) {
        self.init = clean_words(&self.init, NAME_CHARACTERS_MAX);
        for unit in &mut self.units {
            unit.name = clean_words(&unit.name, NAME_CHARACTERS_MAX);
            unit.ended_ms = unit.ended_ms.max(unit.ended_ms.and(unit.began_ms));
        }
        self.units
            .sort_by_key(|unit| (unit.began_ms.or(unit.ended_ms), unit.ended_ms));
        let mut bytes = 0;
        let fitting = self.units.iter().take(UNITS_MAX).take_while(|unit| {
            bytes += json_bytes(unit);
            bytes <= UNITS_BYTES_MAX
        });
        let fitting = fitting.count();
        let more = self.units.len() - fitting;
        self.units.truncate(fitting);
        self.left_out = self.left_out.saturating_add(more as u64);
    }
}

/// How long it is where it is kept, with what parts it from the next.
fn json_bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |json| json.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Step;

    #[test]
    fn what_comes_from_outside_is_bounded() {
        let line = |line| ArrivedLine {
            arrived_ms: 1,
            within_ms: None,
            line,
        };
        let mut record = BootRecord::default();
        for _ in 0..LINES_MAX + 9 {
            record.lines.push(line(Line::Step(Step {
                step: "\u{1b}[2J".repeat(1000),
                began_ms: 9,
                ended_ms: 1,
            })));
        }
        record.lines[0].line = Line::Unregistered { unregistered: true };
        record.system = Some(SystemBoot {
            units: (0..UNITS_MAX as u64 + 9)
                .map(|number| Unit {
                    name: format!("\u{7}{}", "x".repeat(9000)),
                    began_ms: Some(1000 - number),
                    ended_ms: Some(1),
                    failed: false,
                })
                .collect(),
            left_out: u64::MAX,
            ..SystemBoot::default()
        });
        let record = record.cleaned();
        assert!(record.lines.len() > 100, "{}", record.lines.len());
        let system = record.system.as_ref().unwrap();
        assert!(system.units.len() > 200 && system.left_out == u64::MAX);
        assert!(system.units.is_sorted_by_key(|unit| unit.began_ms));
        assert!(
            system
                .units
                .iter()
                .all(|unit| unit.ended_ms >= unit.began_ms)
        );
        // Each character of a name is four bytes long, and a quote is two.
        let mut longest = record.clone();
        for text in ["\u{1f404}", "\""] {
            let text = text.repeat(9000);
            for arrived in &mut longest.lines {
                arrived.line = Line::Step(Step {
                    step: text.clone(),
                    began_ms: u64::MAX,
                    ended_ms: u64::MAX,
                });
            }
            longest.lines[0].line = Line::Failed {
                error: text.clone(),
                phase: Phase::Identity,
            };
            for unit in &mut longest.system.as_mut().unwrap().units {
                unit.name.clone_from(&text);
            }
            (longest.host, longest.system_unknown) = (text.clone(), Some(text.clone()));
            longest = longest.cleaned();
            // What it says last of its boot has room still.
            let switch = Line::Done {
                phase: Phase::Switch,
                uptime_ms: u64::MAX,
            };
            for _ in 0..2 {
                longest.take(line(switch.clone()));
            }
            assert!(longest.phase(Phase::Switch).is_some() && longest.failure().is_some());
            let done = |arrived: &&ArrivedLine| matches!(arrived.line, Line::Done { .. });
            assert_eq!(longest.lines.iter().filter(done).count(), 1);
            let json = serde_json::to_string(&longest).unwrap();
            assert!(json.len() < RECORD_BYTES_MAX, "{}", json.len());
            assert!(!json.contains("\\u00"), "no control characters");
        }
    }
}
