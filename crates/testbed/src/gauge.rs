//! Measuring processes: `estive-bed SUBCOMMAND` in a namespace, a JSON line for each thing seen.
//!
//! A process of its own, since a thread that changed its network namespace would take its runtime along. The first line
//! is `"ready"`; the process ends by itself when its standard input closes, so it never outlives who asked.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use estive_network::namespace::Namespace;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::Error;

const READY: &str = "\"ready\"";
const READY_LIMIT: Duration = Duration::from_secs(180);
const END_LIMIT: Duration = Duration::from_secs(60);
const LINE_BYTES_MAX: usize = 1 << 16;
/// The last lines of standard error that are shown.
const WORDS_MAX: usize = 20;

/// A measuring process whose lines are of type `L`.
#[derive(Debug)]
pub(crate) struct Gauge<L> {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<L>>>,
    reading: JoinHandle<Result<(), Error>>,
    words: Arc<Mutex<VecDeque<String>>>,
}

impl<L: DeserializeOwned + Send + 'static> Gauge<L> {
    /// Starts it in `namespace` and waits until it is ready.
    pub(crate) async fn start(
        name: &'static str,
        tool: &Path,
        namespace: &Namespace,
        arguments: &[String],
    ) -> Result<Self, Error> {
        let mut command: Command = namespace.command(tool);
        command.arg(name).args(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(Error::system(format!("starting {} {name}", tool.display())))?;
        let gauge = |problem: &str| Error::Gauge {
            what: name.to_owned(),
            problem: problem.to_owned(),
        };
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(gauge("it has no pipes"));
        };
        let words = Arc::new(Mutex::new(VecDeque::new()));
        let heard = Arc::clone(&words);
        let listening = tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                if heard.len() == WORDS_MAX {
                    heard.pop_front();
                }
                heard.push_back(line);
            }
        });
        let mut stdout = BufReader::new(stdout);
        let mut first = String::new();
        let ready =
            tokio::time::timeout(READY_LIMIT, (&mut stdout).take(64).read_line(&mut first)).await;
        if !matches!(ready, Ok(Ok(_))) || first.trim() != READY {
            let _ = child.kill().await;
            let _ = listening.await;
            return Err(gauge(&format!(
                "it did not begin to measure: {}",
                joined(&words)
            )));
        }
        let lines = Arc::new(Mutex::new(Vec::new()));
        let reading = tokio::spawn(read(name, stdout, Arc::clone(&lines)));
        Ok(Self {
            name,
            child,
            stdin: Some(stdin),
            lines,
            reading,
            words,
        })
    }

    /// Looks at what was seen so far.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&[L]) -> T) -> T {
        at(&self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks it to end, waits, gives all lines.
    pub(crate) async fn finish(mut self) -> Result<Vec<L>, Error> {
        drop(self.stdin.take());
        let gauge = |problem: String| Error::Gauge {
            what: self.name.to_owned(),
            problem,
        };
        let ended = tokio::time::timeout(END_LIMIT, async {
            let read = (&mut self.reading).await;
            (read, self.child.wait().await)
        });
        match ended.await {
            Err(_) => Err(gauge(format!(
                "it did not end within {} s",
                END_LIMIT.as_secs()
            ))),
            Ok((Ok(Ok(())), Ok(status))) if status.success() => Ok(std::mem::take(
                &mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner),
            )),
            Ok((Ok(Err(error)), _)) => Err(error),
            Ok((_, status)) => {
                let status =
                    status.map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(gauge(format!(
                    "it ended with {status}: {}",
                    joined(&self.words)
                )))
            }
        }
    }
}

fn joined(words: &Mutex<VecDeque<String>>) -> String {
    let words = words.lock().unwrap_or_else(PoisonError::into_inner);
    words.iter().cloned().collect::<Vec<_>>().join("; ")
}

async fn read<L: DeserializeOwned>(
    name: &'static str,
    mut stdout: BufReader<tokio::process::ChildStdout>,
    lines: Arc<Mutex<Vec<L>>>,
) -> Result<(), Error> {
    let mut line = String::new();
    loop {
        line.clear();
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        match (&mut stdout).take(limit).read_line(&mut line).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(source) => {
                return Err(Error::System {
                    doing: format!("reading what {name} prints"),
                    source,
                });
            }
        }
        let one = serde_json::from_str(&line).map_err(|source| Error::Json {
            what: name.to_owned(),
            source,
        })?;
        lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(one);
    }
}

/// In the measuring process: the first line.
pub(crate) fn say_ready() -> Result<(), Error> {
    say(&"ready")
}

/// In the measuring process: one more line.
pub(crate) fn say(line: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_vec(line)
        .map_err(std::io::Error::from)
        .map_err(Error::system("writing a line"))?;
    text.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(&text)
        .and_then(|()| stdout.flush())
        .map_err(Error::system("writing a line"))
}

/// In the measuring process: comes back when standard input closes or SIGTERM or Ctrl-C comes.
pub(crate) async fn asked_to_end() -> Result<(), Error> {
    let listen = |kind| signal(kind).map_err(Error::system("listening for signals"));
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    // A thread, for standard input may be a file, which cannot be waited for otherwise. It ends with the process.
    let (closed, mut closing) = tokio::sync::mpsc::channel::<()>(1);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(closed);
    });
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = closing.recv() => {}
    }
    Ok(())
}
