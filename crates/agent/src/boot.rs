//! Watches a clone's boot: what `estive-init` reports, and when it arrived. Gives it its identity where that does not
//! come by fw_cfg. Later it listens to what the clone's own system says on the same port: its registration.

use estive_api::wire::{BootTimes, Registration};
use estive_boot::report::{Line, Phase};
use estive_hypervisor::{Channels, Hypervisor};
use estive_model::{Clock, DomainName};
use serde::{Deserialize, Serialize};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// Name of the kept log in the domain's directory.
const FILE: &str = "boot.json";
const POLL: Duration = Duration::from_millis(20);
/// Polls between two looks whether the guest is still there.
const POLLS_BETWEEN_LOOKS: u32 = 50;
/// Once it has booted.
const SLOW_POLL: Duration = Duration::from_secs(1);
const SLOW_POLLS_BETWEEN_LOOKS: u32 = 10;
/// A guest that has said nothing final for so long is not watched any more.
const PATIENCE: Duration = Duration::from_secs(900);
const IDENTITY_RETRY: Duration = Duration::from_secs(1);
const MAX_REPORT_BYTES: u64 = estive_boot::report::REPORT_BYTES_MAX as u64;

/// A line of the boot report with its time of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivedLine {
    /// Milliseconds since the epoch.
    pub arrived_ms: u64,
    /// As init wrote it.
    pub line: Line,
}

/// The last boot of a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootLog {
    /// By phase.
    pub times: BootTimes,
    /// As written.
    pub lines: Vec<ArrivedLine>,
    /// Bytes of the report already read.
    #[serde(default)]
    offset: u64,
}

impl BootLog {
    /// The kept log; empty when there is none.
    pub fn load(place: &Path) -> Self {
        std::fs::read(place.join(FILE))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    fn keep(&self, place: &Path) {
        let path = place.join(FILE);
        let written = serde_json::to_vec(self)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(&path, text));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "the boot's times were not kept");
        }
    }

    /// Nothing more is awaited.
    pub fn is_over(&self) -> bool {
        self.times.error.is_some() || self.times.phases_ms.contains_key(Phase::Switch.name())
    }

    fn has_identity(&self) -> bool {
        self.times.phases_ms.contains_key(Phase::Identity.name())
    }

    fn take(&mut self, line: Line, arrived_ms: u64) {
        match &line {
            Line::Done { phase, uptime_ms } => {
                if *phase == Phase::Init {
                    // The guest began again.
                    *self = Self {
                        offset: self.offset,
                        ..Self::default()
                    };
                }
                let name = phase.name().to_owned();
                self.times
                    .phases_ms
                    .entry(name.clone())
                    .or_insert(arrived_ms);
                self.times.uptimes_ms.entry(name).or_insert(*uptime_ms);
            }
            Line::Failed { error, phase } => {
                let error: String = error.chars().take(1000).collect();
                self.times.error = Some(format!("in phase {phase}: {error}"));
            }
            Line::Registered { registered } => {
                self.times.registered = Some(Registration {
                    address: registered.address,
                    cpus: registered.cpus,
                    since_ms: arrived_ms,
                });
                return;
            }
            Line::Unregistered { .. } => {
                self.times.registered = None;
                return;
            }
            Line::Step(_) => {}
        }
        if self.lines.len() < 64 {
            self.lines.push(ArrivedLine { arrived_ms, line });
        }
    }

    /// Reads complete lines that were added to the report; true when there were any.
    fn read_on(&mut self, report: &Path, now_ms: u64) -> std::io::Result<bool> {
        let mut file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(report)?;
        let length = file.metadata()?.len();
        if length < self.offset {
            self.offset = 0;
        }
        if length == self.offset {
            return Ok(false);
        }
        // A guest that writes without end is not followed.
        let from = self.offset.max(length.saturating_sub(MAX_REPORT_BYTES));
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        (&file).take(MAX_REPORT_BYTES).read_to_end(&mut bytes)?;
        let end = bytes.iter().rposition(|byte| *byte == b'\n');
        if length > MAX_REPORT_BYTES {
            // Nor does it fill the disk: QEMU appends, and goes on at the new end.
            file.set_len(0)?;
            self.offset = 0;
        } else if let Some(end) = end {
            self.offset = from + end as u64 + 1;
        }
        let Some(end) = end else {
            return Ok(false);
        };
        for line in bytes[..end].split(|byte| *byte == b'\n') {
            if line.len() <= 4096
                && let Ok(line) = serde_json::from_slice(line.trim_ascii())
            {
                self.take(line, now_ms);
            }
        }
        Ok(true)
    }
}

/// One boot to be watched.
pub struct BootWatch {
    /// The domain.
    pub name: DomainName,
    /// Its directory.
    pub place: PathBuf,
    /// Where what is seen goes.
    pub log: Arc<Mutex<BootLog>>,
    /// The identity to write to its port, when it does not come by fw_cfg.
    pub identity: Option<String>,
    /// It boots here; else it has booted elsewhere, or long ago.
    pub boots: bool,
}

