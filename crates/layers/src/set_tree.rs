//! A template set as a value: every path and what stands there. Made from a directory
//! ([`crate::HerdFolder`]), from a tar stream, or from what ships inside the program; nothing in it
//! is interpreted yet.

use std::collections::BTreeMap;

use estive_archive::{SharedBytes, Xattrs, check_path};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::LayerError;
use crate::secrets::hex;
use crate::tree::Owner;

/// Names in one set, directories too.
pub(crate) const MAX_ENTRIES: usize = 10_000;
/// One file; the layer disk holds little more.
pub(crate) const MAX_FILE_BYTES: u64 = 15 << 20;
/// All files and attributes of a set.
pub(crate) const MAX_SET_BYTES: u64 = 16 << 20;
pub(crate) const MAX_DEPTH: usize = 32;
/// Attributes of one file.
const MAX_XATTRS: usize = 64;

/// One set's tree. Paths are relative, with `/` between names; parents are always there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTree {
    nodes: BTreeMap<String, SetNode>,
}

/// What stands at one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetNode {
    pub owner: Owner,
    pub xattrs: Xattrs,
    pub kind: SetKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetKind {
    File(SharedBytes),
    Directory,
    /// The target as it stands in the link.
    Symlink(String),
    /// Another name of the file at this path of the set.
    HardLink(String),
    /// Major 0, minor 0 is overlayfs's whiteout.
    Character {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
}

impl SetTree {
    /// A tree of nodes that come from outside, within the limits of a set; `set` is its name, for
    /// messages. Of a file with several names the one with the content comes first.
    pub fn from_nodes(
        set: &str,
        nodes: impl IntoIterator<Item = (String, SetNode)>,
    ) -> Result<Self, LayerError> {
        let mut builder = SetTreeBuilder::new(set);
        for (path, node) in nodes {
            let size_bytes = match &node.kind {
                SetKind::File(bytes) => bytes.len() as u64,
                _ => 0,
            };
            builder.admit(&path, size_bytes)?;
            builder.put(&path, node)?;
        }
        builder.finish()
    }

    pub fn get(&self, path: &str) -> Option<&SetNode> {
        self.nodes.get(path)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &SetNode)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Whether anything stands below this path.
    pub fn has_below(&self, path: &str) -> bool {
        let below = format!("{path}/");
        let next = self.nodes.range(below.clone()..).next();
        next.is_some_and(|(found, _)| found.starts_with(&below))
    }

    /// Content, names and attributes as one digest: SHA-256 over those of the paths.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (path, node) in &self.nodes {
            feed(&mut hash, path.as_bytes());
            hash.update(node.digest());
        }
        hash.finalize().into()
    }

    /// The first 16 hex digits of each path's digest: enough to say which one changed.
    pub fn path_digests(&self) -> BTreeMap<String, String> {
        let short = |node: &SetNode| hex(&node.digest()[..8]);
        let nodes = self.nodes.iter();
        nodes
            .map(|(path, node)| (path.clone(), short(node)))
            .collect()
    }
}

impl SetNode {
    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let Owner { mode, uid, gid } = self.owner;
        for number in [mode, uid, gid] {
            hash.update(number.to_le_bytes());
        }
        let devices = |major: u32, minor: u32| [major.to_le_bytes(), minor.to_le_bytes()].concat();
        let (kind, content) = match &self.kind {
            SetKind::File(bytes) => (b'f', bytes.to_vec()),
            SetKind::Directory => (b'd', Vec::new()),
            SetKind::Symlink(target) => (b'l', target.clone().into_bytes()),
            SetKind::HardLink(target) => (b'h', target.clone().into_bytes()),
            SetKind::Character { major, minor } => (b'c', devices(*major, *minor)),
            SetKind::Block { major, minor } => (b'b', devices(*major, *minor)),
        };
        hash.update([kind]);
        feed(&mut hash, &content);
        for (name, value) in &self.xattrs {
            feed(&mut hash, name.as_bytes());
            feed(&mut hash, &value.0);
        }
        hash.finalize().into()
    }
}

