//! What a root is at one moment, as a digest: other files, other times, another digest. Contents are not read.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2, statat,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::view::is_empty_in_the_view;

/// A root with more is not walked at each use.
const MAX_ENTRIES: usize = 1_000_000;
const MAX_DEPTH: usize = 256;

/// The digest; `None` for a root that is too large to be looked through.
pub(crate) fn of(root: &Path) -> io::Result<Option<[u8; 32]>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let top = open(root, flags, Mode::empty())?;
    let stat = fstat(&top)?;
    let mut hash = Sha256::new();
    feed(&mut hash, b"", &stat);
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(Some(hash.finalize().into()));
    }
    let mut walk = Walk {
        hash,
        entries: 0,
        device: stat.st_dev,
    };
    Ok(walk.below(top, 0)?.then(|| walk.hash.finalize().into()))
}

fn feed(hash: &mut Sha256, name: &[u8], stat: &Stat) {
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    for number in [
        stat.st_dev,
        stat.st_ino,
        u64::from(stat.st_mode),
        stat.st_size.cast_unsigned(),
        stat.st_mtime.cast_unsigned(),
        stat.st_mtime_nsec,
        // Also what sets a file's times cannot hide that it changed.
        stat.st_ctime.cast_unsigned(),
        stat.st_ctime_nsec,
    ] {
        hash.update(number.to_le_bytes());
    }
}

struct Walk {
    hash: Sha256,
    entries: usize,
    device: u64,
}

impl Walk {
    /// False when there is too much. What cannot be opened counts by its own times.
    fn below(&mut self, directory: OwnedFd, depth: usize) -> io::Result<bool> {
        let mut names: Vec<CString> = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                names.push(name.to_owned());
            }
            if self.entries + names.len() > MAX_ENTRIES {
                return Ok(false);
            }
        }
        names.sort();
        self.entries += names.len();
        for name in names {
            let stat = match statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                // A running system's files come and go.
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            if stat.st_dev != self.device || (depth == 0 && is_empty_in_the_view(&name)) {
                continue;
            }
            feed(&mut self.hash, name.as_bytes(), &stat);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                if depth >= MAX_DEPTH {
                    return Ok(false);
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
                let inner = openat2(&directory, &name, flags, Mode::empty(), resolve);
                if let Ok(inner) = inner
                    && !self.below(inner, depth + 1)?
                {
                    return Ok(false);
                }
            }
        }
        // So that a directory's end is seen.
        self.hash.update([0xff; 8]);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn another_file_another_digest() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path();
        for directory in ["etc/a", "proc", "tmp"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let now = || of(root).unwrap().unwrap();
        let before = now();
        assert_eq!(before, now());
        // What a script does not see does not count.
        fs::write(root.join("proc/x"), "x").unwrap();
        fs::write(root.join("tmp/x"), "x").unwrap();
        assert_eq!(before, now());
        fs::write(root.join("etc/a/x"), "x").unwrap();
        let with = now();
        assert_ne!(before, with);
        fs::write(root.join("etc/a/x"), "y").unwrap();
        assert_ne!(with, now());
        assert_ne!(
            of(&root.join("etc/a/x")).unwrap(),
            of(&root.join("proc/x")).unwrap()
        );
        assert!(of(&root.join("nothing")).is_err());
    }
}
