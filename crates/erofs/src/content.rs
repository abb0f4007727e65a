//! Data of files: written one behind the other, without the chunks of zeros, the short end kept for the inode.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::copy_file_range;

use crate::error::{Error, Result};
use crate::layout::{BLOCK, BLOCK_BITS, BLOCK_BYTES, FILE_BYTES_MAX};

/// An end up to here stands beside the inode: no longer than two inodes. Longer ones would thin out the inodes, all of
/// which a walk over a root reads: with mkfs.erofs's own rule it reads ten times the blocks, for 7 % of size.
const TAIL_BYTES_MAX: u64 = 64;

/// Chunks are no smaller, so that ordinary files stay in one piece.
const CHUNK_BITS_MIN: u8 = 16;

/// No file has more chunks.
const CHUNKS_MAX: u64 = 1 << 18;

const BUFFER_BYTES: usize = 1 << 20;

/// What a file's data is read from.
pub trait Source {
    /// Reads at `offset`; 0 at the end.
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Where, at or behind `offset`, data may be; `None` when there is none to the end. What is passed over is zeros.
    fn next_data(&mut self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
}

impl Source for &[u8] {
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.len());
        let count = buffer.len().min(self.len() - start);
        buffer[..count].copy_from_slice(&self[start..start + count]);
        Ok(count)
    }
}

/// Where the data of a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Flat {
        size_bytes: u64,
        start_block: u32,
        /// The end that stands beside the inode; empty when all is in blocks.
        tail: Vec<u8>,
    },
    Chunks {
        size_bytes: u64,
        start_block: u32,
        /// log2 of a chunk's bytes.
        chunk_bits: u8,
        /// For each chunk whether it is there; those that are follow each other.
        present: Vec<bool>,
    },
}

impl Content {
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Flat { size_bytes, .. } | Self::Chunks { size_bytes, .. } => *size_bytes,
        }
    }

    pub fn empty() -> Self {
        Self::Flat {
            size_bytes: 0,
            start_block: 0,
            tail: Vec::new(),
        }
    }

    pub(crate) fn start_block(&self) -> u32 {
        match self {
            Self::Flat { start_block, .. } | Self::Chunks { start_block, .. } => *start_block,
        }
    }

    pub(crate) fn set_start_block(&mut self, block: u32) {
        match self {
            Self::Flat { start_block, .. } | Self::Chunks { start_block, .. } => {
                *start_block = block;
            }
        }
    }

    /// How many blocks of the data area it has.
    pub(crate) fn blocks(&self) -> u32 {
        let blocks = match self {
            Self::Flat {
                size_bytes, tail, ..
            } => (size_bytes - tail.len() as u64).div_ceil(BLOCK_BYTES),
            Self::Chunks {
                size_bytes,
                chunk_bits,
                present,
                ..
            } => present
                .iter()
                .zip(0..)
                .filter(|(present, _)| **present)
                .map(|(_, index)| {
                    chunk_bytes(*size_bytes, *chunk_bits, index).div_ceil(BLOCK_BYTES)
                })
                .sum(),
        };
        // Checked when it was stored.
        u32::try_from(blocks).unwrap_or(u32::MAX)
    }
}

/// Bytes of a file's chunk; its last one is shorter.
fn chunk_bytes(size_bytes: u64, chunk_bits: u8, index: u64) -> u64 {
    let start = index << chunk_bits;
    (size_bytes - start).min(1 << chunk_bits)
}

fn chunk_bits(size_bytes: u64) -> u8 {
    let mut bits = CHUNK_BITS_MIN;
    while size_bytes.div_ceil(1 << bits) > CHUNKS_MAX {
        bits += 1;
    }
    bits
}

/// The blocks behind the superblock of an image under way.
#[derive(Debug)]
pub struct DataArea<'a> {
    file: &'a File,
    next_block: u32,
    buffer: Vec<u8>,
}

