//! Inodes, compact (32 bytes) and extended (64).

use crate::error::{Error, Result, malformed};
use crate::layout::{
    CHUNK_BASED, CHUNK_BITS_MASK, CHUNK_INDEXES, COMPACT_BYTES, EXTENDED_BYTES, FLAT_INLINE,
    FLAT_PLAIN, mode, put, u16_at, u32_at, u64_at,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Link,
    CharacterDevice,
    BlockDevice,
    Fifo,
    Socket,
}

impl Kind {
    /// Of a mode as `stat` has it.
    pub fn of(mode: u16) -> Option<Self> {
        Some(match mode & mode::TYPE {
            mode::FILE => Self::File,
            mode::DIRECTORY => Self::Directory,
            mode::LINK => Self::Link,
            mode::CHARACTER => Self::CharacterDevice,
            mode::BLOCK => Self::BlockDevice,
            mode::FIFO => Self::Fifo,
            mode::SOCKET => Self::Socket,
            _ => return None,
        })
    }

    /// Its number in a directory entry.
    pub(crate) fn in_directory(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::CharacterDevice => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Link => 7,
        }
    }
}

/// Where an inode's data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    Plain {
        block: u32,
    },
    /// What does not fill a block stands behind inode and attributes.
    Inline {
        block: u32,
    },
    Chunks {
        bits: u8,
        indexes: bool,
    },
}

/// What an image says of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its number: the same for each name of a hard link.
    pub nid: u64,
    pub kind: Kind,
    /// Type and permissions.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
    pub size_bytes: u64,
    /// Of a device, as the kernel encodes it.
    pub device: u32,
    pub mtime_s: u64,
    pub mtime_ns: u32,
    pub(crate) data: Data,
    pub(crate) xattr_count: u16,
    /// Bytes of the inode itself.
    pub(crate) bytes: usize,
}

/// How many bytes an inode has that begins so.
pub(crate) fn length(head: &[u8]) -> usize {
    if u16_at(head, 0) & 1 == 0 {
        COMPACT_BYTES
    } else {
        EXTENDED_BYTES
    }
}

impl Inode {
    /// Reads one; `epoch` is the time of compact inodes.
    pub(crate) fn decode(nid: u64, bytes: &[u8], epoch: (u64, u32)) -> Result<Self> {
        let format = u16_at(bytes, 0);
        let length = length(bytes);
        let extended = length == EXTENDED_BYTES;
        let mode = u16_at(bytes, 4);
        let kind =
            Kind::of(mode).ok_or_else(|| malformed(format!("inode {nid} is of no known type")))?;
        let word = u32_at(bytes, 16);
        let data = match (format >> 1) & 7 {
            FLAT_PLAIN => Data::Plain { block: word },
            FLAT_INLINE => Data::Inline { block: word },
            CHUNK_BASED => {
                let chunks = u16_at(bytes, 16);
                if chunks & !(CHUNK_INDEXES | CHUNK_BITS_MASK) != 0 {
                    return Err(Error::Unsupported {
                        what: "chunks of an unknown form",
                    });
                }
                let bits = crate::layout::BLOCK_BITS + (chunks & CHUNK_BITS_MASK) as u8;
                Data::Chunks {
                    bits,
                    indexes: chunks & CHUNK_INDEXES != 0,
                }
            }
            _ => {
                return Err(Error::Unsupported {
                    what: "compressed files",
                });
            }
        };
        let is_device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
        let mut inode = Self {
            nid,
            kind,
            mode,
            uid: u32::from(u16_at(bytes, 24)),
            gid: u32::from(u16_at(bytes, 26)),
            links: u32::from(u16_at(bytes, 6)),
            size_bytes: u64::from(u32_at(bytes, 8)),
            device: if is_device { word } else { 0 },
            mtime_s: epoch.0,
            mtime_ns: epoch.1,
            data,
            xattr_count: u16_at(bytes, 2),
            bytes: length,
        };
        if extended {
            inode.uid = u32_at(bytes, 24);
            inode.gid = u32_at(bytes, 28);
            inode.links = u32_at(bytes, 44);
            inode.size_bytes = u64_at(bytes, 8);
            inode.mtime_s = u64_at(bytes, 32);
            inode.mtime_ns = u32_at(bytes, 40);
        }
        Ok(inode)
    }

    /// Whether 32 bytes can say all of it. Compact inodes have the image's time, which is 0 here.
    pub(crate) fn is_compact(&self) -> bool {
        let small = |number: u32| number <= u32::from(u16::MAX);
        small(self.uid)
            && small(self.gid)
            && small(self.links)
            && self.size_bytes <= u64::from(u32::MAX)
            && (self.mtime_s, self.mtime_ns) == (0, 0)
    }

    /// Its bytes; `number` is what `stat` shows where nids are too large.
    pub(crate) fn encode(&self, number: u32) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes];
        let compact = self.bytes == COMPACT_BYTES;
        let (layout, word) = match self.data {
            Data::Plain { block } => (FLAT_PLAIN, block),
            Data::Inline { block } => (FLAT_INLINE, block),
            Data::Chunks { bits, .. } => (CHUNK_BASED, u32::from(bits - crate::layout::BLOCK_BITS)),
        };
        let word = if self.device == 0 { word } else { self.device };
        put(
            &mut bytes,
            0,
            (layout << 1 | u16::from(!compact)).to_le_bytes(),
        );
        put(&mut bytes, 2, self.xattr_count.to_le_bytes());
        put(&mut bytes, 4, self.mode.to_le_bytes());
        put(&mut bytes, 16, word.to_le_bytes());
        put(&mut bytes, 20, number.to_le_bytes());
        if compact {
            // What is cut off here is_compact has seen to be zero.
            put(&mut bytes, 6, (self.links as u16).to_le_bytes());
            put(&mut bytes, 8, (self.size_bytes as u32).to_le_bytes());
            put(&mut bytes, 24, (self.uid as u16).to_le_bytes());
            put(&mut bytes, 26, (self.gid as u16).to_le_bytes());
        } else {
            put(&mut bytes, 8, self.size_bytes.to_le_bytes());
            put(&mut bytes, 24, self.uid.to_le_bytes());
            put(&mut bytes, 28, self.gid.to_le_bytes());
            put(&mut bytes, 32, self.mtime_s.to_le_bytes());
            put(&mut bytes, 40, self.mtime_ns.to_le_bytes());
            put(&mut bytes, 44, self.links.to_le_bytes());
        }
        bytes
    }
}
