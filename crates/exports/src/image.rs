//! What a machine starts from that Estive does not start: kernel, initramfs and command line, as a directory for the
//! network and as a disk.

mod compress;
pub mod directory;
pub mod disk;
mod drivers;

use std::path::{Path, PathBuf};

use estive_archive::{Kind, Limits, Reader};
use estive_boot::hardware::Hardware;
use estive_boot::initramfs;
use estive_boot::loaders::Root;
use estive_boot::{KernelTree, boot_loader};
use serde::Serialize;

pub use compress::Compression;
pub use drivers::names_of_this_machine;

use crate::ExportError;
use crate::line_programs::line_programs;

/// What an image is made of.
#[derive(Debug)]
pub struct ImageOptions<'a> {
    pub root: &'a Root,
    /// Words of the kernel besides `root=`.
    pub words: &'a [&'a str],
    /// A directory with a kernel and its modules, as a kernel package lays them out.
    pub kernel_tree: &'a Path,
    /// A root that programs and firmware are taken from.
    pub reference: Option<&'a Path>,
    pub hardware: &'a Hardware,
    pub compression: Compression,
    /// `estive-init`.
    pub init: &'a [u8],
}

/// Ready to be written.
#[derive(Debug, Clone)]
pub struct Start {
    /// Where the kernel lies.
    pub kernel: PathBuf,
    pub initramfs: Vec<u8>,
    pub command_line: String,
    pub contents: Contents,
}

/// What is in an initramfs, and what it lacks.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Contents {
    /// As `uname -r` says it.
    pub kernel: String,
    /// Before compression.
    pub initramfs_bytes: u64,
    pub init_bytes: u64,
    pub modules: Vec<Named>,
    pub programs: Vec<Named>,
    pub firmware: Vec<Named>,
    /// Files that drivers name and the reference has not: cards that need one stay dark.
    pub firmware_absent: Vec<AbsentFirmware>,
}

/// A file in an initramfs.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub size_bytes: u64,
}

/// A file that a driver may ask for.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct AbsentFirmware {
    pub name: String,
    pub module: String,
}

/// A file that was written.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct WrittenFile {
    pub name: String,
    pub size_bytes: u64,
    pub sha256: String,
}

/// Makes the three parts. Takes seconds: every driver is unpacked, and all of it is packed.
pub fn prepare(options: &ImageOptions) -> Result<Start, ExportError> {
    let line = boot_loader::machine_line(
        &options.root.to_string(),
        options.words,
        *options.hardware != Hardware::Virtual,
    )
    .map_err(ExportError::boot("making the kernel's command line"))?;
    let kernel = match options.hardware {
        Hardware::Virtual => KernelTree::find(options.kernel_tree),
        _ => KernelTree::find_for_hardware(options.kernel_tree),
    }
    .map_err(ExportError::boot("finding a kernel"))?;
    options.compression.is_known_to(&kernel)?;

    let mut needs = options.root.needs();
    let drivers = drivers::of(options, &kernel)?;
    needs.at_hand(
        &drivers
            .modules
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    );
    let programs = line_programs(options.reference, &needs)?;
    let extras = drivers.members().chain(programs.members());
    let archive = initramfs::build_for(options.init, &kernel, &needs, extras)
        .map_err(ExportError::boot("making the initial RAM file system"))?;
    let mut contents = contents(&archive)?;
    contents.kernel = kernel.release;
    contents.firmware_absent = drivers.firmware_absent;
    Ok(Start {
        kernel: kernel.vmlinuz,
        initramfs: options.compression.pack(archive)?,
        command_line: line,
        contents,
    })
}

/// What was put into an initramfs, as it says itself.
fn contents(archive: &[u8]) -> Result<Contents, ExportError> {
    let mut contents = Contents {
        initramfs_bytes: archive.len() as u64,
        ..Contents::default()
    };
    for member in Reader::new(archive, Limits::default()) {
        let member = member
            .map_err(|error| ExportError::boot("reading the initramfs again")(error.into()))?;
        let Kind::File(bytes) = member.kind else {
            continue;
        };
        let size_bytes = bytes.len() as u64;
        let named = |name: &str| Named {
            name: name.to_owned(),
            size_bytes,
        };
        let path = member.path;
        if path == "init" {
            contents.init_bytes = size_bytes;
        } else if let Some(module) = path
            .strip_prefix("lib/modules/")
            .and_then(|p| p.strip_suffix(".ko"))
        {
            contents.modules.push(named(module));
        } else if let Some(name) = path.strip_prefix("lib/firmware/") {
            contents.firmware.push(named(name));
        } else if !path.starts_with("lib/modules/") {
            contents.programs.push(named(&format!("/{path}")));
        }
    }
    Ok(contents)
}
