//! How much an export may hold, and holds.
//!
//! Counted when the export is opened, then kept up with what is done through it: bytes as the file system has given
//! them out (`st_blocks`, of directories too), files as inodes. What others do in the directory meanwhile is seen at the
//! next start.
//!
//! A file system gives out more, or takes some back, after a call is done (its own lists of blocks when it writes to
//! disk, what XFS reserved ahead, what Btrfs compressed). So what each file that changes was charged with is kept, and
//! just that is given back when the file goes.
//!
//! A directory that is exported by several names, or to several references, is counted once; each export has its own
//! limits. (One that lies in another is counted apart from it.)

use std::collections::{HashMap, HashSet};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{Dir, FileType, OFlags, Stat, fstat};
use rustix::io::Errno;

use crate::export::{Node, open_beneath};
use crate::handle::KernelHandle;
use crate::status::{Fault, Status};

const LOCKS: usize = 64;
/// Files that were changed since the start, for which it is known what they were charged with. Others have what they
/// had before the change.
const MOST_CHARGED: usize = 1 << 20;
const BLOCK_BYTES: u64 = 512;
/// What the last part of a write may take more than it has bytes.
const PAGE_BYTES: u64 = 4096;

/// The most an export may hold; `None` is no limit but that of its file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    pub bytes: Option<u64>,
    pub files: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub bytes: u64,
    pub files: u64,
}

#[derive(Debug, Default)]
struct State {
    held: Held,
    /// Asked for by what goes on now.
    reserved: Held,
    /// Bytes by number of the inode.
    charged: HashMap<u64, u64>,
    /// Not as long as nobody has a limit: `held` then misses what was there.
    is_counted: bool,
}

/// What an export may hold, and what is held.
pub struct Usage {
    pub(crate) quota: Quota,
    directory: Arc<Counted>,
}

/// What a directory holds, and who changes it now.
struct Counted {
    state: Mutex<State>,
    /// One at a time may change the size of a file: else two would count the same growth.
    files: [Mutex<()>; LOCKS],
    /// One at a time may change the names in a directory: else two would count that the same file went. Taken before
    /// those of files.
    directories: [Mutex<()>; LOCKS],
}

impl Usage {
    pub(crate) fn count(anchor: BorrowedFd<'_>, quota: Quota) -> Result<Usage, Errno> {
        let directory = Counted::of(&fstat(anchor)?);
        let usage = Usage { quota, directory };
        let is_limited = quota.bytes.is_some() || quota.files.is_some();
        if is_limited && !usage.state().is_counted {
            let held = count(anchor)?;
            let mut state = usage.state();
            state.held = held;
            state.is_counted = true;
        }
        Ok(usage)
    }

    /// Until the answer is dropped, nobody else changes this file's size.
    pub(crate) fn alone(&self, status: &Stat) -> MutexGuard<'_, ()> {
        self.directory.files[lock_of(status)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to names in these directories, which nobody else does meanwhile, and counts by how much they grew.
    pub(crate) fn naming<T>(
        &self,
        directories: &[&Node],
        done: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut locks: Vec<_> = directories
            .iter()
            .map(|node| lock_of(&node.status))
            .collect();
        // In one order, each once: two may need the same ones.
        locks.sort_unstable();
        locks.dedup();
        let _alone: Vec<_> = locks
            .into_iter()
            .map(|at| {
                self.directory.directories[at]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
            })
            .collect();
        let look = || {
            directories
                .iter()
                .map(|node| fstat(&node.fd))
                .collect::<Result<Vec<_>, _>>()
        };
        let before = look()?;
        let result = done();
        for (before, after) in std::iter::zip(&before, &look()?) {
            self.settle(before, after);
        }
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.directory
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn held(&self) -> Held {
        self.state().held
    }

    /// Room for this much more, kept until it is settled or given back.
    pub(crate) fn reserve(&self, bytes: u64, files: u64) -> Result<Reserved<'_>, Status> {
        let mut state = self.state();
        let fits = |limit: Option<u64>, held: u64, reserved: u64, more: u64| {
            // What needs nothing more is always done, also where too much is held already.
            more == 0
                || limit
                    .is_none_or(|limit| held.saturating_add(reserved).saturating_add(more) <= limit)
        };
        let State { held, reserved, .. } = &*state;
        if !fits(self.quota.bytes, held.bytes, reserved.bytes, bytes)
            || !fits(self.quota.files, held.files, reserved.files, files)
        {
            return Err(Status::DQuot);
        }
        state.reserved.bytes += bytes;
        state.reserved.files += files;
        Ok(Reserved {
            usage: self,
            held: Held { bytes, files },
        })
    }

    /// Names take room too: none is added where too much is held already. (One that is added may need a little more.)
    pub(crate) fn room_for_names(&self) -> Result<(), Status> {
        let held = self.state().held.bytes;
        match self.quota.bytes.is_some_and(|limit| held > limit) {
            true => Err(Status::DQuot),
            false => Ok(()),
        }
    }

    /// A file or directory changed from the one to the other.
    pub(crate) fn settle(&self, before: &Stat, after: &Stat) {
        // Its room was given back already.
        if after.st_nlink == 0 {
            return;
        }
        let (was, is) = (bytes_of(before), bytes_of(after));
        let State {
            held,
            charged,
            is_counted,
            ..
        } = &mut *self.state();
        let was = match charged.get_mut(&before.st_ino) {
            Some(charged) => std::mem::replace(charged, is),
            None => {
                if *is_counted && was != is && charged.len() < MOST_CHARGED {
                    charged.insert(before.st_ino, is);
                }
                was
            }
        };
        held.bytes = held.bytes.saturating_add(is).saturating_sub(was);
    }

    pub(crate) fn made(&self, status: &Stat) {
        let State { held, charged, .. } = &mut *self.state();
        // The number may have been that of a file which somebody else took away.
        charged.remove(&status.st_ino);
        held.bytes = held.bytes.saturating_add(bytes_of(status));
        held.files += 1;
    }

    pub(crate) fn gone(&self, status: &Stat) {
        let State { held, charged, .. } = &mut *self.state();
        let was = charged.remove(&status.st_ino);
        held.bytes = held.bytes.saturating_sub(was.unwrap_or(bytes_of(status)));
        held.files = held.files.saturating_sub(1);
    }
}

impl Counted {
    /// The one of this directory, in all of this process.
    fn of(root: &Stat) -> Arc<Counted> {
        type Known = ((u64, u64), Weak<Counted>);
        static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());
        let name = (root.st_dev, root.st_ino);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, counted)| counted.strong_count() > 0);
        let found = known.iter().find(|(known, _)| *known == name);
        if let Some(found) = found.and_then(|(_, counted)| counted.upgrade()) {
            return found;
        }
        let new = Arc::new(Counted {
            state: Mutex::default(),
            files: [const { Mutex::new(()) }; LOCKS],
            directories: [const { Mutex::new(()) }; LOCKS],
        });
        known.push((name, Arc::downgrade(&new)));
        new
    }
}

