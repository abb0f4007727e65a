//! What a collector holds: the windows of all sensors, put together by period.
//!
//! A part is known by sensor, window and number: one that comes again changes nothing. The order in which parts come does
//! not matter. A window is whole when every sensor that is expected in it has sent its last part; one that is as old as
//! the bound for late ones is closed with whoever is missing, and what comes for it still is counted and thrown away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::window::{Party, Period, Volume, Window};

/// How much is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// So many windows; none: all.
    pub windows: Option<u64>,
    /// A part that comes so many windows after its own has ended is too late.
    pub late: u64,
}

impl Default for Keep {
    /// All windows; a part may be four windows late.
    fn default() -> Self {
        Self {
            windows: None,
            late: 4,
        }
    }
}

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It counts.
    New,
    /// It was here before.
    Again,
    /// Its window was closed, or is not kept any more.
    TooLate,
    /// Its window begins later than now, by a period or more: the sensor's clock is wrong.
    TooEarly,
}

/// All sensors' counts of one period.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Global {
    flows: BTreeMap<(Party, Party), Volume>,
    parts: BTreeMap<Arc<str>, Parts>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Parts {
    had: BTreeSet<u32>,
    /// Number of the last one, once it is known.
    last: Option<u32>,
}

impl Parts {
    fn is_whole(&self) -> bool {
        self.last
            .is_some_and(|last| self.had.len() as u64 == u64::from(last) + 1)
    }
}

impl Global {
    /// What went from whom to whom.
    pub fn flows(&self) -> impl Iterator<Item = (&Party, &Party, Volume)> {
        self.flows
            .iter()
            .map(|((from, to), &volume)| (from, to, volume))
    }

    /// What went from one to another.
    pub fn volume(&self, from: &Party, to: &Party) -> Volume {
        // Cloning two names is cheaper than a second order by reference.
        (self.flows.get(&(from.clone(), to.clone())))
            .copied()
            .unwrap_or_default()
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Collected {
    period: Period,
    keep: Keep,
    windows: BTreeMap<u64, Global>,
    /// The first window of each sensor that is here, and the last of each that left.
    sensors: BTreeMap<Arc<str>, Vec<Stay>>,
    /// Nothing before this window is kept or taken.
    first: u64,
    thrown_away: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stay {
    from: u64,
    until: Option<u64>,
}

impl Collected {
    /// Nothing yet.
    pub fn new(period: Period, keep: Keep) -> Self {
        Self {
            period,
            keep,
            windows: BTreeMap::new(),
            sensors: BTreeMap::new(),
            first: 0,
            thrown_away: 0,
        }
    }

    /// The length of windows.
    pub fn period(&self) -> Period {
        self.period
    }

    /// A sensor is there from this window on. Said again while it is there, nothing changes.
    pub fn sensor_comes(&mut self, sensor: &Arc<str>, from: u64) {
        let stays = self.sensors.entry(Arc::clone(sensor)).or_default();
        match stays.last_mut() {
            Some(stay)
                if stay
                    .until
                    .is_none_or(|until| until.saturating_add(1) >= from) =>
            {
                stay.until = None;
                // What came first may be of a later window.
                stay.from = stay.from.min(from);
            }
            _ => stays.push(Stay { from, until: None }),
        }
    }

    /// A sensor is not expected after this window.
    pub fn sensor_goes(&mut self, sensor: &str, last: u64) {
        let Some(stay) = (self.sensors.get_mut(sensor)).and_then(|stays| stays.last_mut()) else {
            return;
        };
        if stay.until.is_none() {
            stay.until = Some(last);
        }
    }

    /// Takes a part, at a moment in milliseconds since 1970. A sensor that nobody told of is there from then on.
    pub fn add(&mut self, window: &Window, now_ms: u64) -> Added {
        if window.number > self.period.window_of(now_ms).saturating_add(1) {
            self.thrown_away += 1;
            return Added::TooEarly;
        }
        if self.is_closed(window.number, now_ms) {
            let known = (self.windows.get(&window.number))
                .and_then(|global| global.parts.get(&window.sensor))
                .is_some_and(|parts| parts.had.contains(&window.part));
            if known {
                return Added::Again;
            }
            self.thrown_away += 1;
            return Added::TooLate;
        }
        if !self.expects(&window.sensor, window.number) {
            self.sensor_comes(&window.sensor, window.number);
        }
        let global = self.windows.entry(window.number).or_default();
        let parts = global.parts.entry(Arc::clone(&window.sensor)).or_default();
        if !parts.had.insert(window.part) {
            return Added::Again;
        }
        if window.last {
            parts.last = Some(window.part);
        }
        for flow in &window.flows {
            let row = (global.flows)
                .entry((flow.from.clone(), flow.to.clone()))
                .or_default();
            *row = row.with(flow.volume);
        }
        Added::New
    }

    /// Forgets windows beyond the bound; gives them, the oldest first.
    pub fn forget(&mut self, now_ms: u64) -> Vec<(u64, Global)> {
        let Some(most) = self.keep.windows else {
            return Vec::new();
        };
        let first = (self.period.window_of(now_ms).saturating_add(1)).saturating_sub(most);
        if first <= self.first {
            return Vec::new();
        }
        self.first = first;
        let kept = self.windows.split_off(&first);
        let gone = std::mem::replace(&mut self.windows, kept);
        for stays in self.sensors.values_mut() {
            stays.retain(|stay| stay.until.is_none_or(|until| until >= first));
        }
        self.sensors.retain(|_, stays| !stays.is_empty());
        gone.into_iter().collect()
    }

    /// How many parts came too late or too early.
    pub fn thrown_away(&self) -> u64 {
        self.thrown_away
    }

    /// What was counted in a window so far.
    pub fn window(&self, number: u64) -> Option<&Global> {
        self.windows.get(&number)
    }

    /// The oldest window that there is anything of.
    pub fn oldest(&self) -> Option<u64> {
        self.windows.keys().next().copied()
    }

    /// Whether nothing more will be taken for a window.
    pub fn is_closed(&self, number: u64, now_ms: u64) -> bool {
        let ends_ms = self.period.ends_ms(number);
        number < self.first
            || now_ms >= ends_ms.saturating_add(self.keep.late.saturating_mul(self.period.ms()))
    }

    /// Whether every sensor that is expected in a window has sent all of it. A window in which nobody is expected is whole.
    pub fn is_whole(&self, number: u64) -> bool {
        self.missing(number).is_empty()
    }

    /// Sensors whose last part of a window is not here, by name.
    pub fn missing(&self, number: u64) -> Vec<Arc<str>> {
        let global = self.windows.get(&number);
        let sent = |sensor: &Arc<str>| {
            global
                .and_then(|global| global.parts.get(sensor))
                .is_some_and(Parts::is_whole)
        };
        (self.sensors.iter())
            .filter(|(sensor, _)| self.expects(sensor, number) && !sent(sensor))
            .map(|(sensor, _)| Arc::clone(sensor))
            .collect()
    }

    fn expects(&self, sensor: &str, number: u64) -> bool {
        self.sensors.get(sensor).is_some_and(|stays| {
            (stays.iter())
                .any(|stay| stay.from <= number && stay.until.is_none_or(|until| number <= until))
        })
    }
}
