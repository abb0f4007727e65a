//! The set's tree as the script sees it, read-only in the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2, symlinkat};
use rustix::io::Errno;

use crate::cage::Outside;
use crate::request::InputNode;
use crate::view::give;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Writes the tree at `place` in `root`.
pub(crate) fn write(
    set: &BTreeMap<String, InputNode>,
    root: &OwnedFd,
    place: &str,
    outside: &Outside,
) -> Result<(), String> {
    for (path, node) in set {
        put(path, node, root, place, outside)
            .map_err(|error| format!("showing the set's {path:?}: {error}"))?;
    }
    Ok(())
}

fn put(
    path: &str,
    node: &InputNode,
    root: &OwnedFd,
    place: &str,
    outside: &Outside,
) -> std::io::Result<()> {
    estive_archive::check_path(path).map_err(std::io::Error::other)?;
    let mut directory = open_directory(root, place)?;
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
        make_directory(&directory, parent, outside)?;
        directory = open_directory(&directory, parent)?;
    }
    match node {
        InputNode::Directory => make_directory(&directory, name, outside)?,
        InputNode::Symlink { target } => symlinkat(target.as_str(), &directory, name)?,
        InputNode::File { executable, bytes } => {
            let mode = if *executable { 0o755 } else { 0o644 };
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = openat2(&directory, name, flags, Mode::from_raw_mode(mode), BENEATH)?;
            File::from(file).write_all(bytes)?;
            give(&directory, name, outside)?;
        }
    }
    Ok(())
}

fn open_directory(directory: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(directory, path, flags, Mode::empty(), BENEATH)
}

/// One that is there already is no error.
fn make_directory(directory: &OwnedFd, name: &str, outside: &Outside) -> Result<(), Errno> {
    match mkdirat(directory, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => give(directory, name, outside),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}
