//! A manifest as it lies in a file and travels: binary, with the authority's signature over the root's name.
//!
//! ```text
//! "ESTIVE-M"  version u16  size u64  digest 32 bytes × chunks  length u16  signature
//! ```
//! Numbers are little-endian. A length of 0: nobody has signed it yet.

use estive_model::Digest;

use crate::manifest::chunk_count;
use crate::{ChunkDigest, MAX_ROOT_BYTES, Manifest, ManifestError};

const MAGIC: &[u8; 8] = b"ESTIVE-M";
const VERSION: u16 = 1;
const HEAD_BYTES: u64 = 8 + 2 + 8;

/// The longest signature taken, in bytes; one by ECDSA P-256 in DER has at most 72.
pub const MAX_SIGNATURE_BYTES: usize = 512;

/// The longest encoded manifest, in bytes.
pub const MAX_ENCODED_BYTES: u64 =
    HEAD_BYTES + 32 * (MAX_ROOT_BYTES / crate::CHUNK_BYTES as u64) + 2 + MAX_SIGNATURE_BYTES as u64;

/// Begins what is signed, so that a signature for something else is none for a root.
const SIGNING_TAG: &[u8] = b"estive signs the sealed root v1\n";

/// A manifest and who vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedManifest {
    pub manifest: Manifest,
    /// By the authority over [`SignedManifest::signing_payload`]; empty while nobody has signed. It is not checked here.
    pub signature: Vec<u8>,
}

/// Bytes that a signed manifest of a root of `size_bytes` has at most.
pub fn encoded_bytes(size_bytes: u64) -> Result<u64, ManifestError> {
    Ok(HEAD_BYTES + 32 * chunk_count(size_bytes)? + 2 + MAX_SIGNATURE_BYTES as u64)
}

impl SignedManifest {
    /// One that nobody has signed yet.
    pub fn unsigned(manifest: Manifest) -> Self {
        Self {
            manifest,
            signature: Vec::new(),
        }
    }

    /// What the authority signs.
    pub fn signing_payload(manifest: &Manifest) -> Vec<u8> {
        [SIGNING_TAG, &manifest.name_bytes()].concat()
    }

