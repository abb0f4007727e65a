//! The device that `root=` names, by whatever name it has.
//!
//! A name that two devices have is nobody's: which of them comes first hangs on the weather, and the one that was not
//! meant would be written to. Half of a mirror has the name of the whole, and is passed over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use estive_boot::loaders::block::Which;
use estive_boot::partition::Partition;
use estive_boot::superblock::Recognised;

use super::{BLOCK_CLASS, POLL, attribute, entries, member, recognise, recognised};
use crate::coldplug;
use crate::console::{say, uptime_ms};
use crate::failure::{Result, fail};

/// Whoever looks at the console is told of a longer wait.
const TELL_AFTER_MS: u64 = 1000;
const NODES: &str = "/dev";
/// Of the numbers that sysfs has of a partition.
const SECTOR_BYTES: u64 = 512;

/// The device node that `root=` names, waited for.
pub fn find(which: &Which, wait_s: u32) -> Result<PathBuf> {
    let deadline_ms = uptime_ms() + u64::from(wait_s) * 1000;
    let tell_ms = uptime_ms() + TELL_AFTER_MS;
    let mut has_told = false;
    let mut search = Search::new(which, BLOCK_CLASS, NODES);
    loop {
        if let Some(found) = search.present()? {
            return Ok(found);
        }
        if !has_told && uptime_ms() >= tell_ms {
            say(&format!("waiting for {which}"));
            has_told = true;
        }
        if uptime_ms() >= deadline_ms {
            return fail(format!(
                "no device {which} within {wait_s} s (found: {}): is its driver in the initramfs, and the name right? {}= waits longer",
                shown_disks(),
                estive_boot::WAIT_WORD
            ));
        }
        coldplug::go_on();
        std::thread::sleep(POLL);
    }
}

/// One name, and what was found out so far.
struct Search<'a> {
    which: &'a Which,
    /// `/sys/class/block` and `/dev`.
    class: &'a str,
    nodes: &'a Path,
    /// Devices that were read, and whether each is one that has the name; they are not read again.
    known: BTreeMap<PathBuf, bool>,
}

