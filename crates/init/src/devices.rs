//! Disks by their serial and ports by their name, as sysfs shows them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use estive_boot::loaders::block::Which;
use estive_boot::partition::Partition;
use estive_boot::superblock::{self, Recognised};

use crate::coldplug;
use crate::console::{say, uptime_ms};
use crate::failure::{Result, While, fail};

/// Disks and partitions.
const BLOCK_CLASS: &str = "/sys/class/block";

/// Devices come a moment after their driver; after this long they do not come.
const PATIENCE_MS: u64 = 10_000;
const POLL: Duration = Duration::from_millis(5);
/// Whoever looks at the console is told of a longer wait.
const TELL_AFTER_MS: u64 = 1000;
/// The virtio device identifier of a console (Virtio 1.2, section 5).
const VIRTIO_CONSOLE: &str = "0x0003";

/// The device node of the disk with this serial.
pub fn disk(serial: &str) -> Result<PathBuf> {
    wait_for(|| present_disk(serial)).map_or_else(
        || {
            fail(format!(
                "no disk with the serial {serial:?} (found: {}): attach it with -device virtio-blk-pci,serial={serial}",
                list("/sys/block", "serial")
            ))
        },
        Ok,
    )
}

/// Likewise, without waiting: for a disk that need not be there, once others of its driver are.
pub fn present_disk(serial: &str) -> Option<PathBuf> {
    node_with("/sys/block", "serial", serial)
}

/// The device node of the virtio-serial port with this name.
pub fn port(name: &str) -> Result<PathBuf> {
    let found = has_virtio_console()
        .then(|| wait_for(|| present_port(name)))
        .flatten();
    found.map_or_else(
        || {
            fail(format!(
                "no virtio-serial port {name:?} (found: {}): add -device virtserialport,name={name}",
                list("/sys/class/virtio-ports", "name")
            ))
        },
        Ok,
    )
}

/// Likewise, without waiting.
pub fn present_port(name: &str) -> Option<PathBuf> {
    node_with("/sys/class/virtio-ports", "name", name)
}

