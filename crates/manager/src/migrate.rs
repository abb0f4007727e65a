//! Live migration: write (1), then a loop that does what `estive_moves::decide` says until the store's record is
//! closed. The loop belongs to the manager, not to who asked: a command that goes away changes nothing, and a manager
//! that starts again goes on where the store says.

use crate::agents::{self, Agent, chain, host_view, is_silence};
use crate::event_log::About;
use crate::inventory::Host;
use crate::manager::{Manager, lock};
use crate::placement;
use crate::records::{Change, DomainRecord, OpenMove};
use bytes::Bytes;
use estive_api::fault;
use estive_api::wire::{
    MigrateLine, MigrateOrder, MissingFiles, MoveOrder, OperationPhase, OperationReport,
    PrepareQuery, Prepared,
};
use estive_api::{ClientError, Problem, ProblemKind};
use estive_model::{Digest, DomainName, DomainState, EventKind, Generation, HostName, OperationId};
use estive_moves::{Decision, Entry, Grant, Holding, HostView, PendingMove, Seen, decide};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Between two looks while memory is copied.
const LOOK: Duration = Duration::from_millis(12);
/// Between two looks when the end is near.
const LAST_LOOK: Duration = Duration::from_millis(3);
/// Between two looks when nothing answers, or nothing changes.
const SLOW_LOOK: Duration = Duration::from_millis(250);
/// How often the journals themselves are read while only progress is to be seen.
const JOURNALS: Duration = Duration::from_millis(250);
/// After this long without an answer that is needed, who asked is told that the move waits.
const STALLED: Duration = Duration::from_secs(20);
/// How long a destination may take to drop what an earlier move has left there.
const REMAINS_GO: Duration = Duration::from_secs(10);
/// How long the last report of the source is waited for once the move is closed.
const LAST_REPORT: Duration = Duration::from_secs(2);

/// A move that this manager drives.
pub(crate) struct ActiveMove {
    pub stage: watch::Receiver<Stage>,
}

/// Where a move stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stage {
    pub report: Option<OperationReport>,
    pub waiting_for: Option<String>,
    /// It can go on only when somebody answers again.
    pub stalled: Option<Problem>,
    pub outcome: Option<Outcome>,
}

/// How a move ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Write (4) is made.
    Moved {
        report: OperationReport,
        whole_ms: u64,
    },
    /// It did not come to pass, or the domain was lost.
    Failed(Problem),
}

/// A move that was ordered: its first line, and where to see the rest.
pub(crate) struct Ordered {
    pub line: MigrateLine,
    pub stage: watch::Receiver<Stage>,
}

