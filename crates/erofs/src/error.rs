//! What can be wrong with an image, or stand in the way of writing one.

use std::io;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are no EROFS image, or a damaged or hostile one.
    #[error("no sound EROFS image: {what}")]
    Malformed { what: String },

    /// EROFS, in a form that is not read here.
    #[error("an EROFS image in a form that is not read here: {what}")]
    Unsupported { what: &'static str },

    /// Sound perhaps, and beyond what is put up with.
    #[error("the image passes the limit of {limit} {of}")]
    Limit { of: &'static str, limit: u64 },

    /// A tree that the format cannot hold.
    #[error("the tree does not fit into an image: {what}")]
    TooLarge { what: String },

    /// The file had other bytes than it said: it changed while it was read.
    #[error("the file ended at {at} of {size_bytes} bytes: it changed while it was read")]
    Shrank { at: u64, size_bytes: u64 },

    #[error("reading or writing an image")]
    Io(#[from] io::Error),
}

pub(crate) fn malformed(what: impl Into<String>) -> Error {
    Error::Malformed { what: what.into() }
}
