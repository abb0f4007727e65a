//! EROFS images in user space: reading one that may be hostile, and laying out one whose bytes depend on nothing but
//! the tree.
//!
//! The format is the kernel's (`Documentation/filesystems/erofs.rst`, `fs/erofs/erofs_fs.h`), without compression: inodes
//! compact and extended, data plain, with its end beside the inode, or in chunks with holes; attributes inline and (when
//! read) shared. Blocks have 4 KiB.
//!
//! Nothing here opens a file by name or looks at a clock.

mod checksum;
mod content;
mod directory;
mod error;
mod inode;
mod layout;
mod reader;
mod superblock;
mod tree;
mod walk;
mod writer;
mod xattr;

pub use content::{Content, DataArea, Source};
pub use error::{Error, Result};
pub use inode::{Inode, Kind};
pub use layout::{BLOCK_BYTES, FILE_BYTES_MAX};
pub use reader::{Extent, Image, ReadAt};
pub use tree::{Body, Node, Tree};
pub use walk::{Entry, Limits, Visit};
pub use writer::{finish, is_canonical, order};
pub use xattr::Xattrs;
