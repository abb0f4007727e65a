//! The manifest: size of a root and the digest of each of its chunks. Its own digest is the root's name.

use std::io::Read;
use std::ops::Range;

use estive_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::{ChunkDigest, ManifestError};

/// Bytes of a chunk; a root's last one may be shorter.
pub const CHUNK_BYTES: usize = 1 << 20;

/// The largest root, in bytes: 16 TiB, whose manifest has 512 MiB.
pub const MAX_ROOT_BYTES: u64 = 16 << 40;

/// Begins what is digested for the name, so that no other digest can be taken for one.
const NAME_TAG: &[u8] = b"estive sealed root v1\n";

/// What a root consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    size_bytes: u64,
    chunks: Vec<ChunkDigest>,
}

impl Manifest {
    /// Of what a stream gives, until its end. Errors: [`ManifestError::Read`], [`ManifestError::Size`] of an empty
    /// stream or one beyond [`MAX_ROOT_BYTES`].
    pub fn read(stream: &mut impl Read) -> Result<Self, ManifestError> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let (mut size_bytes, mut chunks) = (0, Vec::new());
        loop {
            let count = read_full(stream, &mut buffer).map_err(ManifestError::Read)?;
            if count > 0 {
                size_bytes += count as u64;
                if size_bytes > MAX_ROOT_BYTES {
                    return Err(bad_size(size_bytes));
                }
                chunks.push(ChunkDigest::of(&buffer[..count]));
            }
            if count < buffer.len() {
                return Self::new(size_bytes, chunks);
            }
        }
    }

    /// Of a size in bytes and the digests in their order, which must be as many as the size asks for.
    pub fn new(size_bytes: u64, chunks: Vec<ChunkDigest>) -> Result<Self, ManifestError> {
        let wanted = chunk_count(size_bytes)?;
        if chunks.len() as u64 != wanted {
            return Err(ManifestError::Length {
                size_bytes,
                found: 32 * chunks.len() as u64,
                wanted: 32 * wanted,
            });
        }
        Ok(Self { size_bytes, chunks })
    }

    /// Size of the root in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Digests of the chunks, from the root's first byte on.
    pub fn chunks(&self) -> &[ChunkDigest] {
        &self.chunks
    }

    /// Which bytes of the root chunk `index` holds; empty beyond the last.
    pub fn bytes_of(&self, index: usize) -> Range<u64> {
        let start = (index as u64)
            .saturating_mul(CHUNK_BYTES as u64)
            .min(self.size_bytes);
        start..(start + CHUNK_BYTES as u64).min(self.size_bytes)
    }

    /// Length of chunk `index` in bytes.
    pub fn chunk_bytes(&self, index: usize) -> usize {
        let range = self.bytes_of(index);
        (range.end - range.start) as usize
    }

    /// The root's name: `sha256:` and SHA-256 over a tag, the size (little-endian) and the digests in order.
    pub fn name(&self) -> Digest {
        let hex = ChunkDigest(self.name_bytes()).to_string();
        Digest::new(format!("sha256:{hex}")).unwrap_or_else(|_| unreachable!("64 hex digits"))
    }

    /// The name's 32 bytes.
    pub fn name_bytes(&self) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix(NAME_TAG);
        hash.update(self.size_bytes.to_le_bytes());
        for chunk in &self.chunks {
            hash.update(chunk.0);
        }
        hash.finalize().into()
    }
}

/// Number of chunks of a root, if such a root may be.
pub(crate) fn chunk_count(size_bytes: u64) -> Result<u64, ManifestError> {
    if (1..=MAX_ROOT_BYTES).contains(&size_bytes) {
        Ok(size_bytes.div_ceil(CHUNK_BYTES as u64))
    } else {
        Err(bad_size(size_bytes))
    }
}

fn bad_size(size_bytes: u64) -> ManifestError {
    ManifestError::Size {
        size_bytes,
        most: MAX_ROOT_BYTES,
    }
}

/// Fills the buffer as far as the stream goes.
fn read_full(stream: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives its bytes in pieces of a size that changes.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.1 = self.1 * 7 % 70_001 + 1;
            let most = self.1.min(buffer.len());
            self.0.read(&mut buffer[..most])
        }
    }

    #[test]
    fn the_name_is_the_one_written_down() {
        // printf of the tag, the size and the digest through sha256sum, once.
        let manifest = Manifest::read(&mut &b"abc"[..]).unwrap();
        assert_eq!(manifest.name().to_string(), WRITTEN_NAME);
    }

    const WRITTEN_NAME: &str =
        "sha256:6177f6b056cd7d0bf7134415f67ffd0e4c8333d85654694f953fc0b4c2d582aa";

    #[test]
    fn nothing_is_no_root() {
        assert!(Manifest::read(&mut &b""[..]).is_err());
        assert!(Manifest::new(0, vec![]).is_err());
        assert!(Manifest::new(MAX_ROOT_BYTES + 1, vec![]).is_err());
        assert!(Manifest::new(1, vec![]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn chunks_cover_the_root_and_each_is_checked_by_its_digest(
            size in 1..3 * CHUNK_BYTES + 2, seed in any::<u8>(),
        ) {
            let bytes: Vec<u8> = (0..size).map(|i| (i / 251) as u8 ^ seed).collect();
            let manifest = Manifest::read(&mut Drops(&bytes, 1)).unwrap();
            prop_assert_eq!(manifest.size_bytes(), size as u64);
            let mut end = 0;
            for (index, digest) in manifest.chunks().iter().enumerate() {
                let range = manifest.bytes_of(index);
                prop_assert_eq!(range.start, end);
                end = range.end;
                let chunk = &bytes[range.start as usize..range.end as usize];
                prop_assert_eq!(chunk.len(), manifest.chunk_bytes(index));
                prop_assert_eq!(ChunkDigest::of(chunk), *digest);
            }
            prop_assert_eq!(end, size as u64);
            prop_assert_eq!(manifest.chunk_bytes(manifest.chunks().len()), 0);
        }

        #[test]
        fn another_byte_anywhere_is_another_name(size in 1..2 * CHUNK_BYTES, at in any::<prop::sample::Index>()) {
            let mut bytes = vec![7; size];
            let before = Manifest::read(&mut &bytes[..]).unwrap().name();
            bytes[at.index(size)] ^= 1;
            prop_assert_ne!(Manifest::read(&mut &bytes[..]).unwrap().name(), before);
        }
    }
}
