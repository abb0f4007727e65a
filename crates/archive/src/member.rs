//! One member of an archive, and the rule for its name.

use crate::{Error, Result};

/// The longest name or symlink target: the kernel's PATH_MAX, without its NUL.
pub(crate) const PATH_BYTES_MAX: usize = 4095;
/// The longest component of a name: the kernel's NAME_MAX.
const COMPONENT_BYTES_MAX: usize = 255;
/// The name of the member that ends an archive; nothing else may have it.
pub(crate) const TRAILER: &str = "TRAILER!!!";

pub(crate) const S_IFMT: u32 = 0o170000;
const S_IFSOCK: u32 = 0o140000;
const S_IFLNK: u32 = 0o120000;
pub(crate) const S_IFREG: u32 = 0o100000;
const S_IFBLK: u32 = 0o060000;
const S_IFDIR: u32 = 0o040000;
const S_IFCHR: u32 = 0o020000;
const S_IFIFO: u32 = 0o010000;

/// What a member is, with the content its kind has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    File(&'a [u8]),
    Directory,
    /// The target as it stands in the link; it is never resolved here.
    Symlink(&'a str),
    /// Major 0, minor 0 is overlayfs's whiteout.
    CharacterDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
}

/// One member of a newc archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Relative, `/` between components; see [`check_path`].
    pub path: &'a str,
    pub kind: Kind<'a>,
    /// The twelve permission bits (`0o7777`), without the file type.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970; 0 where it does not matter, so that equal input gives equal bytes.
    pub mtime_s: u32,
    /// Members with the same inode number and `links > 1` are one file. 0 asks the writer for a
    /// number of its own.
    pub inode: u32,
    pub links: u32,
}

impl<'a> Member<'a> {
    /// A member of root's, with no links and the writer's own inode number.
    pub fn new(path: &'a str, mode: u32, kind: Kind<'a>) -> Self {
        Member {
            path,
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime_s: 0,
            inode: 0,
            links: 1,
        }
    }

    pub fn file(path: &'a str, mode: u32, content: &'a [u8]) -> Self {
        Member::new(path, mode, Kind::File(content))
    }

    pub fn directory(path: &'a str, mode: u32) -> Self {
        Member::new(path, mode, Kind::Directory)
    }

    pub fn symlink(path: &'a str, target: &'a str) -> Self {
        Member::new(path, 0o777, Kind::Symlink(target))
    }
}

impl<'a> Kind<'a> {
    pub(crate) fn file_type(&self) -> u32 {
        match self {
            Kind::File(_) => S_IFREG,
            Kind::Directory => S_IFDIR,
            Kind::Symlink(_) => S_IFLNK,
            Kind::CharacterDevice { .. } => S_IFCHR,
            Kind::BlockDevice { .. } => S_IFBLK,
            Kind::Fifo => S_IFIFO,
            Kind::Socket => S_IFSOCK,
        }
    }

    pub(crate) fn content(&self) -> &'a [u8] {
        match *self {
            Kind::File(content) => content,
            Kind::Symlink(target) => target.as_bytes(),
            _ => &[],
        }
    }

    pub(crate) fn device(&self) -> (u32, u32) {
        match *self {
            Kind::CharacterDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                (major, minor)
            }
            _ => (0, 0),
        }
    }

    /// The kind that a header and its content describe.
    pub(crate) fn from_header(
        path: &str,
        file_type: u32,
        content: &'a [u8],
        (major, minor): (u32, u32),
    ) -> Result<Kind<'a>> {
        let empty = |kind, name| {
            if content.is_empty() {
                Ok(kind)
            } else {
                Err(Error::Content {
                    path: path.to_owned(),
                    kind: name,
                    size_bytes: content.len(),
                })
            }
        };
        match file_type {
            S_IFREG => Ok(Kind::File(content)),
            S_IFDIR => empty(Kind::Directory, "directory"),
            S_IFLNK => {
                let target = std::str::from_utf8(content).map_err(|_| Error::Name {
                    name: path.to_owned(),
                    why: "is a symbolic link whose target is not UTF-8",
                })?;
                check_target(path, target)?;
                Ok(Kind::Symlink(target))
            }
            S_IFCHR => empty(Kind::CharacterDevice { major, minor }, "character device"),
            S_IFBLK => empty(Kind::BlockDevice { major, minor }, "block device"),
            S_IFIFO => empty(Kind::Fifo, "fifo"),
            S_IFSOCK => empty(Kind::Socket, "socket"),
            _ => Err(Error::FileType {
                path: path.to_owned(),
                file_type,
            }),
        }
    }
}

/// Refuses a name that would leave the tree it is unpacked into, or that no Linux file can have.
///
/// Symbolic links among the parents are the unpacker's care: only it sees the tree.
pub fn check_path(path: &str) -> Result<()> {
    let refuse = |why| {
        Err(Error::Name {
            name: path.chars().take(200).collect(),
            why,
        })
    };
    if path.is_empty() {
        return refuse("is empty");
    }
    if path.len() > PATH_BYTES_MAX {
        return refuse("is longer than 4095 bytes");
    }
    if path == TRAILER {
        return refuse("is the one that ends an archive");
    }
    if path.starts_with('/') {
        return refuse("is absolute");
    }
    if path.contains('\0') {
        return refuse("has a NUL in it");
    }
    for component in path.split('/') {
        match component {
            "" => return refuse("has an empty component"),
            "." | ".." => return refuse("has a '.' or '..' component"),
            _ if component.len() > COMPONENT_BYTES_MAX => {
                return refuse("has a component longer than 255 bytes");
            }
            _ => {}
        }
    }
    Ok(())
}

/// A symlink's target may point anywhere, but it must be one the kernel takes.
pub(crate) fn check_target(path: &str, target: &str) -> Result<()> {
    let why = if target.is_empty() {
        "is a symbolic link with an empty target"
    } else if target.len() > PATH_BYTES_MAX {
        "is a symbolic link whose target is longer than 4095 bytes"
    } else if target.contains('\0') {
        "is a symbolic link whose target has a NUL in it"
    } else {
        return Ok(());
    };
    Err(Error::Name {
        name: path.to_owned(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_escape_are_refused() {
        for bad in [
            "", "/", "/etc", "a//b", "a/", "..", "../a", "a/../b", "a/..", ".", "./a", "a/./b",
            "a\0b", TRAILER,
        ] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
        assert!(check_path(&"a".repeat(256)).is_err());
        assert!(check_path(&"a/".repeat(3000)).is_err());
        for good in ["a", "etc/hosts", "a/...", "..a/b..", "ü/ b"] {
            assert!(check_path(good).is_ok(), "{good:?}");
        }
    }
}
