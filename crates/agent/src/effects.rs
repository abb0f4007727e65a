//! Does what [`estive_moves::step`] says, in order, with the fault points around it.

use crate::domain::{Doing, Domain};
use crate::journal::Record;
use crate::saved;
use crate::stream;
use estive_api::wire::OperationPhase;
use estive_api::{Problem, fault};
use estive_moves::{Answer, Effect, Entry, Grant, Holding, Input, Seen, step};
use std::future::Future;
use std::pin::Pin;

impl Domain {
    /// One input: look, decide, do. The answer to an order, if it was one.
    pub(crate) fn apply<'a>(
        &'a mut self,
        input: Input,
        mut doing: Doing,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Answer>, Problem>> + Send + 'a>> {
        Box::pin(async move {
            let seen = self.see().await;
            self.stepped_unclear = seen == Seen::Unclear;
            let before = self.record.entry;
            let effects = step(&before, seen, input);
            tracing::debug!(domain = %self.name, ?before, ?seen, ?input, ?effects, "step");
            let mut answer = None;
            for effect in effects {
                match effect {
                    Effect::Answer(given) => answer = Some(given),
                    other => {
                        self.perform(other, before, input, seen, &mut doing).await?;
                    }
                }
            }
            self.after(before, input).await;
            Ok(answer)
        })
    }

    async fn perform(
        &mut self,
        effect: Effect,
        before: Entry,
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
            Effect::CreateRestored => {
                let made = around(Some("restore.created"), self.create_restored()).await;
                self.or_create_failed(made).await
            }
            Effect::SaveState => match around(Some("save.written"), self.save_state()).await {
                Ok(saved) => {
                    doing.saved = Some(saved);
                    Ok(())
                }
                Err(problem) => {
                    let failed = Doing::because(problem.error.clone());
                    let problem = match self.apply(Input::SaveFailed, failed).await {
                        Ok(_) => problem,
                        Err(worse) => Problem {
                            error: format!("{}; and then: {}", problem.error, worse.error),
                            ..problem
                        },
                    };
                    self.note(problem.error.clone());
                    Err(problem)
                }
            },
            Effect::Fence(generation) => {
                let point = match input {
                    Input::Start(_) => Some("start.fenced"),
                    Input::Commit(_) => Some("move.fenced"),
                    Input::Restore(_) => Some("restore.fenced"),
                    _ => None,
                };
                let first = before.holding == Holding::Saved;
                let fenced = around(point, self.fence(generation, first)).await;
                match (fenced, self.record.entry.holding) {
                    // Nothing is awaited: what was saved waits for the next time.
                    (Err(problem), Holding::Restoring) => {
                        let doing = Doing {
                            turned_away: saved::is_turned_away(problem.kind),
                            ..Doing::because(problem.error.clone())
                        };
                        self.apply(Input::CreateFailed, doing).await?;
                        self.note(problem.error.clone());
                        Err(problem)
                    }
                    (fenced, _) => fenced,
                }
            }
            Effect::Resume => {
                let point = match input {
                    Input::Start(_) => Some("start.resumed"),
                    Input::Commit(_) => Some("move.resumed"),
                    Input::Restore(_) => Some("restore.resumed"),
                    _ => None,
                };
                // What was being saved goes on too, also when the agent has died meanwhile: this is no boot.
                let goes_on = matches!(input, Input::Commit(_) | Input::Restore(_))
                    || before.holding == Holding::Saving
                    || seen == Seen::Loaded;
                let resumed = match goes_on {
                    true => around(point, self.resume()).await,
                    false => around(point, self.resume_boot()).await,
                };
                if let Err(problem) = resumed {
                    // The journal says that it runs: nobody else comes back to it.
                    if self.record.entry.holding == Holding::Running {
                        self.note(problem.error.clone());
                        self.look_again();
                    }
                    return Err(problem);
                }
                // Its processors stood still for as long as that took.
                if goes_on {
                    self.set_guest_clock();
                }
                Ok(())
            }
            Effect::Kill => {
                let point = match input {
                    Input::Stop => Some("stop.killed"),
                    Input::Save(_) => Some("save.killed"),
                    Input::Committed(..) => Some("move.source_killed"),
                    _ => None,
                };
                around(point, async {
                    if let Some(watch) = self.boot_watch.take() {
                        watch.abort();
                    }
                    let killed = self.agent.hypervisor.kill(&self.name).await;
                    self.agent.image_proofs.end(&self.name).await;
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
                record.pushed = None;
                (record.asked_ms, record.crashed) = (None, None);
            }
            Holding::Running
            | Holding::Stopped
            | Holding::Saving
            | Holding::Saved
            | Holding::Restoring => record.moving = None,
        }
        saved::follow(&mut record, doing.saved.take(), doing.turned_away);
        if let Some(asked_ms) = doing.asked_ms.take() {
            record.asked_ms = Some(asked_ms);
            record.crashed = None;
        }
        let staged = doing.staged.take();
        if let Some(staged) = &staged {
            record.memory_mib = staged.xml.memory_mib();
            record.cpus = staged.xml.cpus();
            record.layer_bytes = staged.layer_bytes;
            record.pushed = None;
        }
        let place = self.agent.place(&self.name);
        let journal = self.agent.journal.clone();
        let written = {
            let record = record.clone();
            tokio::task::spawn_blocking(move || {
                if let Some(staged) = staged {
                    // Of no files here may the journal ever say nothing: it does only when it was lost.
                    if !journal.path(&record.name).exists() {
                        journal.write(&Record::new(record.name.clone()))?;
                    }
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
        match (input, before.holding) {
            (Input::Stop, Holding::Running) if holding == Holding::Stopped => {
                self.withdraw_export(before.generation);
            }
            (Input::Discard(_), Holding::Incoming(grant)) => {
                self.withdraw_export(grant.generation);
            }
            (Input::Save(_), Holding::Running) if holding == Holding::Saved => {
                self.withdraw_export(before.generation);
            }
            // Its volume may have let it in, before whatever failed.
            (Input::CreateFailed, Holding::Running) if holding == Holding::Stopped => {
                self.withdraw_export(before.generation);
            }
            (Input::CreateFailed, Holding::Restoring) if holding == Holding::Saved => {
                self.withdraw_export(before.generation);
            }
            (Input::CreateFailed, Holding::Incoming(grant)) if holding == Holding::Absent => {
                self.withdraw_export(grant.generation);
            }
            _ => {}
        }
        self.agent
            .dismiss_unless_it_may_run(&self.name, holding)
            .await;
        if holding == Holding::Absent && before.holding != Holding::Absent {
            self.clean_up().await;
        }
        if matches!(
            before.holding,
            Holding::Saving | Holding::Saved | Holding::Restoring
        ) || input == Input::Restarted
        {
            self.remove_unnamed_state().await;
        }
        if matches!(
            input,
            Input::Start(_) | Input::Commit(_) | Input::Restore(_)
        ) && holding == Holding::Running
        {
            self.watch_boot();
        }
    }
}

fn persist_point(input: Input, entry: Entry) -> Option<&'static str> {
    Some(match (input, entry.holding) {
        (Input::Start(_), _) => "start.persisted",
        (Input::Stop, _) => "stop.persisted",
        (Input::Prepare(_), _) => "move.prepared_persisted",
        (Input::Move(_), _) => "move.outgoing_persisted",
        (Input::Commit(_), _) => "move.taken_persisted",
        (Input::Save(_), Holding::Saving) => "save.persisted",
        (Input::Save(_), Holding::Saved) => "save.kept",
        (Input::Restore(_), Holding::Restoring) => "restore.persisted",
        (Input::Restore(_), Holding::Running) => "restore.taken",
        (_, Holding::Released(_)) => "move.released_persisted",
        (Input::Committed(..), _) => "move.dropped_persisted",
        _ => return None,
    })
}

/// Does a step between its two fault points; the second is passed only when it was done.
pub(crate) async fn around<T>(
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
