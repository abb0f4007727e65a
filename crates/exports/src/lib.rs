//! What a reference offers to its clones: sealed roots (EROFS images named by their manifest),
//! what boots them (kernel, initramfs, the disk of kernel modules), and images that machines start
//! from which Estive does not start. What serves a sealed root is the crate `cache`.
//!
//! This crate knows files, never domains.

mod boot_parts;
pub mod diff;
mod error;
pub mod image;
mod line_programs;
pub mod modules;
pub mod references;
pub mod seal;
pub mod secrets;

pub use boot_parts::{BootParts, boot_parts, boot_parts_for};
pub use error::ExportError;
pub use seal::{SealOptions, Sealed, seal, seal_with};
