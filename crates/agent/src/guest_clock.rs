//! After a move the guest's clock is behind by what the switch took: its processors stood still. The guest agent sets it.
//!
//! A guest without that agent keeps its own time; the switch never waits for any of this.

use crate::domain::Domain;
use crate::registration;
use estive_hypervisor::guest_agent::GuestAgent;
use serde_json::json;
use std::time::Duration;

/// How long the guest may take to answer, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 3;

impl Domain {
    /// Sets the guest's clock to this host's, aside.
    pub(crate) fn set_guest_clock(&self) {
        let guest = GuestAgent::new(self.agent.hypervisor.channels(&self.name).guest_agent);
        let (clock, name) = (self.agent.clock.clone(), self.name.clone());
        tokio::spawn(async move {
            for _ in 0..ATTEMPTS {
                // Asked first, so that the time is taken when the guest listens.
                if guest.ping(PATIENCE).await.is_err() {
                    continue;
                }
                let time_ns = clock.now_ms().saturating_mul(1_000_000);
                let set = guest
                    .call("guest-set-time", json!({ "time": time_ns }), PATIENCE)
                    .await;
                // It may complain that it could not write the hardware clock too: the system's is set by then.
                tracing::debug!(domain = %name, ?set, "the guest's clock was set after the move");
                registration::ask_again(&guest).await;
                return;
            }
            tracing::debug!(domain = %name, "no guest agent answers: the guest keeps its own clock");
        });
    }
}
