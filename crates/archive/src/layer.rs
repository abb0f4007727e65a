//! The layer of a clone as an archive: what `estive-init` lays over the root.

use std::collections::{BTreeMap, BTreeSet};

use crate::form::{LayerForm, OwnMember};
use crate::manifest::{XattrValue, check_xattr_name};
use crate::member::check_target;
use crate::service::check_services;
use crate::{
    Error, Kind, MANIFEST_DIRECTORY, MANIFEST_PATH, Manifest, Member, OPAQUE_XATTR, Result,
    Service, SharedBytes, Writer, check_path,
};

/// The fixed capacity of the layer disk: the same for every clone, so that all have one machine.
pub const LAYER_DISK_BYTES: u64 = 16 << 20;

/// Builds a layer archive. Parents need not be named, the order of calls does not matter, and the
/// same layer always gives the same bytes.
///
/// An archive has two parts: a *head* with the manifest, all directories and all that clones of
/// one kind have in common, then a *tail* with the files that are one clone's own
/// ([`LayerArchive::own_file`]). Within each part paths are in order, parents before what lies in
/// them. So the head of a thousand clones is made, digested and kept once.
///
/// ```
/// let mut layer = estive_archive::LayerArchive::new();
/// layer.file("etc/hostname", 0o644, 0, 0, b"clone01\n".to_vec())?;
/// layer.whiteout("etc/motd")?;
/// let bytes = layer.finish()?;
/// # Ok::<(), estive_archive::Error>(())
/// ```
#[derive(Debug, Default, Clone)]
pub struct LayerArchive {
    nodes: BTreeMap<String, Node>,
    implied: BTreeSet<String>,
    manifest: Manifest,
}

#[derive(Debug, Clone)]
struct Node {
    mode: u32,
    uid: u32,
    gid: u32,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    File(SharedBytes),
    /// A file of the tail, by the number of its content.
    Own(usize),
    Directory,
    Symlink(String),
    HardLink(String),
    Character {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
}

impl LayerArchive {
    pub fn new() -> Self {
        LayerArchive::default()
    }

    /// A regular file.
    pub fn file(
        &mut self,
        path: &str,
        mode: u32,
        uid: u32,
        gid: u32,
        bytes: impl Into<SharedBytes>,
    ) -> Result<&mut Self> {
        self.insert(path, mode, uid, gid, What::File(bytes.into()))
    }

    /// A file of the tail, whose content is the one of this number when the tail is made.
    pub fn own_file(
        &mut self,
        path: &str,
        mode: u32,
        uid: u32,
        gid: u32,
        content: usize,
    ) -> Result<&mut Self> {
        self.insert(path, mode, uid, gid, What::Own(content))
    }

    /// A directory whose mode and owner are the layer's own. Directories that are not named take
    /// theirs from the root, or are root's with mode 0755 where the root has none.
    pub fn dir(&mut self, path: &str, mode: u32, uid: u32, gid: u32) -> Result<&mut Self> {
        self.insert(path, mode, uid, gid, What::Directory)
    }

