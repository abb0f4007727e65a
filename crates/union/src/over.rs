//! Unpacking a tar stream over a tree that is there, as its own package manager would.
//!
//! What stands under a name is replaced, links of the tree that lead to directories are gone
//! through, and the kernel lets nothing lead above the tree or onto another file system (`openat2`,
//! `RESOLVE_IN_ROOT`). Marks of a union hide what lay there before the stream, wherever they stand in it.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use estive_archive::{
    OPAQUE_MARK, OPAQUE_XATTR, TarMember, WHITEOUT_PREFIX, carried_xattr, check_path, plain_path,
    read_tar,
};
use estive_beneath::{Errno, split};
use rustix::fs::{AtFlags, FileType, XattrFlags, linkat, lsetxattr, unlinkat};
use tar::EntryType;

use crate::Rights;
use crate::entry::{self, Looks, Node, Write};
use crate::error::{Result, UnionError, While};

/// PATH_MAX of the kernel, without its NUL.
const PATH_BYTES_MAX: usize = 4095;
/// What tar pads with after its end, at most: blocks of a tape.
const PADDING_BYTES_MAX: u64 = 64 << 20;
/// Names below one directory of the tree.
const NAMES_MAX: usize = 1 << 20;
/// What a name costs in a tmpfs besides its content.
const NAME_COST_BYTES: u64 = 1024;
const PAGE_BYTES: u64 = 4096;
/// The opaque mark as container images have it (OCI image layout, "Whiteouts").
const OCI_OPAQUE_MARK: &str = ".wh..wh..opq";
/// Where the layers of a union lie.
const UNIONS: &str = ".unions";

/// How much may be unpacked, by all streams together.
#[derive(Debug, Clone, Copy)]
pub struct OverLimits {
    /// Of content and names.
    pub bytes: u64,
    pub names: u64,
}

/// Whose owner, mode and time a directory has that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoriesThere {
    /// The archive's, as `tar` does.
    Change,
    /// Its own, as `dpkg` does.
    Stay,
}

/// Unpacks streams one after another over one tree.
pub struct Over<'t> {
    tree: &'t OwnedFd,
    rights: Rights,
    limits: OverLimits,
    left: OverLimits,
}

impl<'t> Over<'t> {
    pub fn new(tree: &'t OwnedFd, rights: Rights, limits: OverLimits) -> Over<'t> {
        Over {
            tree,
            rights,
            limits,
            left: limits,
        }
    }

    /// Unpacks one stream, which must be whole; says how many names it had.
    pub fn unpack(&mut self, stream: impl Read, directories: DirectoriesThere) -> Result<u64> {
        let names_before = self.left.names;
        let mut stream = Watched {
            stream,
            zeros_at_end: 0,
        };
        let mut one = OneStream {
            over: self,
            directories,
            put: BTreeSet::new(),
            times: Vec::new(),
        };
        read_tar(&mut stream, PATH_BYTES_MAX, |member| one.put(member))?;
        one.set_times()?;
        stream.finish()?;
        Ok(names_before - self.left.names)
    }

    fn take(&mut self, bytes: u64, path: &str) -> Result<()> {
        let too_much = |what, limit| UnionError::TooMuch {
            path: path.to_owned(),
            what,
            limit,
        };
        match self.left.bytes.checked_sub(bytes) {
            Some(left) => self.left.bytes = left,
            None => return Err(too_much("KiB", self.limits.bytes >> 10)),
        }
        Ok(())
    }

    fn take_name(&mut self, path: &str) -> Result<()> {
        self.left.names = match self.left.names.checked_sub(1) {
            Some(left) => left,
            None => {
                return Err(UnionError::TooMuch {
                    path: path.to_owned(),
                    what: "names",
                    limit: self.limits.names,
                });
            }
        };
        self.take(NAME_COST_BYTES + path.len() as u64, path)
    }
}

struct OneStream<'o, 't> {
    over: &'o mut Over<'t>,
    directories: DirectoriesThere,
    /// What the stream has put: its own marks do not hide that.
    put: BTreeSet<String>,
    /// Directories change while things are put into them.
    times: Vec<(String, Looks)>,
}

impl OneStream<'_, '_> {
    fn put<R: Read>(&mut self, mut member: TarMember<R>) -> Result<()> {
        let path = std::mem::take(&mut member.path);
        self.over.take_name(&path)?;
        // The tree's own top stays what it is: archives of a directory made for it often have it.
        if path.is_empty() {
            return Ok(());
        }
        check_path(&path)?;
        if path.split('/').next() == Some(UNIONS) {
            return Err(wrong(&path, "lies where the layers of the union are"));
        }
        let (above, name) = split(&path);
        let is_mark = matches!(member.kind, EntryType::Regular | EntryType::Continuous);
        match name.strip_prefix(WHITEOUT_PREFIX).filter(|_| is_mark) {
            Some(_) if name == OPAQUE_MARK || name == OCI_OPAQUE_MARK => {
                return self.hide_below(above, &path);
            }
            // Of aufs itself, such as .wh..wh.plnk.
            Some(hidden) if hidden.starts_with(WHITEOUT_PREFIX) => return Ok(()),
            Some(hidden) => {
                let hidden = joined(above, hidden);
                return self.hide(&hidden);
            }
            None => {}
        }
        if member.kind == EntryType::Char && member.device == (0, 0) {
            return self.hide(&path);
        }
        self.make(&path, &mut member)?;
        self.set_xattrs(&path, &member)?;
        self.put.insert(path);
        Ok(())
    }

