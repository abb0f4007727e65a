//! Walking an image: each name once, a directory before what is in it, in the order of paths' names.

use std::collections::HashSet;

use crate::error::{Error, Result, malformed};
use crate::inode::{Inode, Kind};
use crate::reader::{Image, ReadAt};

/// Longer ones no system call takes.
const PATH_BYTES_MAX: usize = 4096;
/// Paths that are known and not visited yet.
const WAITING_BYTES_MAX: usize = 1 << 30;

/// How much of an image is put up with.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Names in all.
    pub entries: u64,
    /// Directories in each other.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 20_000_000,
            depth: 1024,
        }
    }
}

/// A name of an image and what it leads to.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Relative to the root; empty for the root itself.
    pub path: Vec<u8>,
    pub inode: Inode,
}

/// Whether to go on below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    Below,
    Past,
}

impl<R: ReadAt> Image<R> {
    /// Calls `visit` with the root and everything below it.
    ///
    /// # Errors
    /// What is malformed: among it a directory with two names, which would be walked for ever.
    pub fn walk(
        &self,
        limits: Limits,
        visit: &mut dyn FnMut(&Entry) -> Result<Visit>,
    ) -> Result<()> {
        let root = Entry {
            path: Vec::new(),
            inode: self.root()?,
        };
        let mut seen = HashSet::from([root.inode.nid]);
        let mut entries = 1;
        // Directories may share their bytes: what waits is counted, not what the image has.
        let mut waiting_bytes = 0;
        let mut pending = vec![(root, 0_usize)];
        while let Some((entry, depth)) = pending.pop() {
            waiting_bytes -= entry.path.len();
            let wish = visit(&entry)?;
            if entry.inode.kind != Kind::Directory || wish == Visit::Past {
                continue;
            }
            if depth >= limits.depth {
                return Err(Error::Limit {
                    of: "directories in each other",
                    limit: limits.depth as u64,
                });
            }
            let names = self.list(&entry.inode)?;
            entries += names.len() as u64;
            if entries > limits.entries {
                return Err(Error::Limit {
                    of: "names",
                    limit: limits.entries,
                });
            }
            for (name, nid) in names.into_iter().rev() {
                let inode = self.inode(nid)?;
                if inode.kind == Kind::Directory && !seen.insert(nid) {
                    return Err(malformed("a directory with two names"));
                }
                let mut path = entry.path.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend(name);
                waiting_bytes += path.len();
                if path.len() > PATH_BYTES_MAX || waiting_bytes > WAITING_BYTES_MAX {
                    return Err(Error::Limit {
                        of: "bytes of a path",
                        limit: PATH_BYTES_MAX as u64,
                    });
                }
                pending.push((Entry { path, inode }, depth + 1));
            }
        }
        Ok(())
    }
}