    /// A directory whose mode and owner count only where the root has no directory of this name.
    pub fn implied_dir(&mut self, path: &str, mode: u32, uid: u32, gid: u32) -> Result<&mut Self> {
        self.insert(path, mode, uid, gid, What::Directory)?;
        self.implied.insert(path.to_owned());
        Ok(self)
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> Result<&mut Self> {
        self.symlink_of(path, target, 0, 0)
    }

    /// A symbolic link of somebody else than root.
    pub fn symlink_of(
        &mut self,
        path: &str,
        target: &str,
        uid: u32,
        gid: u32,
    ) -> Result<&mut Self> {
        check_target(path, target)?;
        self.insert(path, 0o777, uid, gid, What::Symlink(target.to_owned()))
    }

    /// Another name for a file of this layer; mode, owner and content are that file's.
    pub fn hardlink(&mut self, path: &str, target: &str) -> Result<&mut Self> {
        check_path(target)?;
        self.insert(path, 0, 0, 0, What::HardLink(target.to_owned()))
    }

    /// A device node: `character` or else block.
    pub fn device(
        &mut self,
        path: &str,
        mode: u32,
        uid: u32,
        gid: u32,
        character: bool,
        (major, minor): (u32, u32),
    ) -> Result<&mut Self> {
        let what = if character {
            What::Character { major, minor }
        } else {
            What::Block { major, minor }
        };
        self.insert(path, mode, uid, gid, what)
    }

    /// Hides what the root has at this path: overlayfs's character device 0:0.
    pub fn whiteout(&mut self, path: &str) -> Result<&mut Self> {
        self.device(path, 0, 0, 0, true, (0, 0))
    }

    /// Hides everything the root has in this directory.
    pub fn opaque(&mut self, path: &str) -> Result<&mut Self> {
        self.xattr(path, OPAQUE_XATTR, b"y".to_vec())
    }

    /// An extended attribute of a path of this layer. A path that nothing else names is a
    /// directory.
    pub fn xattr(
        &mut self,
        path: &str,
        name: &str,
        bytes: impl Into<Vec<u8>>,
    ) -> Result<&mut Self> {
        check_own_path(path)?;
        check_xattr_name(name)?;
        self.manifest
            .xattrs
            .entry(path.to_owned())
            .or_default()
            .insert(name.to_owned(), XattrValue(bytes.into()));
        Ok(self)
    }

    /// Services to be told when files of theirs are changed in a running clone. The same ones are
    /// kept once.
    pub fn service(&mut self, service: Service) -> Result<&mut Self> {
        service.check()?;
        if !self.manifest.services.contains(&service) {
            self.manifest.services.push(service);
            check_services(&self.manifest.services)?;
        }
        Ok(self)
    }

    /// Whether something was put at this path.
    pub fn contains(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    /// The archive in one piece, for a layer without files of the tail.
    pub fn finish(self) -> Result<Vec<u8>> {
        let form = self.form()?;
        let mut bytes = form.head().to_vec();
        bytes.extend(form.tail(&[])?);
        Ok(bytes)
    }

    /// The archive as its head and what is to be filled into its tail.
    pub fn form(mut self) -> Result<LayerForm> {
        self.imply_directories()?;
        let groups = self.link_groups()?;
        let manifest = self.manifest.to_json()?;
        let mut writer = Writer::new(Vec::new());
        writer.add(&Member::file(MANIFEST_PATH, 0o600, &manifest))?;
        let mut inodes = BTreeMap::new();
        let mut own = Vec::new();
        for (path, node) in &self.nodes {
            let head = match &node.what {
                What::HardLink(target) => target,
                _ => path,
            };
            let (group, head_node) = (groups.get(head), &self.nodes[head]);
            let is_last = group.is_none_or(|names| names.last() == Some(path));
            let links = group.map_or(1, |names| u32::try_from(names.len()).unwrap_or(u32::MAX));
            if let What::Own(content) = head_node.what {
                own.push(OwnMember {
                    path: path.clone(),
                    mode: head_node.mode,
                    uid: head_node.uid,
                    gid: head_node.gid,
                    links,
                    file: head.clone(),
                    content: is_last.then_some(content),
                });
                continue;
            }
            let mut member = self.member(path, head_node);
            if group.is_some() {
                member.links = links;
                member.inode = *inodes.entry(head).or_insert_with(|| writer.fresh_inode());
                // As GNU cpio does: the content comes with the last name of the file.
                if !is_last {
                    member.kind = Kind::File(&[]);
                }
            }
            writer.add(&member)?;
        }
        let next_inode = writer.fresh_inode();
        Ok(LayerForm::new(writer.into_inner().into(), own, next_inode))
    }

    fn insert(
        &mut self,
        path: &str,
        mode: u32,
        uid: u32,
        gid: u32,
        what: What,
    ) -> Result<&mut Self> {
        check_own_path(path)?;
        let node = Node {
            mode: mode & 0o7777,
            uid,
            gid,
            what,
        };
        if self.nodes.insert(path.to_owned(), node).is_some() {
            return Err(Error::Duplicate {
                path: path.to_owned(),
            });
        }
        Ok(self)
    }

    /// Puts in the directories that nothing named: parents, and paths with attributes only.
    fn imply_directories(&mut self) -> Result<()> {
        let mut implied = BTreeSet::new();
        for path in self.nodes.keys().chain(self.manifest.xattrs.keys()) {
            for (end, _) in path.match_indices('/') {
                let parent = &path[..end];
                match self.nodes.get(parent) {
                    None => implied.insert(parent.to_owned()),
                    Some(node) if matches!(node.what, What::Directory) => false,
                    Some(_) => {
                        return Err(Error::UnderNonDirectory {
                            path: path.clone(),
                            parent: parent.to_owned(),
                        });
                    }
                };
            }
        }
        for (path, xattrs) in &self.manifest.xattrs {
            if !self.nodes.contains_key(path) && !implied.contains(path) {
                if !xattrs.contains_key(OPAQUE_XATTR) {
                    return Err(Error::XattrWithoutMember { path: path.clone() });
                }
                implied.insert(path.clone());
            }
        }
        for path in &implied {
            let node = Node {
                mode: 0o755,
                uid: 0,
                gid: 0,
                what: What::Directory,
            };
            self.nodes.insert(path.clone(), node);
        }
        implied.append(&mut self.implied);
        self.manifest.implied = implied.into_iter().collect();
        Ok(())
    }

    /// The names of each file that has more than one, in order, by the name it was put in with.
    fn link_groups(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (path, node) in &self.nodes {
            if let What::HardLink(target) = &node.what {
                if !matches!(
                    self.nodes.get(target).map(|node| &node.what),
                    Some(What::File(_) | What::Own(_))
                ) {
                    return Err(Error::LinkTarget {
                        path: path.clone(),
                        target: target.clone(),
                    });
                }
                groups
                    .entry(target.clone())
                    .or_insert_with(|| vec![target.clone()])
                    .push(path.clone());
            }
        }
        for names in groups.values_mut() {
            names.sort();
        }
        Ok(groups)
    }

    /// The member called `path` with the attributes and content of `node`.
    fn member<'a>(&self, path: &'a str, node: &'a Node) -> Member<'a> {
        let kind = match &node.what {
            What::File(bytes) => Kind::File(bytes),
            What::Directory => Kind::Directory,
            What::Symlink(target) => Kind::Symlink(target),
            What::HardLink(_) | What::Own(_) => Kind::File(&[]),
            &What::Character { major, minor } => Kind::CharacterDevice { major, minor },
            &What::Block { major, minor } => Kind::BlockDevice { major, minor },
        };
        Member {
            uid: node.uid,
            gid: node.gid,
            ..Member::new(path, node.mode, kind)
        }
    }
}

/// The rule of every name, and the directory that speaks of the archive is not the layer's.
fn check_own_path(path: &str) -> Result<()> {
    check_path(path)?;
    if path.split('/').next() == Some(MANIFEST_DIRECTORY) {
        return Err(Error::Name {
            name: path.to_owned(),
            why: "lies in .estive, which speaks of the archive itself",
        });
    }
    Ok(())
}
