//! Unpacking a layer archive into a directory, and never outside of it.
//!
//! The archive may name a symbolic link and then a file through it. Parents are therefore opened by
//! the kernel beneath the tree with no link followed (`openat2`), and every name is made anew
//! (`O_EXCL` and the like): nothing is ever written through what was unpacked before.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use estive_archive::{Kind, Limits, MANIFEST_DIRECTORY, Manifest, Member, OPAQUE_XATTR, Reader};
use rustix::fs::{AtFlags, XattrFlags, linkat, lsetxattr};

use crate::entry::{self, Looks, Node, Write};
use crate::error::{Result, UnionError, While};

/// The opaque mark of overlayfs mounted without privileges (`userxattr`).
const USER_OPAQUE_XATTR: &str = "user.overlay.opaque";

/// What the one who unpacks may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Everything: owners are those of the archive.
    Root,
    /// Owners are left alone, and opaque directories are marked as an overlayfs without
    /// privileges reads it. Devices and `security.*` fail by name.
    Mine,
}

/// What came out of an archive.
#[derive(Debug, Clone)]
pub struct Unpacked {
    pub manifest: Manifest,
    /// Paths of the whiteouts that were made.
    pub whiteouts: Vec<String>,
}

/// Unpacks everything but the manifest's directory into `tree`, which must be empty.
pub fn unpack(archive: &[u8], tree: &OwnedFd, rights: Rights) -> Result<Unpacked> {
    let mut reader = Reader::new(archive, Limits::default());
    let manifest = Manifest::read_from(&mut reader)?;
    let mut unpacker = Unpacker {
        tree,
        rights,
        linked: HashMap::new(),
    };
    let mut whiteouts = Vec::new();
    for member in reader {
        let member = member?;
        if member.path.split('/').next() != Some(MANIFEST_DIRECTORY) {
            unpacker.put(&member)?;
            if member.kind == (Kind::CharacterDevice { major: 0, minor: 0 }) {
                whiteouts.push(member.path.to_owned());
            }
        }
    }
    for (path, xattrs) in &manifest.xattrs {
        let (parent, name) = open_parent(tree, path)?;
        let inside = estive_beneath::path_of(&parent, name);
        for (attribute, value) in xattrs {
            let attribute = match (attribute.as_str(), rights) {
                (OPAQUE_XATTR, Rights::Mine) => USER_OPAQUE_XATTR,
                (given, _) => given,
            };
            lsetxattr(&inside, attribute, &value.0, XattrFlags::empty()).doing(|| {
                format!("setting {attribute} on {path} (a tmpfs takes user.* from Linux 6.6 on)")
            })?;
        }
    }
    Ok(Unpacked {
        manifest,
        whiteouts,
    })
}

struct Unpacker<'a> {
    tree: &'a OwnedFd,
    rights: Rights,
    /// The first name of each file with several, by its inode number in the archive.
    linked: HashMap<u32, String>,
}

impl Unpacker<'_> {
    fn put(&mut self, member: &Member) -> Result<()> {
        let (parent, name) = open_parent(self.tree, member.path)?;
        let node = match member.kind {
            Kind::File(content) => return self.put_file(member, &parent, name, content),
            Kind::Directory => Node::Directory,
            Kind::Symlink(target) => Node::Symlink(target),
            Kind::CharacterDevice { major, minor } => Node::Character { major, minor },
            Kind::BlockDevice { major, minor } => Node::Block { major, minor },
            Kind::Fifo => Node::Fifo,
            Kind::Socket => Node::Socket,
        };
        entry::make(&parent, name, node, &self.looks(member))
            .doing(|| format!("making {} of the layer", member.path))
    }

    fn put_file(
        &mut self,
        member: &Member,
        parent: &OwnedFd,
        name: &str,
        mut content: &[u8],
    ) -> Result<()> {
        let making = || format!("making {} of the layer", member.path);
        let first = match member.links {
            0 | 1 => None,
            _ => self.linked.get(&member.inode),
        };
        let write = match first {
            Some(first) => {
                let (first_parent, first_name) = open_parent(self.tree, first)?;
                linkat(first_parent, first_name, parent, name, AtFlags::empty()).doing(making)?;
                if content.is_empty() {
                    return Ok(());
                }
                Write::Over
            }
            None => {
                if member.links > 1 {
                    self.linked.insert(member.inode, member.path.to_owned());
                }
                Write::New
            }
        };
        let looks = self.looks(member);
        entry::write_file(parent, name, write, &mut content, &looks)
            .map(drop)
            .doing(making)
    }

    fn looks(&self, member: &Member) -> Looks {
        Looks {
            mode: member.mode,
            owner: (self.rights == Rights::Root).then_some((member.uid, member.gid)),
            mtime_s: (member.mtime_s != 0).then_some(member.mtime_s.into()),
        }
    }
}

fn open_parent<'p>(tree: &OwnedFd, path: &'p str) -> Result<(OwnedFd, &'p str)> {
    estive_archive::check_path(path)?;
    estive_beneath::open_parent(tree, path).map_err(|source| UnionError::Parent {
        path: path.to_owned(),
        parent: estive_beneath::split(path).0.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
