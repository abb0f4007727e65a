//! The hidden command by which our own program is executed anew: `estive sandbox WHAT`.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use rustix::fs::SeekFrom;

use crate::keeper;
use crate::request::Answer;

/// The word that programs which use a [`crate::Worker`] must give to [`hidden_command`].
pub(crate) const COMMAND: &str = "sandbox";
pub(crate) const SCRIPT: &str = "script";

/// Runs the hidden command if this process was started for it; `None`: go on as the ordinary program. To be called
/// first in `main`, before any thread is started.
pub fn hidden_command() -> Option<ExitCode> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if words.first()?.to_str()? != COMMAND {
        return None;
    }
    let answer = match (words.get(1).and_then(|word| word.to_str()), &words[..]) {
        (Some(SCRIPT), [_, _, parent]) => {
            if end_with(parent.to_str()).is_err() {
                return Some(ExitCode::FAILURE);
            }
            script()
        }
        _ => {
            eprintln!("estive: 'sandbox' is started by estive itself, not by people");
            return Some(ExitCode::from(2));
        }
    };
    Some(match send(&answer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the sandbox's answer could not be given: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Whoever asked is gone: so are we.
fn end_with(parent: Option<&str>) -> Result<(), ()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(drop)?;
    let now = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    // It may have ended before we asked to be told.
    if now.as_deref() == parent {
        Ok(())
    } else {
        Err(())
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
