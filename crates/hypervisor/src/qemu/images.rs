//! Image files of an ordinary machine: opened once beneath the directories that are allowed, looked at, and handed to
//! QEMU as descriptors, so that no name is looked up again; and what a QEMU has of a file.

use crate::image_files::{FileId, Grip, open, open_disk};
use crate::seam::HypervisorError;
use estive_model::ImageSpec;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// The byte that QEMU locks of an image that nobody else may write to (`block/file-posix.c`: `RAW_LOCK_SHARED_BASE` and
/// `BLK_PERM_WRITE`).
const NO_OTHER_WRITER: u64 = 201;

/// The open files of a machine: what QEMU is started with, and has them at the same numbers.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub kernel: Option<OwnedFd>,
    pub initrd: Option<OwnedFd>,
    pub disks: Vec<OwnedFd>,
}

impl Opened {
    /// Opens everything that `spec` names. Each must be a plain file; a qcow2 must stand by itself. Blocks.
    pub(super) fn open(spec: &ImageSpec) -> Result<Self, HypervisorError> {
        let mut opened = Self::default();
        if let Some(boot) = &spec.kernel {
            opened.kernel = Some(open(&boot.kernel)?.into());
            opened.initrd = match &boot.initrd {
                Some(initrd) => Some(open(initrd)?.into()),
                None => None,
            };
        }
        for disk in &spec.disks {
            opened.disks.push(open_disk(disk)?.into());
        }
        Ok(opened)
    }

    /// All of them, for the new process to keep.
    pub(super) fn into_descriptors(self) -> Vec<OwnedFd> {
        let first = [self.kernel, self.initrd].into_iter().flatten();
        first.chain(self.disks).collect()
    }
}

/// The name by which the process that has `file` opens it anew, with the rights and flags it wants: the kernel follows
/// it to the very file, whatever stands at its path by then.
pub(super) fn own_name(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// What the process has of a file, by the kernel's own word. Blocks.
pub(super) fn grip(pid: u32, file: FileId) -> io::Result<Grip> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let mut grip = Grip::None;
    for entry in fs::read_dir(process.join("fd"))? {
        let entry = entry?;
        // It may be closed by now.
        let Ok(meta) = fs::metadata(entry.path()) else {
            continue;
        };
        if FileId::from(&meta) == file {
            let held = locks(&process.join("fdinfo").join(entry.file_name()))?;
            grip = grip.max(if held { Grip::Locked } else { Grip::Open });
        }
    }
    Ok(grip)
}

/// Whether a descriptor has the lock that keeps other writers away (proc_pid_fdinfo(5)).
fn locks(fdinfo: &Path) -> io::Result<bool> {
    match fs::read_to_string(fdinfo) {
        Ok(text) => Ok(text.lines().any(keeps_writers_away)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// `lock: 2: OFDLCK ADVISORY  READ -1 fe:00:10010857 201 201`
fn keeps_writers_away(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["lock:", _, "OFDLCK" | "POSIX", .., first, last] = words[..] else {
        return false;
    };
    let last = match last {
        "EOF" => Ok(u64::MAX),
        last => last.parse(),
    };
    let (Ok(first), Ok(last)) = (first.parse::<u64>(), last) else {
        return false;
    };
    (first..=last).contains(&NO_OTHER_WRITER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_that_counts_is_told_from_others() {
        let line =
            |kind: &str, range: &str| format!("lock:\t1: {kind} ADVISORY  READ -1 fe:00:7 {range}");
        for (kind, range, counts) in [
            ("OFDLCK", "201 201", true),
            ("OFDLCK", "100 203", true),
            ("POSIX", "0 EOF", true),
            ("OFDLCK", "100 101", false),
            ("OFDLCK", "203 203", false),
            ("FLOCK", "0 EOF", false),
        ] {
            assert_eq!(
                keeps_writers_away(&line(kind, range)),
                counts,
                "{kind} {range}"
            );
        }
        assert!(!keeps_writers_away(
            "lock:\t1: -> OFDLCK ADVISORY READ -1 fe:00:7 201 201"
        ));
        assert!(!keeps_writers_away("pos:\t0"));
    }

    #[test]
    fn a_file_is_known_by_what_it_is() {
        let home = tempfile::tempdir().unwrap();
        let (path, copy) = (home.path().join("disk"), home.path().join("copy"));
        fs::write(&path, "x").unwrap();
        fs::copy(&path, &copy).unwrap();
        let held = fs::File::open(&path).unwrap();
        let id = FileId::of(&held).unwrap();
        fs::rename(&path, home.path().join("elsewhere")).unwrap();
        let pid = std::process::id();
        assert_eq!(grip(pid, id).unwrap(), Grip::Open);
        let other = FileId::from(&fs::metadata(&copy).unwrap());
        assert_eq!(grip(pid, other).unwrap(), Grip::None);
    }
}
