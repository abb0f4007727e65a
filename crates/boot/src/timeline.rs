//! From what is known of a boot to bars on one scale. Pure: the same facts give the same bars.
//!
//! Zero is the request for the start, as the manager took it where one did. Three clocks are tied together:
//!
//! ```text
//!   manager   asked ───► order sent                                     answered
//!                          │ the same moment, but for one message
//!   host                 asked ─ interface ─ QEMU ─ processors ─ … ─ lines of the report arrive
//!                                                      │ firmware       │ each is written no later than it arrives:
//!   guest                                              └────► 0 ────────┴ 0 is at most (arrival − uptime), the least
//! ```
//!
//! The guest's zero is therefore known from above, within the time in which nobody looked at the report; where nobody
//! looked at all, what hangs on it is *about*. What is not known has no bar, and says why. What a guest says cannot be
//! (times before its processors ran, or later than it could have said so) is left out and counted.

mod early;
mod system;

use crate::record::{BootRecord, HostSpan, HostWork};
use crate::report::{Line, Phase};
use serde::Serialize;

/// An archive that was taken longer before the start has nothing to do with it.
const ARCHIVE_BEFORE_MS: i64 = 60_000;
/// What clocks that are read in different places may differ by.
const SLACK_MS: i64 = 2_000;
/// No boot takes longer (ten years): a guest that says so is not believed.
const LONGEST_MS: u64 = 315_360_000_000;

/// A boot as bars.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// What zero is by the host's clock, milliseconds since the epoch.
    pub zero_ms: Option<u64>,
    /// One after the other, as a boot goes.
    pub bars: Vec<Bar>,
    /// What must be known to read them.
    pub notes: Vec<String>,
}

/// What a bar is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Manager,
    Agent,
    Emulator,
    Firmware,
    Kernel,
    EarlyUserspace,
    System,
    Whole,
}

/// Something that took time. Milliseconds from the timeline's zero; guests' times have their host's precision at best.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bar {
    pub name: String,
    pub kind: Kind,
    /// None: not known.
    pub began_ms: Option<i64>,
    /// None: not known, or not over.
    pub ended_ms: Option<i64>,
    /// Where it lies, or how long it took, is known roughly only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub about: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// Why it is not known, or why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What it is made of; each within it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Bar>,
}

impl Bar {
    fn new(name: impl Into<String>, kind: Kind, began_ms: i64, ended_ms: i64) -> Bar {
        Bar {
            name: name.into(),
            kind,
            began_ms: Some(began_ms),
            ended_ms: Some(ended_ms.max(began_ms)),
            about: false,
            failed: false,
            why: None,
            parts: Vec::new(),
        }
    }

    fn unknown(name: impl Into<String>, kind: Kind, why: impl Into<String>) -> Bar {
        Bar {
            began_ms: None,
            ended_ms: None,
            why: Some(why.into()),
            ..Bar::new(name, kind, 0, 0)
        }
    }

    /// How long it took, if both ends are known.
    pub fn took_ms(&self) -> Option<i64> {
        Some(self.ended_ms?.saturating_sub(self.began_ms?))
    }

    /// Takes parts in, each cut to what lies within.
    fn with(mut self, parts: Vec<Bar>) -> Bar {
        let (low, high) = (self.began_ms, self.ended_ms);
        self.parts = parts
            .into_iter()
            .map(|part| part.cut(low.unwrap_or(i64::MIN), high.unwrap_or(i64::MAX)))
            .collect();
        self
    }

    fn cut(mut self, low: i64, high: i64) -> Bar {
        let within = |ms: i64| ms.max(low).min(high);
        self.began_ms = self.began_ms.map(within);
        self.ended_ms = self.ended_ms.map(within);
        let parts = std::mem::take(&mut self.parts);
        self.with(parts)
    }
}

/// The guest's clock on the timeline.
#[derive(Clone, Copy)]
struct GuestClock {
    /// Where its zero lies.
    zero_ms: i64,
    /// It lies earlier by that at most; none when nobody knows.
    within_ms: Option<u64>,
}

impl GuestClock {
    fn at(&self, uptime_ms: u64) -> i64 {
        self.zero_ms.saturating_add(signed(uptime_ms))
    }
}

/// So far from the ends of an `i64` that a few of them can be added.
fn signed(ms: u64) -> i64 {
    const FAR_MS: u64 = 1 << 52;
    ms.min(FAR_MS) as i64
}

impl Timeline {
    /// The bars of a boot.
    pub fn of(record: &BootRecord) -> Timeline {
        Drawing::new(record).draw()
    }

