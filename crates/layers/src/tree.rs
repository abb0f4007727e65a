//! A layer while it is put together: sets laid one over another, the upper wins by file.

use std::collections::{BTreeMap, BTreeSet};

use estive_archive::LayerArchive;

/// Paths relative to the root, without a leading slash, to what stands there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<String, TreeNode>,
    opaque: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeNode {
    File {
        owner: Owner,
        bytes: Vec<u8>,
    },
    /// Only directories whose mode or owner is the layer's own need be named.
    Directory {
        owner: Owner,
    },
    Symlink {
        target: String,
    },
    /// Hides what the root has here.
    Whiteout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Tree {
    pub fn get(&self, path: &str) -> Option<&TreeNode> {
        self.nodes.get(path)
    }

    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// Whether anything stands below `path`.
    pub fn has_below(&self, path: &str) -> bool {
        let below = format!("{path}/");
        let next = self.nodes.range(below.clone()..).next();
        next.is_some_and(|(found, _)| found.starts_with(&below)) || self.opaque.contains(path)
    }

    /// Puts a node over what was there: what it hides is gone from the tree.
    pub fn put(&mut self, path: &str, node: TreeNode) {
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            match self.nodes.get(parent) {
                None | Some(TreeNode::Directory { .. }) => {}
                // A directory over a whiteout shows only what is put into it.
                Some(TreeNode::Whiteout) => {
                    self.nodes.remove(parent);
                    self.opaque.insert(parent.to_owned());
                }
                Some(TreeNode::File { .. } | TreeNode::Symlink { .. }) => {
                    self.nodes.remove(parent);
                }
            }
        }
        if !matches!(node, TreeNode::Directory { .. }) {
            self.clear_below(path);
            self.opaque.remove(path);
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// Hides all that the root and the layers so far have in this directory.
    pub fn put_opaque(&mut self, path: &str) {
        self.clear_below(path);
        if !matches!(
            self.nodes.get(path),
            None | Some(TreeNode::Directory { .. })
        ) {
            self.nodes.remove(path);
        }
        self.opaque.insert(path.to_owned());
    }

    fn clear_below(&mut self, path: &str) {
        let below = format!("{path}/");
        self.nodes.retain(|other, _| !other.starts_with(&below));
        self.opaque.retain(|other| !other.starts_with(&below));
    }

    /// The archive as it travels: the same tree, the same bytes.
    pub fn to_archive(&self) -> Result<Vec<u8>, estive_archive::Error> {
        let mut archive = LayerArchive::new();
        for (path, node) in &self.nodes {
            match node {
                TreeNode::File { owner, bytes } => {
                    archive.file(path, owner.mode, owner.uid, owner.gid, bytes.clone())?
                }
                TreeNode::Directory { owner } => {
                    archive.dir(path, owner.mode, owner.uid, owner.gid)?
                }
                TreeNode::Symlink { target } => archive.symlink(path, target)?,
                TreeNode::Whiteout => archive.whiteout(path)?,
            };
        }
        for path in &self.opaque {
            archive.opaque(path)?;
        }
        archive.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> TreeNode {
        TreeNode::File {
            owner: Owner::root(0o644),
            bytes: text.into(),
        }
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
            ["d", "d-e", "etc/a", "f/g"]
        );
        assert_eq!(tree.get("etc/a"), Some(&file("upper")));
    }

    #[test]
    fn a_directory_over_a_whiteout_is_opaque() {
        let mut tree = Tree::default();
        tree.put("var/log/x", file("gone"));
        tree.put("var/log", TreeNode::Whiteout);
        assert_eq!(tree.paths().collect::<Vec<_>>(), ["var/log"]);
        tree.put("var/log/new", file("only this"));
        assert_eq!(tree.paths().collect::<Vec<_>>(), ["var/log/new"]);
        assert!(tree.opaque.contains("var/log"));
        tree.put("var/log", TreeNode::Whiteout);
        assert!(!tree.opaque.contains("var/log"));
    }
}
