//! The superblock: 128 bytes at 1024.

use crate::checksum::crc32c;
use crate::error::{Error, Result, malformed};
use crate::layout::{BLOCK, BLOCK_BITS, put, u16_at, u32_at, u64_at};

pub(crate) const OFFSET: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
const COMPAT_CHECKSUM: u32 = 1;
const COMPAT_MTIME: u32 = 2;
/// Files in chunks; the only incompatible feature that is written or read.
const INCOMPAT_CHUNKS: u32 = 4;
/// Padding of compressed data: says nothing about an image that has none.
const INCOMPAT_PADDING: u32 = 1;

/// One UUID for every image: it is part of the bytes, and the bytes must only depend on the tree.
const UUID: [u8; 16] = [
    0xe5, 0x71, 0xfe, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 0,
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub root_nid: u16,
    pub inodes: u64,
    pub blocks: u32,
    pub meta_block: u32,
    pub xattr_block: u32,
    pub build_time_s: u64,
    pub build_time_ns: u32,
    pub chunks: bool,
}

impl Superblock {
    /// The first block of an image.
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let start = OFFSET as usize;
        let bytes = &mut block[start..];
        put(bytes, 0, MAGIC.to_le_bytes());
        put(bytes, 8, (COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        bytes[12] = BLOCK_BITS;
        put(bytes, 14, self.root_nid.to_le_bytes());
        put(bytes, 16, self.inodes.to_le_bytes());
        put(bytes, 24, self.build_time_s.to_le_bytes());
        put(bytes, 32, self.build_time_ns.to_le_bytes());
        put(bytes, 36, self.blocks.to_le_bytes());
        put(bytes, 40, self.meta_block.to_le_bytes());
        put(bytes, 44, self.xattr_block.to_le_bytes());
        put(bytes, 48, UUID);
        let incompatible = if self.chunks { INCOMPAT_CHUNKS } else { 0 };
        put(bytes, 80, incompatible.to_le_bytes());
        let checksum = crc32c(bytes);
        put(bytes, 4, checksum.to_le_bytes());
        block
    }

    pub fn decode(block: &[u8; BLOCK]) -> Result<Self> {
        let bytes = &block[OFFSET as usize..];
        if u32_at(bytes, 0) != MAGIC {
            return Err(malformed("there is no superblock of EROFS"));
        }
        if bytes[12] != BLOCK_BITS {
            return Err(Error::Unsupported {
                what: "its blocks are not of 4 KiB",
            });
        }
        if u32_at(bytes, 8) & COMPAT_CHECKSUM != 0 {
            let mut plain = bytes.to_vec();
            put(&mut plain, 4, [0; 4]);
            if crc32c(&plain) != u32_at(bytes, 4) {
                return Err(malformed("the checksum of the superblock does not fit"));
            }
        }
        let incompatible = u32_at(bytes, 80);
        if incompatible & !(INCOMPAT_CHUNKS | INCOMPAT_PADDING) != 0 {
            return Err(Error::Unsupported {
                what: "it is compressed, or on several devices",
            });
        }
        if u16_at(bytes, 86) != 0 {
            return Err(Error::Unsupported {
                what: "it is on several devices",
            });
        }
        Ok(Self {
            root_nid: u16_at(bytes, 14),
            inodes: u64_at(bytes, 16),
            build_time_s: u64_at(bytes, 24),
            build_time_ns: u32_at(bytes, 32),
            blocks: u32_at(bytes, 36),
            meta_block: u32_at(bytes, 40),
            xattr_block: u32_at(bytes, 44),
            chunks: incompatible & INCOMPAT_CHUNKS != 0,
        })
    }
}
