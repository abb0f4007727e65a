//! A directory tree that is looked at beneath its top only: no link is followed, no mount crossed.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use estive_archive::OPAQUE_XATTR;
use estive_beneath::{Errno, Result};
use rustix::fs::{
    AtFlags, FileType, Statx, StatxAttributes, StatxFlags, lgetxattr, major, makedev, minor,
    readlinkat, statx,
};
use sha2::{Digest, Sha256};

use super::node::{Content, Node, What, Xattrs};
use crate::failure::{self, While};

/// No file of a layer is as large; one that is, is not read to be compared.
const COMPARED_BYTES_MAX: u64 = 256 << 20;
const NAMES_MAX: usize = 1 << 20;
/// What overlayfs keeps for itself.
const OVERLAY_XATTRS: &str = "trusted.overlay.";
const USER_XATTRS: &str = "user.";

pub struct Tree {
    top: OwnedFd,
    /// Attributes of users are not looked at: the clone's memory cannot have any.
    is_without_users: bool,
}

/// What a look at a path found.
pub enum Look {
    Found {
        node: Node,
        /// Device and inode: two names with the same are one file.
        file: (u64, u64),
    },
    /// What stands there cannot be told or changed from here; in a few words, why.
    Blocked(String),
}

impl Look {
    fn absent() -> Look {
        Look::Found {
            node: Node::absent(),
            file: (0, 0),
        }
    }
}

impl Tree {
    pub fn open(path: &Path) -> failure::Result<Tree> {
        estive_beneath::open_top(path)
            .map(|top| Tree {
                top,
                is_without_users: false,
            })
            .doing(|| format!("opening {}", path.display()))
    }

    /// The same with a file system's limits: a tmpfs before Linux 6.6 takes no attributes of users, so
    /// that a start leaves those of the root away.
    pub fn within_limits_of(mut self, path: &Path) -> Tree {
        let mut value = [0u8; 1];
        let asked = lgetxattr(path, "user.estive", &mut value[..]);
        self.is_without_users = asked == Err(Errno::NOTSUP);
        self
    }

    /// The directory that holds `path`, and the last name of it.
    pub fn parent<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p str)> {
        estive_beneath::open_parent(&self.top, path)
    }

    /// A directory, to be listed and changed.
    pub fn directory(&self, path: &str) -> Result<OwnedFd> {
        estive_beneath::open_list(&self.top, path)
    }

    /// A file for reading; never waits for what is no file.
    pub fn open_file(&self, path: &str) -> Result<File> {
        estive_beneath::open_file(&self.top, path).map(File::from)
    }

    pub fn look(&self, path: &str) -> Look {
        match self.try_look(path) {
            Ok(look) => look,
            Err(Errno::NOENT | Errno::NOTDIR) => Look::absent(),
            Err(Errno::LOOP) => Look::Blocked("a symbolic link stands on the way to it".into()),
            Err(Errno::XDEV) => Look::Blocked("another file system is mounted over it".into()),
            Err(errno) => Look::Blocked(format!("it cannot be read: {errno}")),
        }
    }

    /// The same of a tree that nobody changes: what cannot be reached there is not there.
    pub fn node(&self, path: &str) -> Node {
        match self.look(path) {
            Look::Found { node, .. } => node,
            Look::Blocked(_) => Node::absent(),
        }
    }

    fn try_look(&self, path: &str) -> Result<Look> {
        let (parent, name) = self.parent(path)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let status = statx(&parent, name, flags, StatxFlags::BASIC_STATS)?;
        if status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(Errno::XDEV);
        }
        let device = makedev(status.stx_rdev_major, status.stx_rdev_minor);
        let (major, minor) = (major(device), minor(device));
        let what = match FileType::from_raw_mode(status.stx_mode.into()) {
            FileType::RegularFile => self.file(path, &status)?,
            FileType::Directory => What::Directory,
            FileType::Symlink => What::Symlink(readlinkat(&parent, name, Vec::new())?.into_bytes()),
            FileType::CharacterDevice => What::Character { major, minor },
            FileType::BlockDevice => What::Block { major, minor },
            FileType::Fifo => What::Fifo,
            FileType::Socket => What::Socket,
            FileType::Unknown => return Err(Errno::OPNOTSUPP),
        };
        let is_counted = |name: &str| {
            !(name.starts_with(OVERLAY_XATTRS)
                || self.is_without_users && name.starts_with(USER_XATTRS))
        };
        let xattrs = estive_beneath::xattrs(&parent, name, is_counted)?;
        let node = Node {
            what,
            mode: u32::from(status.stx_mode) & 0o7777,
            uid: status.stx_uid,
            gid: status.stx_gid,
            xattrs: Xattrs::from_iter(xattrs),
        };
        let device = makedev(status.stx_dev_major, status.stx_dev_minor);
        Ok(Look::Found {
            node,
            file: (device, status.stx_ino),
        })
    }

    fn file(&self, path: &str, status: &Statx) -> Result<What> {
        let bytes = status.stx_size;
        if bytes > COMPARED_BYTES_MAX {
            let content = Content::Large;
            return Ok(What::File { bytes, content });
        }
        let mut hash = Sha256::new();
        let mut read_bytes = 0;
        let mut file = self.open_file(path)?.take(COMPARED_BYTES_MAX + 1);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hash.update(&buffer[..count]);
                    read_bytes += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            }
        }
        Ok(What::File {
            bytes: read_bytes,
            content: Content::Sha256(hash.finalize().into()),
        })
    }

    /// What a directory holds, in order, and how many names cannot be told since they are not UTF-8.
    pub fn names(&self, path: &str) -> Result<(Vec<String>, usize)> {
        let found = estive_beneath::names(self.directory(path)?, NAMES_MAX)?;
        let found = found.ok_or(Errno::TOOBIG)?;
        let count = found.len();
        let names: Vec<String> = found
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .collect();
        let strange = count - names.len();
        Ok((names, strange))
    }

    /// Whether overlayfs shows nothing of what lies below this directory.
    pub fn is_opaque(&self, path: &str) -> bool {
        let is_mark = |name: &str| name == OPAQUE_XATTR;
        self.parent(path)
            .and_then(|(parent, name)| estive_beneath::xattrs(&parent, name, is_mark))
            .is_ok_and(|marks| marks.iter().any(|(_, value)| value == b"y"))
    }
}
