//! The first process of a script's namespace: gives up all rights, starts the script, reaps what is orphaned, and by
//! its own end ends all.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, set_dumpable_behavior,
    set_parent_process_death_signal, setsid, wait,
};
use rustix::thread::{UnshareFlags, set_thread_res_gid, set_thread_res_uid, unshare_unsafe};
use serde::{Deserialize, Serialize};

use crate::cage;
use crate::filter;
use crate::request::ScriptRequest;
use crate::view::{OUTPUT, SET};

/// How long what a script has started may go on after its own end: the last program of a pipeline, say.
const GRACE_MS: u64 = 2000;
const GRACE_STEP_MS: u64 = 10;

/// How it ended. One line of JSON, through a pipe.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ending {
    Exited(i32),
    /// By a signal.
    Killed(i32),
    /// The number of the error.
    NotStarted(i32),
    /// Something went wrong before.
    Unmade(String),
    LeftBehind,
}

/// What it is given.
pub(crate) struct FirstProcess<'a> {
    pub request: &'a ScriptRequest,
    /// To ask for users.
    pub asking: OwnedFd,
    /// Has a byte when the users are there; ends with the keeper.
    pub answered: OwnedFd,
    pub ending: OwnedFd,
    pub variables: BorrowedFd<'a>,
    pub printing: OwnedFd,
}

/// Never returns.
pub(crate) fn run(given: FirstProcess<'_>) -> ! {
    let ending = given.ending.try_clone();
    let told = live(given).unwrap_or_else(Ending::Unmade);
    if let Ok(ending) = ending {
        tell(&ending, &told);
    }
    exit(0)
}

fn tell(ending: &OwnedFd, told: &Ending) {
    // The keeper takes the first line. If it is gone, there is nobody to tell.
    if let (Ok(mut text), Ok(ending)) = (serde_json::to_vec(told), ending.try_clone()) {
        text.push(b'\n');
        let _ = File::from(ending).write_all(&text);
    }
}

/// Without the atexit handlers and buffers that were copied from the keeper.
fn exit(code: i32) -> ! {
    // SAFETY: ends this process and touches nothing.
    unsafe { libc::_exit(code) }
}

fn live(given: FirstProcess<'_>) -> Result<Ending, String> {
    let words = |doing: &'static str| move |error: rustix::io::Errno| format!("{doing}: {error}");
    // SAFETY: this flag leaves file descriptors alone, and there is one thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.map_err(|error| {
        format!("this machine gives no user namespace ({error}); see user.max_user_namespaces")
    })?;
    rustix::io::write(&given.asking, &[1]).map_err(words("asking for users"))?;
    let mut byte = [0];
    match rustix::io::read(&given.answered, &mut byte) {
        Ok(1) => {}
        // The keeper is gone, or could not do it and says so itself.
        _ => exit(1),
    }
    let root = rustix::fs::Uid::ROOT;
    let group = rustix::fs::Gid::ROOT;
    set_thread_res_gid(group, group, group).map_err(words("becoming the script's group"))?;
    set_thread_res_uid(root, root, root).map_err(words("becoming the script's user"))?;
    // A change of user forgets it: only now.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(words("binding its life to ours"))?;
    if keeper_is_gone(&given.answered) {
        exit(1);
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(words("closing its memory"))?;
    // No terminal: what a script types there would be typed for whoever started us.
    setsid().map_err(words("leaving the terminal"))?;
    cage::drop_capabilities()?;
    // SAFETY: this process has one thread, so that the child may do what the parent may.
    let script = unsafe { libc::fork() };
    match script {
        -1 => Err(format!("starting it: {}", std::io::Error::last_os_error())),
        0 => {
            let told = become_script(&given);
            tell(&given.ending, &told);
            exit(127)
        }
        script => {
            let script = Pid::from_raw(script).ok_or("a process without a number was started")?;
            drop(given.printing);
            await_all(script)
        }
    }
}

fn keeper_is_gone(answered: &OwnedFd) -> bool {
    let mut ends = [PollFd::new(answered, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut ends, Some(&now)).is_err() || ends[0].revents().contains(PollFlags::HUP)
}

/// Returns only when it could not be done.
fn become_script(given: &FirstProcess<'_>) -> Ending {
    let request = given.request;
    let stdio = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(Stdio::from);
    let prepare = || -> Result<Command, String> {
        let copy =
            |error: std::io::Error| format!("preparing its standard input and output: {error}");
        let mut command = Command::new(format!("/{SET}/{}", request.program));
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LANG", "C")
            .env("HOME", "/tmp")
            .stdin(stdio(given.variables).map_err(copy)?)
            .stdout(stdio(given.printing.as_fd()).map_err(copy)?)
            .stderr(stdio(given.printing.as_fd()).map_err(copy)?);
        std::env::set_current_dir(format!("/{OUTPUT}"))
            .map_err(|error| format!("going to its output: {error}"))?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        cage::limit(&request.limits)?;
        filter::apply_to_script()?;
        Ok(command)
    };
    match prepare() {
        Ok(mut command) => {
            let error = command.exec();
            Ending::NotStarted(error.raw_os_error().unwrap_or(libc::EIO))
        }
        Err(what) => Ending::Unmade(what),
    }
}

/// Reaps until the script has ended, and for a moment what it has started.
fn await_all(script: Pid) -> Result<Ending, String> {
    let ended = loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == script => break status,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("waiting for it: {error}")),
        }
    };
    let ending = ending(ended);
    for _ in 0..GRACE_MS / GRACE_STEP_MS {
        match wait(WaitOptions::NOHANG) {
            Err(rustix::io::Errno::CHILD) => return Ok(ending),
            Ok(Some(_)) => {}
            _ => {
                let step = Timespec {
                    tv_sec: 0,
                    tv_nsec: (GRACE_STEP_MS * 1_000_000).cast_signed(),
                };
                let _ = poll(&mut [], Some(&step));
            }
        }
    }
    Ok(match ending {
        Ending::Exited(0) => Ending::LeftBehind,
        worse => worse,
    })
}

fn ending(status: WaitStatus) -> Ending {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ending::Exited(code),
        (None, signal) => Ending::Killed(signal.unwrap_or_default()),
    }
}
