//! The end of making an image: inodes, attributes and directories behind the data, then the superblock.
//!
//! `[superblock][data][blocks of directories and long links][inodes]`. All places follow from the tree alone.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::content::Content;
use crate::directory::{self, Name};
use crate::error::{Error, Result};
use crate::inode::{Data, Inode, Kind};
use crate::layout::{
    BLOCK, BLOCK_BYTES, COMPACT_BYTES, EXTENDED_BYTES, HOLE, LINK_BYTES_MAX, NAME_BYTES_MAX,
    SLOT_BYTES,
};
use crate::superblock::Superblock;
use crate::tree::{Body, Tree};
use crate::xattr;

/// Inode number 0 is none to many programs.
const FIRST_SLOT_BYTES: u64 = 64;

/// So many blocks that are not full yet are kept in mind for inodes that still fit.
const OPEN_BLOCKS: usize = 16;

/// Where the data of a tree's files would be if each had been stored once, in the order of the image.
fn canonical_starts(tree: &Tree, order: &[(usize, u32)]) -> Vec<(usize, u32)> {
    let mut next = 1;
    let mut starts = Vec::new();
    for (node, _) in order {
        if let Body::File(content) = &tree.nodes[*node].body
            && content.blocks() > 0
        {
            starts.push((*node, next));
            next += content.blocks();
        }
    }
    starts
}

/// Whether the data of all files lies as it would had the tree been stored once, in order: else the bytes would tell
/// what was given up on the way, and the caller copies it into a new image.
pub fn is_canonical(tree: &Tree) -> Result<bool> {
    let order = tree.order()?;
    Ok(canonical_starts(tree, &order)
        .into_iter()
        .all(|(node, start)| match &tree.nodes[node].body {
            Body::File(content) => content.start_block() == start,
            _ => false,
        }))
}

/// Every node that a name leads to, once, in the order that data lies in.
pub fn order(tree: &Tree) -> Result<Vec<usize>> {
    Ok(tree.order()?.into_iter().map(|(node, _)| node).collect())
}

/// An inode under way, with all that stands behind it.
struct Placed<'a> {
    node: usize,
    inode: Inode,
    xattrs: Vec<u8>,
    /// Its data's end, or its chunks.
    behind: Vec<u8>,
    /// Of a directory: names, and how many go into each block.
    names: Vec<(&'a [u8], usize)>,
    blocks: Vec<usize>,
    /// Bytes from the start of the inodes.
    at: u64,
}

