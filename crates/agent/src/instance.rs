//! A domain's instance on this host: made, started, watched while it boots, and what it leaves behind.

use crate::boot_log::BootLog;
use crate::boot_watch::BootWatch;
use crate::definition;
use crate::domain::Domain;
use crate::images;
use crate::journal::Moving;
use crate::layer;
use estive_api::Problem;
use estive_api::domain_xml::Description;
use estive_boot::record::HostWork;
use estive_hypervisor::{HypervisorError, InstanceState, MigrationParameters};
use estive_model::{Event, EventKind, Generation, Machine};
use estive_moves::{Grant, Holding};
use estive_network::Sender;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

/// How long a resume is tried while a stream that was given up winds down.
const RESUME_PATIENCE: Duration = Duration::from_secs(5);

impl Domain {
    /// For an instance that may use the domain's volume as this generation.
    pub(crate) async fn spec(&self, generation: Generation) -> Result<Machine, Problem> {
        let place = self.agent.place(&self.name);
        let xml = definition::read_xml(&place)?;
        let bridge = &self.agent.config.bridge;
        let tap = self.agent.taps.name(&self.name);
        self.ensure_tap(&xml).await?;
        let xml = match xml {
            Description::Clone(xml) => xml,
            Description::Images(xml) => {
                let allowed = &self.agent.config.images;
                return images::spec(&xml, allowed, bridge, tap).map(Machine::Images);
            }
        };
        self.agent.roots.make_ready(&xml).await?;
        self.agent.admit(&xml).await?;
        let layer = layer::path(&place, &self.record);
        let volume = self.volume_export(&xml, generation).await?;
        let host = definition::Host {
            files: &self.agent.files,
            cache: self.agent.roots.directory(),
            bridge,
            tap,
            plain_disks: self.agent.config.plain_disks,
        };
        definition::spec(&place, layer, &xml, host, volume).map(Machine::Clone)
    }

    /// Its interface on this host, if it has one.
    async fn ensure_tap(&self, description: &Description) -> Result<(), Problem> {
        if !description.has_interface() {
            return Ok(());
        }
        let config = &self.agent.config;
        let sender = match description {
            Description::Clone(xml) => {
                let identity = definition::read_identity(&self.agent.place(&self.name), xml)?;
                definition::sender(&identity, &xml.command_line, config.door)
            }
            // Which addresses it has is its own business, but for the door.
            Description::Images(_) => Sender::Unknown { door: config.door },
        };
        let made = self.agent.taps.ensure(&self.name, &config.bridge, &sender);
        made.await.map_err(|reason| {
            Problem::failed(format!(
                "could not make the network interface of {}: {reason}",
                self.name
            ))
        })
    }

