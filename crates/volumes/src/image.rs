//! Images, by `qemu-img` and `mkfs.ext4`: made with an empty file system, checked after a crash, taken back to a snapshot.

use crate::error::VolumeError;
use crate::record::sync_directory;
use estive_api::wire::SnapshotName;
use estive_model::DomainName;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Output, Stdio};
use tokio::process::Command;

pub(crate) const IMAGE: &str = "disk.qcow2";
const BLANK: &str = "blank.raw";
const UTILS: &str = "qemu-utils";

/// Makes the image in `directory`: qcow2 over an ext4 that takes a few MiB whatever its size. Durable when it returns.
pub(crate) async fn make(directory: &Path, size_bytes: u64) -> Result<(), VolumeError> {
    let blank = directory.join(BLANK);
    File::create(&blank)
        .and_then(|file| file.set_len(size_bytes))
        .map_err(VolumeError::io("make", &blank))?;
    // What was never written reads as zeros: nothing need be written for that, here or by the guest's kernel.
    let options = "lazy_itable_init=0,assume_storage_prezeroed=1,nodiscard";
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F", "-m", "1", "-L", "estive-volume", "-E", options])
        .arg(BLANK);
    done(mkfs, directory, "mkfs.ext4", "e2fsprogs").await?;
    let mut convert = Command::new("qemu-img");
    convert
        .args(["convert", "-q", "-f", "raw", "-O", "qcow2"])
        .args(["-o", "compat=v3,lazy_refcounts=off"])
        .args([BLANK, IMAGE]);
    done(convert, directory, "qemu-img", UTILS).await?;
    fs::remove_file(&blank).map_err(VolumeError::io("remove", &blank))?;
    let image = directory.join(IMAGE);
    File::open(&image)
        .and_then(|file| file.sync_all())
        .and_then(|()| sync_directory(directory))
        .map_err(VolumeError::io("write", &image))
}

/// Looks whether a crash has left the image sound. Clusters that it lost are given back; anything worse is an error.
pub(crate) async fn check(name: &DomainName, directory: &Path) -> Result<(), VolumeError> {
    let mut check = Command::new("qemu-img");
    check.args(["check", "-q", "-f", "qcow2", "-r", "leaks", IMAGE]);
    let output = output(check, directory, "qemu-img").await?;
    if output.status.success() {
        return Ok(());
    }
    let detail = words(&output);
    match output.status.code() {
        // 3: lost clusters are left. They waste room, nothing else.
        Some(3) => Ok(()),
        Some(2) => Err(VolumeError::Damaged {
            name: name.clone(),
            detail,
        }),
        _ => Err(VolumeError::Program {
            program: "qemu-img",
            package: UTILS,
            detail,
        }),
    }
}

/// Takes the image, which nobody has open, back to a snapshot.
pub(crate) async fn restore(directory: &Path, snapshot: &SnapshotName) -> Result<(), VolumeError> {
    let mut apply = Command::new("qemu-img");
    apply.args(["snapshot", "-q", "-a", snapshot.as_str(), IMAGE]);
    // It goes on to its end though nobody waits for it any more.
    done_with(apply, directory, "qemu-img", UTILS, false).await
}

/// Its size as the guest sees it, of an image that nobody has open.
pub(crate) async fn size_bytes(directory: &Path) -> Result<u64, VolumeError> {
    let mut info = Command::new("qemu-img");
    info.args(["info", "-f", "qcow2", "--output", "json", IMAGE]);
    let output = output(info, directory, "qemu-img").await?;
    let said: Option<serde_json::Value> = serde_json::from_slice(&output.stdout).ok();
    said.and_then(|said| said.get("virtual-size")?.as_u64())
        .ok_or_else(|| VolumeError::Program {
            program: "qemu-img",
            package: UTILS,
            detail: words(&output),
        })
}

/// What it takes on this host.
pub(crate) fn used_bytes(directory: &Path) -> u64 {
    fs::metadata(directory.join(IMAGE)).map_or(0, |file| file.blocks() * 512)
}

async fn done(
    command: Command,
    directory: &Path,
    program: &'static str,
    package: &'static str,
) -> Result<(), VolumeError> {
    done_with(command, directory, program, package, true).await
}

async fn done_with(
    mut command: Command,
    directory: &Path,
    program: &'static str,
    package: &'static str,
    ends_with_us: bool,
) -> Result<(), VolumeError> {
    command.kill_on_drop(ends_with_us);
    let output = output(command, directory, program).await?;
    match output.status.success() {
        true => Ok(()),
        false => Err(VolumeError::Program {
            program,
            package,
            detail: words(&output),
        }),
    }
}

async fn output(
    mut command: Command,
    directory: &Path,
    program: &'static str,
) -> Result<Output, VolumeError> {
    command
        .current_dir(directory)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| VolumeError::Program {
            program,
            package: if program == "qemu-img" {
                UTILS
            } else {
                "e2fsprogs"
            },
            detail: error.to_string(),
        })
}

fn words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(600).collect();
    match said.is_empty() {
        true => output.status.to_string(),
        false => said.replace('\n', "; "),
    }
}
