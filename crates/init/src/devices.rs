//! Disks by their serial and ports by their name, as sysfs shows them.

mod named;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use estive_boot::md_end::{self, Member, TAIL_BYTES};
use estive_boot::superblock::{self, Kind, Recognised};

use rustix::ioctl;

use crate::coldplug;
use crate::console::uptime_ms;
use crate::failure::{Result, While, fail};

pub use named::find;

/// Disks and partitions.
const BLOCK_CLASS: &str = "/sys/class/block";

/// Devices come a moment after their driver; after this long they do not come.
const PATIENCE_MS: u64 = 10_000;
const POLL: Duration = Duration::from_millis(5);
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

/// What a device says that it holds, at its beginning and at its end.
pub fn recognise(node: &Path) -> Result<Option<Recognised>> {
    let reading = || format!("reading {}", node.display());
    let device = File::open(node).doing(reading)?;
    let mut head = Vec::new();
    (&device)
        .take(superblock::HEAD_BYTES)
        .read_to_end(&mut head)
        .doing(reading)?;
    let found = superblock::recognise(&head);
    // The last sectors of a burned disc may be none, and take seconds to say so.
    if found
        .as_ref()
        .is_some_and(|found| found.kind == Kind::Iso9660)
    {
        return Ok(found);
    }
    Ok(member(&device).map(|member| member.found).or(found))
}

/// What array a device belongs to, where it says so at its end. What cannot be read says nothing.
fn member(device: &File) -> Option<Member> {
    let size_bytes = { device }.seek(SeekFrom::End(0)).ok()?;
    let mut tail = vec![0; TAIL_BYTES.min(size_bytes) as usize];
    let begin = size_bytes - tail.len() as u64;
    device.read_exact_at(&mut tail, begin).ok()?;
    md_end::member(&tail, size_bytes)
}

fn recognised(node: &Path) -> Option<Recognised> {
    recognise(node).ok()?
}

/// Whether the kernel refuses to write to a device.
pub fn is_read_only(node: &Path) -> bool {
    let name = node
        .file_name()
        .map(|name| Path::new(BLOCK_CLASS).join(name));
    name.and_then(|device| attribute(&device, "ro"))
        .is_some_and(|ro| ro == "1")
}

/// `linux/fs.h`.
const BLKROSET: ioctl::Opcode = 0x125d;

/// Makes the kernel refuse to write to a device, whoever asks, or no longer. Says whether it does as asked.
pub fn set_read_only(node: &Path, is_read_only: bool) -> bool {
    let Ok(device) = File::open(node) else {
        return false;
    };
    // SAFETY: BLKROSET reads an int.
    let call = unsafe { ioctl::Setter::<BLKROSET, i32>::new(is_read_only.into()) };
    // SAFETY: as above; nothing is written back.
    unsafe { ioctl::ioctl(&device, call) }.is_ok()
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
