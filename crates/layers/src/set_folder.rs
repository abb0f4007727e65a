//! A set read from its directory: every name beneath a handle, no link followed, limits first.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use estive_archive::{XattrValue, Xattrs, carried_xattr};
use estive_beneath::{self as beneath, Errno};
use rustix::fs::{FileType, Stat, fstat, major, minor, readlinkat};
use rustix::process::{getegid, geteuid};

use crate::error::LayerError;
use crate::set_tree::{SetKind, SetNode, SetTree, SetTreeBuilder};
use crate::tree::Owner;

/// Reads the set of this name from the directory `top`.
pub(crate) fn read(set: &str, top: &OwnedFd) -> Result<SetTree, LayerError> {
    let mut reader = FolderReader {
        builder: SetTreeBuilder::new(set),
        ours: Ours::of(top).map_err(|error| wrong_io(set, ".", "looking at it", error))?,
        linked: HashMap::new(),
        set,
    };
    let list =
        beneath::open_list(top, ".").map_err(|error| reader.failed(".", "opening", error))?;
    reader.directory(&list, "")?;
    reader.builder.finish()
}

/// Whose files count as root's: a checkout belongs to whoever made it.
struct Ours {
    uids: [u32; 3],
    gids: [u32; 3],
}

impl Ours {
    fn of(top: &OwnedFd) -> beneath::Result<Self> {
        let top = fstat(top)?;
        Ok(Self {
            uids: [0, geteuid().as_raw(), top.st_uid],
            gids: [0, getegid().as_raw(), top.st_gid],
        })
    }

    fn owner(&self, status: &Stat) -> Owner {
        let or_root = |id: u32, ours: &[u32]| if ours.contains(&id) { 0 } else { id };
        Owner {
            mode: status.st_mode & 0o7777,
            uid: or_root(status.st_uid, &self.uids),
            gid: or_root(status.st_gid, &self.gids),
        }
    }
}

struct FolderReader<'a> {
    builder: SetTreeBuilder,
    ours: Ours,
    /// The path of each file with several names, by its device and number.
    linked: HashMap<(u64, u64), String>,
    set: &'a str,
}

