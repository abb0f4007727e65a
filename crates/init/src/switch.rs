//! Leaving the early userspace: the union becomes the root and its init runs as PID 1.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use estive_boot::{CommandLine, INIT_WORD, Phase};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, statat,
    unlinkat,
};
use rustix::mount::mount_move;
use rustix::process::{chdir, chroot};

use crate::console::Report;
use crate::failure::{Failure, Result, While, fail};
use crate::follow;
use crate::root::{UNION, open_directory};
use crate::union::{directory_in, of_descriptor};

/// Where the init of a root usually is, in the order they are tried.
const USUAL: [&str; 5] = [
    "/sbin/init",
    "/usr/lib/systemd/systemd",
    "/etc/init",
    "/bin/init",
    "/init",
];

static HAS_HAPPENED: AtomicBool = AtomicBool::new(false);

/// Whether the union is the root already: then only its init can be tried again.
pub fn has_happened() -> bool {
    HAS_HAPPENED.load(Ordering::Relaxed)
}

/// Switches root and runs init. Returns only when that fails.
pub fn switch(line: &CommandLine, report: &mut Report) -> Result<Infallible> {
    let union = open_directory(UNION)?;
    find_init(line, &union)?;

    for name in ["dev", "sys", "proc"] {
        let target = directory_in(&union, name, 0o755)?;
        mount_move(format!("/{name}"), of_descriptor(&target))
            .doing(|| format!("moving /{name} into the root"))?;
    }
    remove_initramfs()?;
    let entering = || "making the union the root".to_owned();
    chdir(UNION).doing(entering)?;
    mount_move(".", "/").doing(entering)?;
    chroot(".").doing(entering)?;
    chdir("/").doing(entering)?;
    HAS_HAPPENED.store(true, Ordering::Relaxed);

    if line.root.as_ref().is_some_and(follow::is_asked_for) {
        follow::begin()?;
    }
    report.done(Phase::Switch);
    run_init(line)
}

/// Runs the init of the root. Returns only when that fails.
pub fn run_init(line: &CommandLine) -> Result<Infallible> {
    let init = find_init(line, &open_directory("/")?)?;
    // The kernel gives PID 1 the words it does not know itself, such as `single`.
    let arguments = std::env::args_os().skip(1);
    let error = Command::new(&init).args(arguments).exec();
    fail(format!(
        "running {init}: {error} (a program for this machine, with its interpreter in the root? name another with {INIT_WORD}=)"
    ))
}

/// The program of `init=`, or the first of the usual ones that is there.
fn find_init(line: &CommandLine, union: &OwnedFd) -> Result<String> {
    if let Some(init) = &line.init {
        return match is_program(union, init) {
            true => Ok(init.clone()),
            false => fail(format!(
                "{INIT_WORD}={init}: there is no such program in the root"
            )),
        };
    }
    let found = USUAL.iter().find(|path| is_program(union, path));
    found.map(|path| (*path).to_owned()).ok_or_else(|| {
        Failure(format!(
            "the root has no init (tried {}): name it with {INIT_WORD}=/path",
            USUAL.join(", ")
        ))
    })
}

fn is_program(union: &OwnedFd, path: &str) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(union, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        .and_then(fstat)
        .is_ok_and(|status| {
            FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
                && status.st_mode & 0o111 != 0
        })
}

/// Frees the memory of the initramfs: everything that lies on it and not on a mount.
fn remove_initramfs() -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, "/", flags, Mode::empty()).doing(|| "opening the initramfs".into())?;
    let device = fstat(&root)
        .doing(|| "looking at the initramfs".into())?
        .st_dev;
    // What cannot be removed only costs memory.
    let _ = remove_inside(&root, device);
    Ok(())
}

fn remove_inside(directory: &OwnedFd, device: u64) -> rustix::io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let status = statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
        if status.st_dev != device {
            continue;
        }
        if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let child = openat(directory, name, flags, Mode::empty())?;
            remove_inside(&child, device)?;
            // A directory with a mount point in it stays.
            let _ = unlinkat(directory, name, AtFlags::REMOVEDIR);
        } else {
            unlinkat(directory, name, AtFlags::empty())?;
        }
    }
    Ok(())
}
