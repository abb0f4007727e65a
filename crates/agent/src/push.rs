//! A layer for a domain that may run: laid over the guest by its agent, then kept for its next start.
//!
//! ```text
//!   check ─► guest agent: estive-init apply ─► report ─► kept, journal ─► answer
//!               │ none answers, or it does not run ──────▲
//!               └ the guest refuses the layer: nothing is kept
//! ```
//!
//! The guest first: what it refuses must not be what its next start stumbles over. An agent that dies in between has
//! told nobody that it is done; the same push again finds the guest as it should be, and keeps the layer. A domain
//! that moves takes the guest's part along in its memory and the kept part in its archive; while it moves, a push is
//! refused, and one under way ends without keeping anything.

use crate::agent::Agent;
use crate::definition;
use crate::domain::{Answered, Domain, Handle, Order, refusal_problem};
use crate::effects::around;
use crate::journal::Record;
use crate::layer::{self, PushedLayer};
use crate::observe::see;
use estive_api::Problem;
use estive_api::domain_xml::Description;
use estive_api::wire::{LayerLine, LayerOutcome, LayerQuery};
use estive_boot::PushReport;
use estive_boot::push::{APPLY_WORD, DRY_RUN_WORD, PROGRAM, REPORT_BYTES_MAX};
use estive_hypervisor::guest_agent::{GuestAgent, GuestAgentError};
use estive_hypervisor::guest_exec::{GuestExit, GuestProgram};
use estive_model::{DomainName, Event, EventKind, Generation};
use estive_moves::{Answer, Holding, Refusal, Seen};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the guest agent may take to answer, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 3;
/// For all that a guest does with a layer; each of its services may take a minute.
const LAYING: Duration = Duration::from_secs(240);
const WORDS_MAX: usize = 400;

/// Pushes, and tells how it goes; the last line says how it ended.
pub async fn push(
    agent: Arc<Agent>,
    handle: Handle,
    layer: PushedLayer,
    query: LayerQuery,
    lines: mpsc::Sender<LayerLine>,
) {
    let line = match try_push(&agent, &handle, layer, &query, &lines).await {
        Ok(outcome) => LayerLine::Done { outcome },
        Err(problem) => LayerLine::Failed { problem },
    };
    // Whoever asked may be gone; what was done is done.
    let _ = lines.send(line).await;
}

async fn try_push(
    agent: &Arc<Agent>,
    handle: &Handle,
    layer: PushedLayer,
    query: &LayerQuery,
    lines: &mpsc::Sender<LayerLine>,
) -> Result<LayerOutcome, Problem> {
    let record = handle.shown.borrow().record.clone();
    let name = record.name.clone();
    let _one = handle.pushing.clone().try_lock_owned().map_err(|_| {
        Problem::impossible(format!("a layer is being pushed to {name} already"))
            .advice("wait until that is over, then push again")
    })?;
    allow(&record, query.generation)?;
    // Before anything is said to a guest that is none of ours.
    if let Ok(Description::Images(_)) = definition::read_xml(&agent.place(&name)) {
        return Err(Problem::impossible(format!(
            "{name} has disks in image files: no layer is pushed to it"
        )));
    }
    let outcome = match record.entry.holding {
        Holding::Running => match see(&*agent.hypervisor, &name, record.entry.holding).await {
            Seen::Running => {
                let _ = lines.send(LayerLine::Laying).await;
                lay(agent, handle, &layer, query.dry_run).await?
            }
            Seen::Gone => next_start("it has crashed"),
            Seen::Paused | Seen::Prelaunch => unreached("it is paused"),
            Seen::Unclear => {
                return Err(Problem::unreachable(format!(
                    "QEMU of {name} does not answer: what it does cannot be told"
                ))
                .advice("push again when it answers"));
            }
            _ => return Err(refusal_problem(&record, Refusal::Moving)),
        },
        _ => next_start("it is stopped"),
    };
    if !query.dry_run {
        let order = Order::TakeLayer(layer, query.generation, said(&outcome));
        match handle.order(order).await? {
            Answer::Refused(refusal) => {
                let record = handle.shown.borrow().record.clone();
                return Err(refusal_problem(&record, refusal));
            }
            _ => return Ok(outcome),
        }
    }
    Ok(outcome)
}

