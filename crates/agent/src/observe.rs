//! What an instance looks like, in the words of the state machine, and in those shown to people.

use estive_hypervisor::{Hypervisor, InstanceState, MigrationStatus};
use estive_model::{DomainName, DomainState};
use estive_moves::{Holding, Seen};

/// Looks at a domain's instance. What cannot be asked is [`Seen::Unclear`], never [`Seen::Gone`].
pub async fn see(hypervisor: &dyn Hypervisor, name: &DomainName, holding: Holding) -> Seen {
    let state = match hypervisor.state(name).await {
        Ok(state) => state,
        Err(error) => {
            tracing::warn!(domain = %name, %error, "its instance cannot be asked");
            return Seen::Unclear;
        }
    };
    let halted = match state {
        InstanceState::Gone => return Seen::Gone,
        InstanceState::Prelaunch => return Seen::Prelaunch,
        InstanceState::AwaitingStream => return Seen::Awaiting,
        InstanceState::Loaded => return Seen::Loaded,
        InstanceState::Sent => return Seen::Sent,
        InstanceState::Running => false,
        InstanceState::Paused | InstanceState::GuestStopped => true,
    };
    let plain = if halted { Seen::Paused } else { Seen::Running };
    if !matches!(
        holding,
        Holding::Running | Holding::Outgoing(_) | Holding::Released(_) | Holding::Saving
    ) {
        return plain;
    }
    match hypervisor.migration(name).await.map(|now| now.status) {
        // Halted in the moment of the switch too: it is not over, and must not be resumed.
        Ok(MigrationStatus::Setup | MigrationStatus::Active | MigrationStatus::Switching) => {
            Seen::Streaming
        }
        Ok(MigrationStatus::PostCopy) => Seen::Following,
        Ok(MigrationStatus::Completed) if halted && matches!(holding, Holding::Outgoing(_)) => {
            Seen::Sent
        }
        Ok(_) => plain,
        Err(estive_hypervisor::HypervisorError::NoInstance(_)) => Seen::Gone,
        Err(_) => Seen::Unclear,
    }
}

/// The state shown for what is held and seen.
pub fn domain_state(holding: Holding, seen: Seen) -> DomainState {
    match (holding, seen) {
        (Holding::Released(_), _) => DomainState::Released,
        (_, Seen::Unclear) => DomainState::Unknown,
        (Holding::Saved | Holding::Restoring, _) => DomainState::Saved,
        (Holding::Stopped | Holding::Absent, _) => DomainState::Stopped,
        (Holding::Incoming(_), _) => DomainState::Incoming,
        (Holding::Running | Holding::Outgoing(_) | Holding::Saving, seen) => match seen {
            Seen::Running | Seen::Streaming => DomainState::Running,
            Seen::Gone => DomainState::Crashed,
            _ => DomainState::Paused,
        },
    }
}
