//! Did any guest run twice? Judged from its numbered beats as the switch saw them. Pure.
//!
//! A guest numbers its beats from 1 within one boot. Whoever runs it, a number is sent once, by one host. So:
//! a number that came in at two ports, a number that is not above all before it in the same boot, and a boot that is
//! heard again after a later one of the same guest was heard, each say "twice". A beat in flight at a move's switch is
//! legal like any other: once.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

/// One beat at a port of the switch, in the order the switch saw them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// When, in microseconds since the epoch.
    pub at_us: u64,
    /// The switch's port it came in at: `p-h1`, …
    pub port: String,
    /// The guest's name.
    pub name: String,
    /// Of this boot of the guest's kernel.
    pub boot: String,
    /// From 1 within a boot.
    pub number: u64,
    /// The guest's own uptime, in ms.
    pub uptime_ms: u64,
}

/// Why it is "twice".
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Twice {
    /// One number of one boot from two ports.
    TwoPorts {
        name: String,
        boot: String,
        number: u64,
        first: String,
        second: String,
        at_us: u64,
    },
    /// A number that is not above the highest before it, from the same port as the first time or never seen before.
    WentBack {
        name: String,
        boot: String,
        number: u64,
        highest: u64,
        port: String,
        at_us: u64,
    },
    /// A boot was heard again after a later one.
    TwoBoots {
        name: String,
        earlier: String,
        later: String,
        at_us: u64,
    },
}

impl fmt::Display for Twice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoPorts {
                name,
                number,
                first,
                second,
                ..
            } => {
                write!(
                    f,
                    "{name}: beat {number} came in at {first} and at {second}"
                )
            }
            Self::WentBack {
                name,
                number,
                highest,
                port,
                ..
            } => {
                write!(
                    f,
                    "{name}: beat {number} came in at {port} after beat {highest}"
                )
            }
            Self::TwoBoots {
                name,
                earlier,
                later,
                ..
            } => {
                write!(
                    f,
                    "{name}: boot {earlier} was heard again after boot {later}"
                )
            }
        }
    }
}

/// One boot of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootSeen {
    /// Its id.
    pub boot: String,
    /// First and last beat, in microseconds since the epoch.
    pub first_us: u64,
    pub last_us: u64,
    /// The highest number.
    pub highest: u64,
    /// Numbers between the first seen and the highest that were not seen (lost on the way: no fault by itself).
    pub missing: u64,
    /// The longest time between two beats, in microseconds.
    pub longest_gap_us: u64,
    /// The ports, in the order of its life; one more with each move.
    pub ports: Vec<String>,
}

/// What was seen of all guests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// By guest, its boots in the order they were first heard.
    pub guests: BTreeMap<String, Vec<BootSeen>>,
    /// Empty if nothing ran twice; at most [`TWICE_MAX`] are kept.
    pub twice: Vec<Twice>,
    /// How many there were.
    pub twice_count: u64,
}

/// How many cases a judgement holds.
pub const TWICE_MAX: usize = 100;

impl Judgement {
    /// Each guest ran once or not at all.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.twice_count == 0
    }

    fn add(&mut self, twice: Twice) {
        self.twice_count += 1;
        if self.twice.len() < TWICE_MAX {
            self.twice.push(twice);
        }
    }
}

