//! Firmware, kernel and early userspace as bars, from the report of `estive-init`.

use super::{Bar, Drawing, GuestClock, Kind};
use crate::record::HostWork;
use crate::report::{Line, Phase};

impl Drawing<'_> {
    /// Firmware, kernel and early userspace.
    pub(super) fn guest_bars(&self, bars: &mut Vec<Bar>) {
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
