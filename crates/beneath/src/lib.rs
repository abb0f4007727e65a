//! Names beneath a directory: opened by the kernel through no link, onto no other file system and
//! never above the directory (`openat2`), whatever somebody else puts there meanwhile.
//!
//! Paths are relative, `/` between components; errors are the kernel's. PID 1 of every clone links
//! this: it depends on system calls and nothing else.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, lgetxattr, llistxattr, openat,
    openat2, statat,
};
pub use rustix::io::Errno;

/// The longest attribute, and the longest list of names, that Linux has (XATTR_SIZE_MAX).
const XATTR_BYTES_MAX: usize = 64 << 10;

pub type Result<T> = std::result::Result<T, Errno>;

/// A directory to begin at. Its own path is the caller's word and may go through links.
pub fn open_top(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty())
}

/// A directory as a place: to begin at, not to list.
pub fn open_directory(tree: impl AsFd, path: &str) -> Result<OwnedFd> {
    open(tree, path, OFlags::PATH | OFlags::DIRECTORY)
}

/// A directory to list.
pub fn open_list(tree: impl AsFd, path: &str) -> Result<OwnedFd> {
    open(tree, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// A file to read. Waits for nobody, also when it turns out to be a fifo or a terminal: look at
/// what was opened.
pub fn open_file(tree: impl AsFd, path: &str) -> Result<OwnedFd> {
    open(
        tree,
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
    )
}

/// A directory as a process sees it whose root is the tree: links are those of the tree, absolute
/// ones begin at its top, and `..` there is the top. On the tree's own file system only.
pub fn open_directory_in_root(tree: impl AsFd, path: &str) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    open_how(tree, path, OFlags::PATH | OFlags::DIRECTORY, resolve)
}

/// Likewise, to list it.
pub fn open_list_in_root(tree: impl AsFd, path: &str) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    open_how(tree, path, OFlags::RDONLY | OFlags::DIRECTORY, resolve)
}

fn open(tree: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    open_how(tree, path, flags, resolve)
}

fn open_how(tree: impl AsFd, path: &str, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    loop {
        match openat2(&tree, path, flags, Mode::empty(), resolve) {
            // A rename went on at the same time (openat2(2)).
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// The directory that holds `path`, and the last component.
pub fn open_parent(tree: impl AsFd, path: &str) -> Result<(OwnedFd, &str)> {
    let (parent, name) = split(path);
    open_directory(tree, parent).map(|parent| (parent, name))
}

/// Parent (`.` for the top) and last component.
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or((".", path))
}

/// What a name in an open directory is; a link is itself.
pub fn status(directory: impl AsFd, name: &str) -> Result<Stat> {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub fn kind(status: &Stat) -> FileType {
    FileType::from_raw_mode(status.st_mode)
}

/// The names in a directory opened to be listed, sorted; `None` when there are more than `most`.
pub fn names(directory: impl AsFd, most: usize) -> Result<Option<Vec<OsString>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() >= most {
            return Ok(None);
        }
        names.push(OsString::from_vec(name.to_vec()));
    }
    names.sort();
    Ok(Some(names))
}

/// A path to a name in an open directory, for calls that take paths only and do not follow links.
pub fn path_of(directory: &OwnedFd, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())
}

/// The extended attributes of a name that `wanted` chooses, sorted. None on file systems that have
/// none.
pub fn xattrs(
    directory: &OwnedFd,
    name: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(String, Vec<u8>)>> {
    let path = path_of(directory, name);
    let mut list = vec![0; XATTR_BYTES_MAX];
    let length = match llistxattr(&path, &mut list[..]) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for attribute in list[..length].split(|byte| *byte == 0) {
        let Ok(attribute) = std::str::from_utf8(attribute) else {
            continue;
        };
        if attribute.is_empty() || !wanted(attribute) {
            continue;
        }
        let mut value = vec![0; XATTR_BYTES_MAX];
        let length = lgetxattr(&path, attribute, &mut value[..])?;
        value.truncate(length);
        // Of 64 KiB each, those of a large tree would be gigabytes.
        value.shrink_to_fit();
        found.push((attribute.to_owned(), value));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_lies_above_or_behind_a_link_is_not_opened() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        fs::create_dir_all(inner.join("a/b")).unwrap();
        fs::write(outer.path().join("secret"), "x").unwrap();
        fs::write(inner.join("a/b/file"), "x").unwrap();
        symlink("..", inner.join("up")).unwrap();
        symlink("a", inner.join("link")).unwrap();
        symlink("/etc", inner.join("etc")).unwrap();
        let tree = open_top(&inner).unwrap();
        for refused in [
            "../secret",
            "up/secret",
            "link/b",
            "etc/hostname",
            "a/../../secret",
        ] {
            assert!(open_file(&tree, refused).is_err(), "{refused}");
            assert!(open_parent(&tree, refused).is_err(), "{refused}");
        }
        assert!(open_file(&tree, "link").is_err());
        assert!(open_file(&tree, "a/b/file").is_ok());
        assert!(open_list(&tree, "a/b").is_ok());
        assert!(open_list(&tree, "a/b/file").is_err());
    }

    #[test]
    fn a_list_ends_at_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["c", "a", "b"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let list = open_list(open_top(directory.path()).unwrap(), ".").unwrap();
        assert_eq!(names(&list, 3).unwrap().unwrap(), ["a", "b", "c"]);
        assert_eq!(names(&list, 2).unwrap(), None);
    }
}
