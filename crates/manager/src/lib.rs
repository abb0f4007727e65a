//! The manager of a herd: inventory from the agents, placement, `up` and `down`, and live migration as a saga whose
//! four durable writes are drawn in `estive-moves`. It never touches a hypervisor: everything goes through agents.
//!
//! **Invariants.** A domain's record in the store is changed only by compare-and-swap, and before any agent is asked.
//! A silent host is unknown: nothing of it is started elsewhere. A move is driven by `estive_moves::decide` alone.

mod agents;
mod boot_watch;
mod clone_archive;
mod config;
mod define;
mod destination;
mod down;
mod early;
mod error;
mod event_log;
mod floor;
mod herd_checks;
mod herd_clones;
mod herd_folder;
mod herd_layers;
mod inventory;
mod kernel_modules;
mod made_of;
mod manager;
mod migrate;
mod move_loop;
mod placement;
mod probe;
mod push;
mod readers;
mod recording;
mod records;
mod reference;
mod references;
mod renewal;
mod roots_in_use;
mod routes;
mod saved;
mod snapshot;
mod status;
mod take_back;
mod up;
mod view;
mod volume_roots;
mod volumes;

pub use config::{
    EarlyConfig, LiveConfig, ManagerConfig, ReferenceConfig, RootConfig, RootName, VolumesConfig,
};
pub use error::ManagerError;
pub use manager::Parts;
pub use probe::{NetworkProber, Prober};

use estive_api::Credentials;
use estive_api::clock::SystemClock;
use estive_api::server::{Listen, Listener};
use estive_model::OperationId;
use estive_store::EmbeddedStore;
use manager::Manager;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Serves until `shutdown` is cancelled. Moves that are under way then go on with the next manager on this state.
///
/// The program must call [`estive_sandbox::hidden_command`] first in its `main`: it is executed anew to render herds.
pub async fn run(config: ManagerConfig, shutdown: CancellationToken) -> Result<(), ManagerError> {
    let parts = Parts {
        clock: Arc::new(SystemClock),
        prober: Arc::new(NetworkProber),
        worker: Some(estive_sandbox::Worker::this_program()),
    };
    run_with(config, parts, shutdown).await
}

/// Like [`run`], made of other parts.
pub async fn run_with(
    config: ManagerConfig,
    parts: Parts,
    shutdown: CancellationToken,
) -> Result<(), ManagerError> {
    let credentials = match &config.credentials {
        Some(path) if !path.is_dir() => {
            return Err(ManagerError::NoCredentials { path: path.clone() });
        }
        Some(path) => Some(Credentials::load(path)?),
        None => None,
    };
    let store = EmbeddedStore::open(&config.state.join("store.redb"))?;
    // Bound before anything is asked or gone on with: a manager that cannot serve does nothing.
    let mut listeners = Vec::new();
    if let (Some(address), Some(credentials)) = (config.listen, &credentials) {
        let listen = Listen::Tls {
            address,
            credentials: credentials.clone(),
        };
        listeners.push(Listener::bind(listen).await?);
    }
    if let Some(parent) = config.socket.parent() {
        std::fs::create_dir_all(parent).map_err(|source| ManagerError::File {
            doing: "make the directory of the socket,",
            path: parent.to_owned(),
            source,
        })?;
    }
    listeners.push(Listener::bind(Listen::Unix(config.socket.clone())).await?);
    let manager = Manager::new(
        &config,
        credentials.as_ref(),
        Arc::new(store),
        parts,
        shutdown.clone(),
    )
    .await?;
    manager.forget_initramfs().await;
    manager.resume_moves().await.map_err(ManagerError::Store)?;
    manager.watch_hosts();
    manager.watch_references();
    manager.watch_readers();
    let mut serving = tokio::task::JoinSet::new();
    for listener in listeners {
        tracing::info!(at = %listener.endpoint(), "the manager listens");
        serving.spawn(listener.serve(routes::router(manager.clone()), shutdown.clone()));
    }
    while serving.join_next().await.is_some() {}
    manager.end().await;
    Ok(())
}

/// From the operating system, through a generator seeded by it.
pub(crate) fn random_bytes<const COUNT: usize>() -> [u8; COUNT] {
    let mut bytes = [0; COUNT];
    StdRng::from_os_rng().fill_bytes(&mut bytes);
    bytes
}

/// An operation's name, never used twice.
pub(crate) fn new_operation(kind: &str) -> OperationId {
    let name = format!("{kind}-{:016x}", u64::from_ne_bytes(random_bytes()));
    OperationId::new(name).expect("a lower-case word, a dash and hex digits are a label")
}
