//! One program of the bed: started in its namespace, its output in a file, killed by its number.

use std::ffi::OsString;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use estive_network::namespace::Namespace;
use tokio::process::Child;

use crate::Error;

/// How a part is started, as often as it is.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// What people know it by: "agent of host1".
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
    pub(crate) argv: Vec<OsString>,
    pub(crate) log: PathBuf,
}

/// A part and its process, if one runs.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) recipe: Recipe,
    child: Option<Child>,
}

impl Part {
    pub(crate) fn new(recipe: Recipe) -> Self {
        Self {
            recipe,
            child: None,
        }
    }

    /// Starts it with `environment` added. One that runs already is left as it is. Its log grows at the end.
    pub(crate) fn start(&mut self, environment: &[(&str, &str)]) -> Result<(), Error> {
        if self.is_running() {
            return Ok(());
        }
        let failed = || Error::system(format!("starting the {}", self.recipe.name));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.recipe.log)
            .map_err(failed())?;
        let also = log.try_clone().map_err(failed())?;
        let (program, arguments) = self
            .recipe
            .argv
            .split_first()
            .ok_or_else(|| failed()(std::io::Error::other("no program")))?;
        let mut command = self.recipe.namespace.command(program);
        command
            .args(arguments)
            .envs(environment.iter().copied())
            // What the caller was told in its environment is not for the daemons.
            .env_remove("ESTIVE_MANAGER")
            .env_remove("ESTIVE_CREDENTIALS")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(also)
            .process_group(0)
            .kill_on_drop(true);
        self.child = Some(command.spawn().map_err(failed())?);
        Ok(())
    }

    /// Its process. `nsenter` executes the program, so the number is the program's own.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error here means that it ended by itself.
            let _ = child.kill().await;
        }
    }

    /// Waits until it ended by itself (a fault point, a signal); gives its exit code as a shell counts.
    pub(crate) async fn ended(&mut self, within: Duration) -> Result<i32, Error> {
        let Some(child) = self.child.as_mut() else {
            return Ok(-1);
        };
        match tokio::time::timeout(within, child.wait()).await {
            Ok(Ok(status)) => {
                self.child = None;
                Ok(crate::outer_first::exit_code(status))
            }
            Ok(Err(source)) => Err(Error::System {
                doing: format!("waiting for the {}", self.recipe.name),
                source,
            }),
            Err(_) => Err(self.trouble(format!("it still runs after {} s", within.as_secs()))),
        }
    }

    /// An error about this part, with the end of its log.
    pub(crate) fn trouble(&self, problem: impl Into<String>) -> Error {
        Error::Part {
            name: self.recipe.name.clone(),
            problem: problem.into(),
            log: tail(&self.recipe.log, 4096),
        }
    }

    /// Polls `answers` until it holds; an error when the part ends or `within` passes.
    pub(crate) async fn wait_until<F: Future<Output = Result<(), String>>>(
        &mut self,
        within: Duration,
        mut answers: impl FnMut() -> F,
    ) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let last = match answers().await {
                Ok(()) => return Ok(()),
                Err(problem) => problem,
            };
            if !self.is_running() {
                return Err(self.trouble("it ended before it answered"));
            }
            if tokio::time::Instant::now() > deadline {
                return Err(self.trouble(format!(
                    "it did not answer within {} s: {last}",
                    within.as_secs()
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The last `limit_bytes` of a log, from the beginning of a line.
pub(crate) fn tail(path: &Path, limit_bytes: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit_bytes)))?;
        let mut bytes = Vec::new();
        file.take(limit_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let Ok(bytes) = read() else {
        return "(no log)".to_owned();
    };
    let text = String::from_utf8_lossy(&bytes);
    match text.split_once('\n') {
        Some((_, rest)) if bytes.len() as u64 == limit_bytes => rest.to_owned(),
        _ => text.into_owned(),
    }
}

/// Does the process listen on TCP `port`, in its own network namespace? Read from `/proc/PID/net/tcp`.
pub(crate) fn listens(pid: u32, port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).is_ok_and(|table| {
        table.lines().skip(1).any(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            // 0A is TCP_LISTEN.
            fields.next().is_some_and(|local| local.ends_with(&wanted))
                && fields.nth(1) == Some("0A")
        })
    })
}

/// Every process whose network is `namespace`.
pub(crate) fn processes_in(namespace: &Namespace) -> Vec<i32> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(wanted) = std::fs::metadata(namespace.path()).map(|found| (found.dev(), found.ino()))
    else {
        return Vec::new();
    };
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            std::fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|found| (found.dev(), found.ino()) == wanted)
        })
        .collect()
}