impl Manager {
    /// Checks that the move can be, makes write (1) and starts the loop.
    pub async fn order_move(
        self: &Arc<Self>,
        name: &DomainName,
        order: MigrateOrder,
    ) -> Result<Ordered, Problem> {
        let started = Instant::now();
        let _one = self.domain_lock(name).await;
        let record = self.records.domain(name).await?;
        refuse_moving(&record)?;
        let source = &self.host(&record.ownership.host)?.agent;
        let (to, chosen_for) = match &order.to {
            Some(to) if *to == source.name => {
                return Err(Problem::impossible(format!("{name} is on {to} already")));
            }
            Some(to) => (to.clone(), None),
            None => {
                self.ask_all().await;
                let (to, reason) = self.choose_destination(&record).await?;
                (to, Some(reason))
            }
        };
        let there = self.host(&to)?;
        let (said, archive, ready) = tokio::join!(
            source.status(name),
            source.archive(name),
            self.free_of(name, there)
        );
        let view = host_view(&said);
        let said =
            said.map_err(|error| agents::problem(&source.name, format!("moving {name}"), &error))?;
        match view {
            HostView::Says(
                Entry {
                    holding: Holding::Running,
                    ..
                },
                Seen::Running,
            ) => {}
            _ => {
                let state = said.map_or(DomainState::Unknown, |report| report.state);
                return Err(Problem::impossible(format!(
                    "{name} is {state} on {}; only a running domain moves live",
                    source.name
                ))
                .advice(format!(
                    "estive start {name}, or estive show {name} to see why it does not run"
                )));
            }
        }
        let archive = archive.map_err(|error| {
            agents::problem(
                &source.name,
                format!("reading the archive of {name}"),
                &error,
            )
        })?;
        let at_destination = ready?;
        let floor = [view, at_destination].map(|view| match view {
            HostView::Says(entry, _) => entry.floor,
            HostView::Silent => Generation(0),
        });

        let placing = self.placing.lock().await;
        let free_mib = self.room_for(&record, &to).await?;
        let reason = chosen_for.unwrap_or_else(|| format!("asked for ({free_mib} MiB free)"));
        let destination = to;
        let operation = crate::new_operation("move");
        let ordered_ms = self.clock.now_ms();
        fault::before("move.ordered");
        let record = self
            .records
            .change_domain(name, |now| {
                refuse_moving(now)?;
                if now.ownership.host != record.ownership.host {
                    return Err(Problem::impossible(format!(
                        "{name} has just moved to {}",
                        now.ownership.host
                    )));
                }
                let mut ownership = now.ownership.clone();
                // The agents may have been driven alone meanwhile.
                ownership.granted = ownership.granted.max(floor[0]).max(floor[1]);
                let ownership = ownership
                    .ordered(destination.clone(), now.post_copy_allowed)
                    .ok_or_else(|| Problem::impossible(format!("{name} is being moved already")))?;
                let move_order = Some(OpenMove {
                    operation: operation.clone(),
                    ordered_ms,
                    problem: None,
                });
                Ok(Change::Write(DomainRecord {
                    ownership,
                    move_order,
                    ..now.clone()
                }))
            })
            .await?;
        fault::after("move.ordered");
        drop(placing);
        let Some(pending) = &record.ownership.moving else {
            return Err(Problem::failed(
                "the store has lost the move that was just written",
            ));
        };
        let reason = match &order.reason {
            Some(given) => format!(
                "{reason}; {}",
                given
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(500)
                    .collect::<String>()
            ),
            None => reason,
        };
        let about = About {
            domain: Some(name.clone()),
            host: Some(record.ownership.host.clone()),
            generation: Some(pending.grant.generation),
            operation: Some(operation.clone()),
        };
        self.events.tell(
            EventKind::MoveOrdered,
            about,
            format!("to {destination}: {reason}"),
        );
        let line = MigrateLine::Ordered {
            operation,
            source: record.ownership.host.clone(),
            destination,
            generation: pending.grant.generation,
            reason,
        };
        let view = Some((view, Instant::now()));
        let stage = self.drive(
            name.clone(),
            Known {
                archive: Some(archive),
                source: view,
                destination: Some((at_destination, Instant::now())),
                started: Some(started),
            },
        );
        Ok(Ordered { line, stage })
    }

    /// The host with most free memory.
    async fn choose_destination(
        &self,
        record: &DomainRecord,
    ) -> Result<(HostName, String), Problem> {
        let mut spaces = self.spaces().await?;
        spaces.retain(|space| space.host != record.ownership.host);
        let wish = placement::Wish {
            domain: record.name.clone(),
            memory_mib: record.memory_mib,
            pinned: None,
        };
        let placed = placement::place(&[wish], &spaces)?;
        let chosen = placed.into_iter().next();
        let chosen = chosen.ok_or_else(|| Problem::failed("no host was chosen"))?;
        Ok((chosen.host, chosen.reason))
    }

    /// Declared memory that is free on `to`, in MiB, if it is enough.
    async fn room_for(&self, record: &DomainRecord, to: &HostName) -> Result<u64, Problem> {
        let spaces = self.spaces().await?;
        let space = spaces.iter().find(|space| space.host == *to);
        let free_mib = space.and_then(|space| space.free_memory_mib).unwrap_or(0);
        if free_mib >= record.memory_mib {
            return Ok(free_mib);
        }
        Err(Problem::impossible(format!(
            "not enough declared memory on {to}: {} needs {} MiB and {free_mib} MiB are free there",
            record.name, record.memory_mib
        ))
        .advice("estive hosts, to see where there is room")
        .details(serde_json::json!({
            "host": to,
            "needs_mib": record.memory_mib,
            "free_mib": free_mib,
        })))
    }