    /// From the earliest to the latest of all bars.
    pub fn range_ms(&self) -> (i64, i64) {
        fn widen(range: (i64, i64), bars: &[Bar]) -> (i64, i64) {
            bars.iter().fold(range, |range, bar| {
                let ends = [bar.began_ms, bar.ended_ms].into_iter().flatten();
                let range = ends.fold(range, |(low, high), ms| (low.min(ms), high.max(ms)));
                // Those of one that is over lie within it.
                match bar.ended_ms {
                    Some(_) => range,
                    None => widen(range, &bar.parts),
                }
            })
        }
        widen((0, 0), &self.bars)
    }

    /// A bar of the first level.
    pub fn bar(&self, kind: Kind) -> Option<&Bar> {
        self.bars.iter().find(|bar| bar.kind == kind)
    }
}

struct Drawing<'a> {
    record: &'a BootRecord,
    /// What zero is by the host's clock.
    zero_ms: i64,
    /// When the processors began to run here.
    ran_ms: Option<i64>,
    guest: Option<GuestClock>,
    /// Phases with the guest's time, in the order in which they were reported; only what can be.
    phases: Vec<(Phase, u64)>,
    disbelieved: u64,
}

impl<'a> Drawing<'a> {
    fn new(record: &'a BootRecord) -> Self {
        let first_arrival = record.lines.iter().map(|arrived| arrived.arrived_ms).min();
        let ordered_ms = record.answered.as_ref().map_or(0, |seen| seen.ordered_ms);
        let first_work = record.host_spans.iter().map(|span| span.began_ms).min();
        let zero_ms = match record.asked_ms {
            Some(asked_ms) => signed(asked_ms.saturating_sub(ordered_ms)),
            None => signed(first_work.or(first_arrival).unwrap_or(0)),
        };
        let mut drawing = Drawing {
            record,
            zero_ms,
            ran_ms: record
                .host_span(HostWork::Processors)
                .map(|span| signed(span.began_ms) - zero_ms),
            guest: None,
            phases: Vec::new(),
            disbelieved: 0,
        };
        drawing.tie_guest();
        if (record.asked_ms, first_work) == (None, None)
            && let Some(guest) = &mut drawing.guest
        {
            // Nobody asked: the guest's own beginning is zero.
            drawing.zero_ms += guest.zero_ms;
            guest.zero_ms = 0;
        }
        drawing
    }

    fn host(&self, ms: u64) -> i64 {
        signed(ms).saturating_sub(self.zero_ms)
    }

    /// Whether a guest could have said at `arrived_ms` of this host that its kernel was up for so long.
    fn can_be(&self, uptime_ms: u64, arrived_ms: u64) -> bool {
        let room_ms = self
            .ran_ms
            .map(|ran_ms| self.host(arrived_ms).saturating_sub(ran_ms) + SLACK_MS);
        uptime_ms < LONGEST_MS && room_ms.is_none_or(|room_ms| signed(uptime_ms) <= room_ms)
    }

    /// Finds the guest's zero, and the phases that can be believed.
    fn tie_guest(&mut self) {
        let mut latest: Option<GuestClock> = None;
        for arrived in &self.record.lines {
            let uptime_ms = match &arrived.line {
                Line::Done { uptime_ms, .. } => *uptime_ms,
                Line::Step(step) => step.ended_ms,
                _ => continue,
            };
            if !self.can_be(uptime_ms, arrived.arrived_ms) {
                self.disbelieved += 1;
                continue;
            }
            if let Line::Done { phase, .. } = arrived.line {
                // Time does not run backwards.
                let before_ms = self.phases.last().map_or(0, |(_, before_ms)| *before_ms);
                self.phases.push((phase, uptime_ms.max(before_ms)));
            }
            let found = GuestClock {
                zero_ms: self.host(arrived.arrived_ms) - signed(uptime_ms),
                within_ms: arrived.within_ms,
            };
            if latest.is_none_or(|latest| found.zero_ms < latest.zero_ms) {
                latest = Some(found);
            }
        }
        if let (Some(found), Some(ran_ms)) = (&mut latest, self.ran_ms)
            && found.zero_ms < ran_ms
        {
            found.zero_ms = ran_ms;
            found.within_ms = found.within_ms.filter(|_| false);
        }
        self.guest = latest;
    }

    fn phase_ms(&self, phase: Phase) -> Option<u64> {
        let mut phases = self.phases.iter();
        phases
            .find(|(done, _)| *done == phase)
            .map(|(_, uptime_ms)| *uptime_ms)
    }

