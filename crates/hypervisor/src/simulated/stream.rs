//! A simulated outgoing stream, step by step.
//!
//! ```text
//!  Setup ─► Active ─► Switching ─► Completed: source Sent, destination Loaded, in one step
//!    │        │ └─post-copy─► destination Loaded, source halted ─► Completed
//!    └────────┴────────┴─ failed or cancelled: the source goes on, the destination's instance ends
//! ```

use super::fabric::{Fault, Guest, Place, SimulatedFabric, Step, World, since_ms};
use crate::seam::*;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two steps.
const TICK: Duration = Duration::from_millis(5);
/// Part of a guest's memory that is not empty, in percent.
const USED_PERCENT: u64 = 40;
/// How long the switch takes, in milliseconds.
const DOWNTIME_MS: u64 = 10;

pub(super) struct Stream {
    pub(super) fabric: SimulatedFabric,
    pub(super) source: Place,
    pub(super) incarnation: u64,
    pub(super) to: SocketAddr,
    pub(super) parameters: MigrationParameters,
    pub(super) start: Instant,
}

/// Why a stream goes no further.
enum End {
    /// The source's instance is gone or another one, or the migration was cancelled.
    NotOurs,
    Failed(String),
}

impl Stream {
    /// Runs to its end. The task is the source's QEMU: it lives on without the driver.
    pub(super) async fn run(self) {
        if let Err(End::Failed(error)) = self.steps().await {
            let mut world = self.fabric.world();
            if world
                .same(&self.source, self.incarnation)
                .is_some_and(|guest| guest.streams())
            {
                world.break_off(&self.source, MigrationStatus::Failed, Some(error));
            }
        }
    }

    async fn steps(&self) -> Result<(), End> {
        self.fault(Step::Connecting).await?;
        while self.fabric.world().mute.contains(&self.to) {
            self.tick().await?;
            self.in_time()?;
        }
        self.tick().await?;
        self.connect()?;
        while !self.copied().await? {}
        self.fault(Step::Switching).await?;
        self.tick().await?;
        self.fault(Step::Completing).await?;
        let mut world = self.fabric.world();
        let guest = self.ours(&mut world)?;
        let post_copy = guest.status() == MigrationStatus::PostCopy;
        let outgoing = progress(guest);
        outgoing.status = MigrationStatus::Completed;
        outgoing.remaining_bytes = 0;
        outgoing.downtime_ms = Some(DOWNTIME_MS);
        if !post_copy {
            world.load(&self.source);
        }
        world.turn(&self.source, InstanceState::Sent);
        world.tell(
            &self.source,
            InstanceHappening::Migration(MigrationStatus::Completed),
        );
        Ok(())
    }

    fn connect(&self) -> Result<(), End> {
        let mut world = self.fabric.world();
        let refused = || End::Failed(format!("connecting to {} failed: refused", self.to));
        let place = world.listener(self.to).ok_or_else(refused)?;
        let listener = world.guests.get_mut(&place).ok_or_else(refused)?;
        let incarnation = listener.incarnation;
        // One stream only.
        let post_copy = listener
            .listens
            .take()
            .is_some_and(|(_, post_copy)| post_copy);
        let guest = self.ours(&mut world)?;
        guest.peer = Some((place, incarnation));
        if post_copy != self.parameters.post_copy {
            return Err(End::Failed(
                "the two sides have different capabilities".into(),
            ));
        }
        progress(guest).status = MigrationStatus::Active;
        world.tell(
            &self.source,
            InstanceHappening::Migration(MigrationStatus::Active),
        );
        Ok(())
    }

