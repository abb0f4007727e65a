//! What a replay is judged by: energy, moves, and how long hosts and moving guests were short of processors.

use serde::{Deserialize, Serialize};

/// The result of a day.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Energy.
    pub kwh: f64,
    /// Moves begun.
    pub moves: u64,
    /// Hosts that were switched on during the day.
    pub boots: u64,
    /// Share of hosts' active time in which they gave less than was asked. A host that a guest is coming to counts too.
    pub slatah: f64,
    /// What moving guests did not get of what they asked, as a share of all that was asked.
    pub pdm: f64,
    /// What all guests did not get, as a share of all that was asked: not part of `esv`, but what users feel.
    pub short: f64,
    /// Mean number of hosts that are on.
    pub hosts_on: f64,
}

impl Outcome {
    /// `slatah` × `pdm`.
    pub fn slav(&self) -> f64 {
        self.slatah * self.pdm
    }

    /// kWh × SLATAH × PDM.
    pub fn esv(&self) -> f64 {
        self.kwh * self.slav()
    }
}

/// A state that lasts until the next one is told.
#[derive(Debug, Clone, Copy)]
struct Lasting {
    since_s: f64,
    given: f64,
    asked: f64,
    flag: bool,
}

/// One series of states; of several at the same moment the last one counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Series {
    last: Option<Lasting>,
}

impl Series {
    /// Tells a new state; gives the length of the one before with what it was, if time has passed.
    fn then(&mut self, time_s: f64, given: f64, asked: f64, flag: bool) -> Option<(f64, Lasting)> {
        let before = self.last.replace(Lasting {
            since_s: time_s,
            given,
            asked,
            flag,
        })?;
        (before.since_s != time_s).then_some((time_s - before.since_s, before))
    }
}

/// Sums over all hosts and guests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    active_s: f64,
    violated_s: f64,
    asked: f64,
    short: f64,
    short_moving: f64,
    pub joules: f64,
    pub moves: u64,
    pub boots: u64,
}

impl Tally {
    /// A host's state from now on.
    pub fn host(&mut self, series: &mut Series, time_s: f64, given: f64, asked: f64) {
        if let Some((length_s, was)) = series.then(time_s, given, asked, given > 0.0)
            && was.flag
        {
            self.active_s += length_s;
            if was.given < was.asked {
                self.violated_s += length_s;
            }
        }
    }

    /// A guest's state from now on, where it lives.
    pub fn guest(
        &mut self,
        series: &mut Series,
        time_s: f64,
        given: f64,
        asked: f64,
        moving: bool,
    ) {
        if let Some((length_s, was)) = series.then(time_s, given, asked, moving) {
            self.asked += was.asked * length_s;
            let short = (was.asked - was.given).max(0.0) * length_s;
            self.short += short;
            if was.flag {
                self.short_moving += short;
            }
        }
    }

    /// The result.
    pub fn outcome(&self, length_s: f64) -> Outcome {
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        Outcome {
            kwh: self.joules / 3_600_000.0,
            moves: self.moves,
            boots: self.boots,
            slatah: share(self.violated_s, self.active_s),
            pdm: share(self.short_moving, self.asked),
            short: share(self.short, self.asked),
            hosts_on: share(self.active_s, length_s),
        }
    }
}
