//! The hidden command by which our own program is executed anew: `estive sandbox WHAT`.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use rustix::fs::SeekFrom;

use crate::cell;
use crate::keeper;
use crate::request::Answer;

/// The word that programs which use a [`crate::Worker`] must give to [`hidden_command`].
pub(crate) const COMMAND: &str = "sandbox";
pub(crate) const SCRIPT: &str = "script";
pub(crate) const RENDER: &str = "render";

/// Runs the hidden command if this process was started for it; `None`: go on as the ordinary program. To be called
/// first in `main`, before any thread is started.
pub fn hidden_command() -> Option<ExitCode> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if words.first()?.to_str()? != COMMAND {
        return None;
    }
    let words: Option<Vec<&str>> = words[1..].iter().map(|word| word.to_str()).collect();
    let answered = match words.as_deref() {
        Some([SCRIPT, parent]) => begin_under(parent).and_then(|()| send(&script())),
        Some([RENDER, parent, memory_bytes, cpu_s]) => {
            match (memory_bytes.parse(), cpu_s.parse()) {
                (Ok(memory_bytes), Ok(cpu_s)) => {
                    begin_under(parent).and_then(|()| cell::run(memory_bytes, cpu_s))
                }
                _ => return Some(misused()),
            }
        }
        _ => return Some(misused()),
    };
    Some(match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the sandbox could not answer: {error}");
            ExitCode::FAILURE
        }
    })
}

fn misused() -> ExitCode {
    eprintln!("estive: 'sandbox' is started by estive itself, not by people");
    ExitCode::from(2)
}

/// Nothing but the three descriptors that it was given is open in what follows: what whoever started us had open, and
/// left to its children, would lead a script out.
fn close_others() -> std::io::Result<()> {
    // SAFETY: the process has just begun, and nothing of it has opened or keeps a descriptor yet.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    match done {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// When whoever asked is gone, so are we.
fn begin_under(parent: &str) -> std::io::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    close_others()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let now = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    // It may have ended before we asked to be told.
    if now.as_deref() == Some(parent) {
        Ok(())
    } else {
        Err(std::io::Error::other("whoever asked is gone"))
    }
}

fn script() -> Answer {
    let mut bytes = Vec::new();
    let read = rustix::fs::seek(std::io::stdin().as_fd(), SeekFrom::Start(0))
        .map_err(std::io::Error::from)
        .and_then(|_| std::io::stdin().read_to_end(&mut bytes));
    if let Err(error) = read {
        return Answer::Unmade(format!("its request could not be read: {error}"));
    }
    match rmp_serde::from_slice(&bytes) {
        Ok(request) => keeper::run(request),
        Err(error) => Answer::Unmade(format!("its request is not understood: {error}")),
    }
}

fn send(answer: &Answer) -> std::io::Result<()> {
    let bytes = rmp_serde::to_vec_named(answer).map_err(std::io::Error::other)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&bytes)?;
    out.flush()
}
