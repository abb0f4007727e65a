//! Devices that stand on others: loop, device-mapper and RAID, taken down once nothing uses them;
//! and swap, which does.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::ioctl::{NoArg, Opcode, Updater, ioctl};
use std::os::unix::fs::OpenOptionsExt;

use super::patience::bounded;
use crate::console::say;

/// loop(4).
const LOOP_CLR_FD: Opcode = 0x4C01;
/// `_IO(MD_MAJOR, 0x32)` of linux/raid/md_u.h.
const STOP_ARRAY: Opcode = 0x0932;
/// `_IOWR(0xfd, 4, struct dm_ioctl)` of linux/dm-ioctl.h.
const DM_DEV_REMOVE: Opcode = 0xC138_FD04;
const DM_CONTROL: &str = "/dev/mapper/control";
const DM_NAME_BYTES: usize = 128;

/// `struct dm_ioctl` of linux/dm-ioctl.h, version 4.
#[repr(C)]
struct DmIoctl {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; DM_NAME_BYTES],
    uuid: [u8; 129],
    data: [u8; 7],
}

const _: () = assert!(size_of::<DmIoctl>() == 312);

/// What kind of device stands there, and what its driver needs to know.
enum Stacked {
    Loop,
    Mapped { name: String },
    Raid,
}

/// Takes down each one that nothing stands on; says whether there was any. Those that are still
/// used stay.
pub fn take_down() -> bool {
    let mut any = false;
    for (device, stacked) in found() {
        let shown = device.clone();
        match bounded(5, move || stacked.take_down(&device)) {
            Some(Ok(())) => any |= !is_there(&shown),
            Some(Err(_)) => {}
            None => say(&format!("shutdown: /dev/{shown} does not let go")),
        }
    }
    any
}

/// Names of those that still stand.
pub fn left() -> Vec<String> {
    found().into_iter().map(|(device, _)| device).collect()
}

/// Stops swapping to disks, which keeps devices and files busy.
pub fn swap_off() {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    for line in swaps.lines().skip(1) {
        let Some(path) = line.split_ascii_whitespace().next() else {
            continue;
        };
        // In memory itself: nothing is behind it.
        if path.starts_with("/dev/zram") {
            continue;
        }
        let shown = path.to_owned();
        let path = path.replace("\\040", " ");
        let off = bounded(20, move || {
            let path = std::ffi::CString::new(path).ok()?;
            // SAFETY: swapoff(2) reads a string that ends in NUL, and it lives through the call.
            let result = unsafe { libc::swapoff(path.as_ptr()) };
            Some(result == 0)
        });
        if off != Some(Some(true)) {
            say(&format!("shutdown: {shown} is still swapped to"));
        }
    }
}

fn found() -> Vec<(String, Stacked)> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.path();
        let Some(device) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let is_held =
            fs::read_dir(path.join("holders")).is_ok_and(|mut held| held.next().is_some());
        if let Some(stacked) = Stacked::of(&path).filter(|_| !is_held) {
            found.push((device, stacked));
        }
    }
    found
}

fn is_there(device: &str) -> bool {
    Stacked::of(&Path::new("/sys/block").join(device)).is_some()
}

impl Stacked {
    /// What a directory of `/sys/block` describes, if it is one and in use.
    fn of(path: &Path) -> Option<Stacked> {
        let text = |name: &str| fs::read_to_string(path.join(name)).ok();
        if text("loop/backing_file").is_some() {
            return Some(Stacked::Loop);
        }
        if let Some(name) = text("dm/name") {
            let name = name.trim_end_matches('\n').to_owned();
            return Some(Stacked::Mapped { name });
        }
        let state = text("md/array_state")?;
        (state.trim() != "clear").then_some(Stacked::Raid)
    }

    fn take_down(&self, device: &str) -> std::io::Result<()> {
        match self {
            Stacked::Loop => {
                let device = open(&format!("/dev/{device}"))?;
                // SAFETY: LOOP_CLR_FD takes no argument.
                unsafe { ioctl(&device, NoArg::<LOOP_CLR_FD>::new()) }?;
            }
            Stacked::Raid => {
                let device = open(&format!("/dev/{device}"))?;
                // SAFETY: STOP_ARRAY takes no argument.
                unsafe { ioctl(&device, NoArg::<STOP_ARRAY>::new()) }?;
            }
            Stacked::Mapped { name } => {
                let mut order = DmIoctl::remove(name)?;
                let control = open(DM_CONTROL)?;
                // SAFETY: the structure is the one of this call and says its own size, so that the
                // kernel writes within it.
                unsafe { ioctl(&control, Updater::<DM_DEV_REMOVE, DmIoctl>::new(&mut order)) }?;
            }
        }
        Ok(())
    }
}

impl DmIoctl {
    fn remove(device: &str) -> std::io::Result<DmIoctl> {
        let mut name = [0; DM_NAME_BYTES];
        match name.get_mut(..device.len()) {
            Some(place) if device.len() < DM_NAME_BYTES => place.copy_from_slice(device.as_bytes()),
            _ => return Err(std::io::Error::other("a name that is too long")),
        }
        Ok(DmIoctl {
            version: [4, 0, 0],
            data_size: size_of::<DmIoctl>() as u32,
            data_start: 0,
            target_count: 0,
            open_count: 0,
            flags: 0,
            event_nr: 0,
            padding: 0,
            dev: 0,
            name,
            uuid: [0; 129],
            data: [0; 7],
        })
    }
}

fn open(path: &str) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)
}
