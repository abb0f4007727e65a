//! A directory as a root of its own: what lies in it is found without ever leaving it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

use crate::{Error, Result};

const CANDIDATES_MAX: usize = 1000;

/// A directory as a root of its own: links in it are resolved by the kernel as if chrooted.
pub(crate) struct Inside {
    root: PathBuf,
    descriptor: OwnedFd,
}

/// A file or directory that lies in it.
pub(crate) struct Found {
    /// On this machine, every link resolved.
    pub path: PathBuf,
    pub kind: FileType,
    pub size_bytes: u64,
    /// Device and inode: two names with the same are one file.
    pub identity: (u64, u64),
}

impl Inside {
    pub(crate) fn open(root: &Path) -> Result<Inside> {
        let descriptor = openat(
            CWD,
            root,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| Error::Read {
            path: root.to_owned(),
            source: errno.into(),
        })?;
        Ok(Inside {
            root: root.to_owned(),
            descriptor,
        })
    }

    pub(crate) fn open_at(&self, path: &str, flags: OFlags) -> Result<File> {
        openat2(
            &self.descriptor,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
        .map(File::from)
        .map_err(|errno| Error::Read {
            path: self.root.join(path),
            source: errno.into(),
        })
    }

    pub(crate) fn read(&self, path: &str, limit_bytes: u64) -> Result<Vec<u8>> {
        // A fifo or a device must not hold us.
        let file = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let mut bytes = Vec::new();
        let read = file.take(limit_bytes + 1).read_to_end(&mut bytes);
        read.map_err(|source| Error::Read {
            path: self.root.join(path),
            source,
        })?;
        if bytes.len() as u64 > limit_bytes {
            return Err(Error::TooLarge {
                path: self.root.join(path),
                limit_bytes,
            });
        }
        Ok(bytes)
    }

    /// Likewise; `None` when there is no such file: nothing, a directory of that name, or a file where the path has a
    /// directory.
    pub(crate) fn read_if_there(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
        use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
        match self.read(path, limit_bytes) {
            Err(Error::Read { source, .. })
                if matches!(source.kind(), NotFound | IsADirectory | NotADirectory) =>
            {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// The names in a directory, sorted; none when it is not there.
    pub(crate) fn names(&self, directory: &str) -> Result<Vec<String>> {
        let Ok(opened) = self.open_at(directory, OFlags::RDONLY | OFlags::DIRECTORY) else {
            return Ok(Vec::new());
        };
        let read = |errno: rustix::io::Errno| Error::Read {
            path: self.root.join(directory),
            source: errno.into(),
        };
        let mut names: Vec<String> = Dir::new(opened)
            .map_err(read)?
            .take(CANDIDATES_MAX)
            .filter_map(|entry| Some(entry.ok()?.file_name().to_str().ok()?.to_owned()))
            .filter(|name| name != "." && name != "..")
            .collect();
        names.sort();
        Ok(names)
    }

    /// What a path inside the root leads to, its links resolved inside the root; `None` when it leads nowhere.
    pub(crate) fn find(&self, path: &str) -> Option<Found> {
        let opened = self.open_at(path, OFlags::PATH).ok()?;
        let status = fstat(&opened).ok()?;
        Some(Found {
            path: std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).ok()?,
            kind: FileType::from_raw_mode(status.st_mode),
            size_bytes: status.st_size.cast_unsigned(),
            identity: (status.st_dev, status.st_ino),
        })
    }

    /// The path inside the root, without its first `/`, of what [`Inside::find`] found.
    pub(crate) fn own_path(&self, found: &Found) -> Option<String> {
        let top = self.find(".")?;
        let path = found.path.strip_prefix(&top.path).ok()?;
        path.to_str().map(str::to_owned)
    }
}