/// Writes what stands behind the data of `tree`'s files, then the superblock; gives the image's bytes.
///
/// # Errors
/// The tree does not fit (a name over 255 bytes, a link over 4095, attributes over 256 KiB), or the file cannot be
/// written.
pub fn finish(file: &File, tree: &Tree) -> Result<u64> {
    let order = tree.order()?;
    // Nodes that no name leads to any more have data too.
    let mut data_end = 1;
    for (node, _) in &order {
        if let Body::File(content) = &tree.nodes[*node].body
            && content.blocks() > 0
        {
            data_end = data_end.max(content.start_block() + content.blocks());
        }
    }
    let mut placed = Vec::with_capacity(order.len());
    let mut parents = vec![0; tree.nodes.len()];
    for (node, links) in &order {
        if let Body::Directory(entries) = &tree.nodes[*node].body {
            for child in entries.values() {
                parents[*child] = *node;
            }
        }
        placed.push(prepare(tree, *node, *links, &mut data_end)?);
    }
    let meta_block = data_end;
    let mut places = Places::default();
    let mut nids = vec![0; tree.nodes.len()];
    for inode in &mut placed {
        let inline = matches!(inode.inode.data, Data::Inline { .. });
        let behind = if inline || inode.inode.kind == Kind::File {
            inode.behind.len()
        } else {
            0
        };
        let length = inode.inode.bytes + inode.xattrs.len() + behind;
        if inline && length > BLOCK {
            return Err(too_large("the end of a file beside its attributes"));
        }
        inode.at = places.take(length as u64, inline);
        nids[inode.node] = inode.at / SLOT_BYTES;
    }
    let meta_bytes = places.end();
    let mut meta = vec![0; usize::try_from(meta_bytes).map_err(|_| too_large("its inodes"))?];
    for (number, mut inode) in (1..).zip(placed) {
        if let (Kind::Link, Data::Plain { block }) = (inode.inode.kind, inode.inode.data) {
            let mut target = std::mem::take(&mut inode.behind);
            target.resize(BLOCK, 0);
            file.write_all_at(&target, u64::from(block) * BLOCK_BYTES)?;
        }
        if !inode.names.is_empty() {
            encode_directory(file, tree, &mut inode, &nids, &parents)?;
        }
        let bytes = inode.inode.encode(number);
        let mut at = inode.at as usize;
        for part in [&bytes, &inode.xattrs, &inode.behind] {
            meta[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }
    let start = u64::from(meta_block) * BLOCK_BYTES;
    file.write_all_at(&meta, start)?;
    let size_bytes = start + meta_bytes;
    file.set_len(size_bytes)?;
    let chunks = order
        .iter()
        .any(|(node, _)| matches!(tree.nodes[*node].body, Body::File(Content::Chunks { .. })));
    let superblock = Superblock {
        root_nid: u16::try_from(nids[0]).map_err(|_| too_large("its root"))?,
        inodes: order.len() as u64,
        blocks: u32::try_from(size_bytes / BLOCK_BYTES).map_err(|_| too_large("its data"))?,
        meta_block,
        xattr_block: 0,
        build_time_s: 0,
        build_time_ns: 0,
        chunks,
    };
    file.write_all_at(&superblock.encode(), 0)?;
    Ok(size_bytes)
}

fn too_large(what: &str) -> Error {
    Error::TooLarge { what: what.into() }
}

/// All of an inode but its place; takes blocks at `next_block` for what does not fit behind it.
fn prepare<'a>(
    tree: &'a Tree,
    number: usize,
    links: u32,
    next_block: &mut u32,
) -> Result<Placed<'a>> {
    let node = &tree.nodes[number];
    let kind = Kind::of(node.mode).ok_or_else(|| too_large("something of no known type"))?;
    let xattrs = xattr::encode(&node.xattrs).ok_or_else(|| too_large("attributes over 256 KiB"))?;
    let mut placed = Placed {
        node: number,
        inode: Inode {
            nid: 0,
            kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            links,
            size_bytes: 0,
            device: node.device,
            mtime_s: node.mtime_s,
            mtime_ns: node.mtime_ns,
            data: Data::Plain { block: 0 },
            xattr_count: xattr::count(xattrs.len()).unwrap_or(0),
            bytes: EXTENDED_BYTES,
        },
        xattrs,
        behind: Vec::new(),
        names: Vec::new(),
        blocks: Vec::new(),
        at: 0,
    };
    match &node.body {
        Body::Other => {}
        Body::File(content) => {
            placed.inode.size_bytes = content.size_bytes();
            match content {
                Content::Flat {
                    start_block, tail, ..
                } => {
                    let block = if content.blocks() > 0 {
                        *start_block
                    } else {
                        0
                    };
                    placed.behind.clone_from(tail);
                    placed.inode.data = if tail.is_empty() {
                        Data::Plain { block }
                    } else {
                        Data::Inline { block }
                    };
                }
                Content::Chunks {
                    chunk_bits,
                    present,
                    start_block,
                    ..
                } => {
                    let mut block = *start_block;
                    let blocks = 1 << (u32::from(*chunk_bits) - BLOCK.ilog2());
                    for there in present {
                        let entry = if *there { block } else { HOLE };
                        placed.behind.extend(entry.to_le_bytes());
                        if *there {
                            block += blocks;
                        }
                    }
                    placed.inode.data = Data::Chunks {
                        bits: *chunk_bits,
                        indexes: false,
                    };
                }
            }
        }
        Body::Link(target) => {
            placed.inode.size_bytes = target.len() as u64;
            if placed.inode.size_bytes > LINK_BYTES_MAX {
                return Err(too_large("a link over 4095 bytes"));
            }
            // A longer one gets a block of its own, written with those of directories.
            placed.behind.clone_from(target);
            settle(&mut placed, next_block);
        }
        Body::Directory(entries) => {
            if entries.keys().any(|name| name.len() > NAME_BYTES_MAX) {
                return Err(too_large("a name over 255 bytes"));
            }
            let dots: [(&[u8], usize); 2] = [(b".", number), (b"..", number)];
            placed.names = entries
                .iter()
                .map(|(name, child)| (name.as_slice(), *child))
                .chain(dots)
                .collect();
            placed.names.sort_unstable();
            let names = placed.names.iter().map(|(name, _)| *name);
            (placed.blocks, placed.inode.size_bytes) = directory::measure(names);
            // Its last names, for their length only until all places are known.
            placed.behind = vec![0; (placed.inode.size_bytes % BLOCK_BYTES) as usize];
            settle(&mut placed, next_block);
        }
    }
    if placed.inode.is_compact() {
        placed.inode.bytes = COMPACT_BYTES;
    }
    Ok(placed)
}

