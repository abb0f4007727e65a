//! All boots that are kept of one clone: which, for how long, and how what two hosts know of them becomes one.
//!
//! That a guest began again by itself is known from its own words alone. What a guest says fills the boot that its host
//! began, and stands beside it, never in place of another.

use crate::record::{ArrivedLine, BootRecord, RECORD_BYTES_MAX};
use serde::{Deserialize, Serialize};

/// Boots that are kept of those that a host began.
pub const BOOTS_MAX: usize = 8;
/// The last that answered are among them, however many have failed since.
pub const ANSWERED_KEPT: usize = 4;
/// Boots that are kept of those that a guest began by itself.
pub const REBOOTS_MAX: usize = 2;
/// The longest document of all boots of a clone, in bytes.
pub const BOOTS_BYTES_MAX: usize = 1 << 20;

const _: () = assert!((BOOTS_MAX + REBOOTS_MAX) * RECORD_BYTES_MAX < BOOTS_BYTES_MAX);
const _: () = assert!(ANSWERED_KEPT < BOOTS_MAX);

/// All boots that are kept of a clone, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boots(pub Vec<BootRecord>);

impl Boots {
    /// The one under way, or the last.
    pub fn last(&self) -> Option<&BootRecord> {
        self.0.last()
    }

    /// The same, to add to it.
    pub fn last_mut(&mut self) -> Option<&mut BootRecord> {
        self.0.last_mut()
    }

    /// Begins another boot: it gets the next number, and the oldest go when they are too many.
    pub fn begin(&mut self, record: BootRecord) {
        let number = self.last().map_or(0, |last| last.number).saturating_add(1);
        self.0.push(BootRecord { number, ..record });
        self.bound();
    }

    /// One by its number.
    pub fn by_number(&self, number: u64) -> Option<&BootRecord> {
        self.0.iter().find(|record| record.number == number)
    }

    /// The same from outside: bounded, in the order of their numbers, none twice.
    pub fn cleaned(self) -> Boots {
        let mut records: Vec<BootRecord> = self.0.into_iter().map(BootRecord::cleaned).collect();
        records.sort_by_key(|record| record.number);
        records.dedup_by_key(|record| record.number);
        let mut boots = Boots(records);
        boots.bound();
        boots
    }

    /// Takes what the host knows that the clone came from. That may be told more than once, the last time when the clone
    /// runs here already: what was learned here since is of the last boot there, or of boots after it.
    pub fn merge(&mut self, there: Boots) {
        let mut merged = there.cleaned().0;
        let last_there = merged.last().map_or(0, |last| last.number);
        let mut last = last_there;
        for here in std::mem::take(&mut self.0) {
            match merged.iter().position(|there| is_same(there, &here)) {
                Some(at) => {
                    let more = merged[at].join(here);
                    // It may have begun again there before it came.
                    if let Some(newest) = merged.iter_mut().rfind(|r| r.number == last_there) {
                        for line in more {
                            newest.take(line);
                        }
                    }
                }
                // An old one, that is not kept there any more.
                None if last == last_there
                    && !merged.iter().any(|there| there.number == here.number) =>
                {
                    last = last.max(here.number);
                    merged.push(here);
                }
                None => {
                    last = here.number.max(last.saturating_add(1));
                    let number = last;
                    merged.push(BootRecord { number, ..here });
                }
            }
        }
        *self = Boots(merged).cleaned();
    }

    fn bound(&mut self) {
        while let Some(at) = self.oldest_reboot_too_many() {
            self.0.remove(at);
        }
        while let Some(at) = self.oldest_boot_too_many() {
            self.0.remove(at);
        }
    }

    fn oldest_reboot_too_many(&self) -> Option<usize> {
        let reboots = self.0.iter().filter(|record| record.rebooted).count();
        let oldest = self.0.iter().position(|record| record.rebooted);
        oldest.filter(|_| reboots > REBOOTS_MAX)
    }

    /// The last that was begun stays, and the last that answered.
    fn oldest_boot_too_many(&self) -> Option<usize> {
        let begun = self.0.iter().enumerate();
        let begun: Vec<_> = begun.filter(|(_, record)| !record.rebooted).collect();
        if begun.len() <= BOOTS_MAX {
            return None;
        }
        let answered = begun.iter().rev().filter(|(_, r)| r.answered.is_some());
        let kept: Vec<usize> = answered.take(ANSWERED_KEPT).map(|(at, _)| *at).collect();
        let (_, older) = begun.split_last()?;
        let mut older = older.iter().map(|(at, _)| *at);
        older.find(|at| !kept.contains(at))
    }
}

/// The same boot, as two hosts know it.
fn is_same(there: &BootRecord, here: &BootRecord) -> bool {
    let of = |record: &BootRecord| (record.number, record.asked_ms, record.rebooted);
    of(there) == of(here) && there.host == here.host
}

