//! The layer disk: read past the page cache, and unpacked into a tmpfs of its own.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use estive_archive::{Error, LAYER_DISK_BYTES, Limits, Reader};
use estive_boot::disk;
use estive_union::{Rights, Unpacked};
use rustix::fs::OFlags;
use rustix::mount::MountFlags;

use crate::devices;
use crate::failure::{Result, While, fail};
use crate::root::{LAYER, ROOT, mount, open_directory};

/// What O_DIRECT may ask for at most: the largest block size of a disk.
const ALIGNMENT: usize = 4096;
/// Most layers are smaller than the first read.
const FIRST_READ_BYTES: usize = 256 << 10;

/// Reads the layer disk of a clone and unpacks it at [`LAYER`].
pub fn unpack_disk() -> Result<Unpacked> {
    unpack(&devices::disk(disk::LAYER)?, LAYER)
}

/// Reads a layer disk and unpacks it into a tmpfs at `place`.
pub fn unpack(path: &Path, place: &str) -> Result<Unpacked> {
    let mut disk = OpenOptions::new()
        .read(true)
        // The kernel looked for partitions when it found the disk and has its start in the cache:
        // in a clone woken from a template that is the template's layer.
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(path)
        .doing(|| format!("opening the layer disk {}", path.display()))?;
    let archive = read_archive(&mut disk)?;
    mount("tmpfs", place, "tmpfs", MountFlags::empty(), "mode=0755")?;
    let tree = open_directory(place)?;
    Ok(estive_union::unpack(archive.bytes(), &tree, Rights::Root)?)
}

/// Makes the layer of a clone fit the root that it is to lie over.
pub fn settle_over_root(unpacked: &Unpacked) -> Result<()> {
    settle(unpacked, LAYER, ROOT)
}

/// Makes the layer unpacked at `layer` fit the tree at `root`.
pub fn settle(unpacked: &Unpacked, layer: &str, root: &str) -> Result<()> {
    let (layer, root) = (open_directory(layer)?, open_directory(root)?);
    Ok(estive_union::settle(unpacked, &layer, &root)?)
}

/// A buffer whose used part begins where O_DIRECT can read into it.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(capacity: usize) -> Aligned {
        let bytes = vec![0; capacity + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Aligned {
            bytes,
            start,
            length: 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }

    /// Reads on until `length` bytes are there, or the disk ends.
    fn read_to(&mut self, disk: &File, length: usize) -> std::io::Result<()> {
        while self.length < length {
            let free = &mut self.bytes[self.start + self.length..self.start + length];
            match disk.read_at(free, self.length as u64)? {
                0 => break,
                count => self.length += count,
            }
        }
        Ok(())
    }
}

/// The used part of the disk and what padding came with it: reads in growing steps until the
/// archive's end is there.
fn read_archive(disk: &mut File) -> Result<Aligned> {
    let capacity_bytes = disk
        .seek(SeekFrom::End(0))
        .doing(|| "asking the size of the layer disk".into())?;
    if capacity_bytes > LAYER_DISK_BYTES {
        return fail(format!(
            "the layer disk has {capacity_bytes} bytes, it must have at most {LAYER_DISK_BYTES}"
        ));
    }
    let capacity = capacity_bytes as usize;
    let mut buffer = Aligned::new(capacity);
    let mut wanted = FIRST_READ_BYTES.min(capacity);
    loop {
        buffer
            .read_to(disk, wanted)
            .doing(|| "reading the layer disk".into())?;
        match Reader::new(buffer.bytes(), Limits::default()).find_map(|member| member.err()) {
            None => return Ok(buffer),
            Some(Error::Truncated { .. }) if wanted < capacity => {
                wanted = (wanted * 4).min(capacity);
            }
            Some(Error::Magic { offset: 0 }) => {
                return fail(
                    "the layer disk holds no layer: it must be a newc archive from its first byte",
                );
            }
            Some(error) => return fail(format!("the layer disk: {error}")),
        }
    }
}
