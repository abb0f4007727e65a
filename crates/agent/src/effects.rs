//! Does what [`estive_moves::step`] says, in order, with the fault points around it.

use crate::boot::{BootLog, BootWatch};
use crate::definition;
use crate::domain::{Doing, Domain};
use crate::journal::{Moving, Record};
use crate::stream;
use estive_api::wire::OperationPhase;
use estive_api::{Problem, fault};
use estive_hypervisor::{
    HypervisorError, InstanceEvent, InstanceState, MigrationParameters, StreamAddress,
};
use estive_model::{DomainSpec, Event, EventKind};
use estive_moves::{Answer, CommitOutcome, Effect, Entry, Grant, Holding, Input, Seen, step};
use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::broadcast;

/// How long a resume is tried while a stream that was given up winds down.
const RESUME_PATIENCE: Duration = Duration::from_secs(5);

impl Domain {
    /// One input: look, decide, do. The answer to an order, if it was one.
    pub(crate) fn apply<'a>(
        &'a mut self,
        input: Input,
        mut doing: Doing,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Answer>, Problem>> + Send + 'a>> {
        Box::pin(async move {
            let seen = self.see().await;
            let before = self.record.entry;
            let effects = step(&before, seen, input);
            tracing::debug!(domain = %self.name, ?before, ?seen, ?input, ?effects, "step");
            let mut answer = None;
            for effect in effects {
                match effect {
                    Effect::Answer(given) => answer = Some(given),
                    other => self.perform(other, input, seen, &mut doing).await?,
                }
            }
            self.after(before, input).await;
            Ok(answer)
        })
    }

    async fn perform(
        &mut self,
        effect: Effect,
        input: Input,
        seen: Seen,
        doing: &mut Doing,
    ) -> Result<(), Problem> {
        match effect {
            Effect::Persist(entry) => {
                let point = persist_point(input, entry);
                around(point, self.persist(entry, input, doing)).await
            }
            Effect::Create => {
                let made = around(Some("start.created"), self.create()).await;
                self.or_create_failed(made).await
            }
            Effect::CreateIncoming(grant) => {
                let made = around(Some("move.incoming_created"), self.create_incoming(grant)).await;
                self.or_create_failed(made).await
            }
            Effect::Resume => {
                let point = match input {
                    Input::Start(_) => Some("start.resumed"),
                    Input::Commit(_) => Some("move.resumed"),
                    _ => None,
                };
                around(point, self.resume()).await
            }
            Effect::Kill => {
                let point = match input {
                    Input::Stop => Some("stop.killed"),
                    Input::Committed(..) => Some("move.source_killed"),
                    _ => None,
                };
                around(point, async {
                    if let Some(watch) = self.boot_watch.take() {
                        watch.abort();
                    }
                    let killed = self.agent.hypervisor.kill(&self.name).await;
                    killed.map_err(|error| self.failed("end QEMU of", &error))
                })
                .await
            }
            Effect::StartStream(grant) => self.start_stream(grant).await,
            Effect::CancelStream => {
                let cancelled = self.agent.hypervisor.cancel_migration(&self.name).await;
                if let Err(error) = cancelled {
                    // What became of it shows in the next look; the journal says already that it stays.
                    tracing::warn!(domain = %self.name, %error, "its stream could not be cancelled");
                }
                Ok(())
            }
            Effect::StartPostCopy => {
                self.change_report(|report| {
                    report.choice = "post-copy, since pre-copy did not converge".into();
                });
                self.start_post_copy().await
            }
            Effect::AskReady(grant) => {
                self.change_report(|report| report.phase = OperationPhase::Switching);
                if let Some(asker) = self.asker.take() {
                    asker.abort();
                }
                let asking = stream::ask_ready(self.peer(grant)?);
                self.asker = Some(self.agent.spawn(asking));
                Ok(())
            }
            Effect::SendCommit(grant) => {
                let lives = |(held, task): &(Grant, tokio::task::AbortHandle)| {
                    *held == grant && !task.is_finished()
                };
                if !self.committer.as_ref().is_some_and(lives) {
                    let sending = stream::send_commit(self.peer(grant)?);
                    self.committer = Some((grant, self.agent.spawn(sending)));
                }
                Ok(())
            }
            // `seen` is part of the decision, and answers are taken out by the caller.
            Effect::Answer(_) => {
                let _ = seen;
                Ok(())
            }
        }
    }

    async fn or_create_failed(&mut self, made: Result<(), Problem>) -> Result<(), Problem> {
        self.handle
            .shown
            .send_modify(|shown| shown.creating = false);
        let Err(problem) = made else {
            self.learn_pid();
            return Ok(());
        };
        self.note(problem.error.clone());
        let doing = Doing::because(problem.error.clone());
        // The problem itself is the answer; that the journal could not be written either is in the log.
        if let Err(worse) = self.apply(Input::CreateFailed, doing).await {
            tracing::error!(domain = %self.name, %worse, "a failed creation could not be written down");
        }
        Err(problem)
    }

    /// Makes the new entry durable, with what belongs to it, and tells of it.
    async fn persist(
        &mut self,
        entry: Entry,
        input: Input,
        doing: &mut Doing,
    ) -> Result<(), Problem> {
        let before = self.record.clone();
        let mut record = before.clone();
        record.entry = entry;
        match entry.holding {
            Holding::Outgoing(_) | Holding::Incoming(_) => {
                if let Some(moving) = doing.moving.take() {
                    record.moving = Some(moving);
                }
            }
            Holding::Released(_) => {}
            Holding::Absent => {
                record.moving = None;
                (record.memory_mib, record.cpus, record.layer_bytes) = (0, 0, 0);
                (record.asked_ms, record.crashed) = (None, None);
            }
            Holding::Running | Holding::Stopped => record.moving = None,
        }
        if let Some(asked_ms) = doing.asked_ms.take() {
            record.asked_ms = Some(asked_ms);
            record.crashed = None;
        }
        let staged = doing.staged.take();
        if let Some(staged) = &staged {
            record.memory_mib = staged.xml.memory_mib;
            record.cpus = staged.xml.cpus;
            record.layer_bytes = staged.layer_bytes;
        }
        let place = self.agent.place(&self.name);
        let journal = self.agent.journal.clone();
        let written = {
            let record = record.clone();
            tokio::task::spawn_blocking(move || {
                if let Some(staged) = staged {
                    staged.install(&place)?;
                }
                journal.write(&record)
            })
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        };
        if let Err(error) = written {
            // It may be there or not: until somebody has looked, nothing is decided on it.
            let reason = format!(
                "the journal's record of {} could not be written ({error}): see to the disk of the state directory and \
                 restart the agent",
                self.name
            );
            self.handle
                .shown
                .send_modify(|shown| shown.damaged = Some(reason.clone()));
            return Err(Problem::failed(reason));
        }
        self.record = record;
        self.handle.shown.send_modify(|shown| {
            shown.record = self.record.clone();
            if !matches!(input, Input::CreateFailed | Input::InstanceGone) {
                shown.note = None;
            }
        });
        self.tell_of(&before, input, &doing.reason);
        Ok(())
    }

    /// The event, and the operation's phase, that a change of holding means.
    fn tell_of(&self, before: &Record, input: Input, reason: &str) {
        let entry = self.record.entry;
        let operation = before.moving.as_ref().or(self.record.moving.as_ref());
        let kind = match (before.entry.holding, entry.holding) {
            (Holding::Absent, Holding::Stopped) => EventKind::Defined,
            (Holding::Outgoing(_), Holding::Released(_)) => EventKind::MoveReleased,
            (Holding::Outgoing(_), Holding::Running) | (Holding::Incoming(_), Holding::Absent) => {
                EventKind::MoveAborted
            }
            (Holding::Incoming(_), Holding::Running) => EventKind::MoveTaken,
            (Holding::Released(_), Holding::Absent) => EventKind::MoveCommitted,
            (Holding::Running, Holding::Outgoing(_)) => EventKind::MoveOrdered,
            (Holding::Absent, Holding::Incoming(_)) => EventKind::MovePrepared,
            (Holding::Stopped, Holding::Absent) => EventKind::Deleted,
            (Holding::Running, Holding::Stopped) => EventKind::Stopped,
            (Holding::Stopped | Holding::Running, Holding::Running)
                if matches!(input, Input::Start(_)) =>
            {
                EventKind::Started
            }
            _ => return,
        };
        let generation = match entry.holding {
            Holding::Outgoing(grant) | Holding::Released(grant) | Holding::Incoming(grant) => {
                grant.generation
            }
            _ => entry.generation,
        };
        self.agent.tell(Event {
            sequence: 0,
            time_ms: 0,
            kind,
            domain: Some(self.name.clone()),
            host: None,
            generation: Some(generation),
            operation: operation.map(|moving| moving.operation().clone()),
            reason: reason.to_owned(),
        });
        if let Some(Moving::Source { operation, .. }) = operation {
            let phase = match kind {
                EventKind::MoveOrdered => {
                    let accepted = OperationPhase::Accepted;
                    self.agent
                        .begin_operation(operation, &self.name, generation, accepted);
                    return;
                }
                EventKind::MoveReleased => OperationPhase::Released,
                EventKind::MoveAborted => OperationPhase::Aborted,
                EventKind::MoveCommitted => match input {
                    Input::Committed(_, CommitOutcome::Lost) => OperationPhase::Lost,
                    _ => OperationPhase::Done,
                },
                _ => return,
            };
            self.agent.operations.change(operation, |report| {
                report.phase = phase;
                if phase == OperationPhase::Aborted && report.error.is_none() {
                    report.error = Some(reason.to_owned());
                }
                if phase == OperationPhase::Lost {
                    report.error = Some("its instance on the destination ended before it ran there: its memory is lost".into());
                }
            });
        }
    }

    /// What follows from the new entry and is not part of the decision.
    async fn after(&mut self, before: Entry, input: Input) {
        let holding = self.record.entry.holding;
        if !matches!(holding, Holding::Outgoing(_) | Holding::Released(_)) {
            for task in [self.watcher.take(), self.asker.take()]
                .into_iter()
                .flatten()
            {
                task.abort();
            }
        }
        if !matches!(holding, Holding::Incoming(_)) {
            self.agent.release_port(&self.name);
        }
        if holding == Holding::Absent && before.holding != Holding::Absent {
            self.clean_up().await;
        }
        if matches!(input, Input::Start(_)) && holding == Holding::Running {
            self.watch_boot();
        }
    }

    async fn spec(&self) -> Result<DomainSpec, Problem> {
        let place = self.agent.place(&self.name);
        let xml = definition::read_xml(&place)?;
        let bridge = &self.agent.config.bridge;
        let tap = self.agent.taps.name(&self.name);
        if xml.mac.is_some() {
            self.agent
                .taps
                .ensure(&self.name, bridge)
                .await
                .map_err(|reason| {
                    Problem::failed(format!(
                        "could not make the network interface of {}: {reason}",
                        self.name
                    ))
                })?;
        }
        definition::spec(&place, &xml, &self.agent.files, bridge, tap)
    }

    async fn create(&mut self) -> Result<(), Problem> {
        self.handle.shown.send_modify(|shown| shown.creating = true);
        let spec = self.spec().await?;
        let report = self.agent.hypervisor.channels(&self.name).report;
        // What a former boot wrote is not this one's.
        let _ = std::fs::remove_file(report);
        *self
            .handle
            .boot
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = BootLog::default();
        let created = self.agent.hypervisor.create(&spec).await;
        created.map_err(|error| self.failed("start QEMU of", &error))
    }

    async fn create_incoming(&mut self, grant: Grant) -> Result<(), Problem> {
        let Some(Moving::Destination { stream, .. }) = self.record.moving.clone() else {
            return Err(Problem::failed(format!(
                "the journal does not say where {} is awaited",
                self.name
            )));
        };
        self.handle.shown.send_modify(|shown| shown.creating = true);
        let spec = self.spec().await?;
        let parameters = parameters(grant);
        let tls = self.agent.config.migration.tls;
        let created = self
            .agent
            .hypervisor
            .create_incoming(&spec, stream.address, stream.port, tls, &parameters)
            .await;
        created.map_err(|error| self.failed("make ready to receive", &error))
    }

    async fn start_stream(&mut self, grant: Grant) -> Result<(), Problem> {
        let Some(Moving::Source { stream, .. }) = self.record.moving.clone() else {
            return Err(Problem::failed(format!(
                "the journal does not say where {} is to go",
                self.name
            )));
        };
        // Before it starts, so that its end cannot be missed.
        let happenings = self.agent.hypervisor.events();
        let to = StreamAddress {
            host: stream.address,
            port: stream.port,
            tls_name: stream.tls_name,
        };
        let started = around(Some("move.stream_started"), async {
            let parameters = parameters(grant);
            let started = self.agent.hypervisor.migrate(&self.name, &to, &parameters);
            started
                .await
                .map_err(|error| self.failed("start sending", &error))
        })
        .await;
        if let Err(problem) = started {
            let doing = Doing::because(problem.error.clone());
            self.apply(Input::StreamFailed, doing).await?;
            return Err(problem);
        }
        self.change_report(|report| report.phase = OperationPhase::Copying);
        self.watch_stream(grant, happenings);
        Ok(())
    }

    /// Halted first, so that a stream that fails later does not start the processors here again.
    async fn start_post_copy(&self) -> Result<(), Problem> {
        let hypervisor = &self.agent.hypervisor;
        match hypervisor.pause(&self.name).await {
            Ok(()) => {}
            // Nothing is left that could run.
            Err(HypervisorError::NoInstance(_) | HypervisorError::Died(_)) => return Ok(()),
            Err(error) => return Err(self.failed("halt for post-copy", &error)),
        }
        // Without a stream there is nothing to follow; whatever became of it, it does not run here again.
        if let Err(error) = hypervisor.start_post_copy(&self.name).await {
            tracing::warn!(domain = %self.name, %error, "its stream did not switch to post-copy");
        }
        Ok(())
    }

    pub(crate) fn watch_stream(
        &mut self,
        grant: Grant,
        happenings: broadcast::Receiver<InstanceEvent>,
    ) {
        match self.peer(grant) {
            Ok(peer) => {
                let watching = stream::watch(peer, happenings);
                if let Some(former) = self.watcher.replace(self.agent.spawn(watching)) {
                    former.abort();
                }
            }
            Err(problem) => self.note(problem.error),
        }
    }

    fn peer(&self, grant: Grant) -> Result<stream::Peer, Problem> {
        let Some(Moving::Source {
            operation,
            destination,
            destination_url,
            ..
        }) = self.record.moving.clone()
        else {
            return Err(Problem::failed(format!(
                "the journal does not say where {} went",
                self.name
            )));
        };
        Ok(stream::Peer {
            client: self.agent.client(&destination_url)?,
            agent: self.agent.clone(),
            handle: self.handle.clone(),
            name: self.name.clone(),
            grant,
            operation,
            destination,
        })
    }

    pub(crate) fn change_report(
        &self,
        change: impl FnOnce(&mut estive_api::wire::OperationReport),
    ) {
        if let Some(Moving::Source { operation, .. }) = &self.record.moving {
            self.agent.operations.change(operation, change);
        }
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
        let is_over = {
            let log = self.handle.boot.lock();
            log.unwrap_or_else(PoisonError::into_inner).is_over()
        };
        // A domain that moved here has booted elsewhere.
        if is_over || self.record.asked_ms.is_none() {
            return;
        }
        let identity = match definition::read_xml(&place) {
            Ok(xml) if !xml.identity_by_fw_cfg => definition::read_identity(&place, &xml)
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
        };
        let hypervisor = self.agent.hypervisor.clone();
        let clock = self.agent.clock.clone();
        self.boot_watch = Some(self.agent.spawn(watch.run(hypervisor, clock)));
    }

    fn learn_pid(&self) {
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
        *self
            .handle
            .boot
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = BootLog::default();
        let place = self.agent.place(&self.name);
        if place.exists()
            && let Err(error) = tokio::fs::remove_dir_all(&place).await
        {
            tracing::warn!(domain = %self.name, %error, "its files were not removed");
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

fn parameters(grant: Grant) -> MigrationParameters {
    MigrationParameters {
        post_copy: grant.post_copy,
        ..MigrationParameters::default()
    }
}

fn persist_point(input: Input, entry: Entry) -> Option<&'static str> {
    Some(match (input, entry.holding) {
        (Input::Start(_), _) => "start.persisted",
        (Input::Stop, _) => "stop.persisted",
        (Input::Prepare(_), _) => "move.prepared_persisted",
        (Input::Move(_), _) => "move.outgoing_persisted",
        (Input::Commit(_), _) => "move.taken_persisted",
        (_, Holding::Released(_)) => "move.released_persisted",
        (Input::Committed(..), _) => "move.dropped_persisted",
        _ => return None,
    })
}

/// Does a step between its two fault points; the second is passed only when it was done.
async fn around<T>(
    point: Option<&'static str>,
    step: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    if let Some(point) = point {
        fault::before(point);
    }
    let done = step.await?;
    if let Some(point) = point {
        fault::after(point);
    }
    Ok(done)
}
