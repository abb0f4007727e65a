//! The file system in an image, made by the root's own `mkfs.ext4`, run in that root.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::process::{chdir, chroot};

use crate::failure::{Result, While, fail};
use crate::loaders::Context;
use crate::programs::bounded;
use crate::union::stack;

/// Where a root has its programs for file systems.
const MKFS: [&str; 4] = [
    "/usr/sbin/mkfs.ext4",
    "/sbin/mkfs.ext4",
    "/usr/bin/mkfs.ext4",
    "/bin/mkfs.ext4",
];
/// It writes a few MiB, to a server that may be slow.
const BOUND_MS: u64 = 300_000;
const ADVICE: &str = "install e2fsprogs in it, or make .estive/upper.img on the server: truncate -s 8G upper.img; mkfs.ext4 upper.img";

/// Makes an ext4 of the whole file, by the root as it is below us.
pub fn make(image: &File, context: &mut Context) -> Result<()> {
    let root = context.place()?;
    stack::join_read_only(context.layers, &root)?;
    let made = run_mkfs(&root, image);
    unmount(&root, UnmountFlags::DETACH).doing(|| format!("unmounting {}", root.display()))?;
    made
}

fn run_mkfs(root: &Path, image: &File) -> Result<()> {
    let present =
        |path: &&&str| fs::symlink_metadata(root.join(path.trim_start_matches('/'))).is_ok();
    let Some(mkfs) = MKFS.iter().find(present) else {
        return fail(format!(
            "the root has no mkfs.ext4, which makes the place to write on the NFS server: {ADVICE}"
        ));
    };
    // The image is in no directory that the root sees: mkfs opens it as a descriptor of its own.
    let proc = root.join("proc");
    mount_bind("/proc", &proc).doing(|| "giving /proc to mkfs.ext4 of the root".into())?;
    let mut command = Command::new(mkfs);
    command
        .args(["-q", "-F", "-m", "0", "-L", "estive-upper", "-E"])
        .arg("lazy_itable_init=1,lazy_journal_init=1,nodiscard")
        .env_clear();
    let image = image.try_clone();
    let image = image.doing(|| "giving the image to mkfs.ext4 of the root".into())?;
    command.arg(format!("/proc/self/fd/{}", image.as_raw_fd()));
    let inside = root.to_owned();
    // SAFETY: between fork and exec only system calls are made, with what was allocated before.
    unsafe {
        command.pre_exec(move || {
            fcntl_setfd(&image, FdFlags::empty())?;
            chroot(&inside)?;
            chdir("/")?;
            Ok(())
        });
    }
    let made = run(mkfs, command, BOUND_MS);
    unmount(&proc, UnmountFlags::DETACH).doing(|| "taking /proc back".into())?;
    made
}

fn run(mkfs: &str, command: Command, bound_ms: u64) -> Result<()> {
    let name = format!("{mkfs} of the root");
    let output = bounded(&name, command, b"", bound_ms)?;
    match output.status.success() {
        true => Ok(()),
        false => fail(format!(
            "{name} failed ({}): {}: {ADVICE}",
            output.status,
            output.complaint()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_ended_and_one_that_fails_is_quoted() {
        let error = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            let ran = run("/sbin/mkfs.ext4", command, 200);
            ran.err().map(|failure| failure.0).unwrap_or_default()
        };
        let hangs = error("exec sleep 1000");
        assert!(
            hangs.starts_with("/sbin/mkfs.ext4 of the root was not done after"),
            "{hangs}"
        );
        let fails = error("echo no room >&2; exit 1");
        assert!(fails.contains("no room: install e2fsprogs"), "{fails}");
        assert_eq!(error("exit 0"), "");
    }
}
