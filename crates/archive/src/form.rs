//! A layer archive whose head is made and whose tail is filled for each clone.

use std::collections::BTreeMap;

use crate::{Error, Kind, LAYER_DISK_BYTES, Member, Result, SharedBytes, Writer};

/// The head of a layer archive, and the files of its tail without their contents.
///
/// The archive is head and tail, one after the other.
#[derive(Debug, Clone)]
pub struct LayerForm {
    head: SharedBytes,
    own: Vec<OwnMember>,
    next_inode: u32,
}

/// A name in the tail.
#[derive(Debug, Clone)]
pub(crate) struct OwnMember {
    pub path: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
    /// The first name of the file, which all its names have in common.
    pub file: String,
    /// Number of the content, at the file's last name.
    pub content: Option<usize>,
}

impl LayerForm {
    pub(crate) fn new(head: SharedBytes, own: Vec<OwnMember>, next_inode: u32) -> Self {
        Self {
            head,
            own,
            next_inode,
        }
    }

    /// The first part of the archive.
    pub fn head(&self) -> &SharedBytes {
        &self.head
    }

    /// The rest of the archive. Fails when a content is missing, or the whole does not fit the
    /// layer disk.
    pub fn tail(&self, contents: &[SharedBytes]) -> Result<Vec<u8>> {
        let room: usize = contents.iter().map(|content| content.len() + 200).sum();
        let mut writer = Writer::after(Vec::with_capacity(room + 200), self.next_inode);
        let mut inodes = BTreeMap::new();
        for own in &self.own {
            let content = match own.content {
                Some(number) => contents
                    .get(number)
                    .ok_or(Error::ContentMissing { number })?,
                None => &[][..],
            };
            let mut member = Member::new(&own.path, own.mode, Kind::File(content));
            (member.uid, member.gid, member.links) = (own.uid, own.gid, own.links);
            if own.links > 1 {
                let fresh = || writer.fresh_inode();
                member.inode = *inodes.entry(&own.file).or_insert_with(fresh);
            }
            writer.add(&member)?;
        }
        let tail = writer.finish()?;
        let size_bytes = (self.head.len() + tail.len()) as u64;
        if size_bytes > LAYER_DISK_BYTES {
            return Err(Error::Limit {
                what: format!("the size of the layer, {size_bytes} bytes,"),
                limit: LAYER_DISK_BYTES,
            });
        }
        Ok(tail)
    }
}