    /// Copies memory for one tick. True once what is left can be sent within the downtime limit, or post-copy was
    /// ordered; the processors are halted then.
    async fn copied(&self) -> Result<bool, End> {
        self.fault(Step::Copying).await?;
        self.tick().await?;
        let rate_bytes_per_ms = (self.parameters.bandwidth_bytes_per_s / 1000).max(1);
        let mut world = self.fabric.world();
        let guest = self.ours(&mut world)?;
        let (state, used_bytes) = (guest.state, guest.memory_bytes / 100 * USED_PERCENT);
        let outgoing = progress(guest);
        outgoing.sent_bytes = (rate_bytes_per_ms * since_ms(self.start)).min(used_bytes);
        outgoing.remaining_bytes = used_bytes - outgoing.sent_bytes;
        outgoing.passes = 1;
        outgoing.expected_downtime_ms = outgoing.remaining_bytes / rate_bytes_per_ms;
        let post_copy = outgoing.status == MigrationStatus::PostCopy;
        if !post_copy && outgoing.expected_downtime_ms > self.parameters.downtime_limit_ms {
            return Ok(false);
        }
        if !post_copy {
            outgoing.status = MigrationStatus::Switching;
        }
        guest.before = Some(state);
        world.turn(&self.source, InstanceState::Paused);
        if post_copy {
            world.load(&self.source);
        } else {
            world.tell(
                &self.source,
                InstanceHappening::Migration(MigrationStatus::Switching),
            );
        }
        Ok(true)
    }

    async fn tick(&self) -> Result<(), End> {
        tokio::time::sleep(TICK).await;
        self.ours(&mut self.fabric.world()).map(drop)
    }

    /// The source, if it still sends this stream to a destination that stands.
    fn ours<'a>(&self, world: &'a mut World) -> Result<&'a mut Guest, End> {
        let peer = world
            .same(&self.source, self.incarnation)
            .and_then(|guest| guest.peer.clone());
        let lost =
            peer.is_some_and(|(place, incarnation)| world.same(&place, incarnation).is_none());
        let guest = world
            .same(&self.source, self.incarnation)
            .ok_or(End::NotOurs)?;
        if !guest.streams() {
            return Err(End::NotOurs);
        }
        if lost {
            return Err(End::Failed("the destination hung up".into()));
        }
        progress(guest).total_ms = since_ms(self.start);
        Ok(guest)
    }

    fn in_time(&self) -> Result<(), End> {
        let deadline_ms = self.parameters.setup_deadline_ms;
        if since_ms(self.start) < deadline_ms {
            return Ok(());
        }
        Err(End::Failed(format!(
            "connecting to {} took longer than {deadline_ms} ms",
            self.to
        )))
    }

    /// Lets a fault of this step strike. `Hold` stays here.
    async fn fault(&self, step: Step) -> Result<(), End> {
        loop {
            let struck = self.fabric.world().strikes(&self.source, step);
            match struck {
                None | Some(Fault::Silent | Fault::AnswerLost) => return Ok(()),
                Some(Fault::Refuse(words)) => return Err(End::Failed(words)),
                Some(Fault::Die) => {
                    self.fabric.world().die(&self.source);
                    return Err(End::NotOurs);
                }
                Some(Fault::PeerDies) => {
                    let mut world = self.fabric.world();
                    let peer = self.ours(&mut world)?.peer.clone();
                    if let Some((place, _)) = peer {
                        world.die(&place);
                    }
                }
                Some(Fault::Hold) => {
                    self.tick().await?;
                    if step == Step::Connecting {
                        self.in_time()?;
                    }
                    let mut world = self.fabric.world();
                    // Post-copy is the way out of a pre-copy that does not converge.
                    let post_copy = self.ours(&mut world)?.status() == MigrationStatus::PostCopy;
                    if step == Step::Copying && post_copy {
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn progress(guest: &mut Guest) -> &mut MigrationProgress {
    guest
        .outgoing
        .get_or_insert_with(|| started(0, MigrationStatus::None))
}

/// A migration at its start.
pub(super) fn started(total_bytes: u64, status: MigrationStatus) -> MigrationProgress {
    MigrationProgress {
        status,
        sent_bytes: 0,
        remaining_bytes: total_bytes,
        total_bytes,
        dirty_rate_bytes_per_s: 0,
        passes: 0,
        expected_downtime_ms: 0,
        downtime_ms: None,
        total_ms: 0,
        throttle_percent: 0,
        error: None,
    }
}
