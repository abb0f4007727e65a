//! Image files as they lie there: opened beneath what is allowed, their headers looked at, and told apart.

use crate::seam::HypervisorError;
use estive_beneath as beneath;
use estive_model::{ImageDisk, ImageFile, ImageFormat};
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

/// The first bytes of every qcow2 (QEMU, `docs/interop/qcow2.rst`).
const QCOW2: [u8; 4] = *b"QFI\xfb";
/// Bytes of a version 3 header up to and with its autoclear features.
const QCOW2_HEADER_BYTES: usize = 96;
/// Bytes of a version 2 header.
const QCOW2_SHORT_BYTES: usize = 72;
/// Incompatible feature: the data lies in a file of its own, whose name the image says.
const QCOW2_DATA_FILE: u64 = 1 << 2;

/// Which file it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Of an open file.
    pub fn of(file: &fs::File) -> io::Result<Self> {
        file.metadata().map(|meta| Self::from(&meta))
    }
}

impl From<&fs::Metadata> for FileId {
    fn from(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
        }
    }
}

/// What an instance has of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grip {
    /// It does not have it.
    None,
    /// It has it open, and does not mind who else writes to it: its disks are not taken over yet, or given away.
    Open,
    /// It keeps every other QEMU from writing to it.
    Locked,
}

/// Opens a disk's image. A qcow2 must stand by itself.
pub(crate) fn open_disk(disk: &ImageDisk) -> Result<fs::File, HypervisorError> {
    let file = open(&disk.file)?;
    if disk.format == ImageFormat::Qcow2 {
        stands_alone(&file).map_err(|source| HypervisorError::Io {
            doing: format!("taking the image {}", disk.file),
            source,
        })?;
    }
    Ok(file)
}

/// Through no link; a plain file.
pub(crate) fn open(image: &ImageFile) -> Result<fs::File, HypervisorError> {
    let opening = |source| HypervisorError::Io {
        doing: format!("opening the image {image}"),
        source,
    };
    let file = beneath::open_top(&image.top)
        .and_then(|top| beneath::open_file(top, &image.path))
        .map_err(|error| opening(error.into()))?;
    let file = fs::File::from(file);
    match file.metadata().map_err(opening)?.is_file() {
        true => Ok(file),
        false => Err(opening(io::Error::other("it is not a plain file"))),
    }
}

/// What decides whether a qcow2 is taken.
struct Header {
    has_backing: bool,
    has_data_file: bool,
    has_autoclear: bool,
}

fn header(image: &fs::File) -> io::Result<Header> {
    let mut header = [0; QCOW2_HEADER_BYTES];
    let mut have = 0;
    while have < header.len() {
        match image.read_at(&mut header[have..], have as u64)? {
            0 => break,
            more => have += more,
        }
    }
    if have < QCOW2_SHORT_BYTES {
        return Err(io::Error::other("it is too short to be a qcow2"));
    }
    if header[..4] != QCOW2 {
        return Err(io::Error::other(
            "it is no qcow2, which its description says it is",
        ));
    }
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    let version = number(0) as u32;
    if !matches!(version, 2 | 3) {
        return Err(io::Error::other(format!(
            "it is a qcow2 of version {version}; only 2 and 3 are known"
        )));
    }
    let is_long = version == 3;
    if is_long && have < QCOW2_HEADER_BYTES {
        return Err(io::Error::other("it is too short to be a qcow2"));
    }
    Ok(Header {
        has_backing: number(8) != 0,
        has_data_file: is_long && number(72) & QCOW2_DATA_FILE != 0,
        has_autoclear: is_long && number(88) != 0,
    })
}

/// A qcow2 may name other files, which nobody has allowed.
fn stands_alone(image: &fs::File) -> io::Result<()> {
    let header = header(image)?;
    if header.has_backing {
        return Err(io::Error::other(
            "it has a backing file, which is not taken: give it one whole by 'qemu-img convert -O qcow2'",
        ));
    }
    if header.has_data_file {
        return Err(io::Error::other(
            "its data is in another file, which is not taken: make it whole by 'qemu-img convert -O qcow2'",
        ));
    }
    Ok(())
}

/// Whether QEMU writes to a qcow2 as soon as it opens it, before any guest does: it has bitmaps, or other things that are
/// to be cleared by who does not know them.
pub fn is_written_when_opened(format: ImageFormat, image: &fs::File) -> io::Result<bool> {
    match format {
        ImageFormat::Raw => Ok(false),
        ImageFormat::Qcow2 => header(image).map(|header| header.has_autoclear),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(top: &std::path::Path, path: &str) -> ImageFile {
        ImageFile {
            top: top.to_owned(),
            path: path.into(),
        }
    }

    #[test]
    fn what_is_opened_is_a_plain_file_beneath_through_no_link() {
        let home = tempfile::tempdir().unwrap();
        let top = home.path().join("images");
        fs::create_dir_all(top.join("a,b/c")).unwrap();
        fs::write(home.path().join("outside"), "secret").unwrap();
        fs::write(top.join("a,b/disk"), "x").unwrap();
        std::os::unix::fs::symlink("a,b/disk", top.join("link")).unwrap();
        std::os::unix::fs::symlink("a,b", top.join("way")).unwrap();
        std::os::unix::fs::symlink("../outside", top.join("out")).unwrap();
        open(&image(&top, "a,b/disk")).unwrap();
        for path in [
            "link",
            "way/disk",
            "out",
            "../outside",
            "a,b/../../outside",
            "a,b/c",
            "none",
            "",
        ] {
            let error = open(&image(&top, path)).unwrap_err();
            assert!(error.to_string().contains("opening the image"), "{path}");
        }
    }

    #[test]
    fn a_qcow2_that_names_other_files_is_refused() {
        let mut header = [0_u8; 104];
        header[..4].copy_from_slice(&QCOW2);
        header[7] = 3;
        let verdict = |header: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(header, 0).unwrap();
            stands_alone(&file).map_err(|error| error.to_string())
        };
        verdict(&header).unwrap();
        let old = |version: u8| {
            let mut old = header;
            old[7] = version;
            verdict(&old[..72])
        };
        old(2).unwrap();
        assert!(old(3).unwrap_err().contains("too short"));
        assert!(old(1).unwrap_err().contains("version 1"));
        let with = |at: usize, byte: u8| {
            let mut other = header;
            other[at] = byte;
            verdict(&other).unwrap_err()
        };
        assert!(with(14, 1).contains("backing file"));
        assert!(with(79, 4).contains("another file"));
        assert!(with(0, 0).contains("no qcow2"));
        assert!(verdict(&header[..40]).unwrap_err().contains("too short"));
    }

    #[test]
    fn bitmaps_are_seen() {
        let file = tempfile::tempfile().unwrap();
        let mut header = [0_u8; 104];
        header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        for (byte, written) in [(0, false), (1, true)] {
            header[95] = byte;
            file.write_all_at(&header, 0).unwrap();
            assert_eq!(
                is_written_when_opened(ImageFormat::Qcow2, &file).unwrap(),
                written
            );
            assert!(!is_written_when_opened(ImageFormat::Raw, &file).unwrap());
        }
    }
}
