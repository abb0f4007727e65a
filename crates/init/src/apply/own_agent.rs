//! The restart of the service that runs this program: the guest agent's own.
//!
//! A service manager ends a service with all that it has started: with this program, and whoever waits for its report.
//! So that one service is told by a process that belongs to nobody, once the report can have been read. A push that has
//! begun meanwhile is let go first.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::services::{Manager, run};
use crate::failure::{Result, While, fail};

/// The first argument of the process that tells it, after the word `apply`.
pub const LATER_WORD: &str = "--tell-later";
/// The host asks five times a second how a push ended; a busy one, or one that emulates, later.
const READ_BY: Duration = Duration::from_secs(5);
/// What distributions call the guest agent.
const NAMES: [&str; 2] = ["qemu-guest-agent", "qemu-ga"];

/// Whether the end of this service is the end of this program.
pub fn is_own(name: &str) -> bool {
    let bare = |name: &str| name.strip_suffix(".service").unwrap_or(name).to_owned();
    let name = bare(name);
    NAMES.contains(&name.as_str())
        || fs::read_to_string("/proc/self/cgroup")
            .is_ok_and(|cgroup| units(&cgroup).any(|unit| bare(unit) == name))
}

/// The services named in `/proc/PID/cgroup` (cgroups(7)), of any version.
fn units(cgroup: &str) -> impl Iterator<Item = &str> {
    let paths = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let names = paths.flat_map(|path| path.split('/'));
    names.filter(|name| name.ends_with(".service"))
}

/// Has it told later, by a process outside of the service.
pub fn hand_over(
    manager: Manager,
    unions: &Path,
    name: &str,
    act: &str,
) -> std::result::Result<(), String> {
    let program = std::env::current_exe()
        .map_err(|error| format!("this program does not know where it lies: {error}"))?;
    let (program, unions) = (program.display().to_string(), unions.display().to_string());
    let words = [&program, "apply", LATER_WORD, &unions, act, name];
    match manager {
        // Its own unit: a session alone would leave it in the cgroup that is ended.
        Manager::Systemd => {
            let begin = ["systemd-run", "--quiet", "--no-block"];
            run(&[begin.as_slice(), &words].concat())
        }
        Manager::OpenRc | Manager::SysV => {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).current_dir("/");
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(Stdio::null());
            // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
            unsafe {
                command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?));
            }
            let begun = command.spawn();
            begun
                .map(drop)
                .map_err(|error| format!("{program}: {error}"))
        }
    }
}

/// That process: `words` are those of [`hand_over`].
pub fn tell_later(mut words: impl Iterator<Item = std::ffi::OsString>) -> Result<()> {
    let mut next = || words.next().and_then(|word| word.into_string().ok());
    let (Some(unions), Some(act), Some(name)) = (next(), next(), next()) else {
        return fail(format!(
            "{LATER_WORD} needs a directory, an act and a service"
        ));
    };
    let lock = File::open(&unions).doing(|| format!("opening {unions}"))?;
    loop {
        std::thread::sleep(READ_BY);
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            // Its report must be read too.
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return fail(format!("locking {unions}: {errno}")),
        }
    }
    let told = match Manager::of_running_system() {
        Some(manager) => manager.tell(&name, &act),
        None => Ok(()),
    };
    told.or_else(|words| fail(format!("{act} of {name}: {words}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_found_in_either_version_of_cgroups() {
        let two = "0::/system.slice/qemu-guest-agent.service\n";
        assert_eq!(units(two).collect::<Vec<_>>(), ["qemu-guest-agent.service"]);
        let one = "12:cpu,cpuacct:/\n1:name=systemd:/system.slice/my-agent.service/sub\n";
        assert_eq!(units(one).collect::<Vec<_>>(), ["my-agent.service"]);
        assert_eq!(units("0::/user.slice/x.scope\n").count(), 0);
        assert!(is_own("qemu-ga") && is_own("qemu-guest-agent.service") && !is_own("nginx"));
    }
}
