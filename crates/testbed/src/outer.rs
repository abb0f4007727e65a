//! One outer namespace (mount, process, network) around everything, so that whatever dies, the kernel cleans up.
//!
//! ```text
//! caller ──starts──▶ holder ──starts──▶ first process (PID 1 inside) ──starts──▶ the program asked for
//!    │                 │ unshare; waits for the first;     │ private /run and /proc; takes in orphans;
//!    │                 │ its death kills the first         │ ends with the program's exit code
//!    └───────── the line: a socket pair, their stdin ──────┘
//! ```
//!
//! The caller's end of the line closing (also by `kill -9`) makes the first process end at once, and with PID 1 goes
//! every process, then every mount and network namespace. Words on the line: caller to first `t` (end gently), `k`
//! (keep on without me); to the caller `first PID`, `ready`.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::Error;
use crate::outer_first::{self, STAGE};
use crate::outer_kept::Kept;

/// Inside: a directory of the private tmpfs for whatever the program makes.
pub const WORK_DIRECTORY: &str = "/run/bed";

/// Set to `1` for the program inside.
pub const INSIDE: &str = "ESTIVE_OUTER";

/// Must be the first call of `main` in every program that starts an [`Outer`] without naming another one
/// ([`Outer::through`]): when this process was started as a stage of an outer namespace, it never returns.
pub fn enter_if_asked() {
    match std::env::var(STAGE).as_deref() {
        Ok("holder") => outer_first::hold(),
        Ok("first") => outer_first::be_first(),
        _ => {}
    }
}

/// Does this process run inside an outer namespace of ours?
#[must_use]
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some_and(|value| value == "1")
}

/// Called by the program inside: tells the caller that it is ready. With `let_go` its own output goes to /dev/null from
/// here on, for the caller's terminal or pipe must not be held by what is kept. Without an outer namespace: nothing.
pub fn report_ready(let_go: bool) -> Result<(), Error> {
    if !is_inside() {
        return Ok(());
    }
    if let_go {
        outer_first::silence().map_err(Error::system("letting go of the terminal"))?;
    }
    rustix::io::write(rustix::stdio::stdin(), b"ready\n")
        .map_err(|errno| Error::System {
            doing: "telling the caller that all is ready".to_owned(),
            source: errno.into(),
        })
        .map(drop)
}

/// What to run inside an outer namespace.
#[derive(Debug, Clone)]
pub struct Outer {
    stage_program: Option<PathBuf>,
    argv: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Outer {
    /// Runs `argv` (a program and its arguments) inside.
    pub fn new<I, S>(argv: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        Self {
            stage_program: None,
            argv: argv.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
        }
    }

    /// Another program than this executable as holder and first process (`estive-bed` will do): for callers whose
    /// `main` cannot call [`enter_if_asked`], as a test harness.
    #[must_use]
    pub fn through(mut self, stage_program: &Path) -> Self {
        self.stage_program = Some(stage_program.to_owned());
        self
    }

    /// One more variable in the program's environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts it. Its standard output and error are the caller's; its standard input is the line.
    pub async fn start(self) -> Result<Running, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()
            .map_err(Error::system("making a socket pair"))?;
        ours.set_nonblocking(true)
            .map_err(Error::system("setting up the line"))?;
        let program = self
            .stage_program
            .unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
        let mut holder = Command::new(&program)
            .args(&self.argv)
            .envs(self.environment)
            .env(STAGE, "holder")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::system(format!(
                "starting {} as holder of the outer namespace",
                program.display()
            )))?;
        let (read, write) = UnixStream::from_std(ours)
            .map_err(Error::system("setting up the line"))?
            .into_split();
        let mut line = BufReader::new(read);
        match next_word(&mut line, &mut holder).await? {
            Heard::Word(word) => match word.strip_prefix("first ").and_then(|pid| pid.parse().ok())
            {
                Some(first_pid) => Ok(Running {
                    holder,
                    line,
                    write,
                    first_pid,
                }),
                None => Err(Error::EndedEarly { code: -1 }),
            },
            Heard::End(code) => Err(Error::EndedEarly { code }),
        }
    }

    /// Starts it and waits for its end; Ctrl-C and SIGTERM are passed on as a wish to end, a second one ends it at once.
    /// For a `main` without a runtime. Gives the program's exit code.
    pub fn run(self) -> Result<i32, Error> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::system("making a runtime"))?
            .block_on(async {
                let mut running = self.start().await?;
                running.wait_with_signals().await
            })
    }

    /// As [`Outer::run`], but once the program inside called [`report_ready`] it is kept and this returns `Ok(Ok(kept))`;
    /// a program that ends before gives `Ok(Err(exit code))`.
    pub fn run_to_keep(self) -> Result<Result<Kept, i32>, Error> {
        Kept::none_is_up()?;
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::system("making a runtime"))?
            .block_on(async {
                let mut running = self.start().await?;
                match running.ready_with_signals().await? {
                    None => running.keep().await.map(Ok),
                    Some(code) => Ok(Err(code)),
                }
            })
    }
}

