//! A clone's volume that was made larger: its file system takes the room at the next boot.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use estive_boot::disk;
use rustix::fs::statvfs;
use rustix::ioctl;

use crate::console::say;
use crate::devices;
use crate::failure::{Result, While};

/// `EXT4_IOC_RESIZE_FS` of the kernel's `fs/ext4/ext4.h`: the new size, in blocks of the file system.
const EXT4_IOC_RESIZE_FS: ioctl::Opcode = ioctl::opcode::write::<u64>(b'f', 16);
/// What a file system's own tables take is not seen in its size: smaller differences are none.
const WORTH_BYTES: u64 = 16 << 20;

/// Whether a device is the clone's volume, as Estive made it.
pub fn is_volume(device: &Path) -> bool {
    devices::present_disk(disk::VOLUME).is_some_and(|volume| volume == device)
}

/// Makes the mounted ext4 as large as its device, where that has grown.
pub fn fill(device: &Path, place: &Path) -> Result<()> {
    let looking = || format!("looking at the size of {}", device.display());
    let device_bytes = File::open(device)
        .and_then(|mut node| node.seek(SeekFrom::End(0)))
        .doing(looking)?;
    let seen = statvfs(place).doing(looking)?;
    // Its tables are at most a sixteenth of it and its journal 1 GiB.
    let seen_bytes = seen.f_blocks * seen.f_frsize;
    if seen.f_frsize == 0 || device_bytes <= seen_bytes + seen_bytes / 16 + WORTH_BYTES {
        return Ok(());
    }
    let blocks = device_bytes / seen.f_frsize;
    let mounted = File::open(place).doing(looking)?;
    // SAFETY: the request reads one u64, which is given.
    let done = unsafe {
        let resize = ioctl::Setter::<EXT4_IOC_RESIZE_FS, u64>::new(blocks);
        ioctl::ioctl(&mounted, resize)
    };
    // It is no smaller than it was: the clone starts all the same.
    if let Err(errno) = done {
        say(&format!(
            "the file system of {} was not grown to its {} MiB ({errno}): resize2fs does it",
            device.display(),
            device_bytes >> 20
        ));
    }
    Ok(())
}
