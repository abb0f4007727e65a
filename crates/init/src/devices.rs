//! Disks by their serial and ports by their name, as sysfs shows them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::console::uptime_ms;
use crate::failure::{Result, fail};

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
        .then(|| wait_for(|| node_with("/sys/class/virtio-ports", "name", name)))
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

/// The one network interface of the clone.
pub fn interface() -> Option<String> {
    wait_for(|| {
        entries("/sys/class/net")
            .into_iter()
            .filter(|path| path.join("device").exists())
            .find_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
    })
}

fn has_virtio_console() -> bool {
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