enum Heard {
    Word(String),
    End(i32),
}

async fn next_word(
    line: &mut BufReader<OwnedReadHalf>,
    holder: &mut Child,
) -> Result<Heard, Error> {
    let mut word = String::new();
    tokio::select! {
        biased;
        read = line.read_line(&mut word) => match read {
            Ok(0) | Err(_) => end_code(holder).await.map(Heard::End),
            Ok(_) => Ok(Heard::Word(word.trim_end().to_owned())),
        },
        code = end_code(holder) => code.map(Heard::End),
    }
}

async fn end_code(holder: &mut Child) -> Result<i32, Error> {
    let status = holder
        .wait()
        .await
        .map_err(Error::system("waiting for the outer namespace"))?;
    Ok(outer_first::exit_code(status))
}

/// An outer namespace with a program in it. Dropping it ends everything inside.
#[derive(Debug)]
pub struct Running {
    holder: Child,
    line: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    first_pid: u32,
}

impl Running {
    /// The first process, as seen from here.
    #[must_use]
    pub fn first_pid(&self) -> u32 {
        self.first_pid
    }

    /// Waits until the program calls [`report_ready`] (`None`) or ends (its exit code).
    pub async fn ready(&mut self) -> Result<Option<i32>, Error> {
        loop {
            match next_word(&mut self.line, &mut self.holder).await? {
                Heard::Word(word) if word == "ready" => return Ok(None),
                Heard::Word(_) => {}
                Heard::End(code) => return Ok(Some(code)),
            }
        }
    }

    /// Waits for the program's end and gives its exit code.
    pub async fn wait(&mut self) -> Result<i32, Error> {
        end_code(&mut self.holder).await
    }

    /// Asks the program to end (SIGTERM to it).
    pub async fn ask_to_end(&mut self) {
        // A broken line means that it has ended already.
        let _ = self.write.write_all(b"t").await;
    }

    async fn ready_with_signals(&mut self) -> Result<Option<i32>, Error> {
        let mut wishes = Wishes::new()?;
        tokio::select! {
            ready = self.ready() => return ready,
            () = wishes.next() => {}
        }
        self.end_at_second(wishes).await.map(Some)
    }

    async fn wait_with_signals(&mut self) -> Result<i32, Error> {
        let mut wishes = Wishes::new()?;
        tokio::select! {
            code = end_code(&mut self.holder) => return code,
            () = wishes.next() => {}
        }
        self.end_at_second(wishes).await
    }

    async fn end_at_second(&mut self, mut wishes: Wishes) -> Result<i32, Error> {
        self.ask_to_end().await;
        tokio::select! {
            code = end_code(&mut self.holder) => return code,
            () = wishes.next() => {}
        }
        let _ = self.holder.start_kill();
        self.wait().await
    }

    /// Leaves it up: it survives this process. See [`Kept`].
    pub async fn keep(mut self) -> Result<Kept, Error> {
        let kept = Kept::record(self.first_pid)?;
        self.write
            .write_all(b"k")
            .await
            .map_err(Error::system("asking the outer namespace to stay"))?;
        // The answer: the first process has heard it, so this end of the line may close.
        match next_word(&mut self.line, &mut self.holder).await? {
            Heard::Word(_) => {}
            Heard::End(code) => {
                kept.forget();
                return Err(Error::EndedEarly { code });
            }
        }
        // kill_on_drop must not strike what is kept: not now, and not when a runtime drops a task that holds it.
        let Self { holder, .. } = self;
        std::mem::forget(holder);
        Ok(kept)
    }
}

/// Wishes to end: Ctrl-C, SIGTERM, the terminal gone.
struct Wishes([tokio::signal::unix::Signal; 3]);

impl Wishes {
    fn new() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(Error::system("listening for signals"));
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
