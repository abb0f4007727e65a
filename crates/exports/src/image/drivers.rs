//! Drivers for machines that are not known beforehand, with what chooses among them and what they ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use estive_archive::Member;
use estive_boot::aliases::names_below;
use estive_boot::hardware;
use estive_boot::{KernelModules, KernelTree, firmware, firmware_of};

use super::{AbsentFirmware, ImageOptions};
use crate::ExportError;

const DEVICES: &str = "/sys/devices";
/// All firmware of one initramfs, decompressed: a boot loader and the machine must have room for it. What drivers of
/// disks and network cards of Debian ask for is some 60 MiB.
const FIRMWARE_BYTES_MAX: u64 = 256 << 20;

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
    let (taken, firmware_absent) = firmware_of_all(asked, place, FIRMWARE_BYTES_MAX)?;
    Ok(Drivers {
        modules,
        alias,
        softdep,
        firmware: taken,
        firmware_absent,
    })
}

type Taken = (Vec<(String, Vec<u8>)>, Vec<AbsentFirmware>);

/// Firmware by its name, each with the driver that asks for it: what `place` has, and what it has not.
fn firmware_of_all(
    asked: BTreeMap<String, String>,
    place: &Path,
    limit_bytes: u64,
) -> Result<Taken, ExportError> {
    let mut left_bytes = limit_bytes;
    let (mut taken, mut absent) = (Vec::new(), Vec::new());
    for (name, module) in asked {
        let found = firmware(place, &name).map_err(ExportError::boot("choosing drivers"))?;
        let Some(bytes) = found else {
            absent.push(AbsentFirmware { name, module });
            continue;
        };
        left_bytes = left_bytes.checked_sub(bytes.len() as u64).ok_or_else(|| {
            ExportError::TooMuchFirmware {
                place: place.to_owned(),
                name: name.clone(),
                module,
                limit_mib: limit_bytes >> 20,
            }
        })?;
        taken.push((format!("lib/firmware/{name}"), bytes));
    }
    Ok((taken, absent))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn firmware_has_a_limit_in_all() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("lib/firmware");
        fs::create_dir_all(directory.join("d")).unwrap();
        for name in ["a", "b", "c"] {
            fs::write(directory.join(name), vec![0; 1 << 20]).unwrap();
        }
        let asked = |names: &[&str]| {
            let asked = names
                .iter()
                .map(|name| ((*name).to_owned(), "card".to_owned()));
            firmware_of_all(asked.collect(), root.path(), 2 << 20)
        };
        let (taken, absent) = asked(&["a", "c", "d", "none"]).unwrap();
        let names =
            |all: &[AbsentFirmware]| all.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (taken.len(), names(&absent)),
            (2, vec!["d".to_owned(), "none".to_owned()])
        );
        let error = asked(&["a", "b", "c"]).err().unwrap().to_string();
        assert!(error.contains("2 MiB") && error.contains('c'), "{error}");
    }
}
