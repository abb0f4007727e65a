//! What decides in a replay, and what it is shown.

use crate::day::{Day, Variant};

/// A guest is to go to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Which guest.
    pub guest: usize,
    /// Where it goes.
    pub to: usize,
}

/// How many past samples of a guest are remembered.
pub const HISTORY: usize = 30;

/// What a policy sees at a moment. No moves are under way then.
#[derive(Debug)]
pub struct View<'a> {
    /// What is given. A policy does not look at loads there: the future stands in it.
    pub day: &'a Day,
    /// The rules.
    pub variant: Variant,
    /// The moment.
    pub time_s: f64,
    /// Its number, from 0.
    pub tick: usize,
    /// Guests on each host, in the order in which they came.
    pub on: &'a [Vec<usize>],
    /// What each host gives its guests now, in MIPS.
    pub used_mips: &'a [f64],
    /// What each guest asks now, in MIPS.
    pub asked_mips: &'a [f64],
    /// Each guest's past loads as shares of its speed, the newest first, [`HISTORY`] at the most.
    pub history: &'a [Vec<f64>],
    /// Which guests are there no more.
    pub gone: &'a [bool],
}

/// A rule for where guests are.
pub trait Policy {
    /// Its name in tables.
    fn name(&self) -> String;

    /// The host of each guest at the start, when each asks its full speed and memory and nothing is known of its load.
    /// None: there is no room.
    fn start(&mut self, day: &Day, variant: Variant) -> Option<Vec<usize>>;

    /// What is to be moved now, in the order in which the moves begin.
    fn moves(&mut self, view: &View<'_>) -> Vec<Move>;

    /// Whether every host draws its most all day, used or not.
    fn all_at_full_power(&self) -> bool {
        false
    }
}
