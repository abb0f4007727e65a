//! What can go wrong with files of this machine, each with what to try.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong while files of this machine are read or written.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("{doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("{path} {what}")]
    Refused { path: PathBuf, what: String },

    #[error("the kept layer of {clone} is damaged; build all layers anew")]
    Damaged { clone: String },

    #[error("no state directory: neither HOME nor XDG_STATE_HOME says where; name one")]
    NoState,
}

impl FilesError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }

    pub(crate) fn refused(path: &Path, what: impl Into<String>) -> Self {
        Self::Refused {
            path: path.to_path_buf(),
            what: what.into(),
        }
    }
}