/// Whether a layer may be put here now.
fn allow(record: &Record, generation: Option<Generation>) -> Result<(), Problem> {
    let refusal = match record.entry.holding {
        Holding::Running | Holding::Stopped => None,
        Holding::Outgoing(_) | Holding::Incoming(_) => Some(Refusal::Moving),
        Holding::Released(_) => Some(Refusal::Released),
        Holding::Absent => Some(Refusal::Unknown),
        Holding::Saved => Some(Refusal::Saved),
        Holding::Saving | Holding::Restoring => Some(Refusal::Saving),
    };
    if let Some(refusal) = refusal {
        return Err(refusal_problem(record, refusal));
    }
    let here = record.entry.generation;
    match generation {
        Some(generation) if generation != here => Err(Problem::impossible(format!(
            "{} has generation {here} here, the layer is for generation {generation}",
            record.name
        ))
        .advice("ask the manager who owns it, and push again")),
        _ => Ok(()),
    }
}

fn next_start(why: &str) -> LayerOutcome {
    LayerOutcome::NextStart {
        reason: format!("{why}: taken at its next start"),
    }
}

fn unreached(why: &str) -> LayerOutcome {
    LayerOutcome::Unreached {
        reason: format!("{why}: taken at its next start"),
    }
}

/// Has the guest lay the layer over itself.
async fn lay(
    agent: &Agent,
    handle: &Handle,
    layer: &PushedLayer,
    dry_run: bool,
) -> Result<LayerOutcome, Problem> {
    let name = handle.shown.borrow().record.name.clone();
    let guest = GuestAgent::new(agent.hypervisor.channels(&name).guest_agent);
    let mut attempts = 0;
    while let Err(error) = guest.ping(PATIENCE).await {
        attempts += 1;
        let is_there = matches!(error, GuestAgentError::Silent { .. });
        if !is_there || attempts == ATTEMPTS {
            // Its disk must be the same until it has read it.
            return match is_starting(handle) {
                true => Err(Problem::impossible(format!("{name} is still starting"))
                    .advice("push again once it answers")),
                false => Ok(unreached(&format!("no guest agent answers in {name}"))),
            };
        }
    }
    let words: &[&str] = match dry_run {
        true => &[APPLY_WORD, DRY_RUN_WORD],
        false => &[APPLY_WORD],
    };
    let program = GuestProgram {
        path: PROGRAM,
        arguments: words,
        input: &layer.bytes,
        output_limit_bytes: REPORT_BYTES_MAX,
    };
    match guest.exec(&program, LAYING).await {
        Ok(exit) => read_exit(&name, &exit).map(|report| LayerOutcome::Laid { report }),
        Err(GuestAgentError::Refused { detail, .. }) if detail.contains("No such file") => {
            Ok(unreached(&format!(
                "{name} was started by an estive-init that left no {PROGRAM}"
            )))
        }
        Err(GuestAgentError::Refused { detail, .. }) => Ok(unreached(&format!(
            "the guest agent of {name} runs no programs ({})",
            clean(&detail)
        ))),
        Err(error) => Err(Problem::unreachable(format!(
            "{name} did not say what became of the layer: {}",
            clean(&error.to_string())
        ))
        .advice("push again: what it has of it already is left as it is")),
    }
}

/// A clone that was started here and has not come far enough to have read its layer.
fn is_starting(handle: &Handle) -> bool {
    let was_started_here = handle.shown.borrow().record.asked_ms.is_some();
    let boot = handle.boot.lock().unwrap_or_else(PoisonError::into_inner);
    was_started_here && !boot.is_over()
}

