//! What a line needs to be in its initramfs and in the kernel.

use crate::programs::{Program, Wanted};
use crate::superblock;

/// What must be there before a line can be followed. Each list keeps the order of its first mention.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Modules that the kernel must have, loaded before the loaders run.
    pub modules: Vec<String>,
    /// Loaded likewise, where the kernel has them.
    pub modules_if_there: Vec<String>,
    /// Kept at hand where the kernel has them, loaded when a loader finds that it needs one.
    pub modules_at_hand: Vec<String>,
    /// Each with the first device that asks for it.
    pub programs: Vec<Wanted>,
    /// The network must be up.
    pub network: bool,
    /// Who this clone is must be known.
    pub identity: bool,
}

impl Needs {
    pub fn module(&mut self, name: &str) {
        add(&mut self.modules, name.to_owned());
    }

    pub fn if_there(&mut self, names: &[&str]) {
        for name in names {
            add(&mut self.modules_if_there, (*name).to_owned());
        }
    }

    pub fn at_hand(&mut self, names: &[&str]) {
        for name in names {
            add(&mut self.modules_at_hand, (*name).to_owned());
        }
    }

    pub fn program(&mut self, program: Program) {
        self.wanted(Wanted {
            program,
            asked_by: String::new(),
        });
    }

    fn wanted(&mut self, wanted: Wanted) {
        let known = |known: &Wanted| known.program == wanted.program;
        if !self.programs.iter().any(known) {
            self.programs.push(wanted);
        }
    }

    /// Everything that `other` needs too.
    pub fn add(&mut self, other: &Needs) {
        for module in &other.modules {
            self.module(module);
        }
        let names = |list: &[String]| list.to_vec();
        for module in names(&other.modules_if_there) {
            add(&mut self.modules_if_there, module);
        }
        for module in names(&other.modules_at_hand) {
            add(&mut self.modules_at_hand, module);
        }
        for wanted in &other.programs {
            self.wanted(wanted.clone());
        }
        self.network |= other.network;
        self.identity |= other.identity;
    }

    /// What a file system on a device needs: the one that is known, else any that can be recognised.
    pub fn file_system(&mut self, fs: Option<&str>) {
        match fs.map(superblock::modules_of) {
            Some(modules) => {
                let (driver, others) = modules.split_first().unwrap_or((&"", &[]));
                self.module(driver);
                self.at_hand(others);
            }
            None => self.at_hand(&RECOGNISED),
        }
        self.at_hand(&HELPERS);
    }

    /// With `fs=` nothing is recognised: of the file systems at hand, only this one is mounted.
    pub fn only_file_system(&mut self, fs: &str) {
        let is_recognised = |module: &String| RECOGNISED.contains(&module.as_str());
        self.modules_at_hand.retain(|module| !is_recognised(module));
        self.file_system(Some(fs));
    }

    /// What finding a disk needs.
    pub fn disks(&mut self) {
        self.if_there(&DISKS);
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// Drivers of disks: those of virtual machines first, then what most machines have.
const DISKS: [&str; 11] = [
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "sr_mod",
    "nvme",
    "ahci",
    "ata_piix",
    "xhci_pci",
    "usb_storage",
    "uas",
    "mmc_block",
];
/// File systems that are told by their first blocks.
const RECOGNISED: [&str; 8] = [
    "ext4", "xfs", "btrfs", "erofs", "squashfs", "isofs", "vfat", "f2fs",
];
/// What file systems ask the kernel for by name when they are mounted: there is no modprobe.
const HELPERS: [&str; 6] = [
    "crc32c_generic",
    "crc32c_cryptoapi",
    "libcrc32c",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
];

/// Modules that any line is followed with: the ports of the report, the union.
pub(super) fn of_any_line() -> Needs {
    let mut needs = Needs::default();
    needs.if_there(&[
        "crc32c_generic",
        "crc32c_cryptoapi",
        "virtio_pci",
        "virtio_mmio",
        "virtio_console",
        "virtio_rng",
    ]);
    needs.module("overlay");
    needs
}

/// Drivers of network interfaces.
pub(super) const INTERFACES: [&str; 6] =
    ["virtio_net", "e1000", "e1000e", "igb", "r8169", "vmxnet3"];
