//! Files that some process has mapped to write to: what it writes sets no time until the page was on disk once more.
//!
//! Such a file is written to disk before it is read; then the next write through the mapping sets its change time.
//! A file system in memory never does that.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{fdatasync, fstatfs};

use super::signature::{Signature, Time, now};

const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

/// Where the processes cannot all be looked at, what changed within this time may be mapped: by then the kernel has
/// written a page to disk by itself (vm.dirty_expire_centisecs, 30 s).
const UNKNOWN_S: i64 = 120;

#[derive(Debug)]
pub(super) struct Mapped {
    /// By number alone: mappings name another device than `stat` on some file systems. `None`: cannot be known.
    inodes: Option<HashSet<u64>>,
    since: Time,
}

impl Mapped {
    pub fn look() -> Self {
        let since = now();
        Self {
            inodes: shared_and_writable(Path::new("/proc")),
            since,
        }
    }

    /// Makes writes through mappings show in the change time; `false` where they never do and somebody may write so.
    pub fn uncover(&self, file: impl AsFd, signature: &Signature) -> bool {
        let mapped = match &self.inodes {
            Some(inodes) => inodes.contains(&signature.inode) || signature.changed >= self.since,
            None => signature.changed.0 >= self.since.0 - UNKNOWN_S,
        };
        if !mapped {
            return true;
        }
        let in_memory = fstatfs(&file).is_ok_and(|about| matches!(about.f_type, TMPFS | RAMFS));
        if in_memory {
            let known = self.inodes.as_ref();
            return known.is_some_and(|inodes| !inodes.contains(&signature.inode));
        }
        // A file system that cannot write to disk has nothing mapped to be written.
        let _ = fdatasync(file);
        true
    }
}

/// Numbers of the inodes of all mappings that are shared and writable; `None` when a process may not be looked at.
fn shared_and_writable(proc: &Path) -> Option<HashSet<u64>> {
    let mut found = HashSet::new();
    for process in fs::read_dir(proc).ok()? {
        let process = process.ok()?;
        let name = process.file_name();
        if !name.to_str()?.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        match fs::read(process.path().join("maps")) {
            Ok(maps) => found.extend(inodes_of(&maps)),
            // It has ended.
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
            Err(_) => return None,
        }
    }
    Some(found)
}

/// Lines are `address perms offset device inode path` (proc(5)).
fn inodes_of(maps: &[u8]) -> Vec<u64> {
    maps.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            let rights = fields.nth(1)?;
            if rights.get(1) != Some(&b'w') || rights.get(3) != Some(&b's') {
                return None;
            }
            std::str::from_utf8(fields.nth(2)?).ok()?.parse().ok()
        })
        .filter(|inode| *inode != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_shared_and_writable_mappings_of_files_count() {
        let maps = b"7f00-7f01 rw-p 00000000 fd:00 11   /a\n\
            7f00-7f01 rw-s 00000000 fd:00 12                         /b c\n\
            7f00-7f01 r--s 00000000 fd:00 13   /c\n\
            7f00-7f01 rw-s 00000000 00:01 0   \n";
        assert_eq!(super::inodes_of(maps), [12]);
    }
}
