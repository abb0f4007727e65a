//! Sealed roots as chunks: the manifest that names a root, and its form with the authority's signature.
//!
//! A root is cut into chunks of 1 MiB; its name is a digest over theirs. Whoever knows the name can check a manifest,
//! and whoever has the manifest can check each chunk by itself, wherever it came from. No I/O but reading a stream.

mod digest;
mod error;
mod manifest;
mod signed;

pub use digest::{ChunkDigest, ZERO_CHUNK};
pub use error::ManifestError;
pub use manifest::{CHUNK_BYTES, MAX_ROOT_BYTES, Manifest};
pub use signed::{MAX_ENCODED_BYTES, MAX_SIGNATURE_BYTES, SignedManifest, encoded_bytes};
