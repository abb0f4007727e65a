//! Sending a domain away, and telling of what becomes of it.

use crate::domain::{Doing, Domain};
use crate::effects::around;
use crate::instance::parameters;
use crate::journal::{Moving, Record};
use crate::stream;
use estive_api::Problem;
use estive_api::wire::OperationPhase;
use estive_hypervisor::{HypervisorError, InstanceEvent, StreamAddress};
use estive_model::{Event, EventKind};
use estive_moves::{CommitOutcome, Grant, Holding, Input};
use tokio::sync::broadcast;

impl Domain {
    pub(crate) async fn start_stream(&mut self, grant: Grant) -> Result<(), Problem> {
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
    pub(crate) async fn start_post_copy(&self) -> Result<(), Problem> {
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

    pub(crate) fn peer(&self, grant: Grant) -> Result<stream::Peer, Problem> {
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

    /// The event, and the operation's phase, that a change of holding means.
    pub(crate) fn tell_of(&self, before: &Record, input: Input, reason: &str) {
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
            (Holding::Stopped | Holding::Saved, Holding::Absent) => EventKind::Deleted,
            (Holding::Running, Holding::Stopped) => EventKind::Stopped,
            (Holding::Saving, Holding::Saved) => EventKind::Saved,
            (Holding::Restoring, Holding::Running) => EventKind::Restored,
            (Holding::Saved, Holding::Stopped) => EventKind::SavedDropped,
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
}