    fn make<R: Read>(&mut self, path: &str, member: &mut TarMember<R>) -> Result<()> {
        let (above, name) = split(path);
        let parent = self.directory(above, path)?;
        let making = || format!("making {path}");
        let looks = Looks {
            mode: member.mode,
            owner: (self.over.rights == Rights::Root).then_some((member.uid, member.gid)),
            mtime_s: i64::try_from(member.mtime_s).ok(),
        };
        let (major, minor) = member.device;
        let node = match member.kind {
            EntryType::Directory => return self.make_directory(path, &parent, looks),
            EntryType::Regular | EntryType::Continuous => {
                self.over
                    .take(member.size_bytes.next_multiple_of(PAGE_BYTES), path)?;
                clear_way(&parent, path)?;
                let content = &mut member.content;
                let count =
                    entry::write_file(&parent, name, Write::New, content, &looks).doing(making)?;
                return match count == member.size_bytes {
                    true => Ok(()),
                    false => Err(wrong(path, "is cut short: the archive is not whole")),
                };
            }
            EntryType::Link => return self.make_link(path, &parent, &member.link),
            EntryType::Symlink => Node::Symlink(&member.link),
            EntryType::Char => Node::Character { major, minor },
            EntryType::Block => Node::Block { major, minor },
            EntryType::Fifo => Node::Fifo,
            other => {
                let what = format!(
                    "is of the kind {other:?}; files, directories, links, devices and fifos are unpacked"
                );
                return Err(wrong(path, what));
            }
        };
        clear_way(&parent, path)?;
        entry::make(&parent, name, node, &looks).doing(making)
    }

    fn make_directory(&mut self, path: &str, parent: &OwnedFd, looks: Looks) -> Result<()> {
        let (_, name) = split(path);
        let making = || format!("making {path}");
        match kind(parent, path)? {
            Some(FileType::Directory) if self.directories == DirectoriesThere::Stay => {
                return Ok(());
            }
            Some(FileType::Directory) => {
                entry::give(parent, name, false, &looks).doing(making)?;
            }
            // It leads to a directory, which is where the files go: /lib to /usr/lib.
            Some(FileType::Symlink)
                if estive_beneath::open_directory_in_root(self.over.tree, path).is_ok() =>
            {
                return Ok(());
            }
            there => {
                if there.is_some() {
                    unlinkat(parent, name, AtFlags::empty()).doing(making)?;
                }
                entry::make(parent, name, Node::Directory, &looks).doing(making)?;
            }
        }
        self.times.push((path.to_owned(), looks));
        Ok(())
    }

