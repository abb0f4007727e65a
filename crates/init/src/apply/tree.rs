//! A directory tree that is looked at beneath its top only: no link is followed, no mount crossed.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Statx, StatxAttributes, StatxFlags,
    lgetxattr, llistxattr, major, makedev, minor, openat, openat2, readlinkat, statx,
};
use rustix::io::{Errno, Result};
use sha2::{Digest, Sha256};

use super::node::{Content, Node, What, Xattrs};
use crate::failure::{self, While};

/// No file of a layer is as large; one that is, is not read to be compared.
const COMPARED_BYTES_MAX: u64 = 256 << 20;
const XATTR_LIST_BYTES_MAX: usize = 64 << 10;
/// XATTR_SIZE_MAX of the kernel.
const XATTR_BYTES_MAX: usize = 64 << 10;
/// What overlayfs keeps for itself.
const OVERLAY_XATTRS: &str = "trusted.overlay.";

pub struct Tree(OwnedFd);

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
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, path, flags, Mode::empty())
            .map(Tree)
            .doing(|| format!("opening {}", path.display()))
    }

    /// The directory that holds `path`, and the last name of it.
    pub fn parent<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        self.open_beneath(parent, flags)
            .map(|parent| (parent, name))
    }

    pub fn open_beneath(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(&self.0, path, flags, Mode::empty(), resolve)
    }

    /// A file for reading; never waits for what is no file.
    pub fn open_file(&self, path: &str) -> Result<File> {
        self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK)
            .map(File::from)
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
        let node = Node {
            what,
            mode: u32::from(status.stx_mode) & 0o7777,
            uid: status.stx_uid,
            gid: status.stx_gid,
            xattrs: xattrs(&parent, name)?,
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
        let directory = self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let (mut names, mut strange) = (Vec::new(), 0);
        for entry in Dir::new(directory)? {
            match entry?.file_name().to_str() {
                Ok("." | "..") => {}
                Ok(name) => names.push(name.to_owned()),
                Err(_) => strange += 1,
            }
        }
        names.sort();
        Ok((names, strange))
    }

    /// One attribute, also one that overlayfs keeps for itself.
    pub fn xattr(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        let (parent, last) = self.parent(path).ok()?;
        read_xattr(&inside(&parent, last), name).ok()
    }
}

/// A path to a name in a directory, for calls that take a path only. The name itself is not followed
/// by those that begin with `l`.
pub fn inside(directory: &OwnedFd, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())
}

fn xattrs(parent: &OwnedFd, name: &str) -> Result<Xattrs> {
    let path = inside(parent, name);
    let mut list = vec![0u8; XATTR_LIST_BYTES_MAX];
    let length = match llistxattr(&path, &mut list[..]) {
        Ok(length) => length,
        // A file system without any.
        Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
        Err(errno) => return Err(errno),
    };
    let mut xattrs = Xattrs::new();
    for name in list[..length].split(|byte| *byte == 0) {
        match std::str::from_utf8(name) {
            Ok("") => {}
            Ok(name) if name.starts_with(OVERLAY_XATTRS) => {}
            Ok(name) => {
                xattrs.insert(name.to_owned(), read_xattr(&path, name)?);
            }
            Err(_) => return Err(Errno::ILSEQ),
        }
    }
    Ok(xattrs)
}

fn read_xattr(path: &str, name: &str) -> Result<Vec<u8>> {
    let mut value = vec![0u8; XATTR_BYTES_MAX];
    let length = lgetxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}