fn read_exit(name: &DomainName, exit: &GuestExit) -> Result<PushReport, Problem> {
    if exit.code == Some(0)
        && let Some(report) = PushReport::parse(&exit.output)
    {
        return Ok(clean_report(report));
    }
    let words = clean(&String::from_utf8_lossy(&exit.error));
    let how = match (words.is_empty(), exit.code) {
        (false, _) => words,
        (true, Some(0)) => "it gave no report".to_owned(),
        (true, Some(code)) => format!("exit code {code}"),
        (true, None) => "it was killed".to_owned(),
    };
    Err(
        Problem::impossible(format!("{name} did not take the layer: {how}"))
            .advice("correct the layer and push again; the former one stays for its next start"),
    )
}

/// What a guest says is shown to people, on terminals.
fn clean(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().map(shown).take(WORDS_MAX).collect()
}

fn clean_report(mut report: PushReport) -> PushReport {
    let paths = report.written.iter_mut().chain(&mut report.removed);
    let left = report
        .left
        .iter_mut()
        .flat_map(|left| [&mut left.path, &mut left.reason]);
    let services = report.services.iter_mut().flat_map(|service| {
        [&mut service.name, &mut service.act]
            .into_iter()
            .chain(service.failure.as_mut())
    });
    for text in paths.chain(left).chain(services) {
        if text.contains(char::is_control) {
            *text = text.replace(char::is_control, " ");
        }
    }
    report
}

/// For the log of events.
fn said(outcome: &LayerOutcome) -> String {
    match outcome {
        LayerOutcome::Laid { report } => {
            let services: Vec<String> = report
                .services
                .iter()
                .map(|service| match &service.failure {
                    None => format!("; {} {}ed", service.name, service.act),
                    Some(failure) => {
                        format!("; {} {} failed: {failure}", service.name, service.act)
                    }
                })
                .collect();
            format!(
                "a layer was laid over it while it runs: {} written, {} removed, {} left{}",
                report.written_count(),
                report.removed_count(),
                report.left_count(),
                services.concat()
            )
        }
        LayerOutcome::NextStart { reason } | LayerOutcome::Unreached { reason } => {
            format!("a layer was pushed: {reason}")
        }
    }
}

impl Domain {
    /// Makes a layer the domain's own, from its next start on.
    pub(crate) async fn take_layer(
        &mut self,
        layer: PushedLayer,
        generation: Option<Generation>,
        reason: String,
    ) -> Answered {
        allow(&self.record, generation)?;
        let mut record = self.record.clone();
        record.layer_bytes = layer.bytes.len() as u64;
        record.pushed = Some(layer.digest.clone());
        let place = self.agent.place(&self.name);
        if record != self.record {
            let (journal, kept) = (self.agent.journal.clone(), record.clone());
            around(Some("layer.kept"), async {
                let written = tokio::task::spawn_blocking(move || {
                    layer.keep(&place)?;
                    journal.write(&kept)?;
                    // Only now: until the record is there, the former one is the domain's.
                    layer::remove_others(&place, &kept);
                    Ok(())
                });
                written
                    .await
                    .unwrap_or_else(|error| Err(std::io::Error::other(error)))
                    .map_err(|error| {
                        Problem::failed(format!(
                            "the layer of {} could not be kept for its next start: {error}",
                            self.name
                        ))
                        .advice("see to the disk of the agent's state directory, and push again")
                    })
            })
            .await?;
            self.record = record;
            self.handle
                .shown
                .send_modify(|shown| shown.record = self.record.clone());
        }
        self.agent.tell(Event {
            sequence: 0,
            time_ms: 0,
            kind: EventKind::LayerPushed,
            domain: Some(self.name.clone()),
            host: None,
            generation: Some(self.record.entry.generation),
            operation: None,
            reason,
        });
        Ok(Answer::Done)
    }
}
