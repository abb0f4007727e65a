//! One name of a tree, made anew in its open parent: content, then owner, mode and time.

use std::fs::File;
use std::io::{Read, Result};
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat, fchmod,
    fchown, makedev, mkdirat, mknodat, openat, symlinkat, utimensat,
};

/// What has no content.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Node<'a> {
    Directory,
    Symlink(&'a str),
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
    Socket,
}

/// What a name is given besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looks {
    /// The twelve permission bits.
    pub mode: u32,
    /// User and group; without them it is ours.
    pub owner: Option<(u32, u32)>,
    /// Seconds since 1970.
    pub mtime_s: Option<i64>,
}

/// Makes a name that is not there.
pub(crate) fn make(parent: &OwnedFd, name: &str, node: Node, looks: &Looks) -> Result<()> {
    let mode = Mode::from_raw_mode(looks.mode);
    let special = |kind, major, minor| mknodat(parent, name, kind, mode, makedev(major, minor));
    match node {
        Node::Directory => mkdirat(parent, name, Mode::RWXU)?,
        Node::Symlink(target) => symlinkat(target, parent, name)?,
        Node::Character { major, minor } => special(FileType::CharacterDevice, major, minor)?,
        Node::Block { major, minor } => special(FileType::BlockDevice, major, minor)?,
        Node::Fifo => special(FileType::Fifo, 0, 0)?,
        Node::Socket => special(FileType::Socket, 0, 0)?,
    }
    give(parent, name, matches!(node, Node::Symlink(_)), looks)
}

/// Gives its looks to a name that is there; a link is not followed and has no mode.
pub(crate) fn give(parent: &OwnedFd, name: &str, is_symlink: bool, looks: &Looks) -> Result<()> {
    if let Some(owner) = looks.owner {
        let (uid, gid) = known(owner);
        chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if !is_symlink {
        let mode = Mode::from_raw_mode(looks.mode);
        chmodat(parent, name, mode, AtFlags::empty())?;
    }
    set_time(parent, name, looks)
}

/// Whether a file is made, or one that was just made gets other content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    New,
    Over,
}

/// Makes a file; says how many bytes there were.
pub(crate) fn write_file(
    parent: &OwnedFd,
    name: &str,
    write: Write,
    content: &mut impl Read,
    looks: &Looks,
) -> Result<u64> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let flags = match write {
        Write::New => flags | OFlags::CREATE | OFlags::EXCL,
        Write::Over => flags | OFlags::TRUNC,
    };
    let mut file = File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
    let count_bytes = std::io::copy(content, &mut file)?;
    if let Some(owner) = looks.owner {
        let (uid, gid) = known(owner);
        fchown(&file, uid, gid)?;
    }
    fchmod(&file, Mode::from_raw_mode(looks.mode))?;
    set_time(parent, name, looks)?;
    Ok(count_bytes)
}

pub(crate) fn set_time(parent: &OwnedFd, name: &str, looks: &Looks) -> Result<()> {
    let Some(mtime_s) = looks.mtime_s else {
        return Ok(());
    };
    let time = Timespec {
        tv_sec: mtime_s,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn known((uid, gid): (u32, u32)) -> (Option<Uid>, Option<Gid>) {
    // All ones means "leave it" to chown, which here is root's.
    let known = |id: u32| (id != u32::MAX).then_some(id);
    (known(uid).map(Uid::from_raw), known(gid).map(Gid::from_raw))
}