    fn make_link(&self, path: &str, parent: &OwnedFd, link: &str) -> Result<()> {
        let shown: String = link.chars().take(80).collect();
        let no_target = |why: &str| wrong(path, format!("is a hard link to {shown:?}, {why}"));
        let first = plain_path(link.as_bytes(), PATH_BYTES_MAX)
            .filter(|first| !first.is_empty())
            .ok_or_else(|| no_target("which is no plain path"))?;
        if first == path {
            return Ok(());
        }
        let (above, first_name) = split(&first);
        let first_parent = estive_beneath::open_directory_in_root(self.over.tree, above)
            .map_err(|_| no_target("which is not there"))?;
        if kind(&first_parent, &first)? != Some(FileType::RegularFile) {
            return Err(no_target("which is no file that comes before it"));
        }
        clear_way(parent, path)?;
        let (_, name) = split(path);
        linkat(&first_parent, first_name, parent, name, AtFlags::empty())
            .doing(|| format!("making {path}"))
    }

    fn set_xattrs<R: Read>(&mut self, path: &str, member: &TarMember<R>) -> Result<()> {
        for (attribute, value) in &member.xattrs {
            let attribute = match carried_xattr(attribute).map_err(|what| wrong(path, what))? {
                None => continue,
                Some(OPAQUE_XATTR) => {
                    if member.kind == EntryType::Directory && value == b"y" {
                        self.hide_below(path, path)?;
                    }
                    continue;
                }
                Some(attribute) => attribute,
            };
            let (above, name) = split(path);
            let parent = self.directory(above, path)?;
            let inside = estive_beneath::path_of(&parent, name);
            lsetxattr(&inside, attribute, value, XattrFlags::empty()).doing(|| {
                format!("setting {attribute} on {path} (a tmpfs takes user.* from Linux 6.6 on)")
            })?;
        }
        Ok(())
    }

    /// A directory of the tree, with those above it made where they are missing.
    fn directory(&self, directory: &str, path: &str) -> Result<OwnedFd> {
        let tree = self.over.tree;
        match estive_beneath::open_directory_in_root(tree, directory) {
            Err(Errno::NOENT) => {}
            Ok(directory) => return Ok(directory),
            Err(Errno::XDEV) => {
                return Err(wrong(path, "lies on another file system than the root"));
            }
            Err(Errno::NOTDIR) => {
                return Err(wrong(path, "lies below something that is no directory"));
            }
            Err(errno) => {
                return Err(errno).doing(|| format!("opening the place of {path}"));
            }
        }
        let (above, name) = split(directory);
        let parent = self.directory(above, path)?;
        let looks = Looks {
            mode: 0o755,
            owner: (self.over.rights == Rights::Root).then_some((0, 0)),
            mtime_s: None,
        };
        match kind(&parent, directory)? {
            None => entry::make(&parent, name, Node::Directory, &looks)
                .doing(|| format!("making {directory}"))?,
            Some(_) => {
                let what = format!("lies below {directory:?}, a link that leads nowhere");
                return Err(wrong(path, what));
            }
        }
        estive_beneath::open_directory(&parent, name).doing(|| format!("opening {directory}"))
    }

    /// Hides a name that was there before this stream.
    fn hide(&self, path: &str) -> Result<()> {
        if self.is_ours(path) {
            return Err(wrong(path, "is both there and hidden"));
        }
        let (above, _) = split(path);
        match estive_beneath::open_directory_in_root(self.over.tree, above) {
            Ok(parent) => remove(&parent, path),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(errno).doing(|| format!("opening the place of {path}")),
        }
    }

    /// Hides all that a directory had before this stream.
    fn hide_below(&self, directory: &str, mark: &str) -> Result<()> {
        if directory == "." {
            return Err(wrong(mark, "would hide the whole root"));
        }
        let listing = || format!("listing {directory}");
        let tree = self.over.tree;
        let list = match estive_beneath::open_list_in_root(tree, directory) {
            Ok(list) => list,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(errno).doing(listing),
        };
        for name in names(&list).doing(listing)? {
            let Some(name) = name.to_str() else {
                return Err(wrong(directory, "has a name that is not UTF-8"));
            };
            let inside = joined(directory, name);
            if !self.is_ours(&inside) {
                remove(&list, &inside)?;
            } else if kind(&list, &inside)? == Some(FileType::Directory) {
                self.hide_below(&inside, mark)?;
            }
        }
        Ok(())
    }

