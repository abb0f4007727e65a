//! One instance: its process, its monitor, and what its words mean.

use super::directory::{Directory, failed};
use super::outgoing::Outgoing;
use super::process::Process;
use crate::qmp::{Qmp, QmpError, QmpEvent};
use crate::seam::{
    HypervisorError, InstanceEvent, InstanceHappening, InstanceState, MigrationStatus,
};
use estive_model::DomainName;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};

/// Pause between two attempts to reach a monitor that is not there yet.
const RETRY: Duration = Duration::from_millis(10);

pub(super) struct Instance {
    pub(super) domain: DomainName,
    pub(super) directory: Directory,
    pub(super) process: Process,
    pub(super) patience: Duration,
    pub(super) happenings: broadcast::Sender<InstanceEvent>,
    /// Orders about streams are given one after the other.
    pub(super) orders: tokio::sync::Mutex<()>,
    outgoing: Mutex<Outgoing>,
    /// Empty until the monitor has been reached, and again after it hung up.
    monitor: tokio::sync::Mutex<Option<Arc<Qmp>>>,
}

impl Instance {
    pub(super) fn new(
        domain: DomainName,
        directory: Directory,
        process: Process,
        patience: Duration,
        happenings: broadcast::Sender<InstanceEvent>,
    ) -> Self {
        Self {
            domain,
            directory,
            process,
            patience,
            happenings,
            orders: tokio::sync::Mutex::default(),
            outgoing: Mutex::default(),
            monitor: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The monitor; reached again if the connection was lost.
    pub(super) async fn monitor(&self) -> Result<Arc<Qmp>, HypervisorError> {
        let mut monitor = self.monitor.lock().await;
        if let Some(qmp) = monitor.as_ref().filter(|qmp| !qmp.is_closed()) {
            return Ok(qmp.clone());
        }
        *monitor = None;
        let path = self.directory.qmp();
        let reach = async {
            loop {
                match Qmp::connect(&path, self.patience).await {
                    // Not there yet: the process has only just been started.
                    Err(QmpError::Connect { .. }) => tokio::time::sleep(RETRY).await,
                    other => return other,
                }
            }
        };
        let reached = tokio::select! {
            biased;
            () = self.process.ended() => return Err(HypervisorError::Died(self.domain.clone())),
            reached = tokio::time::timeout(self.patience, reach) => reached,
        };
        let (qmp, events) = match reached {
            Ok(Ok(reached)) => reached,
            Ok(Err(error)) => return Err(self.error(error).await),
            Err(_) => return Err(self.silent("the greeting")),
        };
        tokio::spawn(forward(
            events,
            self.domain.clone(),
            self.happenings.clone(),
        ));
        let qmp = Arc::new(qmp);
        *monitor = Some(qmp.clone());
        Ok(qmp)
    }

    pub(super) async fn execute(
        &self,
        command: &str,
        arguments: Value,
    ) -> Result<Value, HypervisorError> {
        let monitor = self.monitor().await?;
        match monitor.execute(command, arguments, self.patience).await {
            Ok(value) => Ok(value),
            Err(error) => Err(self.error(error).await),
        }
    }

    /// A lost connection means that the process has ended, as a rule: it is given a moment to show it.
    pub(super) async fn error(&self, error: QmpError) -> HypervisorError {
        let domain = self.domain.clone();
        match error {
            QmpError::Refused {
                command,
                description,
                ..
            } => HypervisorError::Rejected {
                domain,
                command,
                detail: description,
            },
            QmpError::Silent { command, waited_ms } => HypervisorError::Silent {
                domain,
                command,
                waited_ms,
            },
            QmpError::Closed { command } => {
                match tokio::time::timeout(self.patience, self.process.ended()).await {
                    Ok(()) => HypervisorError::Died(domain),
                    Err(_) => self.silent(&command),
                }
            }
            QmpError::Connect { path, source } => {
                failed(format!("reaching QEMU of {domain} at {path}"), source)
            }
        }
    }

    pub(super) fn rejected(&self, command: &str, detail: impl Into<String>) -> HypervisorError {
        HypervisorError::Rejected {
            domain: self.domain.clone(),
            command: command.to_owned(),
            detail: detail.into(),
        }
    }

    pub(super) fn silent(&self, command: &str) -> HypervisorError {
        HypervisorError::Silent {
            domain: self.domain.clone(),
            command: command.to_owned(),
            waited_ms: u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// What it is doing now, by its own words.
    pub(super) async fn state(&self) -> Result<InstanceState, HypervisorError> {
        let result = self.ask_state().await;
        match result {
            Err(HypervisorError::Died(_)) => Ok(InstanceState::Gone),
            other => other,
        }
    }

    async fn ask_state(&self) -> Result<InstanceState, HypervisorError> {
        let status = self.execute("query-status", Value::Null).await?;
        let status = status["status"].as_str().unwrap_or_default();
        // `RunState` of QEMU's qapi/run-state.json.
        Ok(match status {
            "prelaunch" | "preconfig" => InstanceState::Prelaunch,
            "running" | "suspended" => InstanceState::Running,
            "inmigrate" => InstanceState::AwaitingStream,
            "postmigrate" => InstanceState::Sent,
            "shutdown" | "guest-panicked" | "internal-error" => InstanceState::GuestStopped,
            "paused" if self.directory.awaiting().exists() => {
                let migration = self.execute("query-migrate", Value::Null).await?;
                match migration["status"].as_str() {
                    Some("completed" | "postcopy-active" | "postcopy-paused") => {
                        InstanceState::Loaded
                    }
                    _ => InstanceState::AwaitingStream,
                }
            }
            // `paused`, `finish-migrate`, `io-error`, `save-vm`, ...: halted, can go on.
            _ => InstanceState::Paused,
        })
    }

    /// Starts the processors.
    pub(super) async fn resume(&self) -> Result<(), HypervisorError> {
        let state = self.ask_state().await?;
        // QEMU takes `cont` here as "start as soon as the stream ends": the one thing that must never happen.
        if state == InstanceState::AwaitingStream {
            return Err(self.rejected("cont", "its incoming stream is not complete"));
        }
        let awaiting = self.directory.awaiting();
        if awaiting.exists() {
            // Before the processors run: "loaded" is never said of an instance that may have run.
            std::fs::remove_file(&awaiting)
                .map_err(|source| failed(format!("removing {}", awaiting.display()), source))?;
        }
        self.execute("cont", Value::Null).await?;
        if state == InstanceState::Loaded {
            // QEMU announced the guest's address when the stream ended, maybe long ago: switches learn from this.
            let pace = json!({"initial": 50, "max": 550, "rounds": 5, "step": 50});
            if let Err(error) = self.execute("announce-self", pace).await {
                tracing::warn!(domain = %self.domain, %error, "the guest's address was not announced");
            }
        }
        Ok(())
    }

    /// Halts the processors.
    pub(super) async fn pause(&self) -> Result<(), HypervisorError> {
        if self.ask_state().await? == InstanceState::AwaitingStream {
            return Err(self.rejected("stop", "it awaits a stream; its processors do not run"));
        }
        self.execute("stop", Value::Null).await.map(drop)
    }

    pub(super) fn tell(&self, what: InstanceHappening) {
        // Nobody may be listening.
        let _ = self.happenings.send(InstanceEvent {
            domain: self.domain.clone(),
            what,
            time_us: 0,
        });
    }
}

async fn forward(
    mut events: mpsc::Receiver<QmpEvent>,
    domain: DomainName,
    happenings: broadcast::Sender<InstanceEvent>,
) {
    while let Some(event) = events.recv().await {
        if let Some(what) = happening(&event) {
            let event = InstanceEvent {
                domain: domain.clone(),
                what,
                time_us: event.time_us,
            };
            let _ = happenings.send(event);
        }
    }
}

fn happening(event: &QmpEvent) -> Option<InstanceHappening> {
    Some(match event.name.as_str() {
        "STOP" => InstanceHappening::Halted,
        "RESUME" => InstanceHappening::Resumed,
        "GUEST_PANICKED" => InstanceHappening::GuestPanicked,
        "SHUTDOWN" if event.data["guest"] == json!(true) => match event.data["reason"].as_str() {
            Some("guest-panic") => InstanceHappening::GuestPanicked,
            _ => InstanceHappening::GuestPoweredOff,
        },
        "MIGRATION" => {
            InstanceHappening::Migration(migration_status(event.data["status"].as_str()?))
        }
        _ => return None,
    })
}

/// `MigrationStatus` of QEMU's qapi/migration.json.
pub(super) fn migration_status(word: &str) -> MigrationStatus {
    match word {
        "none" => MigrationStatus::None,
        "setup" | "wait-unplug" => MigrationStatus::Setup,
        "pre-switchover" | "device" => MigrationStatus::Switching,
        "completed" => MigrationStatus::Completed,
        "failed" | "failing" => MigrationStatus::Failed,
        "cancelled" => MigrationStatus::Cancelled,
        word if word.starts_with("postcopy") => MigrationStatus::PostCopy,
        // `active`, `cancelling`, `colo`: not over yet.
        _ => MigrationStatus::Active,
    }
}
