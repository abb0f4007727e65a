//! Directories: blocks of entries (number of the inode, place of the name, type), names behind them, all in the order of
//! their bytes.

use crate::error::{Result, malformed};
use crate::inode::Kind;
use crate::layout::{BLOCK, BLOCK_BYTES, NAME_BYTES_MAX, put, u16_at, u64_at};

const ENTRY_BYTES: usize = 12;

/// A name of a directory under way, and what it leads to.
pub(crate) struct Name<'a> {
    pub name: &'a [u8],
    pub nid: u64,
    pub kind: Kind,
}

/// How many entries go into each block, and the bytes of them all: whole blocks and the last one's.
pub(crate) fn measure<'a>(names: impl Iterator<Item = &'a [u8]>) -> (Vec<usize>, u64) {
    let mut blocks = Vec::new();
    let (mut count, mut used) = (0, 0);
    for name in names {
        let length = ENTRY_BYTES + name.len();
        if used + length > BLOCK {
            blocks.push(count);
            (count, used) = (0, 0);
        }
        count += 1;
        used += length;
    }
    let size = blocks.len() as u64 * BLOCK_BYTES + used as u64;
    blocks.push(count);
    (blocks, size)
}

/// The bytes of a directory whose blocks hold so many entries each.
pub(crate) fn encode(names: &[Name], blocks: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = names;
    for count in blocks {
        let here;
        (here, rest) = rest.split_at(*count);
        let start = bytes.len().next_multiple_of(BLOCK);
        bytes.resize(start + count * ENTRY_BYTES, 0);
        for (index, name) in here.iter().enumerate() {
            let at = start + index * ENTRY_BYTES;
            let place = (bytes.len() - start) as u16;
            put(&mut bytes, at, name.nid.to_le_bytes());
            put(&mut bytes, at + 8, place.to_le_bytes());
            bytes[at + 10] = name.kind.in_directory();
            bytes.extend(name.name);
        }
    }
    bytes
}

/// The names of one block with the numbers of their inodes, `.` and `..` among them.
pub(crate) fn decode(block: &[u8]) -> Result<Vec<(&[u8], u64)>> {
    let wrong = || malformed("a directory whose names are out of place");
    if block.len() < ENTRY_BYTES {
        return Err(wrong());
    }
    let first = usize::from(u16_at(block, 8));
    if first < ENTRY_BYTES || !first.is_multiple_of(ENTRY_BYTES) || first > block.len() {
        return Err(wrong());
    }
    let count = first / ENTRY_BYTES;
    let place = |index: usize| usize::from(u16_at(block, index * ENTRY_BYTES + 8));
    let mut names = Vec::with_capacity(count);
    for index in 0..count {
        let start = place(index);
        let end = if index + 1 < count {
            place(index + 1)
        } else {
            block.len()
        };
        if start < first || end < start {
            return Err(wrong());
        }
        let mut name = block.get(start..end).ok_or_else(wrong)?;
        if index + 1 == count {
            let end = name.iter().position(|byte| *byte == 0);
            name = &name[..end.unwrap_or(name.len())];
        }
        let sound = !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && !name.iter().any(|byte| matches!(byte, 0 | b'/'));
        if !sound {
            return Err(malformed("a directory with a name that is none"));
        }
        names.push((name, u64_at(block, index * ENTRY_BYTES)));
    }
    Ok(names)
}
