//! The tree that an image is made of: nodes by number, 0 the root; a node with several names is a hard link.

use std::collections::BTreeMap;

use crate::content::Content;
use crate::error::{Error, Result};
use crate::layout::mode;
use crate::xattr::{self, Xattrs};

/// One thing of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Type and permissions, as `stat` has them.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Of a device: its number as the kernel encodes it (`new_encode_dev`).
    pub device: u32,
    /// 0 keeps the time out of the image.
    pub mtime_s: u64,
    pub mtime_ns: u32,
    pub xattrs: Xattrs,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Names and the nodes they lead to.
    Directory(BTreeMap<Vec<u8>, usize>),
    File(Content),
    Link(Vec<u8>),
    /// A device, a fifo or a socket: its mode says which.
    Other,
}

impl Node {
    /// A directory with nothing in it.
    pub fn directory(permissions: u16) -> Self {
        Self {
            mode: mode::DIRECTORY | permissions,
            uid: 0,
            gid: 0,
            device: 0,
            mtime_s: 0,
            mtime_ns: 0,
            xattrs: Xattrs::new(),
            body: Body::Directory(BTreeMap::new()),
        }
    }

    /// Whether the end of a file's data may stand beside this inode: what [`DataArea::store`] asks.
    ///
    /// [`DataArea::store`]: crate::DataArea::store
    pub fn tail_fits(&self) -> bool {
        xattr::leaves_room(&self.xattrs)
    }

    /// Drops attributes that the format has no place for; gives their names.
    pub fn drop_unfit_xattrs(&mut self) -> Vec<Vec<u8>> {
        let unfit: Vec<Vec<u8>> = self
            .xattrs
            .iter()
            .filter(|(name, value)| !xattr::fits(name, value))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &unfit {
            self.xattrs.remove(name);
        }
        unfit
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    pub nodes: Vec<Node>,
}

impl Tree {
    /// Every node once, in the order of the image: what a directory names, in the order of names, then likewise below
    /// each of its directories. With each node how many names it has (of a directory: as the kernel counts).
    pub(crate) fn order(&self) -> Result<Vec<(usize, u32)>> {
        let mut links = vec![0_u32; self.nodes.len()];
        let mut parents = vec![None; self.nodes.len()];
        let mut order = vec![0];
        let mut pending = vec![0];
        links[0] = 2;
        while let Some(directory) = pending.pop() {
            let Body::Directory(entries) = &self.nodes[directory].body else {
                return Err(unfit("the root is no directory"));
            };
            let mut below = Vec::new();
            for child in entries.values().copied() {
                let node = self
                    .nodes
                    .get(child)
                    .ok_or_else(|| unfit("a name that leads nowhere"))?;
                if matches!(node.body, Body::Directory(_)) {
                    if child == 0 || parents[child].is_some() {
                        return Err(unfit("a directory with two names"));
                    }
                    parents[child] = Some(directory);
                    links[child] = 2;
                    links[directory] += 1;
                    below.push(child);
                    order.push(child);
                } else {
                    if links[child] == 0 {
                        order.push(child);
                    }
                    links[child] += 1;
                }
            }
            pending.extend(below.into_iter().rev());
        }
        Ok(order.into_iter().map(|node| (node, links[node])).collect())
    }
}

fn unfit(what: &str) -> Error {
    Error::TooLarge { what: what.into() }
}