impl BootRecord {
    /// Takes what another host knows of the same boot and this one does not; gives back the lines that came there.
    fn join(&mut self, here: BootRecord) -> Vec<ArrivedLine> {
        let more = |line: &ArrivedLine| !self.lines.contains(line);
        let lines = here.lines.into_iter().filter(more).collect();
        if self.system.is_none() && here.system.is_some() {
            (self.system, self.system_unknown) = (here.system, None);
        } else if self.system.is_none() {
            self.system_unknown = self.system_unknown.take().or(here.system_unknown);
        }
        self.answered = self.answered.take().or(here.answered);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Answered, SystemBoot};
    use crate::report::{Line, Phase};

    fn answered() -> Option<Answered> {
        Some(Answered {
            ordered_ms: 0,
            answered_ms: 9,
            by: "ping".to_owned(),
        })
    }

    fn at(host: &str) -> BootRecord {
        BootRecord {
            host: host.to_owned(),
            ..BootRecord::default()
        }
    }

    fn rebooted(host: &str) -> BootRecord {
        BootRecord {
            rebooted: true,
            ..at(host)
        }
    }

    fn done(phase: Phase, arrived_ms: u64) -> ArrivedLine {
        ArrivedLine {
            arrived_ms,
            within_ms: None,
            line: Line::Done {
                phase,
                uptime_ms: arrived_ms,
            },
        }
    }

    fn numbers(boots: &Boots) -> Vec<u64> {
        boots.0.iter().map(|boot| boot.number).collect()
    }

    #[test]
    fn the_newest_boots_are_kept_and_numbers_go_on() {
        let mut boots = Boots::default();
        for _ in 0..BOOTS_MAX + 3 {
            boots.begin(at("a"));
        }
        assert_eq!(boots.0.len(), BOOTS_MAX);
        assert_eq!(boots.last().unwrap().number, BOOTS_MAX as u64 + 3);
        assert_eq!(
            (boots.by_number(3), boots.by_number(4).is_some()),
            (None, true)
        );
        let many = (0..100).map(|number| BootRecord { number, ..at("a") });
        assert_eq!(Boots(many.collect()).cleaned().0.len(), BOOTS_MAX);
    }

    #[test]
    fn starts_that_fail_leave_the_last_that_answered() {
        let mut boots = Boots::default();
        for _ in 0..6 {
            boots.begin(BootRecord {
                answered: answered(),
                ..at("a")
            });
        }
        for _ in 0..20 {
            boots.begin(at("a"));
        }
        assert_eq!(numbers(&boots), [3, 4, 5, 6, 23, 24, 25, 26]);
    }

    #[test]
    fn what_a_guest_says_pushes_nothing_out() {
        let mut boots = Boots::default();
        for _ in 0..BOOTS_MAX {
            boots.begin(at("a"));
        }
        for _ in 0..20 {
            boots.begin(rebooted("a"));
        }
        let kept: Vec<u64> = (1..=8).chain([27, 28]).collect();
        assert_eq!(numbers(&boots), kept);
    }

    #[test]
    fn what_two_hosts_know_becomes_one() {
        let system = |told_ms| {
            Some(SystemBoot {
                told_ms,
                ..SystemBoot::default()
            })
        };
        let mut there = Boots::default();
        for _ in 0..2 {
            there.begin(at("a"));
        }
        there.0[1].lines = vec![done(Phase::Init, 1)];
        let mut here = Boots::default();
        here.merge(there.clone());
        assert_eq!(here, there);
        // What the source has learned meanwhile, and what was learned here.
        there.0[1].lines.push(done(Phase::Root, 2));
        there.0[1].answered = answered();
        here.0[1].lines.push(done(Phase::Switch, 3));
        here.0[1].system = system(4);
        here.begin(rebooted("b"));
        for _ in 0..2 {
            here.merge(there.clone());
            assert_eq!(numbers(&here), [1, 2, 3]);
            let lines = [(Phase::Init, 1), (Phase::Root, 2), (Phase::Switch, 3)];
            assert_eq!(here.0[1].lines, lines.map(|(phase, ms)| done(phase, ms)));
            assert_eq!(
                (&here.0[1].answered, &here.0[1].system),
                (&answered(), &system(4))
            );
        }
        // It began again there, and again here, each unknown to the other.
        there.begin(rebooted("a"));
        there.0[2].lines = vec![done(Phase::Init, 7)];
        here.0[1].lines.push(done(Phase::Network, 8));
        for _ in 0..2 {
            here.merge(there.clone());
            let hosts: Vec<_> = here.0.iter().map(|r| (r.number, r.host.as_str())).collect();
            assert_eq!(hosts, [(1, "a"), (2, "a"), (3, "a"), (4, "b")]);
            // What came here came after all that was said there.
            let lines = [(Phase::Init, 7), (Phase::Switch, 3), (Phase::Network, 8)];
            assert_eq!(here.0[2].lines, lines.map(|(phase, ms)| done(phase, ms)));
        }
    }
}
