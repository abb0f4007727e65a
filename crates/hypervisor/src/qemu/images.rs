//! Image files of an ordinary machine: opened once beneath the directories that are allowed, looked at, and handed to
//! QEMU as descriptors, so that no name is looked up again.

use super::directory::failed;
use crate::seam::HypervisorError;
use estive_beneath as beneath;
use estive_model::{ImageFile, ImageFormat, ImageSpec};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// The first bytes of every qcow2 (QEMU, `docs/interop/qcow2.rst`).
const QCOW2: [u8; 4] = *b"QFI\xfb";
/// Bytes of a version 3 header up to its incompatible features.
const QCOW2_HEADER_BYTES: usize = 80;
/// Incompatible feature: the data lies in a file of its own, whose name the image says.
const QCOW2_DATA_FILE: u64 = 1 << 2;

/// The open files of a machine: what QEMU is started with, and has them at the same numbers.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub kernel: Option<OwnedFd>,
    pub initrd: Option<OwnedFd>,
    pub disks: Vec<OwnedFd>,
}

impl Opened {
    /// Opens everything that `spec` names. Each must be a plain file; a qcow2 must stand by itself.
    pub(super) fn open(spec: &ImageSpec) -> Result<Self, HypervisorError> {
        let mut opened = Self::default();
        if let Some(boot) = &spec.kernel {
            opened.kernel = Some(open(&boot.kernel)?.into());
            opened.initrd = match &boot.initrd {
                Some(initrd) => Some(open(initrd)?.into()),
                None => None,
            };
        }
        for disk in &spec.disks {
            let file = open(&disk.file)?;
            if disk.format == ImageFormat::Qcow2 {
                stands_alone(&file)
                    .map_err(|source| failed(format!("taking the image {}", disk.file), source))?;
            }
            opened.disks.push(file.into());
        }
        Ok(opened)
    }

    /// All of them, for the new process to keep.
    pub(super) fn into_descriptors(self) -> Vec<OwnedFd> {
        let first = [self.kernel, self.initrd].into_iter().flatten();
        first.chain(self.disks).collect()
    }
}

/// The name by which the process that has `file` opens it anew, with the rights and flags it wants: the kernel follows
/// it to the very file, whatever stands at its path by then.
pub(super) fn own_name(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn open(image: &ImageFile) -> Result<fs::File, HypervisorError> {
    let opening = |source| failed(format!("opening the image {image}"), source);
    let file = beneath::open_top(&image.top)
        .and_then(|top| beneath::open_file(top, &image.path))
        .map_err(|error| opening(error.into()))?;
    let file = fs::File::from(file);
    match file.metadata().map_err(opening)?.is_file() {
        true => Ok(file),
        false => Err(opening(io::Error::other("it is not a plain file"))),
    }
}

/// A qcow2 may name other files, which nobody has allowed.
fn stands_alone(image: &fs::File) -> io::Result<()> {
    let mut header = [0; QCOW2_HEADER_BYTES];
    image
        .read_exact_at(&mut header, 0)
        .map_err(|_| io::Error::other("it is too short to be a qcow2"))?;
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    let version = number(0) as u32;
    if header[..4] != QCOW2 {
        return Err(io::Error::other(
            "it is no qcow2, which its description says it is",
        ));
    }
    if number(8) != 0 {
        return Err(io::Error::other(
            "it has a backing file, which is not taken: give it one whole by 'qemu-img convert -O qcow2'",
        ));
    }
    if version >= 3 && number(72) & QCOW2_DATA_FILE != 0 {
        return Err(io::Error::other(
            "its data is in another file, which is not taken: make it whole by 'qemu-img convert -O qcow2'",
        ));
    }
    Ok(())
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
}