impl BootWatch {
    /// Watches until the instance is gone.
    pub async fn run(self, hypervisor: Arc<dyn Hypervisor>, clock: Arc<dyn Clock>) {
        let channels = hypervisor.channels(&self.name);
        if self.boots {
            self.boot(&*hypervisor, &channels, &*clock).await;
        }
        let mut polls = 0_u32;
        loop {
            self.read_on(&channels.report, &*clock);
            polls += 1;
            if polls.is_multiple_of(SLOW_POLLS_BETWEEN_LOOKS) && self.is_gone(&*hypervisor).await {
                return;
            }
            tokio::time::sleep(SLOW_POLL).await;
        }
    }

    /// Until the clone's own init runs, init has given up, or the instance is gone.
    async fn boot(&self, hypervisor: &dyn Hypervisor, channels: &Channels, clock: &dyn Clock) {
        let watching = async {
            let mut polls = 0_u32;
            loop {
                let over = self.read_on(&channels.report, clock);
                polls += 1;
                let looked = polls.is_multiple_of(POLLS_BETWEEN_LOOKS);
                if over || (looked && self.is_gone(hypervisor).await) {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let watching = tokio::time::timeout(PATIENCE, watching);
        tokio::pin!(watching);
        let Some(identity) = &self.identity else {
            let _ = watching.await;
            return;
        };
        tokio::select! {
            _ = &mut watching => return,
            () = self.give_identity(&channels.identity, identity) => {}
        }
        let _ = watching.await;
    }

    /// Takes what was added to the report; says whether the boot is over.
    fn read_on(&self, report: &Path, clock: &dyn Clock) -> bool {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.read_on(report, clock.now_ms()).unwrap_or(false) {
            log.keep(&self.place);
        }
        log.is_over()
    }

    async fn is_gone(&self, hypervisor: &dyn Hypervisor) -> bool {
        matches!(
            hypervisor.state(&self.name).await,
            Ok(estive_hypervisor::InstanceState::Gone)
        )
    }

    /// Writes the identity again and again until the guest says that it has it.
    async fn give_identity(&self, socket: &Path, identity: &str) {
        let line = format!("{identity}\n");
        while !self
            .log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .has_identity()
        {
            let stream = tokio::net::UnixStream::connect(socket).await;
            match stream {
                Ok(mut stream) => {
                    let _ = stream.write_all(line.as_bytes()).await;
                    // Held open for a while: the guest may not have opened its port yet.
                    tokio::time::sleep(IDENTITY_RETRY).await;
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_running_system_registers_and_takes_it_back() {
        let home = tempfile::tempdir().unwrap();
        let report = home.path().join("report");
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&report)
            .unwrap();
        let mut log = BootLog::default();
        let registered = b"{\"registered\":{\"address\":\"10.77.0.101\",\"cpus\":2}}\n";
        file.write_all(registered).unwrap();
        assert!(log.read_on(&report, 70).unwrap());
        let known = log.times.registered.clone().unwrap();
        assert_eq!((known.cpus, known.since_ms), (2, 70));
        assert!(log.lines.is_empty(), "no part of a boot");
        // A guest that writes without end neither fills the disk nor hides what it says last.
        file.write_all(&vec![b'x'; MAX_REPORT_BYTES as usize])
            .unwrap();
        file.write_all(b"\n{\"unregistered\":true}\n").unwrap();
        assert!(log.read_on(&report, 80).unwrap());
        assert_eq!(log.times.registered, None);
        assert_eq!(file.metadata().unwrap().len(), 0);
        file.write_all(registered).unwrap();
        assert!(log.read_on(&report, 90).unwrap());
        assert_eq!(log.times.registered.unwrap().since_ms, 90);
    }

    #[test]
    fn lines_are_taken_once_when_they_are_complete() {
        let home = tempfile::tempdir().unwrap();
        let report = home.path().join("report");
        let mut file = std::fs::File::create(&report).unwrap();
        let mut log = BootLog::default();
        file.write_all(b"{\"phase\":\"init\",\"uptime_ms\":900}\nnoise\n{\"phase\":\"mod")
            .unwrap();
        assert!(log.read_on(&report, 10).unwrap());
        assert_eq!(log.times.phases_ms.len(), 1);
        assert!(!log.read_on(&report, 11).unwrap());
        file.write_all(b"ules\",\"uptime_ms\":950}\n{\"phase\":\"root\",\"error\":\"no disk\"}\n")
            .unwrap();
        assert!(log.read_on(&report, 12).unwrap());
        assert_eq!(log.times.phases_ms["init"], 10);
        assert_eq!(log.times.phases_ms["modules"], 12);
        assert_eq!(log.times.uptimes_ms["modules"], 950);
        assert!(log.is_over() && log.times.error.as_ref().unwrap().contains("no disk"));
        log.keep(home.path());
        assert_eq!(BootLog::load(home.path()), log);
        // A guest that reboots begins again.
        file.write_all(b"{\"phase\":\"init\",\"uptime_ms\":800}\n")
            .unwrap();
        assert!(log.read_on(&report, 20).unwrap());
        assert_eq!(log.times.phases_ms["init"], 20);
        assert!(!log.is_over());
    }
}
