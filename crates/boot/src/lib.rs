//! What a clone needs to boot: its kernel, its initramfs, its identity, and the report it gives.
//!
//! Two sides link this crate. The host builds with the feature `builder`; `estive-init`, PID 1 of
//! the clone's early userspace, links it without, for the types both sides must agree on.
//!
//! Invariant: nothing here runs a program.

pub mod aliases;
#[cfg(feature = "builder")]
pub mod boot_loader;
pub mod boots;
mod command_line;
pub mod drawing;
mod error;
pub mod glob;
#[cfg(feature = "builder")]
pub mod hardware;
pub mod identity;
#[cfg(feature = "builder")]
pub mod initramfs;
#[cfg(feature = "builder")]
mod inside;
pub mod ip_line;
#[cfg(feature = "builder")]
pub mod kernel;
pub mod loaders;
pub mod md_end;
pub mod md_scan;
#[cfg(feature = "builder")]
mod module_info;
pub mod module_options;
pub mod modules;
pub mod partition;
pub mod programs;
pub mod push;
pub mod record;
pub mod report;
pub mod root_line;
pub mod shared_line;
pub mod superblock;
pub mod timeline;
pub mod unpack_line;

pub use command_line::{
    CommandLine, CommandLineError, INIT_WORD, OVER_ANY, OVER_WORD, ROOT_WORD, WAIT_WORD,
    command_line, word_of,
};
pub use error::{Error, Result};
pub use identity::Identity;
pub use ip_line::IpLine;
#[cfg(feature = "builder")]
pub use kernel::{KernelModules, KernelTree, firmware};
pub use loaders::Root;
#[cfg(feature = "builder")]
pub use module_info::firmware_of;
pub use push::PushReport;
pub use report::{BootReport, Phase};
pub use shared_line::{SHARED_WORD, SharedDirectory};

/// The disks of a clone, by their virtio serial.
pub mod disk {
    pub const LAYER: &str = "estive-layer";
    pub const ROOT: &str = "estive-root";
    pub const MODULES: &str = "estive-modules";
    /// Of a stateful clone; holds an ext4.
    pub const VOLUME: &str = "estive-volume";
}

/// The virtio-serial ports of a clone, by their name.
pub mod port {
    pub const REPORT: &str = "org.estive.report";
    pub const IDENTITY: &str = "org.estive.identity";
}

/// The fw_cfg file that carries the identity.
pub const IDENTITY_FW_CFG: &str = "opt/org.estive/identity";
