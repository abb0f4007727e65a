//! A layer while it is put together: sets laid one over another, the upper wins by file.
//!
//! The union is overlayfs's, as if each set were a layer of its own, with one rule more: a
//! directory that a set only has things in takes its mode, owner and attributes from below.

use std::collections::{BTreeMap, BTreeSet};

use estive_archive::{LayerArchive, LayerForm, Service, SharedBytes, Xattrs};
use serde::{Deserialize, Serialize};

use crate::file_origin::{FileKind, FileOrigin, FileOrigins, FileSource};

/// Paths relative to the root, without a leading slash, to what stands there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<String, TreeNode>,
    opaque: BTreeMap<String, FileSource>,
    /// Owners of directories that sets have things in, for roots that have no such directory.
    places: BTreeMap<String, Owner>,
    services: Vec<Service>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeNode {
    pub kind: NodeKind,
    pub owner: Owner,
    pub xattrs: Xattrs,
    pub source: FileSource,
    /// What lower sets had at the same path, the lowest first.
    pub covers: Vec<FileSource>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    File {
        bytes: SharedBytes,
        /// Number of the content, when it is the clone's own and not the same for all.
        own: Option<usize>,
        /// Files of the same number are one file with several names.
        links: Option<usize>,
    },
    /// Only directories whose attributes are the layer's own, and empty ones.
    Directory {
        /// Where the root has it, its attributes are the root's.
        joined: bool,
    },
    Symlink(String),
    Character {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
    /// Hides what the root has here.
    Whiteout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Owner {
    pub fn root(mode: u32) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
        }
    }
}

impl TreeNode {
    pub(crate) fn new(kind: NodeKind, owner: Owner, source: FileSource) -> Self {
        Self {
            kind,
            owner,
            xattrs: Xattrs::new(),
            source,
            covers: Vec::new(),
        }
    }

    fn is_directory(&self) -> bool {
        matches!(self.kind, NodeKind::Directory { .. })
    }
}

impl Tree {
    pub fn get(&self, path: &str) -> Option<&TreeNode> {
        self.nodes.get(path)
    }

    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// Directories in which nothing of the root is seen.
    pub fn opaque(&self) -> impl Iterator<Item = &str> {
        self.opaque.keys().map(String::as_str)
    }

    /// Whether `path` is a directory here: something stands below it, or all below is hidden.
    pub fn has_below(&self, path: &str) -> bool {
        let below = format!("{path}/");
        let node = self.nodes.range(below.clone()..).next();
        let opaque = self.opaque.range(below.clone()..).next();
        let firsts = [node.map(|(path, _)| path), opaque.map(|(path, _)| path)];
        self.opaque.contains_key(path)
            || firsts
                .into_iter()
                .flatten()
                .any(|found| found.starts_with(&below))
    }

    /// Says what a directory of a set is like that things are put into: it counts where nothing
    /// below has the directory.
    pub(crate) fn place(&mut self, path: &str, owner: Owner) {
        self.places.entry(path.to_owned()).or_insert(owner);
    }

    /// What is to be told when a file of the running clone changes.
    pub(crate) fn add_service(&mut self, service: Service) {
        self.services.push(service);
    }

