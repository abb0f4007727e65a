//! The daemon on every host: holds domains, moves them, tells what it sees.
//!
//! ```text
//!   rest ──► domain (one task each) ──► estive_moves::step ──► effects ──► journal · hypervisor · taps
//!               ▲                                                 │
//!               └── stream (follow, ask, commit) ◄────────────────┘
//! ```
//!
//! **Architecture invariant:** no global decisions. Which host a domain belongs on is the manager's word; whether it
//! may run here is the journal's.
//!
//! **Architecture invariant:** no data path lives inside this process. Ending it, in whatever way, stops no domain.

mod agent;
mod archive;
mod boot_log;
mod boot_watch;
mod config;
mod definition;
mod domain;
mod effects;
mod error;
mod events;
mod files;
mod guest_clock;
mod happenings;
mod image_locks;
mod image_marks;
mod images;
mod instance;
mod journal;
mod layer;
mod live;
mod observe;
mod operations;
mod orders;
mod push;
mod registration;
mod rest;
mod roots;
mod saved;
mod sending;
mod strangers;
mod stream;
mod system_boot;
mod taps;
mod views;
mod volume;

pub use agent::{Agent, Parts};
pub use config::{AccelConfig, AgentConfig, CapacityConfig, MigrationConfig};
pub use error::AgentError;
pub use rest::router;
pub use taps::{HostTaps, NoTaps, Taps};

use estive_api::clock::SystemClock;
use estive_api::server::{Listen, Listener};
use estive_api::{Credentials, Role};
use estive_hypervisor::QemuHypervisor;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Runs an agent of real QEMUs until `shutdown` is cancelled. QEMUs run on.
///
/// Errors name what to change: credentials missing, a port or socket in use, a state directory held by another agent.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> Result<(), AgentError> {
    let credentials = config
        .credentials
        .as_ref()
        .map(Credentials::load)
        .transpose()?;
    let hypervisor = QemuHypervisor::new(config.qemu()).await?;
    let parts = Parts {
        hypervisor: Arc::new(hypervisor),
        clock: Arc::new(SystemClock),
        taps: Arc::new(HostTaps),
        credentials,
    };
    run_with(config, parts, shutdown).await
}

/// Like [`run`], made of other parts.
pub async fn run_with(
    config: AgentConfig,
    parts: Parts,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    if let Some(held) = &parts.credentials
        && (held.role(), held.name()) != (Role::Agent, config.name.as_str())
    {
        return Err(AgentError::OthersCertificate {
            is: format!("{}:{}", held.role(), held.name()),
            name: config.name,
        });
    }
    for directory in [&config.state, &config.runtime] {
        std::fs::create_dir_all(directory)
            .map_err(|source| AgentError::file("make the directory", directory, source))?;
    }
    // Bound before anything is taken over: an agent that nobody can reach should not begin.
    let mut listeners = Vec::new();
    if let (Some(address), Some(credentials)) = (config.listen, parts.credentials.clone()) {
        let listen = Listen::Tls {
            address,
            credentials,
        };
        listeners.push(Listener::bind(listen).await?);
    }
    if let Some(parent) = config.socket.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|source| AgentError::file("make the directory", parent, source))?;
    }
    listeners.push(Listener::bind(Listen::Unix(config.socket.clone())).await?);
    let agent = Agent::start(config, parts).await?;
    tracing::info!(host = %agent.about().name, hypervisor = %agent.about().hypervisor, "the agent serves");
    let serving = listeners.into_iter().map(|listener| {
        tracing::info!(endpoint = %listener.endpoint(), "listening");
        listener.serve(router(agent.clone(), shutdown.clone()), shutdown.clone())
    });
    futures_util::future::join_all(serving).await;
    agent.end().await;
    Ok(())
}
