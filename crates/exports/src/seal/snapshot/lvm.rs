//! A snapshot of the logical volume that holds a root.
//!
//! LVM has the kernel bring the file system to rest while it makes one, so what is read is what was there at one instant.
//! A thin snapshot takes room from its pool as it needs it. A thick one has a size: when more than that was written to the
//! volume it is invalid, and nothing that was read of it counts.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::super::notes::Notes;
use super::detached;
use super::report::{self, Row, field, lvm, number};
use super::volume::{self, Mounted};

/// Only a seal gives a volume this tag and such a name: `estive-seal-PID-START-COUNT`.
const TAG: &str = "estive.seal";
const PREFIX: &str = "estive-seal-";

/// A pool so full is left alone: what the system itself writes needs the rest.
const POOL_PERCENT_MAX: f64 = 90.0;

/// A snapshot that is read.
#[derive(Debug)]
pub(in super::super) struct Snapshot {
    /// Of the file system in it; before the volume, so that it is closed first.
    tree: OwnedFd,
    below: PathBuf,
    made: Made,
}

/// A volume that is removed with this.
#[derive(Debug)]
struct Made {
    /// `GROUP/VOLUME`.
    names: String,
    room: Room,
    notes: Notes,
}

/// Where a snapshot keeps what was there before it was written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Pool,
    Own { extents: u64, size_bytes: u64 },
}

impl Snapshot {
    /// `None`: the directory lies on no logical volume.
    ///
    /// # Errors
    /// It does, and no snapshot was made: why.
    pub fn of(
        directory: impl AsFd,
        share_percent: u8,
        notes: &Notes,
    ) -> Result<Option<Self>, String> {
        let Some(origin) = volume::of(directory)? else {
            return Ok(None);
        };
        Self::of_volume(origin, share_percent, notes).map(Some)
    }

    fn of_volume(origin: Mounted, share_percent: u8, notes: &Notes) -> Result<Self, String> {
        if !detached::is_known(&origin.file_system) {
            let kind = &origin.file_system;
            return Err(format!(
                "a snapshot of {kind} on LVM is not read: only ext2, ext3, ext4 and XFS are"
            ));
        }
        remove_abandoned(&origin.group, notes)?;
        let room = room(&origin, share_percent)?;
        let (made, device) = Made::of(&origin, room, notes)?;
        let tree = detached::mount(&origin.file_system, &device)?;
        Ok(Self {
            tree,
            below: origin.below,
            made,
        })
    }

