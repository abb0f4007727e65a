//! A root to look at: a directory, or a sealed image mounted where nobody else sees it.

use crate::failure::{Failure, failed};
use estive_beneath::open_top;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

/// Where an EROFS superblock is, and how it begins (the kernel's fs/erofs/erofs_fs.h).
const EROFS_OFFSET: u64 = 1024;
const EROFS_MAGIC: [u8; 4] = 0xE0F5_E1E2_u32.to_le_bytes();

/// An open root. The mount of an image ends with it.
pub struct OpenedRoot {
    tree: OwnedFd,
}

impl OpenedRoot {
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let none = |error: std::io::Error| {
            Failure::impossible(format!("no root at {}: {error}", path.display()))
                .advice("give --root a directory, or a sealed image")
        };
        let meta = path.metadata().map_err(none)?;
        let tree = if meta.is_dir() {
            open_top(path).map_err(|error| none(error.into()))?
        } else {
            mount_image(path)?
        };
        Ok(Self { tree })
    }

    pub fn tree(&self) -> &OwnedFd {
        &self.tree
    }
}

fn mount_image(path: &Path) -> Result<OwnedFd, Failure> {
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(EROFS_OFFSET))?;
        file.read_exact(&mut magic)
    });
    if read.is_err() || magic != EROFS_MAGIC {
        return Err(Failure::impossible(format!(
            "{} is neither a directory nor a sealed image",
            path.display()
        ))
        .advice("estive seal DIR makes an image"));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure {
            code: estive_model::ExitCode::Refused,
            ..Failure::failed(format!(
                "only root can look into the image {}",
                path.display()
            ))
        }
        .advice("as root, or with the directory that was sealed"));
    }
    let image = path.canonicalize().map_err(failed)?;
    // A thread of its own: what it mounts is in no other's view, and goes when the last descriptor
    // into it is closed.
    let mounting = std::thread::spawn(move || mount_in_own_view(&image));
    mounting
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn mount_in_own_view(image: &Path) -> Result<OwnedFd, Failure> {
    // SAFETY: only this thread's view of mounts changes; no memory or descriptor is unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(failed)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(failed)?;
    let place = tempfile::tempdir().map_err(failed)?;
    let output = Command::new("mount")
        .args(["-t", "erofs", "-o", "ro,loop"])
        .arg(image)
        .arg(place.path())
        .output()
        .map_err(|error| Failure::failed(format!("could not start mount: {error}")))?;
    if !output.status.success() {
        return Err(Failure::failed(format!(
            "could not mount {}: {}",
            image.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        ))
        .advice("give --root the directory that was sealed"));
    }
    let tree = open_top(place.path()).map_err(failed)?;
    rustix::mount::unmount(place.path(), rustix::mount::UnmountFlags::DETACH).map_err(failed)?;
    Ok(tree)
}
