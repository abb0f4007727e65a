//! Programs that a boot needs and that are not Estive's: taken from the reference, with all that they link.
//!
//! The reference's own programs fit its disks: what made an array there starts it here.

#[cfg(feature = "builder")]
mod closure;
#[cfg(feature = "builder")]
mod elf;
#[cfg(feature = "builder")]
mod library_path;

#[cfg(feature = "builder")]
pub use closure::{Programs, collect};

/// Where the initramfs has a link to each program, by its name.
pub const DIRECTORY: &str = "/lib/estive";
/// The file that names, between colons, the directories in which those programs find their libraries: there is no
/// cache of `ldconfig` in the initramfs.
pub const LIBRARY_PATH: &str = "/lib/estive/.libraries";

/// A program of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// The name of its file.
    pub name: &'static str,
    /// Debian's package that has it, for people.
    pub package: &'static str,
}

pub const CRYPTSETUP: Program = Program {
    name: "cryptsetup",
    package: "cryptsetup-bin",
};
pub const LVM: Program = Program {
    name: "lvm",
    package: "lvm2",
};
pub const MDADM: Program = Program {
    name: "mdadm",
    package: "mdadm",
};

/// A program, and what on the line asked for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    pub program: Program,
    /// As the line says it, such as `lvm2:/dev/vg/root`.
    pub asked_by: String,
}
