//! A root as it stands at one instant, where its file system can show that: a snapshot of the btrfs subvolume that holds
//! it, gone when sealing ends.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::statfs;

const BTRFS: i64 = 0x9123_683e;
/// The number of each subvolume's root.
const SUBVOLUME_ROOT: u64 = 256;
const PREFIX: &str = ".estive-seal-";

/// A snapshot of the file system that holds a root.
#[derive(Debug)]
pub(super) struct Snapshot {
    place: PathBuf,
    root: PathBuf,
}

impl Snapshot {
    /// Makes one, or says why not and gives `None`: then the root itself is read.
    pub fn of(root: &Path) -> Option<Self> {
        let kind = statfs(root).ok()?.f_type;
        if kind != BTRFS {
            return None;
        }
        let volume = root.ancestors().find(|path| {
            fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == SUBVOLUME_ROOT)
        })?;
        remove_abandoned(volume);
        let place = volume.join(format!("{PREFIX}{}", std::process::id()));
        let made = btrfs(&["snapshot", "-r"], &[volume, &place]);
        if let Err(why) = made {
            tracing::warn!(%why, "no snapshot was made; the root is read while it changes");
            return None;
        }
        let below = root.strip_prefix(volume).ok()?;
        Some(Self {
            root: place.join(below),
            place,
        })
    }

    /// The root in the snapshot.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn kind(&self) -> &'static str {
        "btrfs snapshot"
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Err(why) = btrfs(&["delete"], &[&self.place]) {
            tracing::warn!(%why, place = %self.place.display(), "the snapshot stays; the next seal removes it");
        }
    }
}

/// Removes snapshots whose maker was killed.
fn remove_abandoned(volume: &Path) {
    for entry in fs::read_dir(volume).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let Some(maker) = maker.and_then(|maker| maker.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new(&format!("/proc/{maker}")).exists() {
            let _ = btrfs(&["delete"], &[&entry.path()]);
        }
    }
}

fn btrfs(words: &[&str], places: &[&Path]) -> Result<(), String> {
    let output = Command::new("btrfs")
        .arg("subvolume")
        .args(words)
        .args(places)
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .output()
        .map_err(|error| format!("btrfs (package btrfs-progs): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
