//! The keeper of one script: makes its world, starts its first process, watches it, and reads what it left.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::cage::{self, Outside};
use crate::collect;
use crate::first::{self, Ending, FirstProcess};
use crate::limits::shown_bytes;
use crate::messages;
use crate::request::{Answer, ScriptRequest};
use crate::view::View;
use crate::watch::{self, Watched};

/// Runs the script of `request` in this process's children. This process must have no threads: it forks.
pub(crate) fn run(request: ScriptRequest) -> Answer {
    match kept(&request) {
        Ok(answer) => answer,
        Err(what) => Answer::Unmade(what),
    }
}

fn kept(request: &ScriptRequest) -> Result<Answer, String> {
    // Held open, since the view has no such thing.
    let processes = open(
        "/proc",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| format!("opening /proc: {error}"))?;
    let outside = cage::enter_namespaces()?;
    let view = View::make(request, &outside)?;
    let variables = variables(&request.variables)?;
    let told = run_first(request, &outside, &processes, &variables)?;
    Ok(answer(request, &view, told))
}

/// The variables as a file without a name: nobody has to feed a pipe.
fn variables(bytes: &[u8]) -> Result<OwnedFd, String> {
    let doing = |error: std::io::Error| format!("keeping the variables: {error}");
    let mut file = File::from(
        memfd_create("variables", MemfdFlags::CLOEXEC).map_err(|error| doing(error.into()))?,
    );
    std::io::Write::write_all(&mut file, bytes).map_err(doing)?;
    std::io::Seek::rewind(&mut file).map_err(doing)?;
    Ok(file.into())
}

/// What the watching saw and what the first process told.
struct Told {
    watched: Watched,
    ending: Option<Ending>,
}

fn run_first(
    request: &ScriptRequest,
    outside: &Outside,
    processes: &OwnedFd,
    variables: &OwnedFd,
) -> Result<Told, String> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| format!("making a pipe: {error}"));
    let (asked, asking) = pipe()?;
    let (answered, answering) = pipe()?;
    let (ended, ending) = pipe()?;
    let (printed, printing) = pipe()?;
    // SAFETY: this process has one thread, so that the child may do what the parent may.
    let child = unsafe { libc::fork() };
    match child {
        -1 => {
            return Err(format!(
                "starting its first process: {}",
                std::io::Error::last_os_error()
            ));
        }
        0 => {
            drop((asked, answering, ended, printed));
            first::run(FirstProcess {
                request,
                asking,
                answered,
                ending,
                variables: variables.as_fd(),
                printing,
            });
        }
        _ => {}
    }
    let child = Pid::from_raw(child).ok_or("a process without a number was started")?;
    drop((asking, answered, ending, printing));
    let named = name_users(&asked, answering, child, outside, processes);
    let watched = match named {
        Ok(alive) => {
            let watched = watch::watch(child, &printed, processes, &request.limits);
            // It notices the end of this pipe when we die.
            drop(alive);
            watched
        }
        Err(what) => {
            watch::end(child);
            Err(what)
        }
    };
    // Returns only when every process of the namespace is gone.
    let reaped = loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other,
        }
    };
    reaped.map_err(|error| format!("waiting for its first process: {error}"))?;
    Ok(Told {
        watched: watched?,
        ending: ending_of(ended),
    })
}

/// Gives the first process its users, once it is in a user namespace of its own. The pipe that comes back stays open
/// as long as we live.
fn name_users(
    asked: &OwnedFd,
    answering: OwnedFd,
    child: Pid,
    outside: &Outside,
    processes: &OwnedFd,
) -> Result<OwnedFd, String> {
    let mut byte = [0];
    loop {
        match rustix::io::read(asked, &mut byte) {
            Ok(0) => break,
            Ok(_) => {
                cage::name_users(processes.as_fd(), child, outside)?;
                break;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("hearing its first process: {error}")),
        }
    }
    // A reader that is gone has told why by its ending.
    let _ = rustix::io::write(&answering, &[1]);
    Ok(answering)
}

fn ending_of(ended: OwnedFd) -> Option<Ending> {
    let mut text = String::new();
    File::from(ended)
        .take(4096)
        .read_to_string(&mut text)
        .ok()?;
    serde_json::from_str(text.lines().next()?).ok()
}

fn answer(request: &ScriptRequest, view: &View, told: Told) -> Answer {
    let limits = &request.limits;
    let printed = messages::one_line(&told.watched.printed);
    let failed = |what: String| {
        Answer::Failed(if printed.is_empty() {
            what
        } else {
            format!("{what}: {printed}")
        })
    };
    let wrong = match (told.watched.killed, told.ending) {
        (Some(why), _) => why,
        (None, None) => "its first process was killed".to_owned(),
        (None, Some(Ending::Exited(0))) => match view.full(limits) {
            Some(full) => full,
            None => {
                return match collect::collect(view.output(), request) {
                    Ok(output) => Answer::Done(output),
                    Err(what) => failed(what),
                };
            }
        },
        (None, Some(Ending::Unmade(what))) => return Answer::Unmade(what),
        (None, Some(ending)) => {
            let ended = ending.told(limits);
            match view.full(limits) {
                Some(full) => format!("{full}, and {ended}"),
                None => ended,
            }
        }
    };
    failed(wrong)
}

impl Ending {
    fn told(&self, limits: &crate::Limits) -> String {
        match self {
            Ending::Exited(code) => format!("ended with the exit code {code}"),
            Ending::Killed(signal) if *signal == libc::SIGXCPU => {
                format!("used more than {} s of processor time", limits.cpu_s)
            }
            Ending::Killed(signal) if *signal == libc::SIGKILL => format!(
                "was killed: by itself, for more than {} s of processor time, or for want of memory on this machine",
                limits.cpu_s
            ),
            Ending::Killed(signal) if *signal == libc::SIGXFSZ => format!(
                "wrote a file of more than {}",
                shown_bytes(limits.file_size_bytes)
            ),
            Ending::Killed(signal) => format!("ended by the signal {signal}"),
            Ending::NotStarted(code) => not_started(*code),
            Ending::Unmade(what) => what.clone(),
            Ending::LeftBehind => {
                "ended and left processes running; wait for them in the script".to_owned()
            }
        }
    }
}

fn not_started(code: i32) -> String {
    match code {
        libc::ENOENT => "could not be started: the reference has no such interpreter as its first line names (or no \
                         loader for its kind of program)"
            .to_owned(),
        libc::EACCES => "could not be started: the interpreter that its first line names may not be executed".to_owned(),
        code => format!("could not be started: {}", std::io::Error::from_raw_os_error(code)),
    }
}
