//! The logical volume whose file system holds a directory, as the kernel tells it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{fstat, major, minor};

use super::super::mounts::{Mount, mounts};

/// How device-mapper's UUIDs of LVM begin. Then the group's UUID and the volume's, and nothing more: what has more is a
/// part of a volume.
const UUID_PREFIX: &str = "LVM-";
const UUIDS_CHARS: usize = 64;

/// A logical volume, and a directory in the file system on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    pub group: String,
    pub volume: String,
    /// The group's and the volume's, without dashes.
    pub uuids: String,
    /// Its type.
    pub file_system: String,
    /// The directory, from the root of the file system.
    pub below: PathBuf,
}

/// The logical volume that holds a directory. `None`: none does.
///
/// # Errors
/// One does, and where the directory lies in it cannot be told.
pub(super) fn of(directory: impl AsFd) -> Result<Option<Mounted>, String> {
    let directory = directory.as_fd();
    let device = fstat(directory).map_err(|errno| errno.to_string())?.st_dev;
    let mapped = format!("/sys/dev/block/{}:{}/dm", major(device), minor(device));
    let told = |what: &str| fs::read_to_string(Path::new(&mapped).join(what));
    // No device, or none of device-mapper.
    let Ok(uuid) = told("uuid") else {
        return Ok(None);
    };
    let Some(uuids) = uuids_of(uuid.trim_end()) else {
        return Ok(None);
    };
    let name = told("name").map_err(|error| format!("{mapped}/name: {error}"))?;
    let (group, volume) = names_of(name.trim_end())
        .ok_or_else(|| format!("{:?} is no name of a volume", name.trim_end()))?;
    let (mount, below) = mount_of(directory)?;
    Ok(Some(Mounted {
        group,
        volume,
        uuids: uuids.to_owned(),
        file_system: mount.file_system,
        below,
    }))
}

/// The mount that an open directory was reached by, and where it lies in the file system.
fn mount_of(directory: BorrowedFd) -> Result<(Mount, PathBuf), String> {
    let read = |place: &str| fs::read(place).map_err(|error| format!("{place}: {error}"));
    let number = directory.as_raw_fd();
    let about = read(&format!("/proc/self/fdinfo/{number}"))?;
    let id = mount_id(&String::from_utf8_lossy(&about))
        .ok_or("the kernel does not say where it is mounted")?;
    let mount = mounts(&read("/proc/self/mountinfo")?)
        .into_iter()
        .find(|mount| mount.id == id)
        .ok_or("its mount is not seen from here")?;
    let place = fs::read_link(format!("/proc/self/fd/{number}"))
        .map_err(|error| format!("its place: {error}"))?;
    let below = below_of(&mount, &place)
        .ok_or_else(|| format!("{} is not where it is mounted", place.display()))?;
    Ok((mount, below))
}

/// Where a place below a mount lies in the file system, which may be mounted from a directory of its own.
fn below_of(mount: &Mount, place: &Path) -> Option<PathBuf> {
    let top = mount.root.strip_prefix("/").ok()?;
    Some(top.join(place.strip_prefix(&mount.place).ok()?))
}

/// Of a descriptor's fdinfo (proc(5)).
fn mount_id(about: &str) -> Option<u64> {
    let line = about.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    line?.trim().parse().ok()
}

fn uuids_of(uuid: &str) -> Option<&str> {
    uuid.strip_prefix(UUID_PREFIX)
        .filter(|uuids| uuids.len() == UUIDS_CHARS && uuids.is_ascii())
}

/// Group and volume of a name of device-mapper: a dash between the two, each of their own twice.
fn names_of(name: &str) -> Option<(String, String)> {
    const DASH: &str = "\0";
    let single = name.replace("--", DASH);
    let (group, volume) = single.split_once('-')?;
    // More are those of a volume's parts.
    if volume.contains('-') {
        return None;
    }
    let names = (group.replace(DASH, "-"), volume.replace(DASH, "-"));
    let is_fit = |name: &String| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
        !name.is_empty() && !name.starts_with('-') && name.chars().all(allowed)
    };
    (is_fit(&names.0) && is_fit(&names.1)).then_some(names)
}

/// Where the device of a volume is.
pub(super) fn device_of(group: &str, volume: &str) -> PathBuf {
    let doubled = |name: &str| name.replace('-', "--");
    Path::new("/dev/mapper").join(format!("{}-{}", doubled(group), doubled(volume)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_by_their_single_dash() {
        let names = |name: &str| names_of(name).map(|(group, volume)| format!("{group}/{volume}"));
        assert_eq!(names("vg-root").as_deref(), Some("vg/root"));
        assert_eq!(names("my--data-web--1").as_deref(), Some("my-data/web-1"));
        assert_eq!(names("a----b-c.d_+").as_deref(), Some("a--b/c.d_+"));
        for none in [
            "vg",
            "vg-root-real",
            "-root",
            "vg-",
            "vg-a b",
            "vg-a/b",
            "--g-v",
            "",
        ] {
            assert_eq!(names(none), None, "{none}");
        }
        let device = device_of("my-data", "web-1");
        assert_eq!(device, Path::new("/dev/mapper/my--data-web--1"));
    }

    #[test]
    fn only_whole_volumes_of_lvm_count() {
        let uuids = "x".repeat(64);
        assert_eq!(uuids_of(&format!("LVM-{uuids}")), Some(uuids.as_str()));
        for none in [
            format!("LVM-{uuids}-real"),
            format!("LVM-{uuids}-cow"),
            format!("CRYPT-LUKS2-{uuids}"),
            "LVM-".into(),
            String::new(),
        ] {
            assert_eq!(uuids_of(&none), None, "{none}");
        }
    }

    #[test]
    fn a_directory_is_found_in_its_file_system() {
        let text = b"30 1 254:0 / / rw - ext4 /dev/a rw\n31 30 254:0 /srv/x /mnt/x\\040y rw - ext4 /dev/a rw\n";
        let read = mounts(text);
        assert_eq!(
            mount_id("pos:\t0\nflags:\t0100000\nmnt_id:\t31\nino:\t2\n"),
            Some(31)
        );
        assert_eq!(mount_id("pos:\t0\n"), None);
        assert_eq!((read[0].id, read[1].id), (30, 31));
        let below = |mount: usize, place: &str| below_of(&read[mount], Path::new(place));
        assert_eq!(below(0, "/"), Some("".into()));
        assert_eq!(below(0, "/etc/ssh"), Some("etc/ssh".into()));
        assert_eq!(below(1, "/mnt/x y"), Some("srv/x".into()));
        assert_eq!(below(1, "/mnt/x y/z"), Some("srv/x/z".into()));
        assert_eq!(below(1, "/mnt"), None);
    }

    #[test]
    fn this_directory_lies_on_a_volume_or_does_not() {
        let here = fs::File::open(".").unwrap();
        let (mount, below) = mount_of(here.as_fd()).unwrap();
        assert!(below.is_relative() && !mount.file_system.is_empty());
        assert!(of(&here).is_ok());
        // No device holds /proc.
        assert_eq!(of(fs::File::open("/proc").unwrap()), Ok(None));
    }
}