impl FolderReader<'_> {
    /// `prefix` is empty or ends in `/`.
    fn directory(&mut self, list: &OwnedFd, prefix: &str) -> Result<(), LayerError> {
        let place = || {
            if prefix.is_empty() {
                "."
            } else {
                prefix.trim_end_matches('/')
            }
        };
        let names = beneath::names(list, self.builder.entries_left())
            .map_err(|error| self.failed(place(), "listing", error))?
            .ok_or_else(|| self.builder.too_many())?;
        for name in names {
            let Some(name) = name.to_str() else {
                let what = format!("the name {name:?} is not UTF-8");
                return Err(self.builder.wrong(place(), what));
            };
            self.entry(list, name, &format!("{prefix}{name}"))?;
        }
        Ok(())
    }

    fn entry(&mut self, directory: &OwnedFd, name: &str, path: &str) -> Result<(), LayerError> {
        let status = beneath::status(directory, name)
            .map_err(|error| self.failed(path, "looking at it", error))?;
        let kind = beneath::kind(&status);
        if !matches!(
            kind,
            FileType::RegularFile
                | FileType::Directory
                | FileType::Symlink
                | FileType::CharacterDevice
                | FileType::BlockDevice
        ) {
            let what = "is no file, directory, link or device";
            return Err(self.builder.wrong(path, what));
        }
        let identity = (status.st_dev, status.st_ino);
        if kind == FileType::RegularFile
            && let Some(first) = self.linked.get(&identity)
        {
            let kind = SetKind::HardLink(first.clone());
            self.builder.admit(path, 0)?;
            return self.builder.put(path, SetNode::new(0, kind));
        }
        let size_bytes = match kind {
            FileType::RegularFile => u64::try_from(status.st_size).unwrap_or(u64::MAX),
            _ => 0,
        };
        // Before anything of it is read.
        self.builder.admit(path, size_bytes)?;
        let xattrs = self.xattrs(directory, name, path)?;
        let (major, minor) = (major(status.st_rdev), minor(status.st_rdev));
        let node = |kind| SetNode {
            owner: self.ours.owner(&status),
            xattrs,
            kind,
        };
        match kind {
            FileType::Directory => {
                let node = node(SetKind::Directory);
                self.builder.put(path, node)?;
                let list = beneath::open_list(directory, name)
                    .map_err(|error| self.failed(path, "opening", error))?;
                self.directory(&list, &format!("{path}/"))
            }
            FileType::RegularFile => {
                let bytes = self.content(directory, name, path, &status)?;
                let node = node(SetKind::File(bytes.into()));
                if status.st_nlink > 1 {
                    self.linked.insert(identity, path.to_owned());
                }
                self.builder.put(path, node)
            }
            FileType::Symlink => {
                let target = readlinkat(directory, name, Vec::new())
                    .map_err(|error| self.failed(path, "reading", error))?;
                let Ok(target) = target.into_string() else {
                    return Err(self
                        .builder
                        .wrong(path, "is a link whose target is not UTF-8"));
                };
                let node = node(SetKind::Symlink(target));
                self.builder.put(path, node)
            }
            FileType::CharacterDevice => {
                let node = node(SetKind::Character { major, minor });
                self.builder.put(path, node)
            }
            _ => {
                let node = node(SetKind::Block { major, minor });
                self.builder.put(path, node)
            }
        }
    }

    /// The content of the very file that was let in, and no more of it.
    fn content(
        &self,
        directory: &OwnedFd,
        name: &str,
        path: &str,
        status: &Stat,
    ) -> Result<Vec<u8>, LayerError> {
        let failed = |error| self.failed(path, "opening", error);
        let file = beneath::open_file(directory, name).map_err(failed)?;
        let opened = fstat(&file).map_err(failed)?;
        if (opened.st_dev, opened.st_ino) != (status.st_dev, status.st_ino) {
            return Err(self.builder.wrong(path, "changed while it was read"));
        }
        let size_bytes = u64::try_from(status.st_size).unwrap_or(0);
        let mut bytes = Vec::new();
        std::fs::File::from(file)
            .take(size_bytes + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| wrong_io(self.set, path, "reading", error))?;
        if bytes.len() as u64 != size_bytes {
            return Err(self.builder.wrong(path, "changed while it was read"));
        }
        Ok(bytes)
    }

    fn xattrs(
        &mut self,
        directory: &OwnedFd,
        name: &str,
        path: &str,
    ) -> Result<Xattrs, LayerError> {
        let found = beneath::xattrs(directory, name, |_| true)
            .map_err(|error| self.failed(path, "reading the attributes of it", error))?;
        let mut xattrs = Xattrs::new();
        for (attribute, value) in found {
            if let Some(attribute) =
                carried_xattr(&attribute).map_err(|what| self.builder.wrong(path, what))?
            {
                xattrs.insert(attribute.to_owned(), XattrValue(value));
            }
        }
        Ok(xattrs)
    }

    fn failed(&self, path: &str, doing: &'static str, error: Errno) -> LayerError {
        match error {
            Errno::LOOP => self
                .builder
                .wrong(path, "is a symbolic link now; it was not before"),
            Errno::XDEV => self
                .builder
                .wrong(path, "is another file system mounted there"),
            error => wrong_io(self.set, path, doing, error),
        }
    }
}

fn wrong_io(set: &str, path: &str, doing: &'static str, error: impl Into<io::Error>) -> LayerError {
    LayerError::Io {
        doing,
        path: format!("sets/{set}/{path}").into(),
        source: error.into(),
    }
}

/// A directory in a directory, by one plain name; `None` when there is none.
pub(crate) fn directory_in(
    tree: impl AsFd,
    name: &str,
    shown: &str,
) -> Result<Option<OwnedFd>, LayerError> {
    let what = match beneath::open_list(tree, name) {
        Ok(directory) => return Ok(Some(directory)),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => {
            "is a symbolic link; what a herd needs lies in its folder: copy it there"
        }
        Err(Errno::XDEV) => "is another file system mounted there; copy what is in it",
        Err(Errno::NOTDIR) => "is no directory",
        Err(error) => {
            return Err(LayerError::Io {
                doing: "opening",
                path: shown.into(),
                source: error.into(),
            });
        }
    };
    Err(LayerError::Folder {
        path: shown.to_owned(),
        what: what.to_owned(),
    })
}
