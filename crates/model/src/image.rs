//! Ordinary machines: a domain whose disks are image files at paths that its host allows, beside the clone's form.

use crate::{DomainName, DomainSpec, Interface};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// A file beneath a directory that the host's operator allows for images. It is opened from there through no link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// The allowed directory, the operator's word.
    pub top: PathBuf,
    /// The file's path beneath it, the description's word: `/` between components, never `..`.
    pub path: String,
}

impl fmt::Display for ImageFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.top.join(&self.path).display())
    }
}

/// How an image file holds its disk. Always said, never probed: what a guest writes into a raw disk is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// Byte by byte.
    Raw,
    /// QEMU's own, without a backing file and without a data file of its own.
    Qcow2,
}

impl ImageFormat {
    /// QEMU's and libvirt's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A virtio disk in an image file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDisk {
    /// Where.
    pub file: ImageFile,
    /// How it is held.
    pub format: ImageFormat,
    /// Whether the guest may not write to it.
    pub read_only: bool,
    /// Whether what the guest discards is given back.
    pub discard: bool,
    /// What the guest reads as its serial, if anything.
    pub serial: Option<String>,
}

/// A kernel that is started without the firmware's help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageKernel {
    /// Kernel.
    pub kernel: ImageFile,
    /// Initial RAM file system, if it has one.
    pub initrd: Option<ImageFile>,
    /// Kernel command line; one line, may be empty.
    pub command_line: String,
}

/// What a hypervisor needs to know to run an ordinary machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// The domain's name.
    pub name: DomainName,
    /// Its UUID, in the usual 8-4-4-4-12 form.
    pub uuid: String,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Its kernel; without one the firmware boots the first disk.
    pub kernel: Option<ImageKernel>,
    /// In the order in which the guest finds them.
    pub disks: Vec<ImageDisk>,
    /// Network interface, if it has one.
    pub interface: Option<Interface>,
}

/// What a hypervisor runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Machine {
    /// A clone of a reference.
    Clone(DomainSpec),
    /// A domain with disks of its own in image files.
    Images(ImageSpec),
}

impl Machine {
    /// The domain's name.
    pub fn name(&self) -> &DomainName {
        match self {
            Self::Clone(spec) => &spec.name,
            Self::Images(spec) => &spec.name,
        }
    }

    /// Memory, in MiB.
    pub fn memory_mib(&self) -> u64 {
        match self {
            Self::Clone(spec) => spec.memory_mib,
            Self::Images(spec) => spec.memory_mib,
        }
    }
}

impl From<DomainSpec> for Machine {
    fn from(spec: DomainSpec) -> Self {
        Self::Clone(spec)
    }
}

impl From<ImageSpec> for Machine {
    fn from(spec: ImageSpec) -> Self {
        Self::Images(spec)
    }
}
