//! From a clone that was started to one that answers: its boot report is followed, then it is asked itself.

use crate::agents::{self, Agent};
use crate::manager::Manager;
use crate::probe;
use crate::records::DomainRecord;
use crate::take_back::Ours;
use crate::up::{Telling, Unfinished, ms_since};
use estive_api::Problem;
use estive_api::wire::{Answered, AnsweredOrder, BootTimes, DomainReport, UpRow};
use estive_layers::UpCheck;
use estive_model::{DomainName, DomainState, Generation};
use estive_moves::{Entry, Holding, HostView, Seen};
use futures_util::future::join_all;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

const LOOK: Duration = Duration::from_millis(100);
const CONSOLE_LINES: usize = 8;

/// A clone that is to answer.
pub(crate) struct Awaited {
    pub name: DomainName,
    pub address: Ipv4Addr,
    pub checks: Vec<UpCheck>,
}

/// When a start was asked for.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    /// Of the manager.
    pub at: Instant,
    /// By the manager, of the clone's host.
    pub ordered: Instant,
}

impl Manager {
    /// Follows a start that nobody waits for, so that its boot is known to its end too.
    pub async fn watch_answers(self: Arc<Self>, name: DomainName, asked: Asked) {
        let watched = async {
            let record = self.records.domain(&name).await?;
            let address = record.address.parse();
            let address = address.map_err(|error| {
                Problem::failed(format!("the address {} of {name}: {error}", record.address))
            })?;
            let awaited = Awaited {
                name: name.clone(),
                address,
                checks: record.checks,
            };
            let telling = Telling {
                lines: mpsc::channel(1).0,
                given_up: self.shutdown.child_token(),
                ours: Ours::default(),
                older: Default::default(),
            };
            let generation = record.ownership.generation;
            self.await_answers(&awaited, Some(asked), generation, &telling)
                .await
        };
        match watched.await {
            Ok(_) => {}
            Err(Unfinished::Failed(problem) | Unfinished::Stopped(problem)) => {
                tracing::debug!(domain = %name, %problem, "it was started and not seen to answer");
            }
        }
    }

