//! Numbers of the format, and its integers (little-endian) in byte slices.

/// log2 of [`BLOCK_BYTES`].
pub(crate) const BLOCK_BITS: u8 = 12;
pub const BLOCK_BYTES: u64 = 1 << BLOCK_BITS;
pub(crate) const BLOCK: usize = 1 << BLOCK_BITS;

/// The largest file: as the largest image (block addresses have 32 bits).
pub const FILE_BYTES_MAX: u64 = 1 << 44;

/// The unit that inodes are numbered in.
pub(crate) const SLOT_BYTES: u64 = 32;

pub(crate) const COMPACT_BYTES: usize = 32;
pub(crate) const EXTENDED_BYTES: usize = 64;

/// A chunk that is not there reads as zeros.
pub(crate) const HOLE: u32 = u32::MAX;

/// Longest name (NAME_MAX) and longest link (PATH_MAX less its end).
pub(crate) const NAME_BYTES_MAX: usize = 255;
pub(crate) const LINK_BYTES_MAX: u64 = 4095;

/// `i_format`: where data is.
pub(crate) const FLAT_PLAIN: u16 = 0;
pub(crate) const FLAT_INLINE: u16 = 2;
pub(crate) const CHUNK_BASED: u16 = 4;

/// Chunks are listed with a device each, 8 bytes, instead of block addresses alone.
pub(crate) const CHUNK_INDEXES: u16 = 0x20;
pub(crate) const CHUNK_BITS_MASK: u16 = 0x1f;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// `mode`'s type, as `stat` has it.
pub(crate) mod mode {
    pub const TYPE: u16 = 0o170_000;
    pub const FIFO: u16 = 0o010_000;
    pub const CHARACTER: u16 = 0o020_000;
    pub const DIRECTORY: u16 = 0o040_000;
    pub const BLOCK: u16 = 0o060_000;
    pub const FILE: u16 = 0o100_000;
    pub const LINK: u16 = 0o120_000;
    pub const SOCKET: u16 = 0o140_000;
}
