//! The peer: the same QEMU, driven by hand.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use estive_hypervisor::qmp::Qmp;
use estive_network::namespace::Namespace;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::Child;

use crate::Error;

/// Of `/proc/PID/stat` on every machine that Linux runs on today (USER_HZ).
const TICKS_PER_S: f64 = 100.0;
const PATIENCE: Duration = Duration::from_secs(60);

/// A QEMU started with a command line of our own making, killed when dropped.
pub(super) struct Bare {
    child: Child,
    qmp: Option<Qmp>,
    directory: PathBuf,
}

impl Bare {
    /// Starts `argv` in `namespace`, with `directory` made for its files; does not wait for anything.
    pub(super) fn start(
        argv: &[String],
        namespace: &Namespace,
        directory: &Path,
    ) -> Result<Self, Error> {
        let (program, arguments) = argv.split_first().ok_or_else(|| problem("no program"))?;
        let log = directory.join("stderr");
        let log = std::fs::File::create(&log)
            .map_err(Error::system(format!("making {}", log.display())))?;
        let child = namespace
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::system("starting the bare QEMU"))?;
        Ok(Self {
            child,
            qmp: None,
            directory: directory.to_owned(),
        })
    }

    /// Connects to its monitor, `qmp.sock` in its directory, as soon as that is there.
    pub(super) async fn connect(&mut self) -> Result<(), Error> {
        let socket = self.directory.join("qmp.sock");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match Qmp::connect(&socket, PATIENCE).await {
                Ok((qmp, events)) => {
                    drop(events);
                    self.qmp = Some(qmp);
                    return Ok(());
                }
                Err(error) => {
                    let ended = matches!(self.child.try_wait(), Ok(Some(_)) | Err(_));
                    if ended || tokio::time::Instant::now() > deadline {
                        let words = std::fs::read_to_string(self.directory.join("stderr"));
                        return Err(problem(&format!(
                            "{error}; {}",
                            words.unwrap_or_default().trim()
                        )));
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Gives a command.
    pub(super) async fn execute(&self, command: &str, arguments: Value) -> Result<Value, Error> {
        let qmp = self.qmp.as_ref().ok_or_else(|| problem("not connected"))?;
        qmp.execute(command, arguments, PATIENCE)
            .await
            .map_err(|error| problem(&error.to_string()))
    }

    /// Its run state.
    pub(super) async fn status(&self) -> Result<String, Error> {
        let answer = self.execute("query-status", json!({})).await?;
        Ok(answer
            .get("status")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned())
    }

    /// How much of the guest's memory, of which there is so much, was ever touched.
    pub(super) fn resident_bytes(&self, memory_bytes: u64) -> Result<u64, Error> {
        let pid = self.child.id().ok_or_else(|| problem("it has ended"))?;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))
            .map_err(Error::system("reading what is resident of the bare QEMU"))?;
        resident(&maps, memory_bytes)
            .ok_or_else(|| problem("no mapping has the size of its memory"))
    }

    /// Processor seconds that it has used, its own and the kernel's for it.
    pub(super) fn processor_s(&self) -> Result<f64, Error> {
        let pid = self.child.id().ok_or_else(|| problem("it has ended"))?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_err(Error::system("reading what the bare QEMU has used"))?;
        // After the name, which may hold anything: state is field 3, utime and stime are 14 and 15 (proc(5)).
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<f64>);
        match (ticks.next(), ticks.next()) {
            (Some(Ok(own)), Some(Ok(kernels))) => Ok((own + kernels) / TICKS_PER_S),
            _ => Err(problem("its statistics cannot be read")),
        }
    }

    /// Ends it.
    pub(super) async fn end(mut self) {
        if let Some(pid) = self
            .child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.wait().await;
    }
}

/// The resident part of the mapping of that size, by the kernel's `smaps`.
fn resident(maps: &str, size_bytes: u64) -> Option<u64> {
    let size_kib = size_bytes >> 10;
    let field = |line: &str, name: &str| -> Option<u64> {
        let rest = line.strip_prefix(name)?;
        rest.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let mut is_it = false;
    maps.lines().find_map(|line| {
        if let Some(size) = field(line, "Size:") {
            is_it = size == size_kib;
        }
        field(line, "Rss:").filter(|_| is_it).map(|kib| kib << 10)
    })
}

pub(super) fn problem(what: &str) -> Error {
    Error::Gauge {
        what: "the bare QEMU".to_owned(),
        problem: what.to_owned(),
    }
}

/// Waits until `file` holds `text`, looking every 2 ms.
pub(super) async fn appears(file: &Path, text: &str) -> Result<(), Error> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        let found = std::fs::read(file).unwrap_or_default();
        if found
            .windows(text.len())
            .any(|window| window == text.as_bytes())
        {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            let end =
                String::from_utf8_lossy(&found[found.len().saturating_sub(600)..]).into_owned();
            return Err(problem(&format!(
                "{text:?} did not appear on the console; its end:\n{end}"
            )));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_resident_is_that_of_the_mapping_of_the_right_size() {
        let maps = "7f00-7f10 rw-p 0\nSize:     64 kB\nRss:    12 kB\n7f20-7f30 rw-p 0\nSize:   1024 kB\nRss:    512 kB\n";
        assert_eq!(super::resident(maps, 1 << 20), Some(512 << 10));
        assert_eq!(super::resident(maps, 2 << 20), None);
    }
}
