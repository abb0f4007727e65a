//! What can go wrong between a layer and a file system.

use rustix::io::Errno;

#[derive(Debug, thiserror::Error)]
pub enum UnionError {
    #[error("{doing}")]
    System {
        doing: String,
        #[source]
        source: Errno,
    },

    #[error("{doing}")]
    Write {
        doing: String,
        #[source]
        source: std::io::Error,
    },

    /// Of a tar stream.
    #[error("{0}")]
    Tar(#[from] estive_archive::TarFault),

    #[error("{path:?} in it is too much: {limit} {what} fit into the memory that is free")]
    TooMuch {
        path: String,
        what: &'static str,
        limit: u64,
    },

    #[error("the layer archive")]
    Archive(#[from] estive_archive::Error),

    #[error("{path:?} of the layer: {parent:?} is not a directory that comes before it")]
    Parent {
        path: String,
        parent: String,
        #[source]
        source: Errno,
    },

    /// The layer and the root do not fit together.
    #[error("the layer has files in {path}, which is {what} in the root{advice}")]
    Clash {
        path: String,
        what: &'static str,
        advice: &'static str,
    },
}

pub type Result<T> = std::result::Result<T, UnionError>;

/// Adds to an error what was being done when it came.
pub(crate) trait While<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> While<T> for std::result::Result<T, Errno> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| UnionError::System {
            doing: what(),
            source,
        })
    }
}

impl<T> While<T> for std::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| UnionError::Write {
            doing: what(),
            source,
        })
    }
}
