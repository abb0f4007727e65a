//! A root as it stands at one instant, where what holds it can show that: a snapshot, gone when reading ends.
//!
//! Made by the tools of btrfs or LVM. Where there is none, one line says why and the root itself is read.

mod btrfs;
mod detached;
mod lvm;
mod report;
mod volume;

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::fstatfs;

use super::notes::Notes;

const BTRFS: i64 = 0x9123_683e;

/// A snapshot of what holds a root.
#[derive(Debug)]
pub(super) enum Snapshot {
    Btrfs(btrfs::Snapshot),
    Lvm(lvm::Snapshot),
}

impl Snapshot {
    /// Makes one of what holds the directory `root`, which `live` is, or notes why not and gives `None`: then the root
    /// itself is read. `share_percent`: how much of what its group has free a snapshot may take that needs room of its own.
    pub fn of(root: &Path, live: &OwnedFd, share_percent: u8, notes: &Notes) -> Option<Self> {
        let made = if fstatfs(live).ok()?.f_type == BTRFS {
            btrfs::Snapshot::of(root, notes).map(|made| made.map(Self::Btrfs))
        } else {
            lvm::Snapshot::of(live, share_percent, notes).map(|made| made.map(Self::Lvm))
        };
        made.unwrap_or_else(|why| {
            notes.add(format!(
                "no snapshot was made, the root itself was read: {why}"
            ));
            None
        })
    }

    /// Opens the root in the snapshot. What is opened must be closed before the snapshot goes.
    pub fn open(&self) -> Result<OwnedFd, String> {
        match self {
            Self::Btrfs(snapshot) => snapshot.open(),
            Self::Lvm(snapshot) => snapshot.open(),
        }
    }

    /// Whether all that was read so far was of the one instant.
    ///
    /// # Errors
    /// It was not, or nobody can tell: why.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Btrfs(_) => Ok(()),
            Self::Lvm(snapshot) => snapshot.check(),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Btrfs(_) => "btrfs snapshot",
            Self::Lvm(_) => "LVM snapshot",
        }
    }
}
