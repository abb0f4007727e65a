//! QEMU processes: started so that they outlive the agent, found again, watched and killed by pidfd.

use super::directory::Directory;
use estive_model::DomainName;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// One living (or just ended) process, held by pidfd: its pid cannot come to mean another one.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) pid: u32,
    pidfd: Arc<OwnedFd>,
    gone: watch::Receiver<bool>,
}

impl Process {
    /// Starts `emulator` in a session of its own, with nothing of ours but `stderr` and `kept`, which it has at the
    /// numbers that they have here.
    pub(super) fn start(
        emulator: &Path,
        arguments: &[String],
        stderr: fs::File,
        kept: Vec<OwnedFd>,
    ) -> io::Result<Self> {
        let mut command = Command::new(emulator);
        command
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        // SAFETY: setsid and fcntl are async-signal-safe and touch no memory of the parent; the descriptors stay open
        // until the command is dropped.
        unsafe {
            command.pre_exec(move || {
                for descriptor in &kept {
                    rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
                }
                Ok(rustix::process::setsid().map(drop)?)
            });
        }
        let mut child = command.spawn()?;
        // The child is not reaped before `watch` does it, so the pid is still its own. Dropping `Child` neither
        // kills nor reaps.
        Self::hold(child.id()).inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })
    }

    /// Takes hold of the process `pid`.
    fn hold(pid: u32) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = Arc::new(pidfd_open(number, PidfdFlags::empty())?);
        let (sender, gone) = watch::channel(false);
        // SAFETY: the registration shares the ownership of the descriptor, so it stays open, and the same, until it
        // is dropped.
        let watched =
            unsafe { AsyncFd::register_with_interest(pidfd.clone(), Interest::READABLE)? };
        tokio::spawn(watch(watched, sender));
        Ok(Self { pid, pidfd, gone })
    }

    /// Every living process that is an instance under `runtime_dir`, by its command line: the processes themselves
    /// are the truth, whether or not they have written their pid file yet.
    /// Only of the `wanted` domains.
    pub(super) fn find(
        runtime_dir: &Path,
        wanted: impl Fn(&DomainName) -> bool,
    ) -> io::Result<Vec<(DomainName, Self)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if !domain_of(pid, runtime_dir).is_some_and(|domain| wanted(&domain)) {
                continue;
            }
            let Ok(process) = Self::hold(pid) else {
                continue;
            };
            // Once more, now that the pid is held.
            if let Some(domain) = domain_of(pid, runtime_dir) {
                found.push((domain, process));
            }
        }
        Ok(found)
    }

    pub(super) fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Returns when the process has ended.
    pub(super) async fn ended(&self) {
        // An error means that the watch itself has ended, which it does only with the process or the runtime.
        let _ = self.gone.clone().wait_for(|gone| *gone).await;
    }

    /// SIGKILL. `Ok` when it had ended already.
    pub(super) fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts the process into a cgroup (version 1 or 2).
    pub(super) fn enter_cgroup(&self, cgroup: &Path) -> io::Result<()> {
        fs::write(cgroup.join("cgroup.procs"), self.pid.to_string())
    }
}

async fn watch(pidfd: AsyncFd<Arc<OwnedFd>>, gone: watch::Sender<bool>) {
    // A pidfd is readable once its process has ended, and stays so.
    if let Err(error) = pidfd.readable().await {
        tracing::error!(%error, "cannot watch a process");
        return;
    }
    // Reaps it if it is our child; an adopted one is reaped by its own parent.
    let _ = waitid(
        WaitId::PidFd(pidfd.get_ref().as_fd()),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    );
    gone.send_replace(true);
}

fn domain_of(pid: u32, runtime_dir: &Path) -> Option<DomainName> {
    // Empty for a process that has ended and was not reaped.
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).skip(1);
    if words.next()? != b"-pidfile" {
        return None;
    }
    let pid_file = Path::new(std::ffi::OsStr::from_bytes(words.next()?));
    Directory::domain_of_pid_file(runtime_dir, pid_file)
}