/// Judges sightings in the order the switch saw them.
#[must_use]
pub fn judge(sightings: &[Sighting]) -> Judgement {
    let mut judgement = Judgement::default();
    // Where each number of each boot came in first.
    let mut ports: HashMap<(&str, &str, u64), &str> = HashMap::new();
    for seen in sightings {
        let boots = judgement.guests.entry(seen.name.clone()).or_default();
        let index = match boots.iter().position(|boot| boot.boot == seen.boot) {
            Some(index) => index,
            None => {
                boots.push(BootSeen {
                    boot: seen.boot.clone(),
                    first_us: seen.at_us,
                    last_us: seen.at_us,
                    highest: seen.number.saturating_sub(1),
                    missing: 0,
                    longest_gap_us: 0,
                    ports: Vec::new(),
                });
                boots.len() - 1
            }
        };
        let later = boots
            .last()
            .filter(|_| index + 1 < boots.len())
            .map(|boot| boot.boot.clone());
        let boot = &mut boots[index];
        let mut faults = Vec::new();
        if let Some(later) = later {
            let (name, earlier) = (seen.name.clone(), seen.boot.clone());
            faults.push(Twice::TwoBoots {
                name,
                earlier,
                later,
                at_us: seen.at_us,
            });
        }
        let before = ports
            .entry((&seen.name, &seen.boot, seen.number))
            .or_insert(&seen.port);
        if *before != seen.port {
            faults.push(Twice::TwoPorts {
                name: seen.name.clone(),
                boot: seen.boot.clone(),
                number: seen.number,
                first: (*before).to_owned(),
                second: seen.port.clone(),
                at_us: seen.at_us,
            });
        } else if seen.number <= boot.highest {
            faults.push(Twice::WentBack {
                name: seen.name.clone(),
                boot: seen.boot.clone(),
                number: seen.number,
                highest: boot.highest,
                port: seen.port.clone(),
                at_us: seen.at_us,
            });
        }
        if seen.number > boot.highest {
            boot.missing += seen.number - boot.highest - 1;
            boot.highest = seen.number;
        }
        boot.longest_gap_us = boot
            .longest_gap_us
            .max(seen.at_us.saturating_sub(boot.last_us));
        boot.last_us = boot.last_us.max(seen.at_us);
        if boot.ports.last() != Some(&seen.port) {
            boot.ports.push(seen.port.clone());
        }
        faults.into_iter().for_each(|twice| judgement.add(twice));
    }
    judgement
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(port: &str, boot: &str, numbers: impl IntoIterator<Item = u64>) -> Vec<Sighting> {
        let one = |number| Sighting {
            at_us: number * 20_000,
            port: port.to_owned(),
            name: "clone01".to_owned(),
            boot: boot.to_owned(),
            number,
            uptime_ms: number * 20,
        };
        numbers.into_iter().map(one).collect()
    }

    #[test]
    fn a_life_with_moves_and_a_restart_is_clean() {
        let seen = [
            beats("p-h1", "a", 1..100),
            beats("p-h2", "a", 100..200),
            beats("p-h1", "a", 205..300),
            beats("p-h1", "b", 1..50),
        ]
        .concat();
        let judgement = judge(&seen);
        assert!(judgement.is_clean(), "{:?}", judgement.twice);
        let boots = &judgement.guests["clone01"];
        assert_eq!(boots[0].ports, ["p-h1", "p-h2", "p-h1"]);
        assert_eq!(
            (boots[0].missing, boots[0].highest, boots[0].longest_gap_us),
            (5, 299, 120_000)
        );
        assert_eq!(boots.len(), 2);
    }

    #[test]
    fn one_number_from_two_ports_is_twice() {
        let seen = [beats("p-h1", "a", 1..=100), beats("p-h2", "a", 100..110)].concat();
        let judgement = judge(&seen);
        assert_eq!(judgement.twice_count, 1);
        assert!(
            matches!(&judgement.twice[0], Twice::TwoPorts { number: 100, .. }),
            "{:?}",
            judgement.twice
        );
    }

    #[test]
    fn a_source_that_resumes_is_twice_even_where_numbers_never_meet() {
        // The destination missed 60..70 at its start; the source, thawed late, sends just these.
        let seen = [
            beats("p-h1", "a", 1..60),
            beats("p-h2", "a", 70..90),
            beats("p-h1", "a", 60..65),
        ]
        .concat();
        let judgement = judge(&seen);
        assert_eq!(judgement.twice_count, 5);
        assert!(
            judgement
                .twice
                .iter()
                .all(|twice| matches!(twice, Twice::WentBack { .. }))
        );
    }

    #[test]
    fn a_number_that_is_repeated_at_one_port_is_twice() {
        let seen = [beats("p-h1", "a", 1..10), beats("p-h1", "a", 9..10)].concat();
        assert!(matches!(
            &judge(&seen).twice[..],
            [Twice::WentBack {
                number: 9,
                highest: 9,
                ..
            }]
        ));
    }

    #[test]
    fn two_boots_that_interleave_are_twice() {
        let seen = [
            beats("p-h1", "a", 1..10),
            beats("p-h2", "b", 1..5),
            beats("p-h1", "a", 10..11),
        ]
        .concat();
        assert!(matches!(&judge(&seen).twice[..], [Twice::TwoBoots { .. }]));
    }

    #[test]
    fn guests_are_judged_apart() {
        let mut other = beats("p-h2", "a", 1..10);
        other
            .iter_mut()
            .for_each(|seen| seen.name = "clone02".to_owned());
        let seen = [beats("p-h1", "a", 1..10), other].concat();
        assert!(judge(&seen).is_clean());
    }
}
