//! What can be wrong with a manifest.

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("it is no manifest of a root: it does not begin as one")]
    NotAManifest,
    #[error("it is a manifest of version {found}; this program knows version {known}")]
    Version { found: u16, known: u16 },
    #[error("it names a root of {size_bytes} bytes; at least 1 and at most {most} are taken")]
    Size { size_bytes: u64, most: u64 },
    #[error("it has {found} bytes where a root of {size_bytes} bytes needs {wanted}")]
    Length {
        size_bytes: u64,
        found: u64,
        wanted: u64,
    },
    #[error("its signature is longer than {most} bytes")]
    LongSignature { most: usize },
    #[error("it belongs to another root: its name is {is}, not {wanted}")]
    OtherRoot {
        is: estive_model::Digest,
        wanted: estive_model::Digest,
    },
    #[error("a digest is 64 lower-case hex digits")]
    NotADigest,
    #[error("could not read the root")]
    Read(#[source] std::io::Error),
}