    /// Waits until a host holds nothing of a domain any more: what an earlier move has left there goes within moments.
    async fn free_of(&self, name: &DomainName, host: &Host) -> Result<HostView, Problem> {
        let agent = &host.agent;
        let silent = |error: &ClientError| {
            agents::problem(
                &agent.name,
                format!("moving {name} to {}", agent.name),
                error,
            )
        };
        let until = Instant::now() + REMAINS_GO;
        loop {
            let (about, said) = tokio::join!(agent.about(), agent.status(name));
            let view = host_view(&said);
            host.learn(about.map_err(|error| silent(&error))?);
            let said = said.map_err(|error| silent(&error))?;
            if !host.is_up() {
                self.ask(host).await;
            }
            match view {
                HostView::Says(
                    Entry {
                        holding: Holding::Absent,
                        ..
                    },
                    _,
                ) => return Ok(view),
                HostView::Says(
                    Entry {
                        holding: Holding::Incoming(_),
                        ..
                    },
                    _,
                ) => self.ask(host).await,
                _ => {}
            }
            if Instant::now() > until {
                let state = said.map_or(DomainState::Unknown, |report| report.state);
                return Err(Problem::impossible(format!(
                    "{} still holds {name} ({state}) from before; it can take it once that is gone",
                    agent.name
                ))
                .advice(format!("estive show {name}, and try again later")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Asks that an open move be given up; the loop does it, if it still can be done.
    pub async fn give_up_move(&self, name: &DomainName, problem: Problem) -> Result<(), Problem> {
        self.records
            .change_domain(name, |record| {
                let (Some(pending), Some(order)) = (&record.ownership.moving, &record.move_order)
                else {
                    return Err(Problem::impossible(format!("{name} is not being moved")));
                };
                if pending.give_up {
                    return Ok(Change::Keep);
                }
                let mut given_up = record.clone();
                given_up.ownership.moving = Some(PendingMove {
                    give_up: true,
                    ..pending.clone()
                });
                given_up.move_order = Some(OpenMove {
                    problem: Some(problem.clone()),
                    ..order.clone()
                });
                Ok(Change::Write(given_up))
            })
            .await?;
        Ok(())
    }

    /// Goes on with every move that the store holds open.
    pub async fn resume_moves(self: &Arc<Self>) -> Result<(), Problem> {
        for record in self.records.domains().await? {
            if record.ownership.moving.is_some() {
                tracing::info!(domain = %record.name, "going on with a move that was under way");
                drop(self.drive(record.name, Known::default()));
            }
        }
        Ok(())
    }

    /// The open move of a domain, driven from now on.
    fn drive(self: &Arc<Self>, name: DomainName, known: Known) -> watch::Receiver<Stage> {
        let (stage, seen) = watch::channel(Stage::default());
        lock(&self.moves).insert(
            name.clone(),
            ActiveMove {
                stage: seen.clone(),
            },
        );
        let manager = self.clone();
        self.spawn(async move {
            let mut drive = Drive {
                manager: manager.clone(),
                name: name.clone(),
                stage,
                archive: known.archive,
                source: known.source,
                destination: known.destination,
                prepared: None,
                trouble: None,
                started: known.started,
                heard: Instant::now(),
            };
            drive.run().await;
            lock(&manager.moves).remove(&name);
        });
        seen
    }

    /// Sends the files that an agent lacks, each once.
    pub async fn upload(&self, agent: &Agent, missing: &[Digest]) -> Result<(), Problem> {
        for digest in missing {
            let file = self.references.values().find_map(|reference| reference.file(digest)).ok_or_else(|| {
                Problem::impossible(format!(
                    "host {} lacks the file {digest}, which no reference of this manager has any more",
                    agent.name
                ))
                .advice("put back the kernel, initramfs or modules that the clone was made with")
            })?;
            let bytes = file.read().await?;
            agent.put_file(digest, bytes).await.map_err(|error| {
                agents::problem(
                    &agent.name,
                    format!("sending {}", file.path.display()),
                    &error,
                )
            })?;
        }
        Ok(())
    }
}

/// An open move refuses every other order.
pub(crate) fn refuse_moving(record: &DomainRecord) -> Result<(), Problem> {
    match &record.ownership.moving {
        None => Ok(()),
        Some(pending) => Err(Problem::impossible(format!(
            "{} is being moved from {} to {}",
            record.name, record.ownership.host, pending.destination
        ))
        .advice(format!(
            "wait until the move is over; estive show {} says what it waits for",
            record.name
        ))),
    }
}

/// The digests that an agent asks for, if that is why it refused.
pub(crate) fn missing_files(error: &ClientError) -> Option<Vec<Digest>> {
    let details = &error.problem()?.details;
    let missing: MissingFiles = serde_json::from_value((**details).clone()).ok()?;
    (!missing.missing.is_empty()).then_some(missing.missing)
}

/// What who ordered the move knows already.
#[derive(Default)]
struct Known {
    archive: Option<Bytes>,
    source: Option<(HostView, Instant)>,
    destination: Option<(HostView, Instant)>,
    started: Option<Instant>,
}

struct Drive {
    manager: Arc<Manager>,
    name: DomainName,
    stage: watch::Sender<Stage>,
    archive: Option<Bytes>,
    /// What the journals said, and when.
    source: Option<(HostView, Instant)>,
    destination: Option<(HostView, Instant)>,
    prepared: Option<Prepared>,
    /// What went wrong last, should the move be given up for it.
    trouble: Option<Problem>,
    started: Option<Instant>,
    /// When something that was needed last answered.
    heard: Instant,
}

/// What to do after an act.
enum Next {
    AtOnce,
    After(Duration),
    Ended(Box<Outcome>),
}

impl Drive {
    async fn run(&mut self) {
        let shutdown = self.manager.shutdown.clone();
        loop {
            let next = tokio::select! {
                () = shutdown.cancelled() => return,
                next = self.turn() => next,
            };
            match next {
                Ok(Next::AtOnce) => {}
                Ok(Next::After(pause)) => tokio::time::sleep(pause).await,
                Ok(Next::Ended(outcome)) => {
                    self.stage
                        .send_modify(|stage| stage.outcome = Some(*outcome));
                    return;
                }
                Err(problem) if problem.kind == ProblemKind::NotFound => {
                    self.stage
                        .send_modify(|stage| stage.outcome = Some(Outcome::Failed(problem)));
                    return;
                }
                Err(problem) => {
                    tracing::warn!(domain = %self.name, %problem, "a move cannot go on; trying again");
                    tokio::time::sleep(SLOW_LOOK).await;
                }
            }
        }
    }

    /// Looks at what must be known, decides, does it.
    async fn turn(&mut self) -> Result<Next, Problem> {
        let manager = self.manager.clone();
        let record = manager.records.domain(&self.name).await?;
        let (Some(pending), Some(order)) =
            (record.ownership.moving.clone(), record.move_order.clone())
        else {
            return Ok(Next::Ended(Box::new(self.closed_elsewhere(&record))));
        };
        let source = manager.host(&record.ownership.host)?.agent.clone();
        let destination = manager.host(&pending.destination)?.agent.clone();
        let (at_source, at_destination) = self.look(&source, &destination).await;
        if at_source != HostView::Silent && at_destination != HostView::Silent {
            self.heard = Instant::now();
            self.stage
                .send_if_modified(|stage| stage.stalled.take().is_some());
        }
        let decision = decide(&record.ownership, at_source, at_destination);
        tracing::debug!(domain = %self.name, ?at_source, ?at_destination, ?decision, "a move's turn");
        match decision {
            Decision::Nothing => Ok(Next::AtOnce),
            Decision::Prepare(grant) => self.prepare(&source, &destination, grant, &order).await,
            Decision::Send(grant) => self.send(&source, &destination, grant, &order).await,
            Decision::Wait => Ok(self
                .wait(
                    &source,
                    &destination,
                    at_source,
                    at_destination,
                    &order.operation,
                )
                .await),
            Decision::Abort(generation) => Ok(self
                .abort(&source, &destination, at_destination, generation)
                .await),
            Decision::Stay(generation) => {
                self.stay(&record, &source, &destination, generation, &order)
                    .await
            }
            Decision::Commit => self.commit(&record, &source, &order).await,
        }
    }

    /// The journals as they were said last; asked again where nothing is known.
    async fn look(&mut self, source: &Agent, destination: &Agent) -> (HostView, HostView) {
        let ask = async |known: Option<(HostView, Instant)>, agent: &Agent| match known {
            Some(known) => known,
            None => (host_view(&agent.status(&self.name).await), Instant::now()),
        };
        let (at_source, at_destination) =
            tokio::join!(ask(self.source, source), ask(self.destination, destination));
        self.source = Some(at_source);
        self.destination = Some(at_destination);
        (at_source.0, at_destination.0)
    }

    /// Nothing that was said counts any more.
    fn look_again(&mut self) {
        self.source = None;
        self.destination = None;
    }

    fn wait_for(&self, what: impl Into<String>) {
        let what = what.into();
        self.stage.send_if_modified(|stage| {
            let changed = stage.waiting_for.as_ref() != Some(&what);
            stage.waiting_for = Some(what);
            changed
        });
    }

    /// Asks the destination to stand ready; where the stream goes is remembered.
    async fn prepare(
        &mut self,
        source: &Agent,
        destination: &Agent,
        grant: Grant,
        order: &OpenMove,
    ) -> Result<Next, Problem> {
        self.wait_for("the destination to stand ready");
        let archive = match &self.archive {
            Some(archive) => archive.clone(),
            None => match source.archive(&self.name).await {
                Ok(archive) => self.archive.insert(archive).clone(),
                Err(error) => return self.failed(source, "reading its archive", &error).await,
            },
        };
        let query = PrepareQuery {
            generation: grant.generation,
            post_copy: grant.post_copy,
            operation: order.operation.clone(),
            source: source.name.clone(),
        };
        fault::before("move.prepared");
        let mut prepared = destination
            .prepare(&self.name, &query, archive.clone())
            .await;
        if let Err(error) = &prepared
            && let Some(missing) = missing_files(error)
        {
            if let Err(problem) = self.manager.upload(destination, &missing).await {
                return self.give_up(problem).await;
            }
            prepared = destination.prepare(&self.name, &query, archive).await;
        }
        match prepared {
            Ok(prepared) => {
                fault::after("move.prepared");
                self.prepared = Some(prepared);
                // Its answer says how its journal stands; asking for it again would cost time only.
                let entry = Entry {
                    holding: Holding::Incoming(grant),
                    generation: Generation(0),
                    floor: grant.generation,
                };
                self.destination = Some((HostView::Says(entry, Seen::Awaiting), Instant::now()));
                Ok(Next::AtOnce)
            }
            Err(error) => {
                self.failed(destination, "preparing to receive it", &error)
                    .await
            }
        }
    }

    async fn send(
        &mut self,
        source: &Agent,
        destination: &Agent,
        grant: Grant,
        order: &OpenMove,
    ) -> Result<Next, Problem> {
        let Some(stream) = self.prepared.clone() else {
            // Prepared before this manager started: asking again changes nothing there, and tells where to.
            return self.prepare(source, destination, grant, order).await;
        };
        let message = MoveOrder {
            operation: order.operation.clone(),
            generation: grant.generation,
            post_copy: grant.post_copy,
            destination: destination.name.clone(),
            destination_url: destination.endpoint.to_string(),
            stream,
        };
        fault::before("move.send_asked");
        match source.send(&self.name, &message).await {
            Ok(report) => {
                fault::after("move.send_asked");
                self.wait_for("memory to be copied");
                self.stage.send_modify(|stage| stage.report = Some(report));
                self.look_again();
                Ok(Next::After(LOOK))
            }
            Err(error) => self.failed(source, "sending it", &error).await,
        }
    }

    /// An order brought an error: silence is looked at again, anything else ends the move at its source.
    async fn failed(
        &mut self,
        agent: &Agent,
        doing: &str,
        error: &ClientError,
    ) -> Result<Next, Problem> {
        let problem = agents::problem(&agent.name, format!("moving {}: {doing}", self.name), error);
        self.look_again();
        if is_silence(error) {
            self.trouble = Some(problem);
            return Ok(Next::After(LOOK));
        }
        self.give_up(problem).await
    }

    async fn give_up(&mut self, problem: Problem) -> Result<Next, Problem> {
        tracing::info!(domain = %self.name, %problem, "giving a move up");
        self.manager.give_up_move(&self.name, problem).await?;
        self.look_again();
        Ok(Next::AtOnce)
    }

    /// Progress is asked of the source, which knows it without asking QEMU; the journals when they may have changed.
    async fn wait(
        &mut self,
        source: &Agent,
        destination: &Agent,
        at_source: HostView,
        at_destination: HostView,
        operation: &OperationId,
    ) -> Next {
        if at_source == HostView::Silent || at_destination == HostView::Silent {
            let silent = if at_source == HostView::Silent {
                source
            } else {
                destination
            };
            self.wait_for(format!("host {}, which does not answer", silent.name));
            if self.heard.elapsed() > STALLED {
                let problem = Problem::unreachable(format!(
                    "the move of {} waits for the agent of host {}, which does not answer; it goes on by itself when it does",
                    self.name, silent.name
                ))
                .advice(format!("estive show {}, to see where the domain is", self.name));
                self.stage
                    .send_if_modified(|stage| stage.stalled.replace(problem).is_none());
            }
            self.look_again();
            return Next::After(SLOW_LOOK);
        }
        let released = matches!(
            at_source,
            HostView::Says(
                Entry {
                    holding: Holding::Released(_),
                    ..
                },
                _
            )
        );
        self.wait_for(if released {
            "the destination to run it"
        } else {
            "memory to be copied"
        });
        let report = source.operation(operation).await.ok();
        let copying = report.as_ref().is_some_and(|report| {
            matches!(
                report.phase,
                OperationPhase::Accepted | OperationPhase::Copying | OperationPhase::Switching
            )
        });
        let fresh = |known: Option<(HostView, Instant)>| {
            known.is_some_and(|(_, when)| when.elapsed() < JOURNALS)
        };
        if !copying || !fresh(self.source) || !fresh(self.destination) {
            self.look_again();
        }
        if let Some(report) = report {
            self.stage.send_if_modified(|stage| {
                let changed = stage.report.as_ref() != Some(&report);
                stage.report = Some(report);
                changed
            });
        }
        Next::After(if copying { LOOK } else { LAST_LOOK })
    }

    async fn abort(
        &mut self,
        source: &Agent,
        destination: &Agent,
        at_destination: HostView,
        generation: Generation,
    ) -> Next {
        self.wait_for("the source to give it up");
        if at_destination == HostView::Silent && self.trouble.is_none() {
            self.trouble = Some(Problem::unreachable(format!(
                "moving {}: the agent of host {} does not answer",
                self.name, destination.name
            )));
        }
        let answer = source.abort(&self.name, generation).await;
        self.look_again();
        match answer {
            Ok(_) => Next::AtOnce,
            Err(error) => {
                tracing::warn!(domain = %self.name, error = %chain(&error), "the source did not give the move up; trying again");
                Next::After(SLOW_LOOK)
            }
        }
    }

    async fn stay(
        &mut self,
        record: &DomainRecord,
        source: &Agent,
        destination: &Agent,
        generation: Generation,
        order: &OpenMove,
    ) -> Result<Next, Problem> {
        // Told again by the inventory, should it not hear this.
        let told = tokio::time::timeout(
            Duration::from_secs(2),
            destination.discard(&self.name, generation),
        )
        .await;
        if !matches!(told, Ok(Ok(_))) {
            tracing::info!(domain = %self.name, host = %destination.name, "the destination has not heard that the move is over");
        }
        let report = source.operation(&order.operation).await.ok();
        self.close(record, |record| record.ownership.stayed())
            .await?;
        let problem = self.why_it_stayed(record, order, report.as_ref());
        let about = self.about(record, order);
        self.manager.events.tell(
            EventKind::MoveAborted,
            about,
            format!("it stays on {}: {}", source.name, problem.error),
        );
        Ok(Next::Ended(Box::new(Outcome::Failed(problem))))
    }

    fn why_it_stayed(
        &self,
        record: &DomainRecord,
        order: &OpenMove,
        report: Option<&OperationReport>,
    ) -> Problem {
        let host = &record.ownership.host;
        let stays = match self.source {
            Some((HostView::Says(_, Seen::Gone), _)) => {
                format!(
                    "{} is on {host} and does not run: its QEMU there has ended",
                    self.name
                )
            }
            _ => format!("{} stays on {host}", self.name),
        };
        let mut problem = match (
            &order.problem,
            &self.trouble,
            report.and_then(|report| report.error.as_ref()),
        ) {
            (Some(problem), _, _) => problem.clone(),
            (None, _, Some(error)) => Problem::failed(format!("moving {}: {error}", self.name)),
            (None, Some(trouble), None) => trouble.clone(),
            (None, None, None) => Problem::failed(format!(
                "moving {}: the source has ended the move",
                self.name
            )),
        };
        problem.error = format!("{}; {stays}", problem.error);
        problem
            .advice
            .get_or_insert_with(|| format!("estive show {}; then estive migrate again", self.name));
        problem
    }

    /// Write (4).
    async fn commit(
        &mut self,
        record: &DomainRecord,
        source: &Agent,
        order: &OpenMove,
    ) -> Result<Next, Problem> {
        fault::before("move.committed");
        self.close(record, |record| record.ownership.committed())
            .await?;
        fault::after("move.committed");
        let whole_ms = match self.started {
            Some(started) => u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            None => self.manager.clock.now_ms().saturating_sub(order.ordered_ms),
        };
        let destination = record
            .ownership
            .moving
            .as_ref()
            .map_or(&record.ownership.host, |pending| &pending.destination);
        let about = About {
            host: Some(destination.clone()),
            ..self.about(record, order)
        };
        self.manager.events.tell(
            EventKind::MoveCommitted,
            about,
            format!("{destination} owns it from now on, {whole_ms} ms after the order"),
        );
        let report = self.last_report(source, order, record).await;
        let gone_there = matches!(self.destination, Some((HostView::Says(_, Seen::Gone), _)));
        if report.phase == OperationPhase::Lost || gone_there {
            return Ok(Next::Ended(Box::new(Outcome::Failed(
                Problem::failed(format!(
                    "{} was moved to {destination}, and its QEMU there ended before it ran: its memory is lost, it runs nowhere",
                    self.name
                ))
                .advice(format!("estive start {}, which boots it again on {destination}", self.name)),
            ))));
        }
        Ok(Next::Ended(Box::new(Outcome::Moved { report, whole_ms })))
    }

    /// The source's word once it has heard that the domain runs elsewhere; what it said before when it is silent.
    async fn last_report(
        &self,
        source: &Agent,
        order: &OpenMove,
        record: &DomainRecord,
    ) -> OperationReport {
        let until = Instant::now() + LAST_REPORT;
        let mut last = self.stage.borrow().report.clone();
        while Instant::now() < until {
            match source.operation(&order.operation).await {
                Ok(report) => {
                    // Its QEMU may still be on its way out; all that is reported is known before.
                    let over = matches!(report.phase, OperationPhase::Done | OperationPhase::Lost)
                        || (report.resumed_us.is_some() && report.downtime_ms.is_some());
                    last = Some(report);
                    if over {
                        break;
                    }
                }
                Err(error) if is_silence(&error) => break,
                Err(_) => {}
            }
            tokio::time::sleep(LOOK).await;
        }
        if let Some(report) = &mut last
            && report.phase == OperationPhase::Released
            && report.resumed_us.is_some()
        {
            report.phase = OperationPhase::Done;
        }
        last.unwrap_or_else(|| OperationReport {
            operation: order.operation.clone(),
            domain: self.name.clone(),
            generation: record.ownership.granted,
            phase: OperationPhase::Done,
            sent_bytes: 0,
            remaining_bytes: 0,
            total_bytes: 0,
            dirty_rate_bytes_per_s: 0,
            expected_downtime_ms: 0,
            downtime_ms: None,
            total_ms: 0,
            choice: "not known: the source does not answer any more".to_owned(),
            halted_us: None,
            resumed_us: None,
            error: None,
        })
    }

    /// Closes the record, if it still holds this very move.
    async fn close(
        &self,
        seen: &DomainRecord,
        close: impl Fn(&DomainRecord) -> estive_moves::Ownership<HostName> + Send + Sync,
    ) -> Result<(), Problem> {
        let grant = |record: &DomainRecord| {
            record
                .ownership
                .moving
                .as_ref()
                .map(|pending| pending.grant)
        };
        self.manager
            .records
            .change_domain(&self.name, |record| {
                Ok(if grant(record) == grant(seen) && grant(seen).is_some() {
                    Change::Write(record.closed(close(record)))
                } else {
                    Change::Keep
                })
            })
            .await?;
        Ok(())
    }

    fn closed_elsewhere(&self, record: &DomainRecord) -> Outcome {
        Outcome::Failed(Problem::failed(format!(
            "the move of {} was closed by another manager; it is on {} now",
            self.name, record.ownership.host
        )))
    }

    fn about(&self, record: &DomainRecord, order: &OpenMove) -> About {
        About {
            domain: Some(self.name.clone()),
            host: Some(record.ownership.host.clone()),
            generation: record
                .ownership
                .moving
                .as_ref()
                .map(|pending| pending.grant.generation),
            operation: Some(order.operation.clone()),
        }
    }
}
