//! `rescue`: a shell on the console before the switch of root, and where the boot would stop.
//!
//! It is the root's own shell as soon as there is one, else the initramfs's, if it was built with
//! one. When it ends, the boot goes on; after a failure, from its beginning, once nothing of the first try is left.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::process::{chdir, chroot, ioctl_tiocsctty, setsid};

use crate::console::say;
use crate::failure::{Failure, Result, While};
use crate::root::{BEFORE, UNION, open_directory};
use crate::shutdown::{self, Apart, Deadline, Leftover, Spare};
use crate::{loop_device, switch};

/// The word, and the same for systems whose own init takes the first one too: systemd starts its
/// `rescue.target` by it.
pub const WORDS: [&str; 2] = ["rescue", "estive.rescue"];
/// In the order they are tried.
const SHELLS: [&str; 3] = ["/bin/sh", "/usr/bin/sh", "/bin/busybox"];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a shell's programs expect in its root.
const KERNEL_FILE_SYSTEMS: [&str; 3] = ["dev", "proc", "sys"];

/// Whether the command line asks for a shell. A line that is wrong elsewhere may.
pub fn is_asked_for() -> bool {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_ascii_whitespace()
        .any(|word| WORDS.contains(&word))
}

/// Shells after a failure, until a boot can begin again. Says whether it can; without a shell nobody mends anything.
pub fn after_failure() -> bool {
    while shell() {
        // The root itself is what would be taken away.
        if switch::has_happened() || begin_again() {
            return true;
        }
        say("rescue: nothing is mounted again over what is left: end what uses it, then `exit`");
    }
    false
}

/// A shell, until it ends. Says whether there was one.
pub fn shell() -> bool {
    let Some((root, program)) = find() else {
        say(&format!(
            "rescue: no shell (looked for {} in what is mounted and in the initramfs)",
            SHELLS.join(", ")
        ));
        return false;
    };
    say(&format!(
        "rescue: {program} in {}; `exit` goes on with the boot",
        root.display()
    ));
    let ended = run(&root, program);
    // What it left in the background holds mounts and the console.
    shutdown::end(Spare::Storage);
    match ended {
        Ok(()) => {
            say("rescue: going on");
            true
        }
        Err(Failure(error)) => {
            say(&format!("rescue: {error}"));
            false
        }
    }
}

/// Takes away what a boot that failed has mounted and set up, so that the next one finds nothing of it. Says whether
/// it is all gone: two unions that write to one layer destroy it, and a device that still stands is taken.
fn begin_again() -> bool {
    shutdown::mount_kernel_file_systems();
    loop_device::let_go();
    let left = Apart::new(UNION)
        .and(BEFORE)
        .dismantle(Deadline::in_seconds(5));
    for Leftover { mount, why } in &left {
        say(&format!(
            "rescue: {} stays mounted: {why}",
            mount.point.display()
        ));
    }
    let devices = shutdown::devices_left();
    for device in &devices {
        say(&format!("rescue: /dev/{device} is still used"));
    }
    left.is_empty() && devices.is_empty()
}

/// The union, or else the uppermost of its layers that has a shell, or else the initramfs. After
/// the switch the union is the root.
fn find() -> Option<(PathBuf, &'static str)> {
    let mut roots = vec![PathBuf::from(UNION)];
    let mut before: Vec<PathBuf> = fs::read_dir(BEFORE)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    before.sort();
    roots.extend(before.into_iter().rev());
    roots.push("/".into());
    roots.into_iter().find_map(|root| {
        let tree = open_directory(&root.to_string_lossy()).ok()?;
        let program = SHELLS.into_iter().find(|path| is_program(&tree, path))?;
        Some((root, program))
    })
}

/// Whether a program can be run there by that path, links of the root's own followed.
pub fn is_program(root: &OwnedFd, path: &str) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        .and_then(fstat)
        .is_ok_and(|status| {
            FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
                && status.st_mode & 0o111 != 0
        })
}

fn run(root: &Path, program: &str) -> Result<()> {
    let mut lent = Vec::new();
    if root != Path::new("/") {
        for name in KERNEL_FILE_SYSTEMS {
            let place = root.join(name);
            // A layer that has no such directory does without.
            if place.is_dir() && mount_bind(format!("/{name}"), &place).is_ok() {
                lent.push(place);
            }
        }
    }
    let ended = start(root, program);
    for place in lent.iter().rev() {
        // It moves with the switch; what the shell left there is no matter.
        let _ = unmount(place, UnmountFlags::DETACH);
    }
    ended
}

fn start(root: &Path, program: &str) -> Result<()> {
    let what = || format!("running {program} in {}", root.display());
    let terminal = terminal()?;
    let copy = || terminal.try_clone().doing(what);
    let (input, output, errors) = (copy()?, copy()?, copy()?);
    let mut command = Command::new(program);
    if program.ends_with("busybox") {
        command.arg("sh");
    }
    let home = if root.join("root").is_dir() {
        "/root"
    } else {
        "/"
    };
    command
        .env_clear()
        .envs([
            ("PATH", PATH),
            ("HOME", home),
            ("TERM", "linux"),
            ("PS1", "rescue# "),
        ])
        .stdin(input)
        .stdout(output)
        .stderr(errors);
    let root = root.to_path_buf();
    let enter = move || {
        // With a terminal of its own the shell can stop and interrupt what it runs.
        let _ = setsid();
        let _ = ioctl_tiocsctty(&terminal);
        if root != Path::new("/") {
            chroot(&root)?;
        }
        chdir("/")?;
        Ok(())
    };
    // SAFETY: only system calls are made between fork and exec, none of which takes a lock or memory;
    // PID 1 has no other thread at this time.
    unsafe { command.pre_exec(enter) };
    let mut child = command.spawn().doing(what)?;
    child.wait().doing(what).map(drop)
}

/// The terminal behind `/dev/console`, which itself can be no shell's own.
fn terminal() -> Result<File> {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let name = active.split_ascii_whitespace().next_back();
    let open = |path: &str| OpenOptions::new().read(true).write(true).open(path);
    name.map(|name| open(&format!("/dev/{name}")))
        .and_then(std::io::Result::ok)
        .map_or_else(|| open("/dev/console"), Ok)
        .doing(|| "opening the console".into())
}