    /// Whether the stream has put it, or something below it.
    fn is_ours(&self, path: &str) -> bool {
        let below = format!("{path}/");
        let next = self.put.range(below.clone()..).next();
        self.put.contains(path) || next.is_some_and(|next| next.starts_with(&below))
    }

    fn set_times(&self) -> Result<()> {
        for (path, looks) in self.times.iter().rev() {
            let (above, name) = split(path);
            // It may have been hidden since.
            if let Ok(parent) = estive_beneath::open_directory_in_root(self.over.tree, above)
                && kind(&parent, path)? == Some(FileType::Directory)
            {
                entry::set_time(&parent, name, looks)
                    .doing(|| format!("setting the time of {path}"))?;
            }
        }
        Ok(())
    }
}

fn wrong(path: &str, what: impl Into<String>) -> UnionError {
    UnionError::Tar(estive_archive::TarFault {
        path: path.to_owned(),
        what: what.into(),
    })
}

/// `.` is the top.
fn joined(directory: &str, name: &str) -> String {
    match directory {
        "." => name.to_owned(),
        _ => format!("{directory}/{name}"),
    }
}

/// What the last name of `path` is in its open parent.
fn kind(parent: &OwnedFd, path: &str) -> Result<Option<FileType>> {
    match estive_beneath::status(parent, split(path).1) {
        Ok(status) => Ok(Some(estive_beneath::kind(&status))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).doing(|| format!("looking at {path}")),
    }
}

/// Takes away what is no directory.
fn clear_way(parent: &OwnedFd, path: &str) -> Result<()> {
    match kind(parent, path)? {
        None => Ok(()),
        Some(FileType::Directory) => Err(wrong(path, "is a directory in the root")),
        Some(_) => {
            unlinkat(parent, split(path).1, AtFlags::empty()).doing(|| format!("replacing {path}"))
        }
    }
}

fn names(list: &OwnedFd) -> estive_beneath::Result<Vec<std::ffi::OsString>> {
    estive_beneath::names(list, NAMES_MAX)?.ok_or(Errno::TOOBIG)
}

/// Removes the last name of `path` from its open parent, with all that is below it.
fn remove(parent: &OwnedFd, path: &str) -> Result<()> {
    let removing = || format!("hiding {path}");
    let (_, name) = split(path);
    let flags = match kind(parent, path)? {
        None => return Ok(()),
        Some(FileType::Directory) => {
            let list = estive_beneath::open_list(parent, name).doing(removing)?;
            for inner in names(&list).doing(removing)? {
                let Some(inner) = inner.to_str() else {
                    return Err(wrong(path, "has a name that is not UTF-8"));
                };
                remove(&list, &joined(path, inner))?;
            }
            AtFlags::REMOVEDIR
        }
        Some(_) => AtFlags::empty(),
    };
    unlinkat(parent, name, flags).doing(removing)
}

/// Knows how the stream ended.
struct Watched<R> {
    stream: R,
    zeros_at_end: u64,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        let zeros = buffer[..count].iter().rev().take_while(|byte| **byte == 0);
        self.zeros_at_end = match zeros.count() {
            zeros if zeros == count => self.zeros_at_end + zeros as u64,
            zeros => zeros as u64,
        };
        Ok(count)
    }
}

impl<R: Read> Watched<R> {
    /// Fails when the stream ended before its mark, or has a wrong checksum behind it.
    fn finish(mut self) -> Result<()> {
        if self.zeros_at_end < 512 {
            return Err(wrong(".", "is cut short: it has no end mark"));
        }
        let mut rest = (&mut self.stream).take(PADDING_BYTES_MAX);
        let padding = io::copy(&mut rest, &mut io::sink())
            .map_err(|error| wrong(".", format!("is not a whole tar archive: {error}")))?;
        match padding == PADDING_BYTES_MAX {
            true => Err(wrong(".", "goes on for 64 MiB after its end")),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
