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

use crate::record::{BootRecord, HostSpan, HostWork, SystemBoot};
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

    /// Firmware, kernel and early userspace.
    fn guest_bars(&self, bars: &mut Vec<Bar>) {
        let Some(guest) = self.guest else {
            let why = match self.disbelieved {
                0 => "the clone has reported nothing",
                _ => "the clone has reported nothing that can be",
            };
            bars.push(Bar::unknown("firmware", Kind::Firmware, why));
            bars.push(Bar::unknown("kernel", Kind::Kernel, why));
            let mut early = Bar::unknown("estive-init", Kind::EarlyUserspace, why);
            if let Some((phase, error)) = self.record.failure() {
                early.failed = true;
                early.why = Some(format!("{phase}: {error}"));
            }
            bars.push(early);
            return;
        };
        let loosely = guest.within_ms.is_none();
        bars.push(match self.record.host_span(HostWork::Processors) {
            Some(span) => {
                // They may run before the answer to the order is read.
                let began_ms = self.host(span.ended_ms).min(guest.zero_ms);
                Bar {
                    about: true,
                    ..Bar::new("firmware", Kind::Firmware, began_ms, guest.zero_ms)
                }
            }
            None => Bar::unknown(
                "firmware",
                Kind::Firmware,
                "nobody saw when the processors began",
            ),
        });
        // A line that came first is not always that of the first phase.
        let init_ms = self.phase_ms(Phase::Init);
        let mut kernel = match init_ms {
            Some(init_ms) => Bar::new("kernel", Kind::Kernel, guest.zero_ms, guest.at(init_ms)),
            None => Bar::unknown("kernel", Kind::Kernel, "PID 1 did not say when it began"),
        };
        kernel.about = loosely;
        bars.push(kernel);
        bars.push(self.early_userspace(guest, init_ms, loosely));
    }

    fn early_userspace(&self, guest: GuestClock, init_ms: Option<u64>, loosely: bool) -> Bar {
        let name = "estive-init";
        let Some(began_ms) = init_ms else {
            return Bar::unknown(
                name,
                Kind::EarlyUserspace,
                "PID 1 did not say when it began",
            );
        };
        let mut steps = self.steps(guest);
        let mut parts = Vec::new();
        let mut before_ms = began_ms;
        for (phase, uptime_ms) in self
            .phases
            .iter()
            .filter(|(phase, _)| *phase != Phase::Init)
        {
            // One that came before the first is as good as none.
            let after_ms = before_ms.max(*uptime_ms);
            let bar = Bar::new(
                phase.name(),
                Kind::EarlyUserspace,
                guest.at(before_ms),
                guest.at(after_ms),
            );
            let rest = steps.split_off(steps.partition_point(|(place, _)| *place <= parts.len()));
            let own = std::mem::replace(&mut steps, rest);
            parts.push(bar.with(nested(own.into_iter().map(|(_, step)| step).collect())));
            before_ms = after_ms;
        }
        let left: Vec<Bar> = steps.into_iter().map(|(_, step)| step).collect();
        let failure = self
            .record
            .lines
            .iter()
            .find_map(|arrived| match &arrived.line {
                Line::Failed { error, phase } => Some((arrived.arrived_ms, *phase, error)),
                _ => None,
            });
        let mut whole = Bar::new(
            name,
            Kind::EarlyUserspace,
            guest.at(began_ms),
            guest.at(before_ms),
        );
        whole.about = loosely;
        if let Some((arrived_ms, phase, error)) = failure {
            let mut bar = Bar::new(
                phase.name(),
                Kind::EarlyUserspace,
                guest.at(before_ms),
                self.host(arrived_ms),
            );
            (bar.failed, bar.about, bar.why) = (true, true, Some(error.clone()));
            whole.ended_ms = bar.ended_ms;
            whole.failed = true;
            parts.push(bar.with(nested(left)));
        } else if self.phase_ms(Phase::Switch).is_none() {
            whole.ended_ms = None;
            whole.why = Some("not over".to_owned());
            parts.extend(nested(left));
        }
        whole.with(parts)
    }

    /// Steps, each with the number of phases after `init` that were done before it.
    fn steps(&self, guest: GuestClock) -> Vec<(usize, Bar)> {
        let mut done = 0_usize;
        let mut steps = Vec::new();
        for arrived in &self.record.lines {
            match &arrived.line {
                Line::Done { phase, uptime_ms } if self.can_be(*uptime_ms, arrived.arrived_ms) => {
                    done += usize::from(*phase != Phase::Init);
                }
                Line::Step(step) if self.can_be(step.ended_ms, arrived.arrived_ms) => {
                    let bar = Bar::new(
                        &step.step,
                        Kind::EarlyUserspace,
                        guest.at(step.began_ms),
                        guest.at(step.ended_ms),
                    );
                    steps.push((done, bar));
                }
                _ => {}
            }
        }
        steps
    }

    /// The clone's own init and what it started.
    fn system(&mut self) -> Bar {
        let name = "the clone's own init";
        let why = |fallback: &str| {
            let told = self.record.system_unknown.as_deref();
            told.unwrap_or(fallback).to_owned()
        };
        let Some(system) = &self.record.system else {
            return Bar::unknown(name, Kind::System, why("not asked yet"));
        };
        // Whatever is reported last: the switch is at the end of all.
        let switch_ms = self.phase_ms(Phase::Switch);
        let switch_ms = switch_ms.and(self.phases.last().map(|(_, uptime_ms)| *uptime_ms));
        let (Some(guest), Some(switch_ms)) = (self.guest, switch_ms) else {
            return Bar::unknown(name, Kind::System, "its time cannot be tied to the host's");
        };
        let (units, left_out) = self.units(system, guest, switch_ms);
        self.disbelieved += left_out;
        let began_ms = system.began_ms.unwrap_or(switch_ms).max(switch_ms);
        let began_ms = guest.at(began_ms);
        let last_ms = units.iter().filter_map(|unit| unit.ended_ms).max();
        let finished_ms = system
            .finished_ms
            .filter(|ms| self.can_be(*ms, system.told_ms));
        let ended_ms = finished_ms.map(|ms| guest.at(ms)).max(last_ms);
        let mut bar = Bar::new(
            &system.init,
            Kind::System,
            began_ms,
            ended_ms.unwrap_or(began_ms),
        );
        bar.about = guest.within_ms.is_none();
        if finished_ms.is_none() && system.units.iter().all(|unit| unit.began_ms.is_some()) {
            bar.ended_ms = None;
            bar.why = Some("not over when it was asked".to_owned());
        }
        bar.with(units)
    }

    /// Units of the boot, and how many of them cannot be.
    fn units(&self, system: &SystemBoot, guest: GuestClock, switch_ms: u64) -> (Vec<Bar>, u64) {
        let mut left_out = 0;
        let mut units = Vec::new();
        for unit in &system.units {
            let Some(first_ms) = unit.began_ms.or(unit.ended_ms) else {
                continue;
            };
            // Started by somebody when the boot was over.
            if system
                .finished_ms
                .is_some_and(|finished_ms| first_ms > finished_ms)
            {
                continue;
            }
            let last_ms = unit.ended_ms.unwrap_or(first_ms);
            if !self.can_be(last_ms, system.told_ms) || last_ms < switch_ms {
                left_out += 1;
                continue;
            }
            let mut bar = Bar::new(
                &unit.name,
                Kind::System,
                guest.at(first_ms),
                guest.at(last_ms),
            );
            if unit.began_ms.is_none() {
                bar.began_ms = None;
            }
            if unit.ended_ms.is_none() {
                bar.ended_ms = None;
                bar.why = Some("not over when it was asked".to_owned());
            }
            bar.failed = unit.failed;
            units.push(bar);
        }
        (units, left_out)
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

/// Bars within one another, by their times; those that only overlap stand beside each other.
fn nested(mut bars: Vec<Bar>) -> Vec<Bar> {
    // The longer first, where two begin at once; else as they came.
    bars.sort_by_key(|bar| (bar.began_ms, std::cmp::Reverse(bar.ended_ms)));
    let mut roots: Vec<Bar> = Vec::new();
    for bar in bars {
        match roots.last_mut() {
            Some(before) if holds(before, &bar) => before.parts.push(bar),
            _ => roots.push(bar),
        }
    }
    for root in &mut roots {
        let parts = std::mem::take(&mut root.parts);
        root.parts = nested(parts);
    }
    roots
}

fn holds(outer: &Bar, inner: &Bar) -> bool {
    let is_longer = outer.took_ms() > inner.took_ms();
    is_longer && outer.began_ms <= inner.began_ms && outer.ended_ms >= inner.ended_ms
}

#[cfg(test)]
pub(crate) mod tests;
