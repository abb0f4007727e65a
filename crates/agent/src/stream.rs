//! What goes on beside a domain's task while it is sent away: following the stream, asking the destination, telling
//! it to run the domain. Each ends by telling the task what was seen; none decides.

use crate::agent::Agent;
use crate::domain::{Handle, Message};
use estive_api::wire::{GrantAnswer, GrantOrder};
use estive_api::{Client, fault};
use estive_hypervisor::{
    HypervisorError, InstanceEvent, InstanceHappening, InstanceState, MigrationProgress,
    MigrationStatus,
};
use estive_model::{DomainName, HostName, OperationId};
use estive_moves::{Answer, CommitOutcome, Grant, Input};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

const PROGRESS: Duration = Duration::from_millis(100);
/// How long the source stays halted for a destination that does not say "ready".
const READY_PATIENCE: Duration = Duration::from_millis(1500);
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);
/// For what was learned of a domain's boots, once the destination runs it.
const CARRY_PATIENCE: Duration = Duration::from_secs(2);
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LAST_BACKOFF: Duration = Duration::from_secs(1);
/// A connection is kept for 45 s.
const WARM_EVERY: Duration = Duration::from_secs(20);
/// Pre-copy that is not through after so many passes, or so long, does not converge.
const MOST_PASSES: u64 = 8;
const MOST_PRE_COPY: Duration = Duration::from_secs(20);
/// An order to send that shows nothing for so long was lost.
const MOST_SILENCE: Duration = Duration::from_secs(3);
/// How long a completed stream may take to show in the instance's own state.
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);

/// Whom a domain is sent to.
#[derive(Clone)]
pub(crate) struct Peer {
    pub agent: Arc<Agent>,
    pub handle: Handle,
    pub client: Client,
    pub name: DomainName,
    pub grant: Grant,
    pub operation: OperationId,
    pub destination: HostName,
}

impl Peer {
    fn saw(&self, input: Input, note: impl Into<String>) {
        self.handle.send(Message::Observed {
            generation: Some(self.grant.generation),
            input,
            note: note.into(),
        });
    }

    async fn ask(&self, verb: &str, within: Duration) -> Result<Answer, String> {
        let order = GrantOrder {
            generation: self.grant.generation,
        };
        let path = format!("/domain/{}/{verb}", self.name);
        let answer: GrantAnswer = self
            .client
            .post_json(&path, &order, within)
            .await
            .map_err(|error| error.to_string())?;
        serde_json::from_value(answer.answer)
            .map_err(|error| format!("{} answered strangely: {error}", self.destination))
    }

    fn report_progress(&self, progress: &MigrationProgress) {
        self.agent.operations.change(&self.operation, |report| {
            report.sent_bytes = progress.sent_bytes;
            report.remaining_bytes = progress.remaining_bytes;
            report.total_bytes = progress.total_bytes;
            report.dirty_rate_bytes_per_s = progress.dirty_rate_bytes_per_s;
            report.expected_downtime_ms = progress.expected_downtime_ms;
            report.downtime_ms = progress.downtime_ms.or(report.downtime_ms);
            report.total_ms = progress.total_ms;
            if progress.throttle_percent > 0 && !report.choice.starts_with("post-copy") {
                report.choice = format!(
                    "pre-copy, processors slowed by {} %",
                    progress.throttle_percent
                );
            }
            if let Some(error) = &progress.error {
                report.error = Some(error.clone());
            }
        });
    }
}

enum Ended {
    Sent,
    Failed(String),
    Gone,
}