    fn draw(mut self) -> Timeline {
        let mut bars = Vec::new();
        if !self.record.rebooted {
            self.host_bars(&mut bars);
        }
        self.guest_bars(&mut bars);
        bars.push(self.system());
        bars.push(self.whole());
        let known = self.record.asked_ms.is_some() || self.guest.is_some();
        Timeline {
            zero_ms: known.then(|| u64::try_from(self.zero_ms).unwrap_or(0)),
            bars,
            notes: self.notes(),
        }
    }

    fn span(&self, span: HostSpan, name: &str, kind: Kind) -> Bar {
        Bar::new(
            name,
            kind,
            self.host(span.began_ms),
            self.host(span.ended_ms),
        )
    }

    /// What manager and agent did, up to the moment in which the processors ran.
    fn host_bars(&self, bars: &mut Vec<Bar>) {
        let Some(asked_ms) = self.record.asked_ms.map(|ms| self.host(ms)) else {
            let why = "its host does not know";
            bars.push(Bar::unknown("agent", Kind::Agent, why));
            bars.push(Bar::unknown("QEMU", Kind::Emulator, why));
            return;
        };
        if let Some(span) = self.record.host_span(HostWork::Archive) {
            let archive = self.span(span, "archive", Kind::Agent);
            let is_near = archive
                .ended_ms
                .is_some_and(|ended_ms| ended_ms > -ARCHIVE_BEFORE_MS);
            bars.extend(is_near.then_some(archive));
        }
        if let Some(answered) = &self.record.answered {
            let ordered_ms = signed(answered.ordered_ms);
            bars.push(Bar::new("request", Kind::Manager, 0, ordered_ms));
        }
        let emulator = self.record.host_span(HostWork::Emulator);
        let processors = self.record.host_span(HostWork::Processors);
        let interface = self.record.host_span(HostWork::Interface);
        match emulator.or(processors) {
            Some(next) => {
                let agent = Bar::new("agent", Kind::Agent, asked_ms, self.host(next.began_ms));
                let parts = interface.map(|span| self.span(span, "interface, files", Kind::Agent));
                bars.push(agent.with(parts.into_iter().collect()));
            }
            None => bars.push(Bar::unknown(
                "agent",
                Kind::Agent,
                "it was restarted meanwhile",
            )),
        }
        match (emulator, processors) {
            (Some(emulator), Some(processors)) => {
                let (began_ms, ended_ms) = (emulator.began_ms, processors.ended_ms);
                let parts = vec![
                    self.span(emulator, "starts, answers", Kind::Emulator),
                    self.span(processors, "processors go", Kind::Emulator),
                ];
                let bar = Bar::new(
                    "QEMU",
                    Kind::Emulator,
                    self.host(began_ms),
                    self.host(ended_ms),
                );
                bars.push(bar.with(parts));
            }
            (Some(span), None) | (None, Some(span)) => {
                let mut bar = self.span(span, "QEMU", Kind::Emulator);
                bar.ended_ms = bar.ended_ms.filter(|_| emulator.is_none());
                bars.push(bar);
            }
            (None, None) => bars.push(Bar::unknown(
                "QEMU",
                Kind::Emulator,
                "the agent was restarted meanwhile",
            )),
        }
    }

    /// From the request to the answer.
    fn whole(&self) -> Bar {
        let name = "answers";
        match (&self.record.answered, self.record.asked_ms) {
            (Some(answered), Some(_)) => Bar::new(
                format!("{name} ({})", answered.by),
                Kind::Whole,
                0,
                signed(answered.answered_ms),
            ),
            _ if self.record.failure().is_some() => {
                Bar::unknown(name, Kind::Whole, "it did not boot")
            }
            _ => Bar::unknown(name, Kind::Whole, "no manager has seen it answer"),
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        match self.guest {
            Some(GuestClock {
                within_ms: Some(within_ms),
                ..
            }) => notes.push(format!(
                "guest times are placed by the arrival of its report, {within_ms} ms too late at most"
            )),
            Some(_) => notes.push(
                "guest times are placed roughly: nobody was looking when its report came".to_owned(),
            ),
            None => {}
        }
        if self.record.rebooted {
            notes.push("the guest began again by itself".to_owned());
        }
        if self.disbelieved > 0 {
            notes.push(format!(
                "{} times that the clone tells of cannot be, and are left out",
                self.disbelieved
            ));
        }
        match &self.record.system {
            Some(system) if system.left_out > 0 => {
                notes.push(format!("{} more units are not kept", system.left_out));
            }
            _ => {}
        }
        notes
    }
}

#[cfg(test)]
pub(crate) mod tests;