fn lock_of(status: &Stat) -> usize {
    usize::try_from(status.st_ino % LOCKS as u64).unwrap_or(0)
}

/// Room that is promised to one.
pub(crate) struct Reserved<'a> {
    usage: &'a Usage,
    held: Held,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let reserved = &mut self.usage.state().reserved;
        reserved.bytes = reserved.bytes.saturating_sub(self.held.bytes);
        reserved.files = reserved.files.saturating_sub(self.held.files);
    }
}

/// What the file system gave out for it.
pub(crate) fn bytes_of(status: &Stat) -> u64 {
    u64::try_from(status.st_blocks).unwrap_or(0) * BLOCK_BYTES
}

/// The most by which a file grows when `count` bytes are written at `offset`: nothing where there are no holes, and
/// all of it exists.
pub(crate) fn growth(status: &Stat, offset: u64, count: u64) -> u64 {
    let size = u64::try_from(status.st_size).unwrap_or(0);
    let has_holes = bytes_of(status) < size;
    let end = offset.saturating_add(count);
    match (has_holes, end <= size) {
        (false, true) => 0,
        (false, false) => (end - size).min(count).saturating_add(PAGE_BYTES),
        (true, _) => count.saturating_add(PAGE_BYTES),
    }
}

fn count(anchor: BorrowedFd<'_>) -> Result<Held, Errno> {
    let root = fstat(anchor)?;
    let mut held = Held {
        bytes: bytes_of(&root),
        files: 0,
    };
    let mut linked = HashSet::new();
    let device = root.st_dev;
    // Handles, since a tree has more directories than a process descriptors.
    let mut directories = vec![KernelHandle::of(anchor)?];
    while let Some(directory) = directories.pop() {
        let directory = match directory.open(anchor) {
            Err(Errno::STALE | Errno::NOENT) => continue,
            directory => open_beneath(directory?, b".", OFlags::RDONLY | OFlags::DIRECTORY)?,
        };
        let mut names = Dir::read_from(&directory)?;
        while let Some(entry) = names.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let node = match open_beneath(&directory, name, OFlags::PATH) {
                Err(Errno::NOENT) => continue,
                node => node?,
            };
            let status = fstat(&node)?;
            if status.st_dev != device {
                continue;
            }
            let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
            if !is_directory && status.st_nlink > 1 && !linked.insert(status.st_ino) {
                continue;
            }
            held.bytes = held.bytes.saturating_add(bytes_of(&status));
            held.files += 1;
            if is_directory {
                directories.push(KernelHandle::of(&node)?);
            }
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::{AsFd, OwnedFd};

    #[test]
    fn a_tree_is_counted_once_for_each_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/file"), vec![1; 10_000]).unwrap();
        fs::hard_link(path.join("a/b/file"), path.join("again")).unwrap();
        let tree = OwnedFd::from(fs::File::open(path).unwrap());
        let held = count(tree.as_fd()).unwrap();
        assert_eq!(held.files, 3);
        assert!((10_000..30_000).contains(&held.bytes), "{held:?}");
    }

    #[test]
    fn what_is_promised_counts_until_it_is_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let tree = OwnedFd::from(fs::File::open(directory.path()).unwrap());
        let own = bytes_of(&fstat(&tree).unwrap());
        let quota = Quota {
            bytes: Some(own + 100),
            files: Some(1),
        };
        let usage = Usage::count(tree.as_fd(), quota).unwrap();
        let first = usage.reserve(60, 1).unwrap();
        assert!(usage.reserve(60, 0).is_err());
        assert!(usage.reserve(0, 1).is_err());
        assert!(usage.reserve(0, 0).is_ok());
        drop(first);
        assert!(usage.reserve(100, 1).is_ok());
    }
}