impl<'a> DataArea<'a> {
    /// `file` is the image: empty, written only through this until [`finish`](crate::finish).
    pub fn new(file: &'a File) -> Self {
        Self {
            file,
            next_block: 1,
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// The block where the next file's data begins.
    pub fn end(&self) -> u32 {
        self.next_block
    }

    /// Writes a file of `size_bytes` behind what is there. `tail_fits`: its end may stand beside its inode, which has
    /// little else.
    ///
    /// After an error nothing of the file is kept, and the next one begins in its place.
    pub fn store(
        &mut self,
        source: &mut dyn Source,
        size_bytes: u64,
        tail_fits: bool,
    ) -> Result<Content> {
        if size_bytes > FILE_BYTES_MAX {
            return Err(Error::TooLarge {
                what: format!("a file of {size_bytes} bytes, where {FILE_BYTES_MAX} are the most"),
            });
        }
        let tail_bytes = size_bytes % BLOCK_BYTES;
        let inline = tail_fits && tail_bytes <= TAIL_BYTES_MAX;
        let start_block = self.next_block;
        let bits = chunk_bits(size_bytes);
        if size_bytes < 2 << bits {
            return self.store_small(source, size_bytes, inline);
        }
        let chunks = size_bytes.div_ceil(1 << bits);
        let mut present = Vec::new();
        let mut at = u64::from(start_block) << BLOCK_BITS;
        let mut last = Vec::new();
        for index in 0..chunks {
            let length = chunk_bytes(size_bytes, bits, index);
            let start = index << bits;
            let there = match source.next_data(start)? {
                Some(data) if data < start + length => {
                    self.copy_chunk(source, start, length, at, &mut last)?
                }
                _ => false,
            };
            present.push(there);
            if there {
                at += length.next_multiple_of(BLOCK_BYTES);
            }
        }
        let whole = present.iter().all(|there| *there);
        let content = if whole {
            let tail = if inline { last } else { Vec::new() };
            Content::Flat {
                size_bytes,
                start_block,
                tail,
            }
        } else {
            Content::Chunks {
                size_bytes,
                start_block,
                chunk_bits: bits,
                present,
            }
        };
        self.keep(content)
    }

    fn store_small(
        &mut self,
        source: &mut dyn Source,
        size_bytes: u64,
        inline: bool,
    ) -> Result<Content> {
        let start_block = self.next_block;
        let length = size_bytes as usize;
        let blocks = if inline {
            length / BLOCK * BLOCK
        } else {
            length
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = read_exact(source, &mut buffer[..length], 0, size_bytes);
        let stored = read.and_then(|()| {
            let padded = blocks.next_multiple_of(BLOCK);
            let tail = buffer[blocks..length].to_vec();
            buffer[blocks..padded].fill(0);
            self.file
                .write_all_at(&buffer[..padded], u64::from(start_block) << BLOCK_BITS)?;
            Ok(tail)
        });
        self.buffer = buffer;
        let tail = stored?;
        self.keep(Content::Flat {
            size_bytes,
            start_block,
            tail,
        })
    }

    /// Copies a chunk to `at` unless it is zeros only; says whether it was. `last` becomes its end behind whole blocks.
    fn copy_chunk(
        &mut self,
        source: &mut dyn Source,
        start: u64,
        length: u64,
        at: u64,
        last: &mut Vec<u8>,
    ) -> Result<bool> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = (|| {
            // What is zeros at the start is written only once something else follows.
            let mut written = 0;
            let mut offset = 0;
            while offset < length {
                let count = (length - offset).min(BUFFER_BYTES as u64) as usize;
                read_exact(source, &mut buffer[..count], start + offset, start + length)?;
                let end = offset + count as u64;
                if written > 0 || buffer[..count].iter().any(|byte| *byte != 0) {
                    self.write_zeros(at + written, at + offset)?;
                    let padded = count.next_multiple_of(BLOCK);
                    *last = buffer[count / BLOCK * BLOCK..count].to_vec();
                    buffer[count..padded].fill(0);
                    self.file.write_all_at(&buffer[..padded], at + offset)?;
                    written = end;
                }
                offset = end;
            }
            Ok(written > 0)
        })();
        self.buffer = buffer;
        result
    }

    /// Zeros in `from..to` of the image, where something may stand that was given up.
    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = [0; 1 << 16];
        let mut at = from;
        while at < to {
            let count = (to - at).min(zeros.len() as u64);
            self.file.write_all_at(&zeros[..count as usize], at)?;
            at += count;
        }
        Ok(())
    }

    fn keep(&mut self, content: Content) -> Result<Content> {
        self.next_block = self
            .next_block
            .checked_add(content.blocks())
            .filter(|block| *block < u32::MAX - (1 << 24))
            .ok_or_else(|| Error::TooLarge {
                what: "more data than 16 TiB".into(),
            })?;
        Ok(content)
    }

    /// Forgets what was stored last, if `content` is that: its place is free again.
    pub fn take_back(&mut self, content: &Content) {
        if content.start_block().checked_add(content.blocks()) == Some(self.next_block) {
            self.next_block = content.start_block();
        }
    }

    /// A file's data out of another image under way, behind what is there.
    pub fn copy(&mut self, from: &File, content: &Content) -> Result<Content> {
        let mut moved = content.clone();
        moved.set_start_block(self.next_block);
        let mut at = u64::from(content.start_block()) << BLOCK_BITS;
        let mut to = u64::from(self.next_block) << BLOCK_BITS;
        let mut left = u64::from(content.blocks()) << BLOCK_BITS;
        while left > 0 {
            // Within the kernel, and where the file system shares blocks without copying; else by hand.
            let (mut source, mut target) = (at, to);
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
            let kernel = copy_file_range(
                from,
                Some(&mut source),
                self.file,
                Some(&mut target),
                wanted,
            );
            let count = match kernel {
                Ok(count) if count > 0 => count,
                _ => {
                    let count = left.min(self.buffer.len() as u64) as usize;
                    from.read_exact_at(&mut self.buffer[..count], at)?;
                    self.file.write_all_at(&self.buffer[..count], to)?;
                    count
                }
            };
            at += count as u64;
            to += count as u64;
            left -= count as u64;
        }
        self.keep(moved)
    }
}

fn read_exact(
    source: &mut dyn Source,
    mut buffer: &mut [u8],
    mut offset: u64,
    size_bytes: u64,
) -> Result<()> {
    while !buffer.is_empty() {
        match source.read_at(buffer, offset) {
            Ok(0) => {
                return Err(Error::Shrank {
                    at: offset,
                    size_bytes,
                });
            }
            Ok(count) => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
