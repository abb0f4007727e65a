//! What a domain's task learns without being ordered: from its instance, its side tasks, and its own restart.

use crate::domain::{Doing, Domain};
use crate::journal::Moving;
use crate::live;
use estive_api::fault;
use estive_api::wire::OperationPhase;
use estive_hypervisor::{Grip, InstanceEvent, InstanceHappening, InstanceState, MigrationStatus};
use estive_moves::{Holding, Input, Seen};
use std::time::Duration;
use tokio::task::AbortHandle;

/// After this an observation that could not be acted on is made again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Domain {
    /// Takes in what was seen; what could not be acted on is looked at again.
    pub(crate) async fn observe(&mut self, input: Input, note: String) {
        fault_around_sent(&input, true);
        let acted = self.apply(input, Doing::because(note)).await;
        fault_around_sent(&input, false);
        let unclear = match acted {
            Err(problem) => {
                tracing::warn!(domain = %self.name, ?input, %problem, "could not act on what was seen");
                self.note(problem.error);
                // An instance that is gone cannot be acted on any better later, unless something must be told.
                self.see().await != Seen::Gone
                    || matches!(
                        self.record.entry.holding,
                        Holding::Outgoing(_) | Holding::Released(_)
                    )
            }
            Ok(_) => self.needs_another_look(input).await,
        };
        if unclear {
            self.look_again();
        }
    }

    /// Looks at its instance again in a moment. One look is to come at most.
    pub(crate) fn look_again(&mut self) {
        let comes = self.look.as_ref().is_some_and(|look| !look.is_finished());
        if !comes {
            self.look = Some(self.agent.look_again(&self.handle, LOOK_AGAIN));
        }
    }

    /// Whether nobody would come back to this by himself.
    async fn needs_another_look(&self, input: Input) -> bool {
        let lives = |task: &AbortHandle| !task.is_finished();
        match self.record.entry.holding {
            // Who told of the end has ended with it.
            Holding::Outgoing(_) => match input {
                Input::Ready(..) | Input::StreamFailed => true,
                _ => ![&self.watcher, &self.asker]
                    .into_iter()
                    .flatten()
                    .any(lives),
            },
            // Told that it is taken, and not dropped: the rest of its memory still follows, or it cannot be asked.
            Holding::Released(_) => {
                matches!(input, Input::Committed(..))
                    || !self.committer.as_ref().is_some_and(|(_, task)| lives(task))
            }
            Holding::Incoming(_) => false,
            // What the step could not see may be seen now: it must be decided again all the same.
            _ => self.stepped_unclear || self.see().await == Seen::Unclear,
        }
    }

    pub(crate) async fn restarted(&mut self) {
        let holding = self.record.entry.holding;
        self.begin_report_again();
        if holding == Holding::Running && self.is_guest_stopped().await {
            let doing = Doing::because("the guest powered itself off while the agent was away");
            if let Err(problem) = self.apply(Input::Stop, doing).await {
                self.note(problem.error);
            }
            return;
        }
        self.observe(
            Input::Restarted,
            "found so after a restart of the agent".to_owned(),
        )
        .await;
        let holding = self.record.entry.holding;
        if matches!(holding, Holding::Outgoing(_) | Holding::Released(_)) {
            self.claim_images_again().await;
        }
        if live::may_run(holding) && self.see().await != Seen::Gone {
            self.ensure_tap_again().await;
        }
        match holding {
            Holding::Absent => self.clean_up().await,
            Holding::Outgoing(grant) if self.see().await == Seen::Streaming => {
                self.watch_stream(grant, self.agent.hypervisor.events());
            }
            Holding::Running => match self.see().await {
                Seen::Gone => self.mark_crashed("found gone").await,
                _ => self.watch_boot(),
            },
            _ => {}
        }
    }

    /// What held them for others to see has ended with the agent.
    async fn claim_images_again(&self) {
        let claimed = match self.images() {
            Ok(Some(xml)) => self.agent.show_images(&xml, Grip::Open).await.map(drop),
            Ok(None) => Ok(()),
            Err(problem) => Err(problem),
        };
        if let Err(problem) = claimed {
            tracing::warn!(domain = %self.name, %problem, "its images are not claimed while it moves");
        }
    }

    async fn is_guest_stopped(&self) -> bool {
        matches!(
            self.agent.hypervisor.state(&self.name).await,
            Ok(InstanceState::GuestStopped)
        )
    }

    pub(crate) async fn happened(&mut self, event: InstanceEvent) {
        let holding = self.record.entry.holding;
        match event.what {
            InstanceHappening::Gone => self.instance_gone().await,
            InstanceHappening::GuestPoweredOff => self.guest_powered_off().await,
            InstanceHappening::GuestPanicked => self.guest_panicked().await,
            // A move that was given up may have ended well all the same, and left it halted.
            InstanceHappening::Migration(
                MigrationStatus::Completed | MigrationStatus::Failed | MigrationStatus::Cancelled,
            ) if holding == Holding::Running => {
                self.observe(
                    Input::Restarted,
                    "a stream that was given up has ended".into(),
                )
                .await;
            }
            _ => {}
        }
    }

    async fn instance_gone(&mut self) {
        // An event of an instance that was replaced since says nothing.
        if self.see().await != Seen::Gone {
            return;
        }
        self.observe(Input::InstanceGone, "its QEMU is gone".into())
            .await;
        // On its way, what it has is still claimed.
        if !matches!(
            self.record.entry.holding,
            Holding::Outgoing(_) | Holding::Released(_)
        ) {
            self.agent.image_proofs.end(&self.name).await;
        }
        match self.record.entry.holding {
            Holding::Running => self.mark_crashed("its QEMU ended by itself").await,
            Holding::Incoming(_) => self.note(format!("its QEMU ended: {}", self.last_words())),
            _ => {}
        }
    }

    async fn guest_powered_off(&mut self) {
        const REASON: &str = "the guest powered itself off";
        if let Holding::Outgoing(grant) = self.record.entry.holding {
            let given_up = self.apply(Input::Abort(grant.generation), Doing::because(REASON));
            if let Err(problem) = given_up.await {
                self.note(problem.error);
            }
        }
        if self.record.entry.holding == Holding::Running
            && self.is_guest_stopped().await
            && let Err(problem) = self.apply(Input::Stop, Doing::because(REASON)).await
        {
            self.note(problem.error);
        }
    }

    async fn guest_panicked(&mut self) {
        if self.record.entry.holding != Holding::Running || !self.is_guest_stopped().await {
            return;
        }
        let words = self.last_words();
        // Halted for ever: its QEMU is of no more use.
        if let Err(error) = self.agent.hypervisor.kill(&self.name).await {
            tracing::warn!(domain = %self.name, %error, "its panicked guest was not ended");
        }
        self.mark_crashed(&format!("the guest's kernel panicked: {words}"))
            .await;
    }

    fn begin_report_again(&self) {
        let (phase, grant) = match self.record.entry.holding {
            Holding::Outgoing(grant) => (OperationPhase::Copying, grant),
            Holding::Released(grant) => (OperationPhase::Released, grant),
            _ => return,
        };
        if let Some(Moving::Source { operation, .. }) = &self.record.moving {
            self.agent
                .begin_operation(operation, &self.name, grant.generation, phase);
        }
    }
}

fn fault_around_sent(input: &Input, before: bool) {
    if *input == Input::StreamSent {
        match before {
            true => fault::before("move.sent"),
            false => fault::after("move.sent"),
        }
    }
}
