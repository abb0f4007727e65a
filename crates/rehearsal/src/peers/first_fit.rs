//! NPA and DVFS: each guest on the first host with room for its full speed and memory, and nothing ever moves.

use crate::day::{Day, Variant};
use crate::policy::{Move, Policy, View};

/// First fit at the start, no moves.
#[derive(Debug, Clone, Copy)]
pub struct FirstFit {
    full_power: bool,
}

impl FirstFit {
    /// NPA: every host draws its most.
    pub fn all_at_full_power() -> Self {
        Self { full_power: true }
    }

    /// DVFS: a host draws by its load.
    pub fn by_load() -> Self {
        Self { full_power: false }
    }
}

impl Policy for FirstFit {
    fn name(&self) -> String {
        if self.full_power { "NPA" } else { "DVFS" }.to_owned()
    }

    fn start(&mut self, day: &Day, _: Variant) -> Option<Vec<usize>> {
        let mut rooms: Vec<Room> = (0..day.hosts.len())
            .map(|host| Room::of(day, host))
            .collect();
        day.guests
            .iter()
            .map(|guest| {
                let host = rooms
                    .iter()
                    .position(|room| room.holds(guest.mips, guest.memory_mb))?;
                rooms[host].take(guest.mips, guest.memory_mb);
                Some(host)
            })
            .collect()
    }

    fn moves(&mut self, _: &View<'_>) -> Vec<Move> {
        Vec::new()
    }

    fn all_at_full_power(&self) -> bool {
        self.full_power
    }
}

/// What is left of a host when every guest asks for all that it may: the rule of the start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Room {
    pub core_mips: f64,
    pub mips: f64,
    pub memory_mb: u32,
    pub guests: u32,
}

impl Room {
    pub fn of(day: &Day, host: usize) -> Self {
        let kind = day.kind(host);
        Self {
            core_mips: kind.core_mips,
            mips: kind.mips(),
            memory_mb: kind.memory_mb,
            guests: kind.guests_at_start,
        }
    }

    pub fn holds(&self, mips: f64, memory_mb: u32) -> bool {
        self.core_mips >= mips
            && self.mips >= mips
            && self.memory_mb >= memory_mb
            && self.guests > 0
    }

    pub fn take(&mut self, mips: f64, memory_mb: u32) {
        self.mips -= mips;
        self.memory_mb -= memory_mb;
        self.guests -= 1;
    }
}