/// With its length first, so that no two lists of texts look alike.
fn feed(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

/// Puts a tree together within the limits of a set. What is put in comes from outside.
pub(crate) struct SetTreeBuilder {
    set: String,
    nodes: BTreeMap<String, SetNode>,
    /// What was let in so far.
    entries: usize,
    bytes: u64,
}

impl SetTreeBuilder {
    /// `set` is its name, for messages.
    pub fn new(set: &str) -> Self {
        Self {
            set: set.to_owned(),
            nodes: BTreeMap::new(),
            entries: 0,
            bytes: 0,
        }
    }

    /// How many names may still come.
    pub fn entries_left(&self) -> usize {
        MAX_ENTRIES - self.entries
    }

    /// Lets a path in, before its content is read: `size_bytes` of content and attributes.
    pub fn admit(&mut self, path: &str, size_bytes: u64) -> Result<(), LayerError> {
        check_path(path).map_err(|error| self.wrong(path, error.to_string()))?;
        if path.split('/').count() > MAX_DEPTH {
            return Err(self.wrong(path, format!("lies deeper than {MAX_DEPTH} names")));
        }
        if self.entries >= MAX_ENTRIES {
            return Err(self.too_many());
        }
        if size_bytes > MAX_FILE_BYTES {
            let what =
                format!("has {size_bytes} bytes; a file of a set has at most {MAX_FILE_BYTES}");
            return Err(self.wrong(path, what));
        }
        if self.bytes + size_bytes > MAX_SET_BYTES {
            return Err(self.too_large(path));
        }
        self.entries += 1;
        self.bytes += size_bytes;
        Ok(())
    }

    /// Puts in what was let in.
    pub fn put(&mut self, path: &str, node: SetNode) -> Result<(), LayerError> {
        match &node.kind {
            SetKind::Symlink(target) => self.check_symlink(path, target)?,
            SetKind::HardLink(target) => {
                let file = self.nodes.get(target).map(|node| &node.kind);
                if !matches!(file, Some(SetKind::File(_))) {
                    let what = format!(
                        "is a hard link to {target:?}, which is no file of the set that comes before it"
                    );
                    return Err(self.wrong(path, what));
                }
            }
            _ => {}
        }
        if node.xattrs.len() > MAX_XATTRS {
            let what = format!("has more than {MAX_XATTRS} extended attributes");
            return Err(self.wrong(path, what));
        }
        let xattr_bytes: usize = node.xattrs.values().map(|value| value.0.len()).sum();
        self.bytes += xattr_bytes as u64;
        if self.bytes > MAX_SET_BYTES {
            return Err(self.too_large(path));
        }
        if self.nodes.insert(path.to_owned(), node).is_some() {
            return Err(self.wrong(path, "is there twice"));
        }
        Ok(())
    }

    /// A link may lead anywhere in the clone, but not above its root: that is where it would point
    /// out of the tree if anybody here followed it.
    fn check_symlink(&self, path: &str, target: &str) -> Result<(), LayerError> {
        if target.is_empty() || target.len() > 4095 || target.contains('\0') {
            return Err(self.wrong(
                path,
                "is a symbolic link with a target that no kernel takes",
            ));
        }
        if target.starts_with('/') {
            return Ok(());
        }
        let mut depth = path.matches('/').count();
        for name in target.split('/') {
            match name {
                "" | "." => {}
                ".." if depth == 0 => {
                    let what = format!(
                        "is a symbolic link to {target:?}, which leads above the clone's root"
                    );
                    return Err(self.wrong(path, what));
                }
                ".." => depth -= 1,
                _ => depth += 1,
            }
        }
        Ok(())
    }

    /// The tree, with the parents that nothing named.
    pub fn finish(mut self) -> Result<SetTree, LayerError> {
        let mut missing = BTreeMap::new();
        for path in self.nodes.keys() {
            for (end, _) in path.match_indices('/') {
                let parent = &path[..end];
                match self.nodes.get(parent).map(|node| &node.kind) {
                    Some(SetKind::Directory) => {}
                    Some(_) => {
                        let what = format!("lies under {parent}, which is no directory");
                        return Err(self.wrong(path, what));
                    }
                    None => {
                        missing.insert(parent.to_owned(), SetNode::directory());
                    }
                }
            }
        }
        if self.nodes.len() + missing.len() > MAX_ENTRIES {
            return Err(self.too_many());
        }
        self.nodes.append(&mut missing);
        Ok(SetTree { nodes: self.nodes })
    }

    pub fn wrong(&self, path: &str, what: impl Into<String>) -> LayerError {
        LayerError::Set {
            set: self.set.clone(),
            path: path.chars().take(200).collect(),
            what: what.into(),
        }
    }

    fn too_large(&self, path: &str) -> LayerError {
        self.wrong(path, format!("the set has more than {MAX_SET_BYTES} bytes"))
    }

    pub fn too_many(&self) -> LayerError {
        LayerError::Set {
            set: self.set.clone(),
            path: ".".to_owned(),
            what: format!("the set has more than {MAX_ENTRIES} files and directories"),
        }
    }
}

impl SetNode {
    /// Root's, without attributes.
    pub fn new(mode: u32, kind: SetKind) -> Self {
        Self {
            owner: Owner::root(mode),
            xattrs: Xattrs::new(),
            kind,
        }
    }

    /// Of content and attributes.
    pub fn size_bytes(&self) -> usize {
        let content = match &self.kind {
            SetKind::File(bytes) => bytes.len(),
            _ => 0,
        };
        let xattrs: usize = self.xattrs.values().map(|value| value.0.len()).sum();
        content + xattrs
    }

    fn directory() -> Self {
        Self::new(0o755, SetKind::Directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> SetNode {
        SetNode::new(0o644, SetKind::File(text.into()))
    }

    fn built(nodes: &[(&str, SetNode)]) -> Result<SetTree, String> {
        let mut builder = SetTreeBuilder::new("own");
        let mut put = || -> Result<(), LayerError> {
            for (path, node) in nodes {
                builder.admit(path, 1)?;
                builder.put(path, node.clone())?;
            }
            Ok(())
        };
        put().map_err(|error| error.to_string())?;
        builder.finish().map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_a_set_is_refused() {
        let link = |target: &str| SetNode::new(0o777, SetKind::Symlink(target.to_owned()));
        let hard = |target: &str| SetNode::new(0, SetKind::HardLink(target.to_owned()));
        for (nodes, expected) in [
            (vec![("../a", file(""))], "has a '.' or '..' component"),
            (vec![("/a", file(""))], "is absolute"),
            (vec![("a", file("")), ("a", file(""))], "a: is there twice"),
            (
                vec![("a", file("")), ("a/b", file(""))],
                "a/b: lies under a, which is no directory",
            ),
            (
                vec![("a", link("b")), ("a/b", file(""))],
                "a/b: lies under a, which is no directory",
            ),
            (
                vec![("a/l", link("../../etc"))],
                "leads above the clone's root",
            ),
            (vec![("l", link("a/../.."))], "leads above the clone's root"),
            (vec![("l", link(""))], "no kernel takes"),
            (
                vec![("h", hard("a"))],
                "h: is a hard link to \"a\", which is no file of the set",
            ),
            (
                vec![("d", link("a")), ("h", hard("d"))],
                "which is no file of the set",
            ),
        ] {
            let error = built(&nodes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let deep = ["d"; MAX_DEPTH + 1].join("/");
        assert!(built(&[(&deep, file(""))]).unwrap_err().contains("deeper"));
        let fine = [
            ("a/b/up", link("../../etc/passwd")),
            ("a/out", link("/etc/../..")),
            ("z", file("")),
            ("zz", hard("z")),
        ];
        let tree = built(&fine).unwrap();
        assert!(tree.has_below("a/b") && !tree.has_below("z"));
        assert_eq!(tree.get("a/b"), Some(&SetNode::directory()));
    }

    #[test]
    fn sizes_are_refused_before_anything_is_read() {
        let mut builder = SetTreeBuilder::new("own");
        let error = builder.admit("sparse", 10 << 30).unwrap_err().to_string();
        assert!(error.contains("has 10737418240 bytes"), "{error}");
        builder.admit("a", MAX_FILE_BYTES).unwrap();
        let error = builder.admit("b", MAX_FILE_BYTES).unwrap_err().to_string();
        assert!(error.contains("the set has more than"), "{error}");
        for number in builder.entries..MAX_ENTRIES {
            builder.admit(&format!("n{number}"), 0).unwrap();
        }
        let error = builder.admit("last", 0).unwrap_err().to_string();
        assert!(error.contains("more than 10000 files"), "{error}");
    }

    #[test]
    fn a_digest_sees_everything() {
        let first = built(&[("a", file("x"))]).unwrap();
        let mut other_mode = file("x");
        other_mode.owner.mode = 0o755;
        let mut other_xattr = file("x");
        let value = estive_archive::XattrValue(b"v".to_vec());
        other_xattr.xattrs.insert("user.x".to_owned(), value);
        for other in [file("y"), other_mode, other_xattr] {
            let other = built(&[("a", other)]).unwrap();
            assert_ne!(first.digest(), other.digest());
            assert_ne!(first.path_digests(), other.path_digests());
        }
        assert_ne!(first.digest(), built(&[("b", file("x"))]).unwrap().digest());
    }

    #[test]
    fn a_set_travels_as_json_too() {
        let tree = built(&[("a", file("\0x")), ("b/c", file(""))]).unwrap();
        let text = serde_json::to_string(&tree).unwrap();
        assert_eq!(serde_json::from_str::<SetTree>(&text).unwrap(), tree);
    }
}