    /// Puts a node over what was there: what it hides is gone from the tree.
    pub fn put(&mut self, path: &str, mut node: TreeNode) {
        self.open_parents(path, &node.source);
        if node.is_directory() {
            if node.kind == (NodeKind::Directory { joined: true }) {
                node.owner = self.places.get(path).copied().unwrap_or(node.owner);
            }
            self.open(path, &node.source, node.owner);
        } else {
            self.clear_below(path);
            self.opaque.remove(path);
            self.places.remove(path);
        }
        let known = self.nodes.remove(path);
        if let Some(known) = known {
            let keeps = matches!(node.kind, NodeKind::Directory { joined: true });
            if keeps && known.is_directory() {
                self.nodes.insert(path.to_owned(), known);
                return;
            }
            node.covers = known.covers;
            if known.source != node.source {
                node.covers.push(known.source);
            }
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// Hides all that the root and the layers so far have in this directory.
    pub fn put_opaque(&mut self, path: &str, source: FileSource) {
        self.open_parents(path, &source);
        self.open(path, &source, Owner::root(0o755));
        self.clear_below(path);
        self.opaque.insert(path.to_owned(), source);
    }

    fn open_parents(&mut self, path: &str, source: &FileSource) {
        for (end, _) in path.match_indices('/') {
            self.open(&path[..end], source, Owner::root(0o755));
        }
    }

    /// Makes the path a directory, if it is something else: such a one shows only what is put into
    /// it, and is nobody else's directory.
    fn open(&mut self, path: &str, source: &FileSource, owner: Owner) {
        let Some(node) = self.nodes.get(path).filter(|node| !node.is_directory()) else {
            return;
        };
        let mut covers = node.covers.clone();
        covers.push(node.source.clone());
        let owner = self.places.get(path).copied().unwrap_or(owner);
        let mut directory =
            TreeNode::new(NodeKind::Directory { joined: false }, owner, source.clone());
        directory.covers = covers;
        self.nodes.insert(path.to_owned(), directory);
        self.opaque.insert(path.to_owned(), source.clone());
    }

    fn clear_below(&mut self, path: &str) {
        let below = format!("{path}/");
        clear(&mut self.nodes, &below);
        clear(&mut self.opaque, &below);
        clear(&mut self.places, &below);
    }

    /// The archive as it travels: the same tree, the same bytes.
    pub fn to_archive(&self) -> Result<Vec<u8>, estive_archive::Error> {
        let form = self.to_form()?;
        let mut contents = Vec::new();
        for node in self.nodes.values() {
            if let NodeKind::File {
                bytes,
                own: Some(number),
                ..
            } = &node.kind
            {
                contents.resize(contents.len().max(number + 1), SharedBytes::default());
                contents[*number] = bytes.clone();
            }
        }
        let tail = form.tail(&contents)?;
        Ok([form.head(), &tail[..]].concat())
    }

    /// The archive without the contents that are the clone's own.
    pub(crate) fn to_form(&self) -> Result<LayerForm, estive_archive::Error> {
        let mut archive = LayerArchive::new();
        let mut first_names: BTreeMap<usize, &str> = BTreeMap::new();
        // In the order of the tree, so that the same tree has the same parents.
        let mut parents = BTreeSet::new();
        for (path, node) in &self.nodes {
            parents.extend(path.match_indices('/').map(|(end, _)| &path[..end]));
            let Owner { mode, uid, gid } = node.owner;
            match &node.kind {
                NodeKind::File { bytes, own, links } => {
                    let first = links.map(|links| *first_names.entry(links).or_insert(path));
                    if let Some(first) = first.filter(|first| first != path) {
                        archive.hardlink(path, first)?;
                        continue;
                    }
                    match own {
                        Some(content) => archive.own_file(path, mode, uid, gid, *content)?,
                        None => archive.file(path, mode, uid, gid, bytes.clone())?,
                    }
                }
                NodeKind::Directory { joined: true } => {
                    archive.implied_dir(path, mode, uid, gid)?
                }
                NodeKind::Directory { joined: false } => archive.dir(path, mode, uid, gid)?,
                NodeKind::Symlink(target) => archive.symlink_of(path, target, uid, gid)?,
                &NodeKind::Character { major, minor } => {
                    archive.device(path, mode, uid, gid, true, (major, minor))?
                }
                &NodeKind::Block { major, minor } => {
                    archive.device(path, mode, uid, gid, false, (major, minor))?
                }
                // There is nothing of the root to hide in an opaque directory.
                NodeKind::Whiteout if self.is_hidden(path) => &mut archive,
                NodeKind::Whiteout => archive.whiteout(path)?,
            };
            for (name, value) in &node.xattrs {
                archive.xattr(path, name, value.0.clone())?;
            }
        }
        for path in self.opaque.keys() {
            parents.extend(path.match_indices('/').map(|(end, _)| &path[..end]));
            parents.insert(path);
            archive.opaque(path)?;
        }
        for path in parents {
            if !self.nodes.contains_key(path) {
                let Owner { mode, uid, gid } = match self.places.get(path) {
                    Some(owner) => *owner,
                    None => Owner::root(0o755),
                };
                archive.implied_dir(path, mode, uid, gid)?;
            }
        }
        for service in &self.services {
            archive.service(service.clone())?;
        }
        archive.form()
    }

    /// Whether a directory above the path is opaque.
    fn is_hidden(&self, path: &str) -> bool {
        path.match_indices('/')
            .any(|(end, _)| self.opaque.contains_key(&path[..end]))
    }

    /// Where each path comes from.
    pub fn origins(&self) -> FileOrigins {
        let origin = |node: &TreeNode| FileOrigin {
            kind: match node.kind {
                NodeKind::File { .. } => FileKind::File,
                NodeKind::Directory { .. } => FileKind::Directory,
                NodeKind::Symlink(_) => FileKind::Symlink,
                NodeKind::Character { .. } | NodeKind::Block { .. } => FileKind::Device,
                NodeKind::Whiteout => FileKind::Whiteout,
            },
            source: node.source.clone(),
            covers: node.covers.clone(),
        };
        let nodes = self.nodes.iter();
        FileOrigins {
            paths: nodes
                .map(|(path, node)| (path.clone(), origin(node)))
                .collect(),
            opaque: self.opaque.clone(),
        }
    }
}

/// Takes out all keys that begin so.
fn clear<T>(map: &mut BTreeMap<String, T>, prefix: &str) {
    let keys = map.range(prefix.to_owned()..);
    let keys: Vec<String> = keys
        .map(|(key, _)| key)
        .take_while(|key| key.starts_with(prefix))
        .cloned()
        .collect();
    for key in keys {
        map.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(set: &str) -> FileSource {
        FileSource::Copy {
            set: set.to_owned(),
            path: String::new(),
        }
    }

    fn node(kind: NodeKind) -> TreeNode {
        TreeNode::new(kind, Owner::root(0o644), source("s"))
    }

    fn file(text: &str) -> TreeNode {
        node(NodeKind::File {
            bytes: text.into(),
            own: None,
            links: None,
        })
    }

    fn whiteout() -> TreeNode {
        node(NodeKind::Whiteout)
    }

    #[test]
    fn the_upper_one_wins_and_hides() {
        let mut tree = Tree::default();
        tree.put("etc/a", file("lower"));
        tree.put("etc/a", file("upper"));
        tree.put("d/x", file("x"));
        tree.put("d-e", file("not below d"));
        tree.put("d", file("d is a file now"));
        tree.put("f", file("f"));
        tree.put("f/g", file("f is a directory now"));
        assert_eq!(
            tree.paths().collect::<Vec<_>>(),
            ["d", "d-e", "etc/a", "f", "f/g"]
        );
        assert_eq!(tree.get("etc/a").unwrap().kind, file("upper").kind);
        assert!(tree.get("f").unwrap().is_directory());
        assert_eq!(tree.opaque().collect::<Vec<_>>(), ["f"]);
    }

    #[test]
    fn a_directory_over_a_whiteout_is_opaque() {
        let mut tree = Tree::default();
        tree.put("var/log/x", file("gone"));
        tree.put("var/log", whiteout());
        assert_eq!(tree.paths().collect::<Vec<_>>(), ["var/log"]);
        tree.put("var/log/new", file("only this"));
        assert_eq!(tree.paths().collect::<Vec<_>>(), ["var/log", "var/log/new"]);
        assert_eq!(tree.opaque().collect::<Vec<_>>(), ["var/log"]);
        tree.put("var/log", whiteout());
        assert_eq!(tree.opaque().count(), 0);
        // Also where nothing but an opaque mark makes it one.
        tree.put_opaque("var/log/journal", source("s"));
        assert_eq!(
            tree.opaque().collect::<Vec<_>>(),
            ["var/log", "var/log/journal"]
        );
        assert!(tree.to_archive().is_ok());
    }

    #[test]
    fn covered_files_are_known_in_their_order() {
        let mut tree = Tree::default();
        for set in ["low", "mid", "top"] {
            let mut file = file(set);
            file.source = source(set);
            tree.put("etc/a", file);
        }
        let origins = tree.origins();
        let origin = &origins.paths["etc/a"];
        assert_eq!(origin.source, source("top"));
        assert_eq!(origin.covers, [source("low"), source("mid")]);
    }

    #[test]
    fn names_of_one_file_stay_together_until_one_is_covered() {
        let mut tree = Tree::default();
        for path in ["a", "b", "c"] {
            let links = Some(1);
            let bytes = "one".into();
            let own = None;
            tree.put(path, node(NodeKind::File { bytes, own, links }));
        }
        tree.put("a", file("another"));
        let bytes = tree.to_archive().unwrap();
        let links: Vec<(String, u32, usize)> =
            estive_archive::Reader::new(&bytes, estive_archive::Limits::default())
                .map(|member| member.unwrap())
                .filter(|member| member.path.len() == 1)
                .map(|member| {
                    let estive_archive::Kind::File(content) = member.kind else {
                        panic!("{member:?}");
                    };
                    (member.path.to_owned(), member.links, content.len())
                })
                .collect();
        let expected = [("a", 1, 7), ("b", 2, 0), ("c", 2, 3)];
        assert_eq!(
            links,
            expected.map(|(path, links, size)| (path.to_owned(), links, size))
        );
    }

    #[test]
    fn a_directory_takes_after_what_lies_below() {
        let mut tree = Tree::default();
        tree.place("srv/private", Owner::root(0o700));
        tree.put("srv/private/a", file("a"));
        tree.place("srv/private", Owner::root(0o755));
        tree.put("srv/private/b", file("b"));
        let mode = |tree: &Tree| {
            let bytes = tree.to_archive().unwrap();
            let mut members =
                estive_archive::Reader::new(&bytes, estive_archive::Limits::default())
                    .map(|member| member.unwrap());
            members
                .find(|member| member.path == "srv/private")
                .map(|member| member.mode)
        };
        assert_eq!(mode(&tree), Some(0o700));
        // Once hidden, it is another directory.
        tree.put("srv", whiteout());
        tree.place("srv/private", Owner::root(0o755));
        tree.put("srv/private/b", file("b"));
        assert_eq!(mode(&tree), Some(0o755));
    }
}
