//! The two processes that an outer namespace rests on: its holder and its first process. See `outer.rs` for the picture.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use crate::outer::{INSIDE, WORK_DIRECTORY};

/// Names the stage a process was started as.
pub(crate) const STAGE: &str = "ESTIVE_OUTER_STAGE";

/// How long the program inside may take to end after a first wish.
const GENTLE_END: Duration = Duration::from_secs(60);

/// As a shell counts: 128 and the signal's number for a killed process.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Output to /dev/null.
pub(crate) fn silence() -> io::Result<()> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

fn fail(doing: &str, error: impl Into<io::Error>) -> ! {
    eprintln!("outer namespace: {doing} failed: {}", error.into());
    std::process::exit(125)
}

/// The holder: leaves the caller's namespaces, starts the first process, waits for it.
pub(crate) fn hold() -> ! {
    // A session of its own: Ctrl-C at the terminal reaches the caller alone, which passes on its wish.
    if let Err(errno) = rustix::process::setsid() {
        fail("making a session", errno);
    }
    // SAFETY: no other thread exists yet, and none of these shares memory or file descriptors.
    let unshared = unsafe {
        rustix::thread::unshare_unsafe(
            UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWPID,
        )
    };
    if let Err(errno) = unshared {
        fail(
            "making namespaces (is this a container without the right to?)",
            errno,
        );
    }
    let first = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(STAGE, "first")
        .spawn();
    let mut first = first.unwrap_or_else(|error| fail("starting the first process", error));
    let word = format!("first {}\n", first.id());
    // A caller that is gone is seen by the first process, at its end of the line.
    let _ = rustix::io::write(rustix::stdio::stdin(), word.as_bytes());
    let _ = silence();
    match first.wait() {
        Ok(status) => std::process::exit(exit_code(status)),
        Err(error) => fail("waiting for the first process", error),
    }
}

/// PID 1 inside: private mounts, then the program, then orphans until the program ends.
pub(crate) fn be_first() -> ! {
    if let Err(errno) = set_parent_process_death_signal(Some(Signal::KILL)) {
        fail("tying the first process to its holder", errno);
    }
    if let Err(error) = private_mounts() {
        fail("mounting what is private", error);
    }
    let code = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(watch()));
    match code {
        Ok(code) => std::process::exit(code),
        Err(error) => fail("starting the program inside", error),
    }
}

fn private_mounts() -> io::Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", safe, None)?;
    mount(
        "tmpfs",
        "/run",
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(c"mode=755"),
    )?;
    for directory in [WORK_DIRECTORY, "/run/estive", "/run/netns", "/run/tmp"] {
        std::fs::create_dir(directory)?;
    }
    Ok(())
}

/// Starts the program, takes in orphans, listens to the line; gives the program's exit code.
async fn watch() -> io::Result<i32> {
    let mut died = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    estive_network::loopback_up()
        .await
        .map_err(io::Error::other)?;

    // The line is this process's stdin; the program's too, so that it can say "ready".
    let line = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let line = std::os::unix::net::UnixStream::from(line);
    line.set_nonblocking(true)?;
    let mut line = UnixStream::from_std(line)?;
    let mut kept = false;

    let mut argv = std::env::args_os().skip(1);
    let program = argv
        .next()
        .ok_or_else(|| io::Error::other("no program was named"))?;
    let started = Command::new(&program)
        .args(argv)
        .env_remove(STAGE)
        .env(INSIDE, "1")
        .env("TMPDIR", "/run/tmp")
        .stdin(Stdio::inherit())
        .process_group(0)
        .spawn()
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{}: {error}", program.to_string_lossy()),
            )
        })?;
    let program_pid = Pid::from_child(&started);
    silence()?;

    let mut wishes = 0_u32;
    let mut heard = [0_u8; 1];
    let mut deadline = None;
    loop {
        let late = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = died.recv() => {
                while let Some((pid, status)) = reaped() {
                    if pid == program_pid {
                        // The exit of PID 1 takes everything else with it.
                        return Ok(exit_code(ExitStatus::from_raw(status)));
                    }
                }
                continue;
            }
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = late => return Ok(124),
            read = line.read(&mut heard), if !kept => match read {
                // The caller is gone.
                Ok(0) | Err(_) => return Ok(137),
                Ok(_) if heard[0] == b'k' => {
                    kept = true;
                    let _ = line.write_all(b"kept\n").await;
                    continue;
                }
                Ok(_) => {}
            },
        }
        wishes += 1;
        if wishes > 1 {
            return Ok(130);
        }
        deadline = Some(tokio::time::Instant::now() + GENTLE_END);
        let _ = kill_process(program_pid, Signal::TERM);
    }
}

fn reaped() -> Option<(Pid, i32)> {
    rustix::process::wait(WaitOptions::NOHANG)
        .ok()
        .flatten()
        .map(|(pid, status)| (pid, status.as_raw()))
}
