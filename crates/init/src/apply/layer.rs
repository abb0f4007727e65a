//! The layer that is pushed, as a map from its archive: path to what it wants there.

use std::collections::{BTreeMap, HashMap};

use estive_archive::{Kind, Limits, MANIFEST_DIRECTORY, Manifest, OPAQUE_XATTR, Reader, Service};

use super::node::{Content, Node, What, Xattrs};
use super::tree::Tree;
use crate::failure::{Result, While, fail};

/// What a layer wants at one path.
pub struct Wanted<'a> {
    /// [`What::Absent`] is a whiteout.
    pub node: Node,
    pub content: &'a [u8],
    /// Members with the same number are one file.
    pub link: Option<u32>,
    /// Here only because something lies in it: mode and owner are the root's, where it has it.
    pub is_implied: bool,
    /// Nothing of the root is seen below this path.
    pub hides: bool,
}

pub struct Layer<'a> {
    pub wanted: BTreeMap<String, Wanted<'a>>,
    pub services: Vec<Service>,
}

impl<'a> Layer<'a> {
    /// From an archive, as strict as the unpacking at a start: what would stop a boot is refused.
    pub fn read(archive: &'a [u8]) -> Result<Layer<'a>> {
        let what = || "the layer archive".to_owned();
        let mut reader = Reader::new(archive, Limits::default());
        let mut manifest = Manifest::read_from(&mut reader).doing(what)?;
        let mut layer = Layer {
            wanted: BTreeMap::new(),
            services: std::mem::take(&mut manifest.services),
        };
        let mut contents: HashMap<u32, &'a [u8]> = HashMap::new();
        for member in reader {
            let member = member.doing(what)?;
            if member.path.split('/').next() == Some(MANIFEST_DIRECTORY) {
                continue;
            }
            layer.check_parent(member.path)?;
            let mut wanted = Wanted {
                node: Node {
                    what: What::Absent,
                    mode: member.mode,
                    uid: member.uid,
                    gid: member.gid,
                    xattrs: Xattrs::new(),
                },
                content: &[],
                link: None,
                is_implied: false,
                hides: true,
            };
            wanted.node.what = match member.kind {
                Kind::File(content) => {
                    wanted.content = content;
                    if member.links > 1 {
                        wanted.link = Some(member.inode);
                        if !content.is_empty() {
                            contents.insert(member.inode, content);
                        }
                    }
                    file(content)
                }
                Kind::Directory => {
                    wanted.hides = false;
                    What::Directory
                }
                Kind::Symlink(target) => {
                    wanted.node.mode = 0o777;
                    What::Symlink(target.as_bytes().to_vec())
                }
                Kind::CharacterDevice { major: 0, minor: 0 } => {
                    wanted.node = Node::absent();
                    What::Absent
                }
                Kind::CharacterDevice { major, minor } => What::Character { major, minor },
                Kind::BlockDevice { major, minor } => What::Block { major, minor },
                Kind::Fifo => What::Fifo,
                Kind::Socket => What::Socket,
            };
            if layer
                .wanted
                .insert(member.path.to_owned(), wanted)
                .is_some()
            {
                return fail(format!("the layer archive has {:?} twice", member.path));
            }
        }
        layer.take_manifest(&manifest)?;
        layer.join_links(&contents);
        Ok(layer)
    }

    fn check_parent(&self, path: &str) -> Result<()> {
        let Some((parent, _)) = path.rsplit_once('/') else {
            return Ok(());
        };
        match self.wanted.get(parent) {
            Some(wanted) if wanted.node.is_directory() => Ok(()),
            _ => fail(format!(
                "{path:?} of the layer: {parent:?} is not a directory that comes before it"
            )),
        }
    }

    /// Names of one file have the content that comes with one of them, and each other's attributes.
    fn join_links(&mut self, contents: &HashMap<u32, &'a [u8]>) {
        let mut xattrs: HashMap<u32, Xattrs> = HashMap::new();
        for wanted in self.wanted.values() {
            if let Some(link) = wanted.link {
                let of_file = xattrs.entry(link).or_default();
                of_file.extend(wanted.node.xattrs.clone());
            }
        }
        for wanted in self.wanted.values_mut() {
            let Some(link) = wanted.link else { continue };
            if let Some(content) = contents.get(&link) {
                wanted.content = content;
                wanted.node.what = file(content);
            }
            wanted.node.xattrs = xattrs.get(&link).cloned().unwrap_or_default();
        }
    }

    fn take_manifest(&mut self, manifest: &Manifest) -> Result<()> {
        for path in &manifest.implied {
            match self.wanted.get_mut(path) {
                Some(wanted) if wanted.node.is_directory() => wanted.is_implied = true,
                _ => {
                    return fail(format!(
                        "the manifest implies {path:?}, which is no directory"
                    ));
                }
            }
        }
        for (path, xattrs) in &manifest.xattrs {
            let Some(wanted) = self.wanted.get_mut(path) else {
                return fail(format!(
                    "the manifest gives {path:?} attributes, which is not there"
                ));
            };
            for (name, value) in xattrs {
                if name == OPAQUE_XATTR {
                    wanted.hides |= value.0 == b"y";
                } else {
                    wanted.node.xattrs.insert(name.clone(), value.0.clone());
                }
            }
        }
        Ok(())
    }

    /// Whether something above `path` hides the root's part of it.
    pub fn is_hidden(&self, path: &str) -> bool {
        above(path).any(|above| self.wanted.get(above).is_some_and(|wanted| wanted.hides))
    }

    /// Whether nothing of the root is seen below `path`.
    pub fn hides_below(&self, path: &str) -> bool {
        self.is_hidden(path) || self.wanted.get(path).is_some_and(|wanted| wanted.hides)
    }

    /// What a clone that starts with this layer over `root` has at `path`.
    pub fn expected(&self, path: &str, root: &Tree) -> Node {
        let Some(wanted) = self.wanted.get(path) else {
            return match self.is_hidden(path) {
                true => Node::absent(),
                false => root.node(path),
            };
        };
        let mut node = wanted.node.clone();
        if wanted.is_implied && !self.is_hidden(path) {
            let below = root.node(path);
            if below.is_directory() {
                (node.mode, node.uid, node.gid) = (below.mode, below.uid, below.gid);
                node.xattrs.extend(below.xattrs);
            }
        }
        node
    }

    /// Refuses what PID 1 refuses: implied directories that are something else in the root.
    pub fn check_over(&self, root: &Tree) -> Result<()> {
        for (path, wanted) in &self.wanted {
            if !wanted.is_implied || self.is_hidden(path) {
                continue;
            }
            let below = root.node(path);
            let kind = match below.what {
                What::Absent | What::Directory => continue,
                What::Symlink(_) => "is a symbolic link",
                _ => "is not a directory",
            };
            return fail(format!(
                "the layer has files in {path}, which {kind} in the root: put them where it is one"
            ));
        }
        Ok(())
    }
}

fn file(content: &[u8]) -> What {
    What::File {
        bytes: content.len() as u64,
        content: Content::of(content),
    }
}

/// `a/b/c` → `a/b`, `a`.
pub fn above(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('/').map(|(end, _)| &path[..end])
}
