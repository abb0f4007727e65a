//! The cache as a process of its own: one for each directory, its sockets, its doors.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use estive_api::server::{Listen, Listener, bind_unix};
use estive_api::wire::{CacheDirectory, DoorAbout, RootReady};
use estive_api::{Credentials, Problem};
use estive_model::Digest;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::store::make_private;
use crate::{Cache, CacheError, ReadError, nbd, router};

/// A cache holds at least this: what a read of the largest size and the reading ahead of some clones need.
const LEAST_LIMIT_BYTES: u64 = 64 << 20;

/// What a cache is told at start.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// See [`CacheDirectory`]; made when missing.
    pub directory: PathBuf,
    /// Its certificate (an agent's), and whose authority manifests must be of.
    pub credentials: PathBuf,
    /// Where other hosts may read what it holds; without it, nowhere.
    pub listen: Option<SocketAddr>,
    /// The most that chunks may take on disk, in bytes.
    pub limit_bytes: u64,
    /// The most that chunks may take in memory, in bytes.
    pub memory_bytes: u64,
    /// How long a read waits for origins that do not answer.
    pub patience: Duration,
    /// What the forwarder beside it tells of its doors, if there is one.
    pub doors: Option<watch::Receiver<Vec<DoorAbout>>>,
}

impl CacheConfig {
    /// With the usual limits: 16 GiB on disk, 64 MiB in memory, 60 s for origins, as QEMU waits for us.
    pub fn new(directory: PathBuf, credentials: PathBuf) -> Self {
        Self {
            directory,
            credentials,
            listen: None,
            limit_bytes: 16 << 30,
            memory_bytes: 64 << 20,
            patience: Duration::from_secs(60),
            doors: None,
        }
    }
}

/// Serves until `shutdown`. `ready` is called once QEMUs are answered.
pub async fn serve_cache(
    config: CacheConfig,
    ready: impl FnOnce(&Cache),
    shutdown: CancellationToken,
) -> Result<(), CacheError> {
    if config.limit_bytes < LEAST_LIMIT_BYTES {
        return Err(CacheError::SmallLimit {
            limit_bytes: config.limit_bytes,
            least: LEAST_LIMIT_BYTES,
        });
    }
    let credentials = Credentials::load(&config.credentials)?;
    let directory = CacheDirectory(config.directory.clone());
    let _lock = lock(&directory)?;
    let cache = {
        let (config, credentials) = (config.clone(), credentials.clone());
        tokio::task::spawn_blocking(move || Cache::open(&config, credentials))
            .await
            .map_err(|error| {
                CacheError::file("open", directory.path())(io::Error::other(error))
            })??
    };
    let mut doors = Vec::new();
    if let Some(address) = config.listen {
        let listen = Listen::Tls {
            address,
            credentials,
        };
        let listener = Listener::bind(listen).await?;
        tracing::info!(endpoint = %listener.endpoint(), "other hosts may read");
        doors.push((listener, router(cache.clone())));
    }
    let control = Listener::bind(Listen::Unix(directory.control())).await?;
    doors.push((control, control_router(cache.clone())));
    let (socket, file) = bind_unix(&directory.socket()).await?;
    ready(&cache);
    let doors = doors
        .into_iter()
        .map(|(listener, router)| listener.serve(router, shutdown.clone()));
    futures_util::future::join(
        nbd::serve(cache, socket, file, shutdown.clone()),
        futures_util::future::join_all(doors),
    )
    .await;
    Ok(())
}

fn control_router(cache: Arc<Cache>) -> Router {
    Router::new()
        .route(
            "/about",
            get(|State(cache): Shared| async move { Json(cache.about()) }),
        )
        .route("/roots/{hex}", get(root))
        .fallback(|| async { Problem::not_found("there is no such resource on a cache") })
        .with_state(cache)
}

type Shared = State<Arc<Cache>>;

/// Answered when the root's manifest is here, so that a QEMU that opens it now does not wait.
async fn root(State(cache): Shared, Path(hex): Path<String>) -> Result<Json<RootReady>, Problem> {
    let name = Digest::new(format!("sha256:{hex}"))
        .map_err(|_| Problem::invalid("a root is named by 64 lower-case hex digits"))?;
    match cache.root(&name).await {
        Ok(root) => Ok(Json(RootReady {
            size_bytes: root.manifest.size_bytes(),
        })),
        Err(error @ ReadError::UnknownRoot(_)) => Err(Problem::not_found(error.to_string())),
        Err(error) => Err(Problem::failed(error.to_string())),
    }
}

/// Two caches in one directory would remove each other's chunks. The kernel lets go when the process ends.
fn lock(directory: &CacheDirectory) -> Result<File, CacheError> {
    let path = directory.path();
    make_private(path).map_err(CacheError::file("make the directory", path))?;
    let file = path.join("lock");
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&file)
        .map_err(CacheError::file("open", &file))?;
    match opened.try_lock() {
        Ok(()) => Ok(opened),
        Err(std::fs::TryLockError::WouldBlock) => Err(CacheError::InUse {
            path: path.to_owned(),
        }),
        Err(std::fs::TryLockError::Error(error)) => Err(CacheError::file("lock", &file)(error)),
    }
}
