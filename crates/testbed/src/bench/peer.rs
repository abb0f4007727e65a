//! The peer of benchmarks that boot: the same QEMU, kernel and memory with the smallest initramfs that mounts a local
//! ext4 virtio disk and executes init there.

use std::path::{Path, PathBuf};
use std::process::Command;

use estive_archive::{Kind, Member, Writer};
use estive_boot::KernelTree;

use super::BenchConfig;
use super::bare::{Bare, problem};
use crate::Error;
use crate::bed::Bed;

/// What the peer boots: kernel, its own initramfs, an ext4 disk.
pub(super) struct Peer {
    kernel: PathBuf,
    initramfs: PathBuf,
    disk: PathBuf,
    directory: PathBuf,
    accel: String,
    memory_mib: u64,
    /// The disk may be written to.
    pub writable: bool,
}

impl Peer {
    /// Makes its parts below `directory`, the disk of `disk_mib` from the tree `root`.
    pub(super) fn make(
        config: &BenchConfig,
        directory: &Path,
        root: &Path,
        (disk_mib, memory_mib): (u64, u64),
    ) -> Result<Self, Error> {
        let own = directory.join("peer");
        std::fs::create_dir_all(&own)
            .map_err(Error::system(format!("making {}", own.display())))?;
        let (disk, initramfs) = (own.join("disk"), own.join("initramfs"));
        let tree = KernelTree::find(&config.kernel_tree)
            .map_err(|error| problem(&crate::error_chain(&error)))?;
        let archive = initramfs_of(config, &tree)?;
        std::fs::write(&initramfs, archive)
            .map_err(Error::system(format!("writing {}", initramfs.display())))?;
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-d"])
            .args([root, &disk])
            .arg(format!("{disk_mib}M"))
            .output()
            .map_err(Error::system("running mkfs.ext4 (package e2fsprogs)"))?;
        if !made.status.success() {
            return Err(problem(&String::from_utf8_lossy(&made.stderr)));
        }
        Ok(Self {
            kernel: tree.vmlinuz,
            initramfs,
            disk,
            directory: own,
            accel: config.bed.accel.clone(),
            memory_mib,
            writable: false,
        })
    }

    /// Puts the program `file` into the place of the disk's `/sbin/init`.
    pub(super) fn set_init(&self, file: &Path) -> Result<(), Error> {
        // One request on the command line, and no word of failure by its exit status.
        for request in [
            "rm /usr/sbin/init".to_owned(),
            format!("write {} /usr/sbin/init", file.display()),
            "sif /usr/sbin/init mode 0100755".to_owned(),
        ] {
            let done = Command::new("debugfs")
                .args(["-w", "-R", &request])
                .arg(&self.disk)
                .output()
                .map_err(Error::system("running debugfs (package e2fsprogs)"))?;
            if !done.status.success() {
                return Err(problem(&String::from_utf8_lossy(&done.stderr)));
            }
        }
        Ok(())
    }

    /// Starts it; gives its console as well.
    pub(super) fn start(&self, bed: &Bed, number: u32) -> Result<(Bare, PathBuf), Error> {
        let console = self.directory.join(format!("console{number}"));
        let (read_only, word) = if self.writable {
            ("off", " bare_writable=1")
        } else {
            ("on", "")
        };
        let argv = [
            "qemu-system-x86_64",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-machine",
            "pc-q35-7.2,hpet=off,usb=off,sata=off,smbus=off",
            "-cpu",
            "max",
            "-accel",
            &self.accel,
            "-m",
            &format!("{}M", self.memory_mib),
            "-bios",
            "qboot.rom",
            "-kernel",
            &self.kernel.display().to_string(),
            "-initrd",
            &self.initramfs.display().to_string(),
            "-append",
            &format!("console=ttyS0 quiet{word}"),
            "-drive",
            &format!(
                "if=virtio,format=raw,readonly={read_only},file={}",
                self.disk.display()
            ),
            "-serial",
            &format!("file:{}", console.display()),
        ]
        .map(str::to_owned);
        let peer = Bare::start(&argv, &bed.topology().hosts[0], &self.directory)?;
        Ok((peer, console))
    }
}

fn initramfs_of(config: &BenchConfig, tree: &KernelTree) -> Result<Vec<u8>, Error> {
    let words = |error: &dyn std::error::Error| problem(&crate::error_chain(error));
    let modules = tree.modules_dep().map_err(|error| words(&error))?;
    let closure = modules
        .closure(
            &["virtio_pci", "virtio_blk", "ext4", "crc32c_generic"],
            &["crc32c_generic"],
        )
        .map_err(|error| words(&error))?;
    let init = std::fs::read(config.programs.join("estive-bare"))
        .map_err(Error::system("reading estive-bare"))?;
    let archive = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let mut writer = Writer::new(Vec::new());
        for folder in ["dev", "modules"] {
            writer.add(&Member::directory(folder, 0o755))?;
        }
        let console = Kind::CharacterDevice { major: 5, minor: 1 };
        writer.add(&Member::new("dev/console", 0o600, console))?;
        writer.add(&Member::file("init", 0o755, &init))?;
        let order: String = closure.iter().map(|name| format!("{name}\n")).collect();
        writer.add(&Member::file("modules/order", 0o644, order.as_bytes()))?;
        for name in &closure {
            let file = modules.file(name).unwrap_or(name);
            writer.add(&Member::file(
                &format!("modules/{name}.ko"),
                0o644,
                &tree.module(file)?,
            ))?;
        }
        Ok(writer.finish()?)
    };
    archive().map_err(|error| problem(&error.to_string()))
}