/// Follows an outgoing stream to its end.
pub(crate) async fn watch(peer: Peer, mut happenings: broadcast::Receiver<InstanceEvent>) {
    let mut ticks = interval(PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warm = interval(WARM_EVERY);
    let began = Instant::now();
    let mut switched = false;
    let ended = loop {
        tokio::select! {
            biased;
            event = happenings.recv() => match event {
                Ok(event) if event.domain != peer.name => {}
                Ok(InstanceEvent { what: InstanceHappening::Halted, time_us, .. }) => {
                    let time_us = match time_us {
                        0 => peer.agent.clock.now_ms() * 1000,
                        given => given,
                    };
                    peer.agent.operations.change(&peer.operation, |report| {
                        report.halted_us = Some(time_us);
                    });
                }
                Ok(InstanceEvent { what: InstanceHappening::Migration(status), .. }) => {
                    match status {
                        MigrationStatus::Completed => break Ended::Sent,
                        MigrationStatus::Failed | MigrationStatus::Cancelled => {
                            break Ended::Failed(why(&peer).await);
                        }
                        _ => {}
                    }
                }
                Ok(InstanceEvent { what: InstanceHappening::Gone, .. }) => break Ended::Gone,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            _ = warm.tick() => {
                let client = peer.client.clone();
                peer.agent.spawn(async move {
                    let _ = client.warm(WARM_EVERY).await;
                });
            }
            _ = ticks.tick() => match peer.agent.hypervisor.migration(&peer.name).await {
                Ok(progress) => {
                    peer.report_progress(&progress);
                    match progress.status {
                        MigrationStatus::Completed => break Ended::Sent,
                        MigrationStatus::Failed | MigrationStatus::Cancelled => {
                            break Ended::Failed(failure(&progress));
                        }
                        MigrationStatus::None if began.elapsed() > MOST_SILENCE => {
                            break Ended::Failed("the stream never began".into());
                        }
                        MigrationStatus::Active
                            if peer.grant.post_copy
                                && !switched
                                && (progress.passes > MOST_PASSES || began.elapsed() > MOST_PRE_COPY) =>
                        {
                            switched = true;
                            peer.saw(Input::SwitchToPostCopy, format!(
                                "pre-copy did not converge in {} passes: post-copy to {}",
                                progress.passes, peer.destination
                            ));
                        }
                        _ => {}
                    }
                }
                Err(HypervisorError::NoInstance(_) | HypervisorError::Died(_)) => break Ended::Gone,
                Err(error) => tracing::warn!(domain = %peer.name, %error, "its stream cannot be looked at"),
            },
        }
    };
    match ended {
        Ended::Sent => {
            settle(&peer).await;
            peer.saw(
                Input::StreamSent,
                format!("{} has the whole stream", peer.destination),
            );
            // Not before: these figures are not worth a moment of the interruption.
            if let Ok(progress) = peer.agent.hypervisor.migration(&peer.name).await {
                peer.report_progress(&progress);
            }
        }
        Ended::Failed(reason) => {
            peer.agent.operations.change(&peer.operation, |report| {
                report.error = Some(reason.clone());
            });
            peer.saw(Input::StreamFailed, reason);
        }
        // The instance's own event tells the task.
        Ended::Gone => {}
    }
}

/// The stream is over a moment before the instance's state says so.
async fn settle(peer: &Peer) {
    let settled = async {
        loop {
            match peer.agent.hypervisor.state(&peer.name).await {
                Ok(InstanceState::Sent | InstanceState::Gone) => return,
                _ => sleep(Duration::from_millis(2)).await,
            }
        }
    };
    if timeout(SETTLE_PATIENCE, settled).await.is_err() {
        tracing::warn!(domain = %peer.name, "its stream is complete, its state does not say so");
    }
}

async fn why(peer: &Peer) -> String {
    match peer.agent.hypervisor.migration(&peer.name).await {
        Ok(progress) => failure(&progress),
        Err(error) => format!("the stream failed: {error}"),
    }
}

fn failure(progress: &MigrationProgress) -> String {
    match (&progress.error, progress.status) {
        (Some(error), _) => format!("the stream failed: {error}"),
        (None, MigrationStatus::Cancelled) => "the stream was cancelled".into(),
        (None, _) => "the stream failed, QEMU does not say why".into(),
    }
}

/// Asks the destination whether the whole stream is loaded there; what does not answer in time has not.
pub(crate) async fn ask_ready(peer: Peer) {
    fault::before("move.ready_answered");
    let deadline = Instant::now() + READY_PATIENCE;
    let mut last = "it was still loading".to_owned();
    let ready = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break false;
        }
        match peer.ask("ready", left).await {
            Ok(Answer::Ready(ready)) => {
                if !ready {
                    last = "it does not have it".into();
                }
                break ready;
            }
            Ok(_) => sleep(Duration::from_millis(3)).await,
            Err(error) => {
                last = error;
                sleep(FIRST_BACKOFF).await;
            }
        }
    };
    fault::after("move.ready_answered");
    let note = match ready {
        true => format!("{} has the whole stream loaded", peer.destination),
        false => format!(
            "{} did not say that it has the stream: {last}",
            peer.destination
        ),
    };
    peer.saw(Input::Ready(peer.grant.generation, ready), note);
}

