//! Why nothing live can be offered or passed on.

use std::path::PathBuf;

use estive_nfs::NfsError;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum LiveError {
    #[error("{0:?} names no live reference: write NAME=DIRECTORY, with letters, digits and -")]
    Name(String),
    #[error(
        "{text:?} is no shared directory: {why}; write NAME:/MOUNTED/AT=DIRECTORY[,bytes=10G][,files=100000][,root=kept]"
    )]
    Share { text: String, why: &'static str },
    #[error(
        "{0:?} reserves nothing: write NAME=HOST[,HOST]... of a reference that is offered here, once each"
    )]
    Reserved(String),
    #[error("offering the files of {name}")]
    Export {
        name: String,
        #[source]
        source: NfsError,
    },
    #[error("{what} {path}")]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}
