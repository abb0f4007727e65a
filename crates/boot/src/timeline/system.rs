//! A clone's own init and what it started, as bars.

use super::{Bar, Drawing, GuestClock, Kind};
use crate::record::SystemBoot;
use crate::report::Phase;

impl Drawing<'_> {
    /// The clone's own init and what it started.
    pub(super) fn system(&mut self) -> Bar {
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
}
