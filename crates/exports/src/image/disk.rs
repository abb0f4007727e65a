//! A disk that machines start from, under BIOS and UEFI: one file, to be written on a stick or a disk as it is.
//!
//! `grub-mkrescue` makes it: an ISO 9660 image with GRUB for both kinds of firmware, a boot record and partitions, so
//! that a CD drive takes it too. Secure Boot does not: nothing in it is signed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use estive_boot::boot_loader::{self, INITRAMFS, KERNEL};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};

use super::directory::hex;
use super::{Start, WrittenFile};
use crate::ExportError;

/// The name of the volume, by which we know what we have made.
const VOLUME: &str = "ESTIVE";
/// Where ISO 9660 keeps the name: in the first volume descriptor, in sector 16.
const VOLUME_OFFSET_BYTES: u64 = 16 * 2048 + 40;

const MAKER: &str = "grub-mkrescue";
/// Programs that are run, and the package that has each.
const PROGRAMS: [(&str, &str); 3] = [
    (MAKER, "grub-common"),
    ("xorriso", "xorriso"),
    ("mformat", "mtools"),
];
/// GRUB for each kind of firmware, and the package that has it.
const PLATFORMS: [(&str, &str); 2] = [
    ("i386-pc", "grub-pc-bin"),
    ("x86_64-efi", "grub-efi-amd64-bin"),
];
const GRUB: &str = "/usr/lib/grub";
const HASH_BYTES: usize = 1 << 20;

/// Writes `out`; an image that was made so before is replaced in one step, anything else is refused.
pub fn write(start: &Start, out: &Path) -> Result<WrittenFile, ExportError> {
    let replaces = is_replaceable(out)?;
    are_there(&search_path(), Path::new(GRUB))?;
    let parent = match out.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let aside = tempfile::Builder::new()
        .prefix(".estive-disk-")
        .tempdir_in(parent)
        .map_err(ExportError::io("making a directory in", parent))?;
    let tree = aside.path().join("tree");
    fill(start, &tree)?;
    let image = aside.path().join("image");
    let line = [
        "-o".as_ref(),
        image.as_os_str(),
        "--fonts=".as_ref(),
        "--locales=".as_ref(),
        "--themes=".as_ref(),
        tree.as_os_str(),
        "--".as_ref(),
        "-volid".as_ref(),
        VOLUME.as_ref(),
    ];
    let output = Command::new(MAKER)
        .args(line)
        .output()
        .map_err(ExportError::io("running grub-mkrescue for", out))?;
    if !output.status.success() {
        return Err(ExportError::DiskFailed {
            out: out.to_owned(),
            status: output.status.to_string(),
            output: last_lines(&output.stderr),
        });
    }
    let written = measure(&image, out).map_err(ExportError::io("reading", &image))?;
    let flags = match replaces {
        true => RenameFlags::empty(),
        false => RenameFlags::NOREPLACE,
    };
    renameat_with(CWD, &image, CWD, out, flags)
        .map_err(io::Error::from)
        .and_then(|()| File::open(parent)?.sync_all())
        .map_err(ExportError::io("putting in its place", out))?;
    aside
        .close()
        .map_err(ExportError::io("removing what was made beside", out))?;
    Ok(written)
}

/// Whether an image of ours is there. A device is never written: that is for whoever knows which disk it is.
fn is_replaceable(out: &Path) -> Result<bool, ExportError> {
    let refuse = |what: &str| {
        Err(ExportError::InTheWay {
            path: out.to_owned(),
            what: what.to_owned(),
        })
    };
    let status = match out.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(ExportError::io("looking at", out))?,
    };
    if !status.is_file() {
        return refuse("is no plain file (write the image to a disk with dd, when it is made)");
    }
    let volume = || {
        let mut file = File::open(out)?;
        file.seek(SeekFrom::Start(VOLUME_OFFSET_BYTES))?;
        let mut name = [0; 32];
        file.read_exact(&mut name)?;
        Ok::<_, io::Error>(name)
    };
    match volume() {
        Ok(name) if name.trim_ascii_end() == VOLUME.as_bytes() => Ok(true),
        _ => refuse("is no disk of estive image"),
    }
}

fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Administrators' programs are not in everybody's path.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).collect()
}

/// Fails with the package of the first thing that is not there.
fn are_there(path: &[PathBuf], grub: &Path) -> Result<(), ExportError> {
    for (program, package) in PROGRAMS {
        if !path
            .iter()
            .any(|directory| directory.join(program).is_file())
        {
            return Err(ExportError::ProgramMissing { program, package });
        }
    }
    for (platform, package) in PLATFORMS {
        if !grub.join(platform).is_dir() {
            return Err(ExportError::ProgramMissing {
                program: platform,
                package,
            });
        }
    }
    Ok(())
}

fn fill(start: &Start, tree: &Path) -> Result<(), ExportError> {
    let boot = tree.join("boot");
    let write = || {
        fs::create_dir_all(boot.join("grub"))?;
        fs::copy(&start.kernel, boot.join(KERNEL))?;
        fs::write(boot.join(INITRAMFS), &start.initramfs)?;
        let configuration = boot_loader::grub(&start.command_line);
        fs::write(boot.join("grub/grub.cfg"), configuration)
    };
    write().map_err(ExportError::io("writing", &boot))
}

/// The image's size and digest; on disk when this returns.
fn measure(image: &Path, out: &Path) -> io::Result<WrittenFile> {
    let mut file = File::open(image)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; HASH_BYTES];
    let mut size_bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => {
                digest.update(&buffer[..count]);
                size_bytes += count as u64;
            }
        }
    }
    file.sync_all()?;
    Ok(WrittenFile {
        name: out.display().to_string(),
        size_bytes,
        sha256: hex(&digest.finalize()),
    })
}

fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(4)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_named_with_its_package() {
        let place = tempfile::tempdir().unwrap();
        let (bin, grub) = (place.path().join("bin"), place.path().join("grub"));
        let things = PROGRAMS.map(|(name, package)| (bin.join(name), package));
        let platforms = PLATFORMS.map(|(name, package)| (grub.join(name), package));
        fs::create_dir(&bin).unwrap();
        let path = [bin];
        for (thing, package) in things.into_iter() {
            let said = are_there(&path, &grub).unwrap_err().to_string();
            assert!(said.contains(&format!("install {package}")), "{said}");
            fs::write(thing, "").unwrap();
        }
        for (thing, package) in platforms {
            let said = are_there(&path, &grub).unwrap_err().to_string();
            assert!(said.contains(&format!("install {package}")), "{said}");
            fs::create_dir_all(thing).unwrap();
        }
        are_there(&path, &grub).unwrap();
    }

    #[test]
    fn only_images_of_ours_are_replaced() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("disk");
        assert!(!is_replaceable(&out).unwrap());
        fs::write(&out, "mine").unwrap();
        assert!(is_replaceable(&out).is_err());
        let mut image = vec![b' '; VOLUME_OFFSET_BYTES as usize + 32];
        image[VOLUME_OFFSET_BYTES as usize..][..VOLUME.len()].copy_from_slice(VOLUME.as_bytes());
        fs::write(&out, image).unwrap();
        assert!(is_replaceable(&out).unwrap());
        assert!(is_replaceable(place.path()).is_err());
        assert!(is_replaceable(Path::new("/dev/null")).is_err());
    }
}