/// Decides whether what is short of a block stands behind the inode or in a block, and takes the blocks.
fn settle(placed: &mut Placed, next_block: &mut u32) {
    let block = *next_block;
    let room = BLOCK.saturating_sub(EXTENDED_BYTES + placed.xattrs.len());
    let whole = placed.inode.size_bytes / BLOCK_BYTES;
    let inline = !placed.behind.is_empty() && placed.behind.len() <= room;
    let blocks = if inline {
        whole
    } else {
        placed.inode.size_bytes.div_ceil(BLOCK_BYTES)
    };
    *next_block += blocks as u32;
    placed.inode.data = if inline {
        Data::Inline { block }
    } else {
        Data::Plain { block }
    };
}

/// Fills in a directory's names, now that all places are known.
fn encode_directory(
    file: &File,
    tree: &Tree,
    placed: &mut Placed,
    nids: &[u64],
    parents: &[usize],
) -> Result<()> {
    let names: Vec<Name> = placed
        .names
        .iter()
        .map(|(name, child)| {
            let child = if *name == b".." {
                parents[placed.node]
            } else {
                *child
            };
            Name {
                name,
                nid: nids[child],
                kind: Kind::of(tree.nodes[child].mode).unwrap_or(Kind::Directory),
            }
        })
        .collect();
    let bytes = directory::encode(&names, &placed.blocks);
    debug_assert_eq!(bytes.len() as u64, placed.inode.size_bytes);
    let (block, whole) = match placed.inode.data {
        Data::Inline { block } => (block, bytes.len() / BLOCK * BLOCK),
        Data::Plain { block } => (block, bytes.len()),
        Data::Chunks { .. } => return Err(too_large("a directory in chunks")),
    };
    let mut blocks = bytes[..whole].to_vec();
    blocks.resize(whole.next_multiple_of(BLOCK), 0);
    file.write_all_at(&blocks, u64::from(block) * BLOCK_BYTES)?;
    placed.behind = bytes[whole..].to_vec();
    Ok(())
}

/// Room for inodes: each in one block where it fits into one, in the first that has room.
#[derive(Default)]
struct Places {
    /// Starts of what is free, and how much.
    open: Vec<(u64, u64)>,
    blocks: u64,
}

impl Places {
    /// A place of `length` bytes. `inline`: it may not pass the end of a block.
    fn take(&mut self, length: u64, inline: bool) -> u64 {
        debug_assert!(!inline || length <= BLOCK_BYTES);
        let length = length.next_multiple_of(SLOT_BYTES);
        if self.blocks == 0 {
            self.blocks = 1;
            self.offer(FIRST_SLOT_BYTES, BLOCK_BYTES - FIRST_SLOT_BYTES);
        }
        if length > BLOCK_BYTES {
            let at = self.blocks * BLOCK_BYTES;
            let end = at + length;
            self.blocks = end.div_ceil(BLOCK_BYTES);
            self.offer(end, self.blocks * BLOCK_BYTES - end);
            return at;
        }
        if let Some(room) = self.open.iter_mut().find(|(_, free)| *free >= length) {
            let at = room.0;
            room.0 += length;
            room.1 -= length;
            if room.1 == 0 {
                self.open.retain(|(_, free)| *free > 0);
            }
            return at;
        }
        let at = self.blocks * BLOCK_BYTES;
        self.blocks += 1;
        self.offer(at + length, BLOCK_BYTES - length);
        at
    }

    fn offer(&mut self, at: u64, free: u64) {
        if free > 0 {
            if self.open.len() == OPEN_BLOCKS {
                self.open.remove(0);
            }
            self.open.push((at, free));
        }
    }

    fn end(&self) -> u64 {
        self.blocks * BLOCK_BYTES
    }
}
