//! The changes of a push. What is new is made whole in a directory of its own, and renamed.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

use estive_beneath::{Errno, path_of};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
    chmodat, chownat, fchmod, fchown, fstat, fsync, futimens, linkat, lremovexattr, lsetxattr,
    makedev, mkdirat, mknodat, openat, renameat, renameat_with, symlinkat, unlinkat,
};

use super::fault;
use super::node::{Node, What, Xattrs};
use super::plan::{Act, How, UNIONS};
use super::tree::{Look, Tree};
use crate::failure::{Failure, Result, While, fail};

/// In the directory of the layers: on the file system that everything is renamed to, and seen by
/// nobody who watches a directory of the clone.
const ASIDE: &str = ".unions/aside";
const NEW: &str = "new";

pub struct Writer<'t> {
    merged: &'t Tree,
    root: &'t Tree,
    aside: OwnedFd,
}

impl<'t> Writer<'t> {
    /// Clears what a push that was killed has left aside.
    pub fn new(merged: &'t Tree, root: &'t Tree) -> Result<Writer<'t>> {
        let what = || format!("making /{ASIDE} in the clone");
        let unions = merged.directory(UNIONS).doing(what)?;
        let (_, name) = ASIDE.split_once('/').unwrap_or((UNIONS, ASIDE));
        match mkdirat(&unions, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return fail(format!("{}: {errno}", what())),
        }
        let aside = merged.directory(ASIDE).doing(what)?;
        let writer = Writer {
            merged,
            root,
            aside,
        };
        writer.clear().doing(|| format!("clearing /{ASIDE}"))?;
        Ok(writer)
    }

    fn clear(&self) -> rustix::io::Result<()> {
        match unlinkat(&self.aside, NEW, AtFlags::empty()) {
            Err(Errno::ISDIR) => unlinkat(&self.aside, NEW, AtFlags::REMOVEDIR),
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    pub fn act(&self, act: &Act) -> Result<()> {
        let done = match act.how {
            How::Remove => self.remove(act),
            How::Attributes => self.give_attributes(act),
            _ => self.put(act),
        };
        if done.is_err() {
            let _ = self.clear();
        }
        done
    }

    /// The clone runs: between the plan and now it may have made the path its own. Asked right before the path itself
    /// is changed, when all else is done.
    fn check_unchanged(&self, act: &Act) -> Result<()> {
        match self.merged.look(&act.path) {
            Look::Found { node, .. } if node.print() == act.was => Ok(()),
            Look::Found { .. } => fail("changed in the clone just now"),
            Look::Blocked(reason) => fail(reason),
        }
    }

    fn remove(&self, act: &Act) -> Result<()> {
        let what = || "taking it away".to_owned();
        let (parent, name) = self.merged.parent(&act.path).doing(what)?;
        let flags = match act.was.is_directory() {
            true => AtFlags::REMOVEDIR,
            false => AtFlags::empty(),
        };
        fault::step();
        self.check_unchanged(act)?;
        unlinkat(&parent, name, flags).doing(what)?;
        sync(&parent)
    }

    fn give_attributes(&self, act: &Act) -> Result<()> {
        let what = || "giving it mode and owner".to_owned();
        let directory = self.merged.directory(&act.path).doing(what)?;
        let node = &act.becomes;
        fault::step();
        self.check_unchanged(act)?;
        let (uid, gid) = owner(node);
        fchown(&directory, uid, gid).doing(what)?;
        fault::step();
        fchmod(&directory, Mode::from_raw_mode(node.mode)).doing(what)?;
        let Look::Found { node: current, .. } = self.merged.look(&act.path) else {
            return fail("it cannot be looked at any more");
        };
        let path = path_of(&directory, ".");
        for name in current.xattrs.keys() {
            if !node.xattrs.contains_key(name) {
                fault::step();
                lremovexattr(&path, name.as_str()).doing(|| format!("removing {name}"))?;
            }
        }
        fault::step();
        set_xattrs(&path, &node.xattrs)?;
        fsync(&directory).doing(what)
    }

    fn put(&self, act: &Act) -> Result<()> {
        let what = || "putting it in its place".to_owned();
        let (parent, name) = self.merged.parent(&act.path).doing(what)?;
        self.make(act)?;
        fault::step();
        self.check_unchanged(act)?;
        let is_directory = act.becomes.is_directory();
        if act.was.is_directory() {
            // It is empty by now.
            unlinkat(&parent, name, AtFlags::REMOVEDIR).doing(what)?;
            fault::step();
            renameat(&self.aside, NEW, &parent, name).doing(what)?;
        } else if is_directory && !act.was.is_absent() {
            renameat_with(&self.aside, NEW, &parent, name, RenameFlags::EXCHANGE).doing(what)?;
            fault::step();
            unlinkat(&self.aside, NEW, AtFlags::empty()).doing(what)?;
        } else {
            renameat(&self.aside, NEW, &parent, name).doing(what)?;
            // Two names of one file are left alone by rename.
            self.clear().doing(what)?;
        }
        sync(&parent)
    }

    /// Makes the new node aside, whole, on disk.
    fn make(&self, act: &Act) -> Result<()> {
        let what = || "making it aside".to_owned();
        let node = &act.becomes;
        let mode = Mode::from_raw_mode(node.mode);
        fault::step();
        if let How::Link(first) = &act.how {
            let (parent, name) = self.merged.parent(first).doing(what)?;
            return linkat(&parent, name, &self.aside, NEW, AtFlags::empty()).doing(what);
        }
        let special = |kind, major, minor| {
            mknodat(&self.aside, NEW, kind, mode, makedev(major, minor)).doing(what)
        };
        match &node.what {
            What::Absent => return fail("there is nothing to make"),
            What::File { .. } => return self.make_file(act),
            What::Directory => mkdirat(&self.aside, NEW, Mode::RWXU).doing(what)?,
            What::Symlink(target) => {
                symlinkat(target.as_slice(), &self.aside, NEW).doing(what)?;
            }
            &What::Character { major, minor } => special(FileType::CharacterDevice, major, minor)?,
            &What::Block { major, minor } => special(FileType::BlockDevice, major, minor)?,
            What::Fifo => special(FileType::Fifo, 0, 0)?,
            What::Socket => special(FileType::Socket, 0, 0)?,
        }
        let (uid, gid) = owner(node);
        chownat(&self.aside, NEW, uid, gid, AtFlags::SYMLINK_NOFOLLOW).doing(what)?;
        if !matches!(node.what, What::Symlink(_)) {
            chmodat(&self.aside, NEW, mode, AtFlags::empty()).doing(what)?;
        }
        set_xattrs(&path_of(&self.aside, NEW), &node.xattrs)
    }

    fn make_file(&self, act: &Act) -> Result<()> {
        let what = || "making it aside".to_owned();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = openat(&self.aside, NEW, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .doing(what)?;
        fault::step();
        let mut times = None;
        match &act.how {
            How::Make(content) => file.write_all(content).doing(what)?,
            _ => {
                let mut from = self.root.open_file(&act.path).doing(what)?;
                copy(&mut from, &mut file).doing(what)?;
                let status = fstat(&from).doing(what)?;
                let time = Timespec {
                    tv_sec: status.st_mtime,
                    tv_nsec: status.st_mtime_nsec as _,
                };
                times = Some(Timestamps {
                    last_access: time,
                    last_modification: time,
                });
            }
        }
        fault::step();
        let (uid, gid) = owner(&act.becomes);
        fchown(&file, uid, gid).doing(what)?;
        fchmod(&file, Mode::from_raw_mode(act.becomes.mode)).doing(what)?;
        set_xattrs(&path_of(&self.aside, NEW), &act.becomes.xattrs)?;
        if let Some(times) = times {
            futimens(&file, &times).doing(what)?;
        }
        file.sync_all().doing(what)
    }
}

fn copy(from: &mut File, to: &mut File) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn owner(node: &Node) -> (Option<Uid>, Option<Gid>) {
    // All ones means "leave it" to chown, which here is root's.
    let known = |id: u32| (id != u32::MAX).then_some(id);
    (
        known(node.uid).map(Uid::from_raw),
        known(node.gid).map(Gid::from_raw),
    )
}

fn set_xattrs(path: &str, xattrs: &Xattrs) -> Result<()> {
    for (name, value) in xattrs {
        lsetxattr(path, name.as_str(), value, XattrFlags::empty())
            .doing(|| format!("setting {name} on it"))?;
    }
    Ok(())
}

/// A directory is opened for its path only, which is too little to sync it.
fn sync(directory: &OwnedFd) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(directory, ".", flags, Mode::empty())
        .and_then(|directory| fsync(&directory))
        .map_err(Error::from)
        .map_err(|error| Failure(format!("writing its directory to disk: {error}")))
}
