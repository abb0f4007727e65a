//! The peer of benchmarks that boot: the same QEMU, kernel and memory with the smallest initramfs that mounts a local
//! ext4 virtio disk and executes init there.

use std::path::{Path, PathBuf};
use std::process::Command;

use estive_archive::{Kind, Member, Writer};
use estive_boot::{KernelModules, KernelTree};
use estive_network::MacAddress;

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
    /// What it is beside others, when there is more than one.
    pub machine: Machine,
}

/// What every machine of one peer has.
pub(super) struct PeerSize {
    pub disk_mib: u64,
    pub memory_mib: u64,
    /// Whether it loads what a network needs.
    pub has_network: bool,
}

/// What tells several machines of one peer from each other. The least: the first host, no network, no words.
#[derive(Debug, Clone, Default)]
pub(super) struct Machine {
    /// On which host, from 0.
    pub host: usize,
    /// Its tap there, which the host's bridge has, and its own address on that.
    pub tap: Option<(String, MacAddress)>,
    /// Words of the kernel's command line.
    pub words: String,
    /// Its writes are thrown away: several use one disk.
    pub forgets: bool,
}

impl Peer {
    /// Makes its parts below `directory`, the disk from the tree `root`.
    pub(super) fn make(
        config: &BenchConfig,
        directory: &Path,
        root: &Path,
        size: &PeerSize,
    ) -> Result<Self, Error> {
        let own = directory.join("peer");
        std::fs::create_dir_all(&own)
            .map_err(Error::system(format!("making {}", own.display())))?;
        let (disk, initramfs) = (own.join("disk"), own.join("initramfs"));
        let tree = KernelTree::find(&config.kernel_tree)
            .map_err(|error| problem(&crate::error_chain(&error)))?;
        let archive = initramfs_of(config, &tree, size.has_network)?;
        std::fs::write(&initramfs, archive)
            .map_err(Error::system(format!("writing {}", initramfs.display())))?;
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-d"])
            .args([root, &disk])
            .arg(format!("{}M", size.disk_mib))
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
            memory_mib: size.memory_mib,
            writable: false,
            machine: Machine::default(),
        })
    }

    /// Another machine like it, with a copy of its disk, or with the disk itself when `shares`.
    pub(super) fn beside(&self, name: &str, shares: bool, machine: Machine) -> Result<Self, Error> {
        let directory = self.directory.join(name);
        std::fs::create_dir_all(&directory)
            .map_err(Error::system(format!("making {}", directory.display())))?;
        let disk = match shares {
            true => self.disk.clone(),
            false => {
                let disk = directory.join("disk");
                // Most of it is holes.
                let copied = Command::new("cp")
                    .arg("--sparse=always")
                    .args([&self.disk, &disk])
                    .output()
                    .map_err(Error::system("running cp"))?;
                if !copied.status.success() {
                    return Err(problem(&String::from_utf8_lossy(&copied.stderr)));
                }
                disk
            }
        };
        Ok(Self {
            kernel: self.kernel.clone(),
            initramfs: self.initramfs.clone(),
            disk,
            directory,
            accel: self.accel.clone(),
            memory_mib: self.memory_mib,
            writable: self.writable,
            machine,
        })
    }

    /// Puts the program `file` into the place of the disk's `/sbin/init`.
    pub(super) fn set_init(&self, file: &Path) -> Result<(), Error> {
        self.put(file, "usr/sbin/init", 0o755)
    }

    /// Puts `file` onto the disk, where `path` is from its root; its directory is there.
    pub(super) fn put(&self, file: &Path, path: &str, mode: u32) -> Result<(), Error> {
        // One request on the command line, and no word of failure by its exit status.
        for request in [
            format!("rm /{path}"),
            format!("write {} /{path}", file.display()),
            format!("sif /{path} mode 0100{mode:03o}"),
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
        let Machine {
            host,
            tap,
            words,
            forgets,
        } = &self.machine;
        let forgets = if *forgets { ",snapshot=on" } else { "" };
        let mut argv = [
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
            &format!("console=ttyS0 quiet{word} {words}"),
            "-drive",
            &format!(
                "if=virtio,format=raw,readonly={read_only}{forgets},file={}",
                self.disk.display()
            ),
            "-serial",
            &format!("file:{}", console.display()),
        ]
        .map(str::to_owned)
        .to_vec();
        if let Some((tap, mac)) = tap {
            argv.extend([
                "-netdev".to_owned(),
                format!("tap,id=n0,ifname={tap},script=no,downscript=no"),
                "-device".to_owned(),
                format!("virtio-net-pci,netdev=n0,mac={mac},romfile="),
            ]);
        }
        let host = bed
            .topology()
            .hosts
            .get(*host)
            .ok_or_else(|| problem("a peer is for a host that there is not"))?;
        let peer = Bare::start(&argv, host, &self.directory)?;
        Ok((peer, console))
    }
}

fn initramfs_of(
    config: &BenchConfig,
    tree: &KernelTree,
    has_network: bool,
) -> Result<Vec<u8>, Error> {
    let words = |error: &dyn std::error::Error| problem(&crate::error_chain(error));
    let modules = tree.modules_dep().map_err(|error| words(&error))?;
    let mut wanted = vec!["virtio_pci", "virtio_blk", "ext4", "crc32c_generic"];
    wanted.extend(has_network.then_some("virtio_net"));
    let closure = modules
        .closure(&wanted, &["crc32c_generic"])
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
