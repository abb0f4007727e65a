//! What can go wrong in a cache or an origin, and why a read is refused.

use std::io;
use std::path::PathBuf;

use estive_model::Digest;

/// Why a cache or an origin cannot run.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("could not {doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the directory {path} is in use by another cache; give each its own")]
    InUse { path: PathBuf },
    #[error("a cache of {limit_bytes} bytes is of no use; give it at least {least} bytes")]
    SmallLimit { limit_bytes: u64, least: u64 },
    #[error(
        "{directories} holds no root that can be served ({skipped}); make one with \"estive seal\", sign it with \
         \"estive authority sign\""
    )]
    NoRoot {
        directories: String,
        skipped: String,
    },
    #[error(transparent)]
    Api(#[from] estive_api::Error),
}

impl CacheError {
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }
}

/// Why something of a root is not given. Cheap to clone: many may have waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error("this host has not been told of the root {0}")]
    UnknownRoot(Digest),
    #[error("{what} cannot be had: {reasons}")]
    NotHad {
        /// A chunk or a manifest, of which root.
        what: String,
        /// What each origin said.
        reasons: String,
    },
    #[error("the cache is ending")]
    Ending,
}