    /// Waits until every check of the clone is answered. `asked`: when its start was asked for; `None` when it ran
    /// already, and then its boot is not looked at (it may have been on another host). `generation`: what it was left
    /// with; one that somebody moves meanwhile is followed to its new host.
    pub async fn await_answers(
        &self,
        clone: &Awaited,
        asked: Option<Asked>,
        generation: Generation,
        telling: &Telling,
    ) -> Result<UpRow, Unfinished> {
        let name = &clone.name;
        let begun = asked.map_or_else(Instant::now, |asked| asked.at);
        let mut left = clone.checks.clone();
        let mut told = 0;
        let mut was_paused = false;
        let mut boot_asked_ms = None;
        loop {
            let record = self.awaited(name).await?;
            let agent = &self.host(&record.ownership.host)?.agent;
            let moves = record.ownership.moving.is_some();
            // Its times of booting may not have come along yet.
            let moved = record.ownership.generation != generation;
            let last = match agent.status(name).await {
                Ok(report) if moves => match report {
                    Some(report) => Ok(report),
                    None => Err(Problem::failed(format!("{name} is just being moved"))),
                },
                Ok(Some(report)) => {
                    if !moved {
                        boot_asked_ms = report.boot.asked_ms;
                    }
                    told = tell_phases(telling, name, &report.boot, told);
                    // Twice: it is for a moment when a move has just ended.
                    let is_paused = is_paused(&report);
                    if is_paused && was_paused && self.is_as(&record).await {
                        telling.ours.give_away(name);
                        let problem =
                            Problem::failed(format!("{name} was paused before it answered"));
                        return Err(Unfinished::Stopped(problem));
                    }
                    was_paused = is_paused;
                    match self.check_alive(name, agent, &report).await {
                        Err(problem) if self.is_as(&record).await => return Err(problem.into()),
                        // Moved between the two questions.
                        Err(problem) => Err(problem),
                        Ok(()) => {
                            let switched = asked.is_none()
                                || moved
                                || report.boot.phases_ms.contains_key("switch");
                            if switched {
                                left = self.still_silent(left, clone, agent).await;
                            }
                            Ok(report)
                        }
                    }
                }
                Ok(None) => {
                    let lost = Problem::failed(format!(
                        "host {} has lost {name} while it booted",
                        agent.name
                    ));
                    if self.is_as(&record).await {
                        return Err(lost.into());
                    }
                    Err(lost)
                }
                Err(error) => Err(agents::problem(
                    &agent.name,
                    format!("following the boot of {name}"),
                    &error,
                )),
            };
            if left.is_empty()
                && let Ok(report) = &last
            {
                let to_answering_ms = asked.map(|asked| ms_since(asked.at));
                if let Some(after_ms) = to_answering_ms {
                    telling.step(name, "answering", after_ms);
                }
                // Of a later boot, after somebody has stopped and started it, this is not the time.
                if let (Some(asked), Some(asked_ms)) = (asked, boot_asked_ms)
                    && report.boot.asked_ms == Some(asked_ms)
                {
                    let answered = Answered {
                        ordered_ms: ms_between(asked.at, asked.ordered),
                        answered_ms: to_answering_ms.unwrap_or_default(),
                        by: probe::words(&clone.checks),
                    };
                    let order = AnsweredOrder { asked_ms, answered };
                    if let Err(error) = agent.tell_answered(name, &order).await {
                        tracing::debug!(domain = %name, %error, "its host does not know when it answered");
                    }
                }
                return Ok(UpRow {
                    domain: name.clone(),
                    host: agent.name.clone(),
                    address: clone.address.to_string(),
                    to_init_ms: phase_ms(&report.boot, "init"),
                    to_switched_ms: phase_ms(&report.boot, "switch"),
                    to_answering_ms,
                    answered_by: probe::words(&clone.checks),
                });
            }
            if begun.elapsed() > self.boot_timeout {
                return Err(self.too_late(name, agent, &left, last).await.into());
            }
            tokio::select! {
                () = telling.given_up.cancelled() => {
                    return Err(telling.ended().into());
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Its record, as long as it is to run.
    async fn awaited(&self, name: &DomainName) -> Result<DomainRecord, Unfinished> {
        let record = self.records.domain(name).await?;
        if record.wants_to_run() {
            return Ok(record);
        }
        Err(Unfinished::Stopped(Problem::failed(format!(
            "{name} was stopped by somebody else before it answered"
        ))))
    }

    /// Whether nobody has moved it since `record` was read.
    async fn is_as(&self, record: &DomainRecord) -> bool {
        let now = self.records.domain(&record.name).await;
        now.is_ok_and(|now| now.ownership == record.ownership)
    }

    /// An error of its early userspace, or a QEMU that has ended, needs no more waiting.
    async fn check_alive(
        &self,
        name: &DomainName,
        agent: &Agent,
        report: &DomainReport,
    ) -> Result<(), Problem> {
        if let Some(error) = &report.boot.error {
            return Err(Problem::failed(format!(
                "{name} on {} could not boot: {error}",
                agent.name
            ))
            .advice("look at the reference's root and the clone's layer"));
        }
        if matches!(
            report.state,
            DomainState::Running | DomainState::Unknown | DomainState::Paused
        ) {
            return Ok(());
        }
        let why = report
            .note
            .as_ref()
            .map(|note| format!(": {note}"))
            .unwrap_or_default();
        let console = quoted(&agent.console_tail(name, CONSOLE_LINES).await);
        Err(Problem::failed(format!(
            "{name} on {} is {} instead of booting{why}{console}",
            agent.name, report.state
        )))
    }

    async fn too_late(
        &self,
        name: &DomainName,
        agent: &Agent,
        left: &[UpCheck],
        last: Result<DomainReport, Problem>,
    ) -> Problem {
        let waited_s = self.boot_timeout.as_secs();
        let report = match last {
            Ok(report) => report,
            Err(problem) => return problem,
        };
        let console = quoted(&agent.console_tail(name, CONSOLE_LINES).await);
        let newest = report
            .boot
            .phases_ms
            .iter()
            .max_by_key(|(_, at_ms)| **at_ms)
            .map(|(phase, _)| phase.as_str());
        let what = match newest {
            None => "has not reported its boot".to_owned(),
            Some("switch") => format!("has booted but does not answer ({})", probe::words(left)),
            Some(phase) => format!("has not got beyond the phase {phase} of its boot"),
        };
        Problem::failed(format!("{name} on {} {what} within {waited_s} s{console}", agent.name))
            .advice("look at its console above; a slow machine may need a larger boot_timeout_s in the manager's configuration")
    }

    /// The checks that are not answered yet.
    async fn still_silent(
        &self,
        left: Vec<UpCheck>,
        clone: &Awaited,
        agent: &Agent,
    ) -> Vec<UpCheck> {
        let ask = |check| {
            self.prober
                .answers(check, &clone.name, clone.address, agent.client())
        };
        let answered = join_all(left.iter().map(|check| ask(*check))).await;
        left.into_iter()
            .zip(answered)
            .filter(|(_, answered)| !answered)
            .map(|(check, _)| check)
            .collect()
    }
}

/// Halted on demand, neither on its way here nor away.
fn is_paused(report: &DomainReport) -> bool {
    matches!(
        agents::view_of(report),
        HostView::Says(
            Entry {
                holding: Holding::Running,
                ..
            },
            Seen::Paused,
        )
    )
}

/// Tells `init` and `switched` once each; `told` counts those told so far.
fn tell_phases(telling: &Telling, name: &DomainName, boot: &BootTimes, mut told: usize) -> usize {
    const TOLD: [(&str, &str); 2] = [("init", "init"), ("switch", "switched")];
    while let Some((phase, step)) = TOLD.get(told) {
        let Some(after_ms) = phase_ms(boot, phase) else {
            break;
        };
        telling.step(name, step, after_ms);
        told += 1;
    }
    told
}

fn ms_between(begin: Instant, end: Instant) -> u64 {
    u64::try_from(end.duration_since(begin).as_millis()).unwrap_or(u64::MAX)
}

/// From the request to a phase, both by the agent's clock.
fn phase_ms(boot: &BootTimes, phase: &str) -> Option<u64> {
    Some(boot.phases_ms.get(phase)?.saturating_sub(boot.asked_ms?))
}

fn quoted(console: &str) -> String {
    match console {
        "" => "; its console is empty".to_owned(),
        text => format!("; the end of its console:\n{text}"),
    }
}
