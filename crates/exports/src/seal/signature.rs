//! What tells that a file was changed, and when it can be trusted to.
//!
//! Any change of a file sets its change time, which nobody can set back, to the kernel's coarse clock (or, from Linux
//! 6.13 on, later than that). So a file whose change time lies before the clock when reading begins, and is the same when
//! it ends, was not changed in between, not even within one tick.

use std::hash::Hash;
use std::thread;
use std::time::Duration;

use rustix::fs::Stat;
use rustix::time::{ClockId, clock_gettime};

/// A change time so far ahead was set by a clock that was wrong; what changes now has an earlier one, and differs.
const FUTURE_S: i64 = 60;

const TICK: Duration = Duration::from_millis(2);
/// A tick of the slowest kernel (100 Hz) and some.
const TICKS: usize = 50;

pub(super) type Time = (i64, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Signature {
    pub device: u64,
    pub inode: u64,
    pub mode: u32,
    uid: u32,
    gid: u32,
    special: u64,
    pub size_bytes: u64,
    modified: Time,
    pub changed: Time,
}

impl Signature {
    pub fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            special: stat.st_rdev,
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }

    pub fn key(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Waits until a change from now on would show in the change time; `false` when it does not come to that.
    pub fn settles(&self) -> bool {
        for _ in 0..TICKS {
            let now = now();
            if self.changed < now || self.changed.0 > now.0 + FUTURE_S {
                return true;
            }
            thread::sleep(TICK);
        }
        false
    }
}

/// The clock that change times are taken from.
pub(super) fn now() -> Time {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    (now.tv_sec, now.tv_nsec)
}
