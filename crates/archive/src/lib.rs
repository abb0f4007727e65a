//! The newc cpio format, and the layer archive of a clone written in it; and members of tar streams.
//!
//! Two archives of Estive travel in this form: the initramfs (which the kernel unpacks) and the
//! layer of a clone (which `estive-init` unpacks from the layer disk). The format is the one of
//! the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.
//!
//! Invariant: nothing here opens a file. What is read is a byte slice, what is written goes to the
//! `Write` that was given, and the dependencies stay few because PID 1 of every clone links them.

mod form;
mod layer;
mod manifest;
mod marks;
mod member;
mod reader;
mod service;
mod shared_bytes;
mod tar_stream;
#[cfg(test)]
mod tests;
mod writer;

pub use form::LayerForm;
pub use layer::{LAYER_DISK_BYTES, LayerArchive};
pub use manifest::{MANIFEST_DIRECTORY, MANIFEST_PATH, Manifest, OPAQUE_XATTR, XattrValue, Xattrs};
pub use marks::{OPAQUE_MARK, WHITEOUT_PREFIX, carried_xattr};
pub use member::{Kind, Member, check_path};
pub use reader::{Limits, Reader};
pub use service::Service;
pub use shared_bytes::SharedBytes;
pub use tar_stream::{TAR_XATTR_PREFIX, TarFault, TarMember, plain_path, read_tar};
pub use writer::Writer;

/// What can be wrong with an archive, or with what is to be put in one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the name {name:?} {why}: a name in an archive is relative, has no empty, '.' or '..' component and no NUL"
    )]
    Name { name: String, why: &'static str },
    #[error("the archive ends inside {part} at byte {offset}: it was cut short")]
    Truncated { part: &'static str, offset: usize },
    #[error("no newc header at byte {offset}: this is not a cpio archive of the newc kind")]
    Magic { offset: usize },
    #[error("the header at byte {offset} has a {field} that is not eight hexadecimal digits")]
    Number { field: &'static str, offset: usize },
    #[error("{path:?} has the unknown file type {file_type:#o}")]
    FileType { path: String, file_type: u32 },
    #[error("{path:?} is a {kind} with {size_bytes} bytes of content, which it cannot have")]
    Content {
        path: String,
        kind: &'static str,
        size_bytes: usize,
    },
    #[error("{what} passes the limit of {limit}")]
    Limit { what: String, limit: u64 },
    #[error("{path:?} is in the archive twice")]
    Duplicate { path: String },
    #[error("{path:?} lies under {parent:?}, which is not a directory in this layer")]
    UnderNonDirectory { path: String, parent: String },
    #[error("{path:?} is to be a hard link to {target:?}, which is not a file of this layer")]
    LinkTarget { path: String, target: String },
    #[error("the content {number} of a file that is the clone's own was not given")]
    ContentMissing { number: usize },
    #[error("{path:?} has extended attributes but is not in this layer")]
    XattrWithoutMember { path: String },
    #[error(
        "the manifest of the layer archive is missing: its first member must be {MANIFEST_PATH}"
    )]
    ManifestMissing,
    #[error("the manifest of the layer archive is not understood: {reason}")]
    ManifestInvalid { reason: String },
    #[error("writing the archive failed")]
    Write(#[source] std::io::Error),
}

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;
