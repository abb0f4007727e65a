//! Drivers for machines that are not known beforehand, with what chooses among them and what they ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use estive_archive::Member;
use estive_boot::aliases::names_below;
use estive_boot::hardware;
use estive_boot::{KernelTree, firmware, firmware_of};

use super::{AbsentFirmware, ImageOptions};
use crate::ExportError;

const DEVICES: &str = "/sys/devices";

/// What goes into an initramfs for them.
pub struct Drivers {
    pub modules: BTreeSet<String>,
    alias: String,
    softdep: String,
    /// By path.
    firmware: Vec<(String, Vec<u8>)>,
    pub firmware_absent: Vec<AbsentFirmware>,
}

impl Drivers {
    /// What chooses among the drivers, firmware, and PID 1 as the kernel's `modprobe`.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        [
            Member::file("lib/modules/modules.alias", 0o644, self.alias.as_bytes()),
            Member::file(
                "lib/modules/modules.softdep",
                0o644,
                self.softdep.as_bytes(),
            ),
            Member::symlink("sbin/modprobe", "/init"),
        ]
        .into_iter()
        .chain(
            self.firmware
                .iter()
                .map(|(path, bytes)| Member::file(path, 0o644, bytes)),
        )
    }
}

/// The names of the devices of the machine that this runs on.
pub fn names_of_this_machine() -> BTreeSet<String> {
    names_below(Path::new(DEVICES)).into_iter().collect()
}

pub fn of(options: &ImageOptions, kernel: &KernelTree) -> Result<Drivers, ExportError> {
    let wrong = || ExportError::boot("choosing drivers");
    let dep = kernel.modules_dep().map_err(wrong())?;
    let aliases = kernel.aliases().map_err(wrong())?;
    let modules = hardware::drivers(options.hardware, &dep, &aliases);
    let names: Vec<&str> = modules.iter().map(String::as_str).collect();
    let closure = dep.closure(&names, &[]).map_err(wrong())?;

    // What the line needs may be asked for by another name too, such as a file system.
    let needs = options.root.needs();
    let all = [
        &needs.modules,
        &needs.modules_if_there,
        &needs.modules_at_hand,
    ];
    let known: BTreeSet<String> = all
        .into_iter()
        .flatten()
        .map(|name| name.replace('-', "_"))
        .chain(closure.iter().cloned())
        .collect();
    let (alias, softdep) = aliases.reduced(&known);
    // By name: several drivers may ask for the same.
    let mut asked: BTreeMap<String, String> = BTreeMap::new();
    for name in &closure {
        let bytes = kernel
            .module(dep.file(name).unwrap_or(name))
            .map_err(wrong())?;
        for firmware in firmware_of(&bytes) {
            asked.entry(firmware).or_insert_with(|| name.clone());
        }
    }
    let place = options.reference.unwrap_or(options.kernel_tree);
    let mut taken = Vec::new();
    let mut firmware_absent = Vec::new();
    for (name, module) in asked {
        match firmware(place, &name).map_err(wrong())? {
            Some(bytes) => taken.push((format!("lib/firmware/{name}"), bytes)),
            None => firmware_absent.push(AbsentFirmware { name, module }),
        }
    }
    Ok(Drivers {
        modules,
        alias,
        softdep,
        firmware: taken,
        firmware_absent,
    })
}
