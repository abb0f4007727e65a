//! The digest of one chunk: SHA-256 of its bytes, written as 64 lower-case hex digits.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::ManifestError;

/// SHA-256 (FIPS 180-4) of a chunk's bytes; the name of the chunk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkDigest(pub [u8; 32]);

/// Of a whole chunk of zeros, which nobody needs to fetch.
pub const ZERO_CHUNK: ChunkDigest = ChunkDigest([
    0x30, 0xe1, 0x49, 0x55, 0xeb, 0xf1, 0x35, 0x22, 0x66, 0xdc, 0x2f, 0xf8, 0x06, 0x7e, 0x68, 0x10,
    0x46, 0x07, 0xe7, 0x50, 0xab, 0xb9, 0xd3, 0xb3, 0x65, 0x82, 0xb8, 0xaf, 0x90, 0x9f, 0xcb, 0x58,
]);

impl ChunkDigest {
    /// Of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ChunkDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkDigest({self})")
    }
}

impl FromStr for ChunkDigest {
    type Err = ManifestError;
    /// 64 lower-case hex digits, so that each digest has one spelling only.
    fn from_str(text: &str) -> Result<Self, ManifestError> {
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        let pairs = text.as_bytes().chunks_exact(2);
        if text.len() != 64 {
            return Err(ManifestError::NotADigest);
        }
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            let (high, low) = value(pair[0])
                .zip(value(pair[1]))
                .ok_or(ManifestError::NotADigest)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CHUNK_BYTES;

    #[test]
    fn the_digest_of_zeros_is_the_one_written_down() {
        assert_eq!(ChunkDigest::of(&vec![0; CHUNK_BYTES]), ZERO_CHUNK);
    }

    #[test]
    fn a_digest_has_one_spelling() {
        let text = ZERO_CHUNK.to_string();
        assert_eq!(text.parse::<ChunkDigest>().unwrap(), ZERO_CHUNK);
        for wrong in [text.to_uppercase(), text[1..].into(), format!("{text}0")] {
            assert!(wrong.parse::<ChunkDigest>().is_err(), "{wrong}");
        }
        assert!("g".repeat(64).parse::<ChunkDigest>().is_err());
        assert!("é".repeat(32).parse::<ChunkDigest>().is_err());
    }
}