    /// Fails for a signature beyond [`MAX_SIGNATURE_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        if self.signature.len() > MAX_SIGNATURE_BYTES {
            return Err(ManifestError::LongSignature {
                most: MAX_SIGNATURE_BYTES,
            });
        }
        let chunks = self.manifest.chunks();
        let mut bytes =
            Vec::with_capacity(HEAD_BYTES as usize + 32 * chunks.len() + 2 + self.signature.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.manifest.size_bytes().to_le_bytes());
        for chunk in chunks {
            bytes.extend_from_slice(&chunk.0);
        }
        bytes.extend_from_slice(&(self.signature.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&self.signature);
        Ok(bytes)
    }

    /// Takes exactly what [`SignedManifest::encode`] gives. Nothing is set aside for more than the bytes at hand.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut rest = Rest(bytes);
        if rest.take(8) != Some(MAGIC) {
            return Err(ManifestError::NotAManifest);
        }
        let version = rest.u16().ok_or(ManifestError::NotAManifest)?;
        if version != VERSION {
            return Err(ManifestError::Version {
                found: version,
                known: VERSION,
            });
        }
        let size_bytes = rest.u64().ok_or(ManifestError::NotAManifest)?;
        let digests_bytes = 32 * chunk_count(size_bytes)?;
        let length = |signature_bytes: u64| ManifestError::Length {
            size_bytes,
            found: bytes.len() as u64,
            wanted: HEAD_BYTES + digests_bytes + 2 + signature_bytes,
        };
        let digests = usize::try_from(digests_bytes)
            .ok()
            .and_then(|count| rest.take(count))
            .ok_or_else(|| length(0))?;
        let signature_bytes = rest.u16().ok_or_else(|| length(0))?;
        if usize::from(signature_bytes) > MAX_SIGNATURE_BYTES {
            return Err(ManifestError::LongSignature {
                most: MAX_SIGNATURE_BYTES,
            });
        }
        if rest.0.len() != usize::from(signature_bytes) {
            return Err(length(signature_bytes.into()));
        }
        let chunks = digests
            .as_chunks::<32>()
            .0
            .iter()
            .map(|digest| ChunkDigest(*digest))
            .collect();
        Ok(Self {
            manifest: Manifest::new(size_bytes, chunks)?,
            signature: rest.0.to_vec(),
        })
    }

    /// As [`SignedManifest::decode`], of the root that is meant and no other.
    pub fn decode_as(bytes: &[u8], wanted: &Digest) -> Result<Self, ManifestError> {
        let signed = Self::decode(bytes)?;
        let is = signed.manifest.name();
        if is == *wanted {
            Ok(signed)
        } else {
            Err(ManifestError::OtherRoot {
                is,
                wanted: wanted.clone(),
            })
        }
    }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_signed() -> impl Strategy<Value = SignedManifest> {
        let chunks = prop::collection::vec(any::<[u8; 32]>(), 1..20);
        let signature = prop::collection::vec(any::<u8>(), 0..=80);
        (chunks, 0..crate::CHUNK_BYTES as u64, signature).prop_map(|(chunks, less, signature)| {
            let size_bytes = (chunks.len() * crate::CHUNK_BYTES) as u64 - less;
            let chunks = chunks.into_iter().map(ChunkDigest).collect();
            SignedManifest {
                manifest: Manifest::new(size_bytes, chunks).unwrap(),
                signature,
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_the_same(signed in any_signed()) {
            let bytes = signed.encode().unwrap();
            prop_assert!(bytes.len() as u64 <= encoded_bytes(signed.manifest.size_bytes()).unwrap());
            prop_assert_eq!(&SignedManifest::decode(&bytes).unwrap(), &signed);
            prop_assert!(SignedManifest::decode_as(&bytes, &signed.manifest.name()).is_ok());
        }

        #[test]
        fn a_flipped_bit_is_seen_in_the_name_or_the_signature(
            signed in any_signed(), at in any::<prop::sample::Index>(), bit in 0..8_u8,
        ) {
            let mut bytes = signed.encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            match SignedManifest::decode_as(&bytes, &signed.manifest.name()) {
                Err(_) => {}
                Ok(other) => {
                    prop_assert_eq!(other.manifest, signed.manifest);
                    prop_assert_ne!(other.signature, signed.signature);
                }
            }
        }

        #[test]
        fn cut_or_longer_is_no_manifest(signed in any_signed(), at in any::<prop::sample::Index>()) {
            let mut bytes = signed.encode().unwrap();
            prop_assert!(SignedManifest::decode(&bytes[..at.index(bytes.len())]).is_err());
            bytes.push(0);
            prop_assert!(SignedManifest::decode(&bytes).is_err());
        }

        #[test]
        fn anything_is_answered_without_a_crash(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = SignedManifest::decode(&bytes);
            let _ = SignedManifest::decode(&[MAGIC, &1_u16.to_le_bytes()[..], &bytes].concat());
        }
    }

    #[test]
    fn a_size_that_needs_more_than_is_there_sets_nothing_aside() {
        for (size, rest) in [(MAX_ROOT_BYTES, 40), (u64::MAX, 40), (0, 0)] {
            let mut bytes = [&MAGIC[..], &1_u16.to_le_bytes(), &size.to_le_bytes()].concat();
            bytes.resize(bytes.len() + rest, 0);
            assert!(SignedManifest::decode(&bytes).is_err());
        }
    }

    #[test]
    fn the_first_bytes_are_those_written_down() {
        let manifest = Manifest::read(&mut &b"abc"[..]).unwrap();
        let bytes = SignedManifest::unsigned(manifest).encode().unwrap();
        assert_eq!(&bytes[..18], b"ESTIVE-M\x01\0\x03\0\0\0\0\0\0\0");
        // FIPS 180-2, appendix B.1
        assert_eq!(&bytes[18..20], &[0xba, 0x78]);
        assert_eq!(bytes.len(), 18 + 32 + 2);
    }
}