/// The device node that `root=` names, waited for.
pub fn find(which: &Which, wait_s: u32) -> Result<PathBuf> {
    let deadline_ms = uptime_ms() + u64::from(wait_s) * 1000;
    let tell_ms = uptime_ms() + TELL_AFTER_MS;
    let mut has_told = false;
    let mut passed_over = PassedOver::default();
    loop {
        if let Some(found) = present(which, &mut passed_over) {
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

/// Devices that were read and are not the one; they are not read again.
type PassedOver = BTreeSet<PathBuf>;

fn present(which: &Which, passed_over: &mut PassedOver) -> Option<PathBuf> {
    if let Which::Path(path) = which {
        let is_device = fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
        return is_device.then(|| path.into());
    }
    for disk in entries(BLOCK_CLASS) {
        let Some(node) = disk.file_name().map(|name| Path::new("/dev").join(name)) else {
            continue;
        };
        // One that is not there yet, or has no medium, is looked at again.
        let has_size = attribute(&disk, "size").is_some_and(|size| size != "0");
        if !has_size || passed_over.contains(&node) || !node.exists() {
            continue;
        }
        match is(&disk, &node, which) {
            Some(true) => return Some(node),
            Some(false) => drop(passed_over.insert(node)),
            // It has only just come.
            None => {}
        }
    }
    None
}

/// Whether it is the one; `None` if it cannot be read yet.
fn is(disk: &Path, node: &Path, which: &Which) -> Option<bool> {
    let named = |name: fn(Recognised) -> Option<String>| -> Option<Option<String>> {
        Some(recognise(node).ok()?.and_then(name))
    };
    Some(match which {
        Which::Path(path) => node == Path::new(path),
        Which::Serial(serial) => serials(disk).contains(serial),
        Which::Uuid(uuid) => {
            named(|found| found.uuid)?.is_some_and(|found| found.eq_ignore_ascii_case(uuid))
        }
        Which::Label(label) => named(|found| found.label)?.as_ref() == Some(label),
        Which::PartUuid(uuid) => {
            partition(disk)?.is_some_and(|found| found.uuid.eq_ignore_ascii_case(uuid))
        }
        Which::PartLabel(label) => {
            partition(disk)?.and_then(|found| found.label).as_ref() == Some(label)
        }
    })
}

/// The devices that hold ISO 9660, as far as they are there.
pub fn with_iso_9660() -> Vec<PathBuf> {
    let nodes = entries(BLOCK_CLASS).into_iter().filter_map(|disk| {
        let has_size = attribute(&disk, "size").is_some_and(|size| size != "0");
        let node = Path::new("/dev").join(disk.file_name()?);
        (has_size && node.exists()).then_some(node)
    });
    let is_cd = |node: &PathBuf| {
        recognised(node).is_some_and(|found| found.kind.file_system() == Some("iso9660"))
    };
    nodes.filter(is_cd).collect()
}

/// What the first blocks of a device say that it holds.
pub fn recognise(node: &Path) -> Result<Option<Recognised>> {
    let reading = || format!("reading {}", node.display());
    let mut head = Vec::new();
    File::open(node)
        .doing(reading)?
        .take(superblock::HEAD_BYTES)
        .read_to_end(&mut head)
        .doing(reading)?;
    Ok(superblock::recognise(&head))
}

fn recognised(node: &Path) -> Option<Recognised> {
    recognise(node).ok()?
}

/// What the table on its disk says of a partition, if it is one; `None` if that cannot be read yet.
fn partition(partition: &Path) -> Option<Option<Partition>> {
    let Some(number) = attribute(partition, "partition") else {
        return Some(None);
    };
    // /sys/class/block/sda1 is a link to …/block/sda/sda1.
    let disk = fs::canonicalize(partition).ok()?.parent()?.to_owned();
    let block_bytes = attribute(&disk, "queue/logical_block_size")?.parse().ok()?;
    let node = File::open(Path::new("/dev").join(disk.file_name()?)).ok()?;
    let read = |at, bytes: &mut [u8]| node.read_exact_at(bytes, at);
    Partition::find(number.parse().ok()?, block_bytes, read).ok()
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

/// Whether the kernel refuses to write to a device.
pub fn is_read_only(node: &Path) -> bool {
    let name = node
        .file_name()
        .map(|name| Path::new(BLOCK_CLASS).join(name));
    name.and_then(|device| attribute(&device, "ro"))
        .is_some_and(|ro| ro == "1")
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

/// The one network interface of the clone.
pub fn interface() -> Option<String> {
    wait_for(|| interfaces().into_iter().next())
}

/// The network interfaces that are devices of the machine, as far as they are there, by name.
pub fn interfaces() -> Vec<String> {
    entries("/sys/class/net")
        .into_iter()
        .filter(|path| path.join("device").exists())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect()
}

/// Whether there may be ports.
pub fn has_virtio_console() -> bool {
    entries("/sys/bus/virtio/devices")
        .iter()
        .any(|device| attribute(device, "device").as_deref() == Some(VIRTIO_CONSOLE))
}

fn wait_for<T>(find: impl Fn() -> Option<T>) -> Option<T> {
    let deadline_ms = uptime_ms() + PATIENCE_MS;
    loop {
        let found = find();
        if found.is_some() || uptime_ms() > deadline_ms {
            return found;
        }
        coldplug::go_on();
        std::thread::sleep(POLL);
    }
}

fn node_with(class: &str, name: &str, value: &str) -> Option<PathBuf> {
    let device = entries(class)
        .into_iter()
        .find(|device| attribute(device, name).as_deref() == Some(value))?;
    let node = Path::new("/dev").join(device.file_name()?);
    node.exists().then_some(node)
}

fn list(class: &str, name: &str) -> String {
    let found: Vec<String> = entries(class)
        .iter()
        .filter_map(|device| attribute(device, name))
        .collect();
    match found.is_empty() {
        true => "none".to_owned(),
        false => found.join(", "),
    }
}

fn attribute(device: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(device.join(name)).ok()?;
    Some(text.trim().to_owned())
}

fn entries(directory: &str) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    entries.sort();
    entries
}