    /// The directory in the snapshot.
    pub fn open(&self) -> Result<OwnedFd, String> {
        let below = match self.below.as_os_str().is_empty() {
            true => Path::new("."),
            false => &self.below,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        openat2(&self.tree, below, flags, Mode::empty(), resolve).map_err(|errno| {
            format!(
                "opening {} in {}: {errno}",
                below.display(),
                self.made.names
            )
        })
    }

    /// See [`super::Snapshot::check`].
    pub fn check(&self) -> Result<(), String> {
        let Room::Own { size_bytes, .. } = self.made.room else {
            return Ok(());
        };
        let row = report::volume(&["lv_snapshot_invalid"], &self.made.names)?;
        if field(&row, "lv_snapshot_invalid")? == "0" {
            return Ok(());
        }
        Err(format!(
            "more was written meanwhile than its {} MiB hold; --snapshot-share gives it more",
            size_bytes >> 20
        ))
    }
}

impl Made {
    /// Makes a snapshot; gives its device besides.
    fn of(origin: &Mounted, room: Room, notes: &Notes) -> Result<(Self, PathBuf), String> {
        let name = own_name()?;
        let names = format!("{}/{name}", origin.group);
        let source = format!("{}/{}", origin.group, origin.volume);
        let extents;
        let how: &[&str] = match room {
            // It would not be activated.
            Room::Pool => &["--setactivationskip", "n", "--activate", "y"],
            Room::Own { extents: count, .. } => {
                extents = count.to_string();
                &["--extents", &extents]
            }
        };
        // No backup of the metadata, as it soon is again what it was: the root would have another file after each seal.
        let words = ["lvcreate", "--snapshot", "--autobackup", "n", "--yes"];
        let named = ["--name", &name, "--addtag", TAG, &source];
        lvm(&[&words, how, &named].concat()).inspect_err(|_| {
            // What it has made nevertheless.
            let _ = remove(&names);
        })?;
        let device = volume::device_of(&origin.group, &name);
        let notes = notes.clone();
        Ok((Self { names, room, notes }, device))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Err(why) = remove(&self.names) {
            let names = &self.names;
            self.notes.add(format!(
                "the snapshot {names} stays, the next seal removes it: {why}"
            ));
        }
    }
}

/// Never a volume that is open, whatever it is called: LVM refuses that.
fn remove(names: &str) -> Result<(), String> {
    lvm(&["lvremove", "--autobackup", "n", "--yes", names]).map(drop)
}

/// Where a snapshot of this volume finds room.
fn room(origin: &Mounted, share_percent: u8) -> Result<Room, String> {
    let (group, names) = (&origin.group, format!("{}/{}", origin.group, origin.volume));
    let fields = [
        "vg_uuid",
        "lv_uuid",
        "lv_layout",
        "pool_lv",
        "vg_free_count",
        "vg_extent_size",
    ];
    let row = report::volume(&fields, &names)?;
    let uuids = [field(&row, "vg_uuid")?, field(&row, "lv_uuid")?].concat();
    if uuids.replace('-', "") != origin.uuids {
        return Err(format!("lvs knows another volume {names} than is mounted"));
    }
    if field(&row, "lv_layout")?
        .split(',')
        .any(|word| word == "thin")
    {
        let pool = format!("{group}/{}", field(&row, "pool_lv")?);
        let row = report::volume(&["data_percent", "metadata_percent"], &pool)?;
        return room_in_pool(&row, &pool);
    }
    room_in_group(&row, group, share_percent)
}

fn room_in_pool(row: &Row, pool: &str) -> Result<Room, String> {
    for (name, what) in [("data_percent", "data"), ("metadata_percent", "metadata")] {
        let used: f64 = number(row, name)?;
        if used >= POOL_PERCENT_MAX {
            return Err(format!(
                "the {what} of the thin pool {pool} is {used} % full, and a snapshot takes more of it: extend the pool"
            ));
        }
    }
    Ok(Room::Pool)
}

fn room_in_group(row: &Row, group: &str, share_percent: u8) -> Result<Room, String> {
    let (free, extent_bytes): (u64, u64) = (
        number(row, "vg_free_count")?,
        number(row, "vg_extent_size")?,
    );
    // LVM itself takes no more than the volume could ever need.
    let extents = free.saturating_mul(share_percent.into()) / 100;
    if extents == 0 {
        return Err(format!(
            "of the group {group} {free} extents of {} MiB are free, and {share_percent} % of them are none: \
             extend the group, or raise --snapshot-share",
            extent_bytes >> 20
        ));
    }
    Ok(Room::Own {
        extents,
        size_bytes: extents.saturating_mul(extent_bytes),
    })
}

fn own_name() -> Result<String, String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id();
    let started = started(process).ok_or("/proc does not say when this process started")?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(format!("{PREFIX}{process}-{started}-{count}"))
}

