//! Unpacking a layer archive into a directory, and never outside of it.
//!
//! The archive may name a symbolic link and then a file through it. Parents are therefore opened by
//! the kernel beneath the tree with no link followed (`openat2`), and every name is made anew
//! (`O_EXCL` and the like): nothing is ever written through what was unpacked before.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use estive_archive::{Kind, Limits, MANIFEST_DIRECTORY, Manifest, Member, Reader};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    chmodat, chownat, fchmod, fchown, linkat, lsetxattr, makedev, mkdirat, mknodat, openat,
    openat2, statat, symlinkat, utimensat,
};

use crate::failure::{Result, While, fail};

/// Whether files get the owners the archive gives; only root can do that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    AsArchived,
    #[cfg_attr(not(test), allow(dead_code, reason = "tests run as anyone"))]
    Mine,
}

/// Unpacks everything but the manifest's directory into `tree`, which must be empty.
pub fn unpack(archive: &[u8], tree: &OwnedFd, owners: Owners) -> Result<Manifest> {
    let mut reader = Reader::new(archive, Limits::default());
    let manifest = Manifest::read_from(&mut reader).doing(|| "the layer archive".into())?;
    let mut unpacker = Unpacker {
        tree,
        owners,
        linked: HashMap::new(),
    };
    for member in reader {
        let member = member.doing(|| "the layer archive".into())?;
        if member.path.split('/').next() != Some(MANIFEST_DIRECTORY) {
            unpacker.put(&member)?;
        }
    }
    for (path, xattrs) in &manifest.xattrs {
        let (parent, name) = open_parent(tree, path)?;
        let inside = format!("/proc/self/fd/{}/{name}", parent.as_raw_fd());
        for (attribute, value) in xattrs {
            lsetxattr(&inside, attribute, &value.0, XattrFlags::empty()).doing(|| {
                format!("setting {attribute} on {path} (a tmpfs takes trusted.* and security.*)")
            })?;
        }
    }
    Ok(manifest)
}

/// Gives the implied directories of the layer the mode and owner of the same directory in the
/// root: the upper of two joined directories is the one whose attributes are seen.
pub fn take_attributes(manifest: &Manifest, layer: &OwnedFd, root: &OwnedFd) -> Result<()> {
    for path in &manifest.implied {
        let Some((below, name)) = open_parent(root, path).ok() else {
            continue;
        };
        let Ok(status) = statat(&below, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => {}
            FileType::Symlink => {
                return fail(format!(
                    "the layer has files in {path}, which is a symbolic link in the root: put them where the link points"
                ));
            }
            _ => {
                return fail(format!(
                    "the layer has files in {path}, which is not a directory in the root"
                ));
            }
        }
        let (above, name) = open_parent(layer, path)?;
        let attributes = || format!("giving {path} of the layer the owner it has in the root");
        let (uid, gid) = (Uid::from_raw(status.st_uid), Gid::from_raw(status.st_gid));
        chownat(
            &above,
            name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .and_then(|()| {
            let mode = Mode::from_raw_mode(status.st_mode);
            chmodat(&above, name, mode, AtFlags::empty())
        })
        .doing(attributes)?;
    }
    Ok(())
}

struct Unpacker<'a> {
    tree: &'a OwnedFd,
    owners: Owners,
    /// The first name of each file with several, by its inode number in the archive.
    linked: HashMap<u32, String>,
}

impl Unpacker<'_> {
    fn put(&mut self, member: &Member) -> Result<()> {
        let (parent, name) = open_parent(self.tree, member.path)?;
        let making = || format!("making {} of the layer", member.path);
        let mode = Mode::from_raw_mode(member.mode);
        match member.kind {
            Kind::File(content) => return self.put_file(member, &parent, name, content),
            Kind::Directory => mkdirat(&parent, name, Mode::RWXU).doing(making)?,
            Kind::Symlink(target) => symlinkat(target, &parent, name).doing(making)?,
            Kind::CharacterDevice { major, minor } => {
                let device = makedev(major, minor);
                mknodat(&parent, name, FileType::CharacterDevice, mode, device).doing(making)?;
            }
            Kind::BlockDevice { major, minor } => {
                let device = makedev(major, minor);
                mknodat(&parent, name, FileType::BlockDevice, mode, device).doing(making)?;
            }
            Kind::Fifo => mknodat(&parent, name, FileType::Fifo, mode, 0).doing(making)?,
            Kind::Socket => mknodat(&parent, name, FileType::Socket, mode, 0).doing(making)?,
        }
        if self.owners == Owners::AsArchived {
            let (uid, gid) = owner(member);
            chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).doing(making)?;
        }
        if !matches!(member.kind, Kind::Symlink(_)) {
            chmodat(&parent, name, mode, AtFlags::empty()).doing(making)?;
        }
        self.set_time(member, &parent, name)
    }

    fn put_file(
        &mut self,
        member: &Member,
        parent: &OwnedFd,
        name: &str,
        content: &[u8],
    ) -> Result<()> {
        let making = || format!("making {} of the layer", member.path);
        let mut flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let first = match member.links {
            0 | 1 => None,
            _ => self.linked.get(&member.inode),
        };
        match first {
            Some(first) => {
                let (first_parent, first_name) = open_parent(self.tree, first)?;
                linkat(first_parent, first_name, parent, name, AtFlags::empty()).doing(making)?;
                if content.is_empty() {
                    return Ok(());
                }
                flags |= OFlags::TRUNC;
            }
            None => {
                flags |= OFlags::CREATE | OFlags::EXCL;
                if member.links > 1 {
                    self.linked.insert(member.inode, member.path.to_owned());
                }
            }
        }
        let mut file = openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .doing(making)?;
        file.write_all(content).doing(making)?;
        if self.owners == Owners::AsArchived {
            let (uid, gid) = owner(member);
            fchown(&file, uid, gid).doing(making)?;
        }
        fchmod(&file, Mode::from_raw_mode(member.mode)).doing(making)?;
        self.set_time(member, parent, name)
    }

    fn set_time(&self, member: &Member, parent: &OwnedFd, name: &str) -> Result<()> {
        if member.mtime_s == 0 {
            return Ok(());
        }
        let time = Timespec {
            tv_sec: member.mtime_s.into(),
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .doing(|| format!("setting the time of {} of the layer", member.path))
    }
}

fn owner(member: &Member) -> (Option<Uid>, Option<Gid>) {
    // All ones means "leave it" to chown, which here is root's.
    let known = |id: u32| (id != u32::MAX).then_some(id);
    (
        known(member.uid).map(Uid::from_raw),
        known(member.gid).map(Gid::from_raw),
    )
}

/// The directory that holds `path`, reached through no link, and the last component.
fn open_parent<'p>(tree: &OwnedFd, path: &'p str) -> Result<(OwnedFd, &'p str)> {
    estive_archive::check_path(path).doing(|| "a name of the layer".into())?;
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(tree, parent, flags, Mode::empty(), resolve)
        .map(|parent| (parent, name))
        .doing(|| {
            format!("{path:?} of the layer: {parent:?} is not a directory that comes before it")
        })
}

#[cfg(test)]
mod tests;
