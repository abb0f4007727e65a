//! A snapshot of the btrfs subvolume that holds a root.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::super::notes::Notes;

/// The number of each subvolume's root.
const SUBVOLUME_ROOT: u64 = 256;
const PREFIX: &str = ".estive-seal-";

#[derive(Debug)]
pub(in super::super) struct Snapshot {
    place: PathBuf,
    root: PathBuf,
    notes: Notes,
}

impl Snapshot {
    /// `None`: it lies in no subvolume.
    ///
    /// # Errors
    /// What btrfs says, or that it is not there.
    pub fn of(root: &Path, notes: &Notes) -> Result<Option<Self>, String> {
        let volume = root
            .ancestors()
            .find(|path| fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == SUBVOLUME_ROOT));
        let Some((volume, below)) =
            volume.and_then(|volume| Some((volume, root.strip_prefix(volume).ok()?)))
        else {
            return Ok(None);
        };
        remove_abandoned(volume);
        let place = volume.join(format!("{PREFIX}{}", std::process::id()));
        btrfs(&["snapshot", "-r"], &[volume, &place])?;
        Ok(Some(Self {
            root: place.join(below),
            place,
            notes: notes.clone(),
        }))
    }

    pub fn open(&self) -> Result<OwnedFd, String> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, &self.root, flags, Mode::empty())
            .map_err(|errno| format!("opening {}: {errno}", self.root.display()))
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Err(why) = btrfs(&["delete"], &[&self.place]) {
            let place = self.place.display();
            self.notes.add(format!(
                "the snapshot {place} stays, the next seal removes it: {why}"
            ));
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
