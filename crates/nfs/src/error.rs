//! Why a directory cannot be exported.

use std::path::PathBuf;

use rustix::io::Errno;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum NfsError {
    #[error("{what} {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the server of {path} needs the rights of root to act for others: start it as root")]
    Rights {
        path: PathBuf,
        #[source]
        source: Errno,
    },
    #[error(
        "the file system of {path} has no handles that outlive a server (name_to_handle_at): export a directory of ext4, XFS, Btrfs or tmpfs"
    )]
    NoHandles {
        path: PathBuf,
        #[source]
        source: Errno,
    },
    #[error("{0:?} is no name of an export: write an absolute path, such as / or /home")]
    Name(String),
    #[error("{0} is exported twice: give each export a name of its own")]
    Twice(String),
    #[error("the key {path} has {size} bytes: remove it, and clients must mount again")]
    Key { path: PathBuf, size: usize },
}

impl NfsError {
    pub(crate) fn io<E: Into<std::io::Error>>(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> NfsError {
        let path = path.into();
        move |source| NfsError::Io {
            what,
            path,
            source: source.into(),
        }
    }
}