/// Tells the destination to run the domain until it says what became of it. Never gives up.
pub(crate) async fn send_commit(peer: Peer) {
    let mut backoff = FIRST_BACKOFF;
    let mut first = true;
    let mut told = false;
    let outcome = loop {
        if std::mem::take(&mut first) {
            fault::before("move.commit_sent");
        }
        match peer.ask("commit", COMMIT_PATIENCE).await {
            Ok(Answer::Committed(outcome)) => break outcome,
            // Still loading the last of it.
            Ok(Answer::NotYet) => {
                sleep(Duration::from_millis(3)).await;
                continue;
            }
            Ok(other) => {
                tracing::warn!(domain = %peer.name, answer = ?other, "the destination does not take it")
            }
            Err(error) => {
                tracing::warn!(domain = %peer.name, %error, "the destination does not answer")
            }
        }
        if !std::mem::replace(&mut told, true) {
            let note = format!(
                "released to {}, which has not confirmed yet; asked again until it does",
                peer.destination
            );
            peer.handle
                .shown
                .send_modify(|shown| shown.note = Some(note));
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(LAST_BACKOFF);
    };
    fault::after("move.commit_sent");
    if outcome == CommitOutcome::Taken {
        let now_us = peer.agent.clock.now_ms() * 1000;
        peer.agent.operations.change(&peer.operation, |report| {
            report.resumed_us = Some(now_us);
        });
        until_nothing_follows(&peer).await;
    }
    carry_boots(&peer).await;
    let note = match outcome {
        CommitOutcome::Taken => format!("{} runs it", peer.destination),
        CommitOutcome::Lost => format!(
            "its instance on {} ended before it ran there: its memory is lost",
            peer.destination
        ),
    };
    peer.saw(Input::Committed(peer.grant.generation, outcome), note);
}

/// What was known of the domain's boots when it began to be sent is there already; what was learned since goes after
/// it, before it is dropped here. A move does not fail for it, and an agent that is killed here does it again.
async fn carry_boots(peer: &Peer) {
    let report = peer.agent.hypervisor.channels(&peer.name).report;
    let boots = {
        let mut log = peer
            .handle
            .boot
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Its last words here: its processors are halted.
        let _ = log.read_on(&report, peer.agent.clock.now_ms());
        log.boots.clone()
    };
    let path = format!("/domain/{}/boots", peer.name);
    let carried = peer
        .client
        .put_json::<()>(&path, &boots, CARRY_PATIENCE)
        .await;
    if let Err(error) = carried {
        tracing::debug!(domain = %peer.name, %error, "what was learned of its boots did not go along");
    }
}

/// In post-copy the rest of memory follows the switch: the source's instance is needed until then.
async fn until_nothing_follows(peer: &Peer) {
    loop {
        match peer.agent.hypervisor.migration(&peer.name).await {
            Ok(progress) => {
                peer.report_progress(&progress);
                match progress.status {
                    MigrationStatus::Setup
                    | MigrationStatus::Active
                    | MigrationStatus::Switching
                    | MigrationStatus::PostCopy => {}
                    _ => return,
                }
            }
            Err(HypervisorError::NoInstance(_) | HypervisorError::Died(_)) => return,
            Err(error) => {
                tracing::warn!(domain = %peer.name, %error, "its stream cannot be looked at");
            }
        }
        sleep(PROGRESS).await;
    }
}
