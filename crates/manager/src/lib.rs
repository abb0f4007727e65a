//! The manager of a herd: inventory from the agents, placement, `up` and `down`, and live migration as a saga whose
//! four durable writes are drawn in `estive-moves`. It never touches a hypervisor: everything goes through agents.

mod config;
mod error;

pub use config::{ManagerConfig, ReferenceConfig, RootConfig};
pub use error::ManagerError;

use tokio_util::sync::CancellationToken;

/// Serves until `shutdown` is cancelled.
pub async fn run(_config: ManagerConfig, shutdown: CancellationToken) -> Result<(), ManagerError> {
    shutdown.cancelled().await;
    Ok(())
}
