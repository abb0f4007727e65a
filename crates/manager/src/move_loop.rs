//! The loop of one move: looks at both journals, does what `estive_moves::decide` says, until the store's record is
//! closed. It belongs to the manager, not to who asked: a command that goes away changes nothing, and a manager that
//! starts again goes on where the store says.

use crate::agents::{self, Agent, chain, host_view, is_silence};
use crate::event_log::About;
use crate::manager::{Manager, lock};
use crate::migrate::{LOOK, missing_files};
use crate::records::{Change, DomainRecord, OpenMove};
use bytes::Bytes;
use estive_api::fault;
use estive_api::wire::{MoveOrder, OperationPhase, OperationReport, PrepareQuery, Prepared};
use estive_api::{ClientError, Problem, ProblemKind};
use estive_model::{DomainName, EventKind, Generation, HostName, OperationId};
use estive_moves::{Decision, Entry, Grant, Holding, HostView, Seen, decide};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Between two looks when the end is near.
const LAST_LOOK: Duration = Duration::from_millis(3);
/// Between two looks when nothing answers, or nothing changes.
const SLOW_LOOK: Duration = Duration::from_millis(250);
/// How often the journals themselves are read while only progress is to be seen.
const JOURNALS: Duration = Duration::from_millis(250);
/// After this long without an answer that is needed, who asked is told that the move waits.
const STALLED: Duration = Duration::from_secs(20);
/// For what is known of a domain's boots, from host to host.
const CARRY: Duration = Duration::from_secs(1);
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

impl Manager {
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
    pub fn drive(self: &Arc<Self>, name: DomainName, known: Known) -> watch::Receiver<Stage> {
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
}

/// What who ordered the move knows already.
#[derive(Default)]
pub(crate) struct Known {
    pub archive: Option<Bytes>,
    /// What the journals said, and when.
    pub source: Option<(HostView, Instant)>,
    pub destination: Option<(HostView, Instant)>,
    pub started: Option<Instant>,
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
            Decision::Prepare(grant) => {
                self.prepare(&record, &source, &destination, grant, &order)
                    .await
            }
            Decision::Send(grant) => {
                self.send(&record, &source, &destination, grant, &order)
                    .await
            }
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
        record: &DomainRecord,
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
        let granted = self
            .manager
            .grant_volume(record, grant.generation, &destination.name);
        if let Err(problem) = granted.await {
            return self.give_up(problem).await;
        }
        if let Err(problem) = self.manager.let_read(record).await {
            return self.give_up(problem).await;
        }
        fault::before("move.prepared");
        let mut prepared = destination
            .prepare(&self.name, &query, archive.clone())
            .await;
        if let Err(error) = &prepared
            && let Some(missing) = missing_files(error)
        {
            if let Err(problem) = self
                .manager
                .upload(destination, &missing, Some((source, &self.name)))
                .await
            {
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
        record: &DomainRecord,
        source: &Agent,
        destination: &Agent,
        grant: Grant,
        order: &OpenMove,
    ) -> Result<Next, Problem> {
        let Some(stream) = self.prepared.clone() else {
            // Prepared before this manager started: asking again changes nothing there, and tells where to.
            return self
                .prepare(record, source, destination, grant, order)
                .await;
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
        // Beside the order, and in nobody's way: where it goes, its boots are still to be seen.
        let carried = tokio::time::timeout(CARRY, self.carry_boots(source, destination));
        let (sent, _) = tokio::join!(source.send(&self.name, &message), carried);
        match sent {
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

    /// What is known of the domain's boots goes along. A move does not fail for it.
    async fn carry_boots(&self, source: &Agent, destination: &Agent) {
        let carried = async {
            let boots = source.boots(&self.name).await?;
            destination.bring_along(&self.name, &boots).await
        };
        if let Err(error) = carried.await {
            tracing::debug!(domain = %self.name, %error, "its boots did not go along");
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
        self.manager.revoke_volume(record, generation).await;
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
        self.manager.readers.change();
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
