//! From a clone that was started to one that answers: its boot report is followed, then it is asked itself.

use crate::agents::{self, Agent};
use crate::manager::Manager;
use crate::probe;
use crate::records::DomainRecord;
use crate::up::{Prepared, Telling, Unfinished, ms_since};
use estive_api::Problem;
use estive_api::wire::{BootTimes, DomainReport, UpRow};
use estive_layers::UpCheck;
use estive_model::{DomainName, DomainState, Generation};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::Instant;

const LOOK: Duration = Duration::from_millis(100);
const CONSOLE_LINES: usize = 8;

impl Manager {
    /// Waits until every check of the clone is answered. `asked`: when its start was asked for; `None` when it ran
    /// already, and then its boot is not looked at (it may have been on another host). `generation`: what it was left
    /// with; one that somebody moves meanwhile is followed to its new host.
    pub async fn await_answers(
        &self,
        clone: &Prepared,
        asked: Option<Instant>,
        generation: Generation,
        telling: &Telling,
    ) -> Result<UpRow, Unfinished> {
        let name = &clone.plan.name;
        let begun = asked.unwrap_or_else(Instant::now);
        let mut left = clone.checks.clone();
        let mut told = 0;
        loop {
            let record = self.awaited(name).await?;
            let agent = &self.host(&record.ownership.host)?.agent;
            let moves = record.ownership.moving.is_some();
            // Its times of booting stay with the host where it booted.
            let moved = record.ownership.generation != generation;
            let last = match agent.status(name).await {
                Ok(report) if moves => match report {
                    Some(report) => Ok(report),
                    None => Err(Problem::failed(format!("{name} is just being moved"))),
                },
                Ok(Some(report)) => {
                    told = tell_phases(telling, name, &report.boot, told);
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
                let to_answering_ms = asked.map(ms_since);
                if let Some(after_ms) = to_answering_ms {
                    telling.step(name, "answering", after_ms);
                }
                return Ok(UpRow {
                    domain: name.clone(),
                    host: agent.name.clone(),
                    address: clone.plan.address.to_string(),
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
        clone: &Prepared,
        agent: &Agent,
    ) -> Vec<UpCheck> {
        let plan = &clone.plan;
        let ask = |check| {
            self.prober
                .answers(check, &plan.name, plan.address, agent.client())
        };
        let answered = join_all(left.iter().map(|check| ask(*check))).await;
        left.into_iter()
            .zip(answered)
            .filter(|(_, answered)| !answered)
            .map(|(check, _)| check)
            .collect()
    }
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