/// When a process started, in ticks since the kernel did. `None`: there is none.
fn started(process: u32) -> Option<u64> {
    started_of(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// Field 22 of a process's stat (proc(5)); the second is a name that may hold anything.
fn started_of(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Removes snapshots whose maker was killed. One that is read is open, and so stays whatever a name says.
fn remove_abandoned(group: &str, notes: &Notes) -> Result<(), String> {
    let fields = ["lv_name", "lv_tags", "lv_host"];
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    for row in report::volumes(&fields, group)? {
        let Some((name, process, at)) = of_a_seal(&row, &host) else {
            continue;
        };
        if started(process) == Some(at) {
            continue;
        }
        let names = format!("{group}/{name}");
        notes.add(match remove(&names) {
            Ok(()) => format!("a snapshot that a killed seal had left was removed: {names}"),
            Err(why) => format!("a snapshot that a killed seal has left stays, {names}: {why}"),
        });
    }
    Ok(())
}

/// The name of a volume that a seal on this host has made, the process, and when that started. On other hosts that see
/// the group other processes have these numbers.
fn of_a_seal<'a>(row: &'a Row, host: &str) -> Option<(&'a str, u32, u64)> {
    let [name, tags, made_on] =
        ["lv_name", "lv_tags", "lv_host"].map(|name| row.get(name).map(String::as_str));
    let name = name?;
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
    let (process, at) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let is_ours = tags?.split(',').any(|tag| tag == TAG) && made_on? == host;
    is_ours.then_some((name, process, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fields: &[(&str, &str)]) -> Row {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        fields.iter().map(owned).collect()
    }

    #[test]
    fn a_share_of_what_is_free_is_taken() {
        let of = |free: &str, share: u8| {
            let row = row(&[("vg_free_count", free), ("vg_extent_size", "4194304")]);
            room_in_group(&row, "vg", share)
        };
        let own = |extents: u64| {
            Ok(Room::Own {
                extents,
                size_bytes: extents << 22,
            })
        };
        assert_eq!(of("100", 80), own(80));
        assert_eq!(of("3", 50), own(1));
        assert_eq!(of("7", 100), own(7));
        for (free, share) in [("0", 100), ("1", 99), ("100", 0)] {
            let why = of(free, share).unwrap_err();
            assert!(
                why.contains("vg") && why.contains("--snapshot-share"),
                "{why}"
            );
        }
        assert!(of("", 80).is_err() && of("-1", 80).is_err());
    }

    #[test]
    fn a_pool_that_is_nearly_full_is_left_alone() {
        let of = |data: &str, metadata: &str| {
            room_in_pool(
                &row(&[("data_percent", data), ("metadata_percent", metadata)]),
                "vg/p",
            )
        };
        assert_eq!(of("12.34", "10.00"), Ok(Room::Pool));
        assert!(of("90.00", "10.00").unwrap_err().contains("vg/p"));
        assert!(of("12.34", "99.95").unwrap_err().contains("metadata"));
        assert!(of("", "").is_err());
    }

    #[test]
    fn only_what_a_seal_of_this_host_has_left_is_its_own() {
        let of = |name: &str, tags: &str, made_on: &str| {
            let row = row(&[("lv_name", name), ("lv_tags", tags), ("lv_host", made_on)]);
            of_a_seal(&row, "here").map(|(_, process, at)| (process, at))
        };
        assert_eq!(
            of("estive-seal-12-345-0", "estive.seal", "here"),
            Some((12, 345))
        );
        assert_eq!(
            of("estive-seal-12-345-0", "x,estive.seal", "here"),
            Some((12, 345))
        );
        for (name, tags, made_on) in [
            ("estive-seal-12-345-0", "", "here"),
            ("estive-seal-12-345-0", "estive.sealed", "here"),
            ("estive-seal-12-345-0", "estive.seal", "there"),
            ("estive-seal-12-345-0", "estive.seal", ""),
            ("estive-seal-12", "estive.seal", "here"),
            ("estive-seal-mine-1-0", "estive.seal", "here"),
            ("root", "estive.seal", "here"),
        ] {
            assert_eq!(of(name, tags, made_on), None, "{name} {tags} {made_on}");
        }
    }

    #[test]
    fn a_process_is_known_by_when_it_started() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";
        assert_eq!(started_of(stat), Some(98765));
        assert_eq!(started_of("12 (short) S 1"), None);
        let own = own_name().unwrap();
        let row = row(&[("lv_name", &own), ("lv_tags", TAG), ("lv_host", "here")]);
        let (name, process, at) = of_a_seal(&row, "here").unwrap();
        assert_eq!((name, process), (own.as_str(), std::process::id()));
        assert_eq!(started(process), Some(at));
        assert_ne!(own, own_name().unwrap());
    }
}
