//! The end of a machine: its union is taken apart from the top down, so that every file system
//! below is left clean, whatever the distribution's scripts do.
//!
//! systemd gives its place as PID 1 to `/run/initramfs/shutdown` when everything else has ended
//! (systemd's "initrd interface"): the old root is then at `/oldroot`, held by nobody, and all of
//! it can be unmounted. Other inits stay, and keep the root busy: there `/.unions/estive shutdown`
//! makes everything read-only in the same order, which leaves the same clean file systems.

mod apart;
mod flush;
pub mod mounts;
mod patience;
mod place;
mod processes;
mod stacked;
mod verb;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use rustix::mount::{MountFlags, MountPropagationFlags, mount_change};

use crate::console::say;
use patience::bounded;
use verb::Verb;

pub use apart::{Apart, Leftover, mount_kernel_file_systems};
pub use patience::Deadline;
pub use place::place;
pub use processes::{Spare, end};
pub use stacked::left as devices_left;

/// The first argument, and how the name ends under which systemd runs the program.
pub const WORD: &str = "shutdown";
/// Ends all other processes first.
const KILL_WORD: &str = "kill";

/// Where systemd leaves the root that was.
const OLD_ROOT: &str = "/oldroot";

/// Whether PID 1 was called to end the machine and not to start it.
pub fn is_called_by(name: Option<&OsStr>) -> bool {
    name.is_some_and(|name| Path::new(name).file_name() == Some(OsStr::new(WORD)))
}

/// As PID 1: takes the old root apart and does what the first argument says.
pub fn as_init(mut arguments: impl Iterator<Item = OsString>) -> ! {
    let word = arguments.next().unwrap_or_default();
    let verb = Verb::of(&word.to_string_lossy()).unwrap_or_else(|| {
        say(&format!(
            "shutdown: {word:?} is not understood: powering off"
        ));
        Verb::PowerOff
    });
    apart::mount_kernel_file_systems();
    // systemd shares every mount; a shared one cannot be moved.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    if let Err(errno) = mount_change("/", private) {
        say(&format!("shutdown: making the mounts our own: {errno}"));
    }
    processes::end(Spare::Storage);
    let mut apart = Apart::new(OLD_ROOT);
    let mut left = apart.dismantle(Deadline::in_seconds(20));
    if !left.is_empty() {
        // What held it may be a daemon of the root's own device.
        processes::end(Spare::Nobody);
        left = apart.dismantle(Deadline::in_seconds(5));
    }
    match left.is_empty() {
        true => say("shutdown: the root is taken apart"),
        false => protect(&left),
    }
    verb.carry_out()
}

/// What could not be unmounted takes no more writes, and is said.
fn protect(left: &[Leftover]) {
    for Leftover { mount, why } in left {
        let done = match apart::make_read_only(&mount.point) {
            Ok(()) => "it is read-only now".to_owned(),
            Err(error) => format!("nor be made read-only ({error})"),
        };
        say(&format!(
            "shutdown: {} ({} of {}) cannot be unmounted ({why}): {done}",
            mount.point.display(),
            mount.kind,
            mount.source,
        ));
    }
    force_read_only();
}

/// The mode of the program in a running system: makes everything read-only.
pub fn in_running(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut verb = None;
    let mut kill = false;
    for word in arguments {
        match (word.to_str(), word.to_str().and_then(Verb::of)) {
            (Some(KILL_WORD), _) => kill = true,
            (_, Some(asked)) => verb = Some(asked),
            _ => {
                eprintln!(
                    "{word:?} is not understood here; {WORD} [{KILL_WORD}] [{}]",
                    Verb::WORDS
                );
                return ExitCode::FAILURE;
            }
        }
    }
    if kill || verb.is_some() {
        processes::end(Spare::Ancestors);
    }
    stacked::swap_off();
    let refused = apart::make_all_read_only();
    for (point, error) in &refused {
        say(&format!(
            "shutdown: {} cannot be made read-only: {error}",
            point.display()
        ));
    }
    // Also what no path leads to any more: a layer that a script has unmounted is still the union's.
    force_read_only();
    match verb {
        Some(verb) => verb.carry_out(),
        None if refused.is_empty() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

/// Asks the kernel to make every file system on a disk read-only, whoever holds it (`u` of
/// Documentation/admin-guide/sysrq.rst), and waits until it says that it has.
fn force_read_only() {
    let forced = bounded(10, || {
        let log = apart::KernelLog::at_its_end();
        std::fs::write("/proc/sysrq-trigger", "u")?;
        Ok::<bool, std::io::Error>(log.says("Emergency Remount complete", 8))
    });
    match forced {
        Some(Ok(true)) => {}
        Some(Ok(false)) | None => {
            say("shutdown: the kernel has not said that all disks are read-only")
        }
        Some(Err(error)) => say(&format!("shutdown: /proc/sysrq-trigger: {error}")),
    }
}

/// Flags of a mount that takes no more writes.
const READ_ONLY: MountFlags = MountFlags::RDONLY;