    /// The same of an instance that stands: its interface may be of an agent, or on a bridge, of before.
    pub(crate) async fn ensure_tap_again(&self) {
        let made = match definition::read_xml(&self.agent.place(&self.name)) {
            Ok(xml) => self.ensure_tap(&xml).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = made {
            tracing::warn!(domain = %self.name, %problem, "its network interface was left as it is");
        }
    }

    pub(crate) async fn create(&mut self) -> Result<(), Problem> {
        self.handle.shown.send_modify(|shown| shown.creating = true);
        if let Some(former) = self.boot_watch.take() {
            former.abort();
        }
        // What stands at its paths by now is what it gets.
        self.agent.image_proofs.end(&self.name).await;
        let now_ms = || self.agent.clock.now_ms();
        let asked_ms = now_ms();
        let spec = self.spec(self.record.entry.generation).await?;
        let report = self.agent.hypervisor.channels(&self.name).report;
        // What a former boot wrote is not this one's.
        let _ = std::fs::remove_file(report);
        let began_ms = now_ms();
        {
            let mut log = self.boot_log();
            log.begin(self.record.asked_ms, began_ms);
            log.did(HostWork::Interface, asked_ms, began_ms);
            // An agent that ends here must not take what this boot reports for the former one's.
            log.keep(&self.agent.place(&self.name));
        }
        let created = self.agent.hypervisor.create(&spec).await;
        let created = created.map_err(|error| self.failed("start QEMU of", &error));
        let created = match (created, self.images()) {
            (Ok(()), Ok(Some(xml))) => self.or_end_it(self.has_its_images(&xml).await).await,
            (created, _) => created,
        };
        let mut log = self.boot_log();
        match &created {
            Ok(()) => {
                log.did(HostWork::Emulator, began_ms, now_ms());
                log.came_about();
            }
            Err(_) => log.give_up(),
        }
        log.keep(&self.agent.place(&self.name));
        drop(log);
        created
    }

    /// What was made and cannot be taken is ended.
    async fn or_end_it(&self, taken: Result<(), Problem>) -> Result<(), Problem> {
        if taken.is_err()
            && let Err(error) = self.agent.hypervisor.kill(&self.name).await
        {
            tracing::warn!(domain = %self.name, %error, "what was made in vain was not ended");
        }
        taken
    }

    pub(crate) fn boot_log(&self) -> MutexGuard<'_, BootLog> {
        let log = self.handle.boot.lock();
        log.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn create_incoming(&mut self, grant: Grant) -> Result<(), Problem> {
        let Some(Moving::Destination { stream, .. }) = self.record.moving.clone() else {
            return Err(Problem::failed(format!(
                "the journal does not say where {} is awaited",
                self.name
            )));
        };
        self.handle.shown.send_modify(|shown| shown.creating = true);
        let spec = self.spec(grant.generation).await?;
        let parameters = parameters(grant);
        let tls = self.agent.config.migration.tls;
        let created = self
            .agent
            .hypervisor
            .create_incoming(&spec, stream.address, stream.port, tls, &parameters)
            .await;
        created.map_err(|error| self.failed("make ready to receive", &error))?;
        let proven = std::mem::take(&mut self.proven);
        self.or_end_it(self.has_what_was_proven(&proven).await)
            .await
    }

    /// Starts the processors, as part of a boot if one is under way.
    pub(crate) async fn resume_boot(&self) -> Result<(), Problem> {
        let began_ms = self.agent.clock.now_ms();
        self.resume().await?;
        let mut log = self.boot_log();
        log.did(HostWork::Processors, began_ms, self.agent.clock.now_ms());
        log.keep(&self.agent.place(&self.name));
        Ok(())
    }

    /// Starts the processors, unless they run. A stream that was just given up may take a moment to let go.
    pub(crate) async fn resume(&self) -> Result<(), Problem> {
        let hypervisor = &self.agent.hypervisor;
        let mut last = match hypervisor.state(&self.name).await {
            Ok(InstanceState::Running) => return Ok(()),
            _ => match hypervisor.resume(&self.name).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
        };
        let trying = async {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                match hypervisor.state(&self.name).await {
                    Ok(InstanceState::Running) => return Ok(()),
                    Ok(InstanceState::Gone | InstanceState::GuestStopped) => return Err(None),
                    _ => {}
                }
                match hypervisor.resume(&self.name).await {
                    Ok(()) => return Ok(()),
                    Err(error @ HypervisorError::Rejected { .. }) => last = error,
                    Err(error) => return Err(Some(error)),
                }
            }
        };
        match tokio::time::timeout(RESUME_PATIENCE, trying).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Some(error))) => Err(self.failed("start the processors of", &error)),
            Ok(Err(None)) | Err(_) => Err(self.failed("start the processors of", &last)),
        }
    }

    pub(crate) fn watch_boot(&mut self) {
        if self
            .boot_watch
            .as_ref()
            .is_some_and(|watch| !watch.is_finished())
        {
            return;
        }
        let place = self.agent.place(&self.name);
        let is_over = self.boot_log().is_over();
        // A domain that moved here has booted elsewhere.
        let boots = !is_over && self.record.asked_ms.is_some();
        let xml = match definition::read_clone(&place) {
            Ok(Some(xml)) => Ok(xml),
            Err(problem) => Err(problem),
            // Nothing in it reports to us.
            Ok(None) => return,
        };
        let identity = match xml {
            Ok(xml) if boots && !xml.identity_by_fw_cfg => definition::read_identity(&place, &xml)
                .and_then(|identity| definition::identity_line(&identity))
                .inspect_err(|problem| self.note(problem.error.clone()))
                .ok(),
            _ => None,
        };
        let watch = BootWatch {
            name: self.name.clone(),
            place,
            log: self.handle.boot.clone(),
            identity,
            boots,
            pushing: self.handle.pushing.clone(),
        };
        let hypervisor = self.agent.hypervisor.clone();
        let clock = self.agent.clock.clone();
        self.boot_watch = Some(self.agent.spawn(watch.run(hypervisor, clock)));
    }

    pub(crate) fn learn_pid(&self) {
        let (agent, handle, name) = (self.agent.clone(), self.handle.clone(), self.name.clone());
        self.agent.spawn(async move {
            if let Ok(found) = agent.hypervisor.adopt().await
                && let Some(found) = found.iter().find(|found| found.domain == name)
            {
                handle
                    .shown
                    .send_modify(|shown| shown.pid = Some(found.pid));
            }
        });
    }

    /// Removes what a domain that is no longer held has left; what cannot be removed is, at the next start.
    pub(crate) async fn clean_up(&mut self) {
        if let Some(watch) = self.boot_watch.take() {
            watch.abort();
        }
        self.agent.release(&self.name);
        self.agent.image_proofs.end(&self.name).await;
        *self.boot_log() = BootLog::new(&self.agent.config.name);
        let place = self.agent.place(&self.name);
        if place.exists()
            && let Err(error) = tokio::fs::remove_dir_all(&place).await
        {
            tracing::warn!(domain = %self.name, %error, "its files were not removed");
        }
        self.agent.roots.sweep().await;
        self.agent.dismiss(&self.name).await;
        if let Err(error) = self.agent.hypervisor.erase(&self.name).await {
            tracing::warn!(domain = %self.name, %error, "what its QEMU left was not removed");
        }
        if let Err(error) = self.agent.taps.remove(&self.name).await {
            tracing::warn!(domain = %self.name, %error, "its network interface was not removed");
        }
    }

    /// Writes down that it ended by itself, once.
    pub(crate) async fn mark_crashed(&mut self, how: &str) {
        if self.record.crashed.is_some() || self.record.entry.holding != Holding::Running {
            return;
        }
        let words = self.last_words();
        let reason = if words.is_empty() || how.contains(&words) {
            how.to_owned()
        } else {
            format!("{how}; its last words: {words}")
        };
        self.record.crashed = Some(reason.clone());
        // Told first: better twice than never.
        self.agent.tell(Event {
            sequence: 0,
            time_ms: 0,
            kind: EventKind::Crashed,
            domain: Some(self.name.clone()),
            host: None,
            generation: Some(self.record.entry.generation),
            operation: None,
            reason: reason.clone(),
        });
        let (journal, record) = (self.agent.journal.clone(), self.record.clone());
        let written = tokio::task::spawn_blocking(move || journal.write(&record)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::warn!(domain = %self.name, "that it crashed was not written down");
        }
        self.handle
            .shown
            .send_modify(|shown| shown.record.crashed = Some(reason));
    }

    /// The last lines of what QEMU said, else of the console.
    pub(crate) fn last_words(&self) -> String {
        let console = self.agent.hypervisor.channels(&self.name).console_log;
        [console.with_file_name("stderr"), console]
            .iter()
            .map(|path| last_lines(path))
            .find(|words| !words.is_empty())
            .unwrap_or_default()
    }
}

/// The last three lines of a file, at most 600 bytes.
fn last_lines(path: &std::path::Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(600)))?;
        let mut bytes = Vec::new();
        file.take(600).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text: String = String::from_utf8_lossy(&bytes)
        .chars()
        .filter(|c| *c == '\n' || !c.is_control())
        .collect();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

pub(crate) fn parameters(grant: Grant) -> MigrationParameters {
    MigrationParameters {
        post_copy: grant.post_copy,
        ..MigrationParameters::default()
    }
}
