//! After a move a clone's registration is with the host that it left: its own program is asked to say it again, here.

use estive_hypervisor::guest_agent::GuestAgent;
use serde_json::json;
use std::time::Duration;

/// The program of the template set `register`.
const PROGRAM: &str = "/usr/local/lib/estive/register";
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks a guest whose agent answers. One without that set refuses, and has nothing to say.
pub(crate) async fn ask_again(guest: &GuestAgent) {
    let order = json!({ "path": PROGRAM, "arg": ["start"] });
    let asked = guest.call("guest-exec", order, PATIENCE).await;
    tracing::debug!(
        ?asked,
        "the guest was asked to register again after the move"
    );
}