impl<'a> Search<'a> {
    fn new(which: &'a Which, class: &'a str, nodes: &'a str) -> Search<'a> {
        Search {
            which,
            class,
            nodes: Path::new(nodes),
            known: BTreeMap::new(),
        }
    }

    /// The device, if it is there now.
    fn present(&mut self) -> Result<Option<PathBuf>> {
        if let Which::Path(path) = self.which {
            let is_device =
                fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
            return Ok(is_device.then(|| path.into()));
        }
        let mut found = Vec::new();
        for disk in entries(self.class) {
            let Some(node) = disk.file_name().map(|name| self.nodes.join(name)) else {
                continue;
            };
            // One that is not there yet, or has no medium, is looked at again.
            if !has_medium(&disk) || !node.exists() {
                continue;
            }
            let is_it = match self.known.get(&node) {
                Some(known) => *known,
                None => match self.is(&disk, &node) {
                    Some(is_it) => {
                        self.known.insert(node.clone(), is_it);
                        is_it
                    }
                    // It has only just come.
                    None => false,
                },
            };
            if is_it {
                found.push((disk, node));
            }
        }
        let wholes = found
            .iter()
            .filter(|(disk, _)| !found.iter().any(|(other, _)| is_part(disk, other)));
        let nodes: Vec<&PathBuf> = wholes.map(|(_, node)| node).collect();
        match nodes[..] {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            _ => {
                let names: Vec<String> = nodes
                    .iter()
                    .map(|node| match recognised(node) {
                        Some(found) => format!("{} {found}", node.display()),
                        None => node.display().to_string(),
                    })
                    .collect();
                fail(format!(
                    "{} devices are {}: {}: say which by a name that one alone has, as /dev/…, serial= or PARTUUID=, or take the other away",
                    nodes.len(),
                    self.which,
                    names.join(", ")
                ))
            }
        }
    }

    /// Whether it has the name; `None` if it cannot be read yet.
    fn is(&self, disk: &Path, node: &Path) -> Option<bool> {
        let named = |name: fn(Recognised) -> Option<String>| -> Option<Option<String>> {
            Some(recognise(node).ok()?.and_then(name))
        };
        let is_it = match self.which {
            Which::Path(path) => node == Path::new(path),
            Which::Serial(serial) => serials(disk).contains(serial),
            Which::Uuid(uuid) => {
                named(|found| found.uuid)?.is_some_and(|found| found.eq_ignore_ascii_case(uuid))
            }
            Which::Label(label) => named(|found| found.label)?.as_ref() == Some(label),
            Which::PartUuid(uuid) => self
                .partition(disk)?
                .is_some_and(|found| found.uuid.eq_ignore_ascii_case(uuid)),
            Which::PartLabel(label) => {
                self.partition(disk)?.and_then(|found| found.label).as_ref() == Some(label)
            }
        };
        Some(is_it && !self.is_part_of_member(disk))
    }

    /// What the table on its disk says of a partition, if it is one; `None` if that cannot be read yet.
    fn partition(&self, partition: &Path) -> Option<Option<Partition>> {
        let Some(number) = attribute(partition, "partition") else {
            return Some(None);
        };
        let disk = whole(partition)?;
        let block_bytes = attribute(&disk, "queue/logical_block_size")?.parse().ok()?;
        let node = File::open(self.nodes.join(disk.file_name()?)).ok()?;
        let read = |at, bytes: &mut [u8]| node.read_exact_at(bytes, at);
        Partition::find(number.parse().ok()?, block_bytes, read).ok()
    }

    /// Whether it is a partition of a disk that belongs to an array: the array has the same partition.
    fn is_part_of_member(&self, partition: &Path) -> bool {
        let member = || {
            attribute(partition, "partition")?;
            let disk = whole(partition)?;
            let node = File::open(self.nodes.join(disk.file_name()?)).ok()?;
            let member = member(&node)?;
            let is_disks = member.is_certain || !is_in_partition(&disk, member.at_byte);
            is_disks.then_some(())
        };
        member().is_some()
    }
}

fn has_medium(disk: &Path) -> bool {
    attribute(disk, "size").is_some_and(|size| size != "0")
}

/// The disk of a partition: /sys/class/block/sda1 is a link to …/block/sda/sda1.
fn whole(partition: &Path) -> Option<PathBuf> {
    Some(fs::canonicalize(partition).ok()?.parent()?.to_owned())
}

/// Whether a byte of a disk belongs to one of its partitions.
fn is_in_partition(disk: &Path, at_byte: u64) -> bool {
    let number = |entry: &Path, name: &str| attribute(entry, name)?.parse::<u64>().ok();
    entries(&disk.to_string_lossy()).iter().any(|entry| {
        let range = || {
            number(entry, "partition")?;
            let start = number(entry, "start")?;
            Some(start..start.checked_add(number(entry, "size")?)?)
        };
        range().is_some_and(|range| range.contains(&(at_byte / SECTOR_BYTES)))
    })
}

/// Whether a device only shows what the other one holds: a partition at the start of its disk (as on sticks made from
/// an ISO image), or what another device stands on.
fn is_part(device: &Path, other: &Path) -> bool {
    let is_partition = attribute(device, "partition").is_some()
        && whole(device)
            .is_some_and(|disk| fs::canonicalize(other).is_ok_and(|other| other == disk));
    let holders = other
        .file_name()
        .map(|name| device.join("holders").join(name));
    is_partition || holders.is_some_and(|holder| holder.exists())
}

fn serials(disk: &Path) -> Vec<String> {
    let written = ["serial", "device/serial"];
    let mut found: Vec<String> = written
        .iter()
        .filter_map(|name| attribute(disk, name))
        .collect();
    // Of a SCSI disk: page 0x80 of its vital product data, behind four bytes of its own.
    if let Ok(page) = fs::read(disk.join("device/vpd_pg80")) {
        let serial = page.get(4..).map(String::from_utf8_lossy);
        found.extend(serial.map(|serial| serial.trim().to_owned()));
    }
    found
}

/// Every disk with something in it, and what that is.
fn shown_disks() -> String {
    let mut shown = Vec::new();
    for disk in entries(BLOCK_CLASS) {
        let Some(name) = disk
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
        else {
            continue;
        };
        if attribute(&disk, "size").is_none_or(|size| size == "0") {
            continue;
        }
        let node = Path::new("/dev").join(&name);
        shown.push(match recognised(&node) {
            Some(found) => format!("{name} {found}"),
            None => name,
        });
    }
    match shown.is_empty() {
        true => "none".to_owned(),
        false => shown.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine's block devices, as files.
    struct Machine {
        directory: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Machine {
            let directory = tempfile::tempdir().unwrap();
            for name in ["class", "devices", "dev"] {
                fs::create_dir(directory.path().join(name)).unwrap();
            }
            Machine { directory }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        /// A device below `devices`, with what it holds.
        fn has(&self, place: &str, attributes: &[(&str, u64)], bytes: &[u8]) -> &Machine {
            let sysfs = self.path("devices").join(place);
            fs::create_dir_all(&sysfs).unwrap();
            let name = sysfs.file_name().unwrap();
            std::os::unix::fs::symlink(&sysfs, self.path("class").join(name)).unwrap();
            let sectors = bytes.len() as u64 / SECTOR_BYTES;
            for (name, value) in attributes.iter().chain(&[("size", sectors)]) {
                fs::write(sysfs.join(name), format!("{value}\n")).unwrap();
            }
            fs::write(self.path("dev").join(name), bytes).unwrap();
            self
        }

        fn finds(&self, label: &str) -> std::result::Result<Option<String>, String> {
            let which = Which::Label(label.into());
            let (class, nodes) = (self.path("class"), self.path("dev"));
            let (class, nodes) = (class.to_str().unwrap(), nodes.to_str().unwrap());
            let found = Search::new(&which, class, nodes).present();
            let name = |node: PathBuf| node.file_name().unwrap().to_string_lossy().into_owned();
            found
                .map(|node| node.map(name))
                .map_err(|failure| failure.0)
        }
    }

    const SIZE_BYTES: usize = 1 << 20;

    /// An ext4's head with this label.
    fn ext4(label: &str) -> Vec<u8> {
        let mut bytes = vec![0; SIZE_BYTES];
        bytes[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
        bytes[0x478..0x478 + label.len()].copy_from_slice(label.as_bytes());
        bytes
    }

    /// Marks it as half of an array, with metadata of these versions.
    fn half(mut bytes: Vec<u8>, is_1_0: bool) -> Vec<u8> {
        let at = match is_1_0 {
            true => bytes.len() - 8192,
            false => bytes.len() - (64 << 10),
        };
        let mut word = |index: usize, value: u32| {
            bytes[at + index * 4..][..4].copy_from_slice(&value.to_le_bytes());
        };
        word(0, 0xa92b_4efc);
        match is_1_0 {
            true => [(1, 1), (36, (at / 512) as u32)].map(|(index, value)| word(index, value)),
            false => [(1, 0), (2, 90)].map(|(index, value)| word(index, value)),
        };
        bytes
    }

    #[test]
    fn half_of_a_mirror_is_not_the_disk_that_is_named() {
        let machine = Machine::new();
        machine.has("vda", &[], &half(ext4("root"), true)).has(
            "vdb",
            &[],
            &half(ext4("root"), false),
        );
        assert_eq!(machine.finds("root"), Ok(None));
        // The array, once somebody has started it.
        machine.has("md0", &[], &ext4("root"));
        assert_eq!(machine.finds("root"), Ok(Some("md0".into())));
    }

    #[test]
    fn a_partition_of_half_a_mirror_is_passed_over_and_half_a_mirror_in_a_partition_hides_no_other()
    {
        let machine = Machine::new();
        let one = ("partition", 1);
        machine
            .has("vda", &[], &half(vec![0; SIZE_BYTES], true))
            .has("vda/vda1", &[one, ("start", 64)], &ext4("root"))
            .has("vdb", &[], &half(vec![0; SIZE_BYTES], false))
            .has(
                "vdb/vdb1",
                &[one, ("start", 0)],
                &ext4("whole")[..SIZE_BYTES / 2],
            );
        assert_eq!(machine.finds("root"), Ok(None));
        assert_eq!(machine.finds("whole"), Ok(None));
        // Here the end is that of the second partition.
        let second = [("partition", 2), ("start", SIZE_BYTES as u64 / 1024)];
        machine.has("vdb/vdb2", &second, &vec![0; SIZE_BYTES / 2]);
        assert_eq!(machine.finds("whole"), Ok(Some("vdb1".into())));
    }

    #[test]
    fn a_name_of_two_is_refused_and_both_are_named() {
        let machine = Machine::new();
        machine
            .has("vda", &[], &ext4("root"))
            .has("vdb", &[], &ext4("root"))
            .has("vdc", &[], &ext4("other"));
        let error = machine.finds("root").unwrap_err();
        assert!(error.starts_with("2 devices are LABEL=root: "), "{error}");
        assert!(error.contains("vda ext4 LABEL=root, "), "{error}");
        assert!(error.contains("vdb ext4 LABEL=root: say which"), "{error}");
        assert_eq!(machine.finds("other"), Ok(Some("vdc".into())));
    }

    #[test]
    fn what_one_device_shows_of_another_is_no_second() {
        let machine = Machine::new();
        machine
            .has("sda", &[], &ext4("stick"))
            .has(
                "sda/sda1",
                &[("partition", 1), ("start", 0)],
                &ext4("stick"),
            )
            .has("vda", &[], &ext4("path"))
            .has("dm-0", &[], &ext4("path"));
        fs::create_dir_all(machine.path("devices/vda/holders/dm-0")).unwrap();
        assert_eq!(machine.finds("stick"), Ok(Some("sda".into())));
        assert_eq!(machine.finds("path"), Ok(Some("dm-0".into())));
    }
}
