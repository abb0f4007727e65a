//! All volumes of a storage host: a directory each, a port each.

use crate::daemon::Serving;
use crate::error::VolumeError;
use crate::image;
use crate::record::{Record, sync_directory};
use crate::seam::{By, Volumes, check_size};
use crate::slot::Slot;
use async_trait::async_trait;
use estive_api::Credentials;
use estive_api::wire::{ExportPlace, SnapshotName, VolumeReport, VolumeWish};
use estive_model::{DomainName, Generation};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const NEW: &str = ".new-";
const GONE: &str = ".gone-";
const LOCK: &str = ".lock";
/// The number of the list of revoked certificates that daemons were started with.
const LIST: &str = ".revoked";
/// Volumes that are looked through at once when the service begins.
const BEGUN_AT_ONCE: usize = 8;

/// For another list of revoked certificates.
const LOOK_EVERY: Duration = Duration::from_secs(2);

type Slots = BTreeMap<DomainName, Arc<Slot>>;

/// Where volumes lie and how they are served.
#[derive(Debug, Clone)]
pub struct StorageHostConfig {
    /// The directory; made when it is not there.
    pub directory: PathBuf,
    /// Address on which exports are served.
    pub address: IpAddr,
    /// TCP ports for them, one a volume; the last included.
    pub first_port: u16,
    /// See `first_port`.
    pub last_port: u16,
    /// Mutual TLS: a directory with `ca-cert.pem`, `server-cert.pem` and `server-key.pem`. `None` serves in the clear,
    /// to anybody, and is for tests on one machine.
    pub credentials: Option<PathBuf>,
}

/// The real keeper of volumes.
pub struct StorageHost {
    config: StorageHostConfig,
    serving: Arc<Serving>,
    slots: Arc<Mutex<Slots>>,
    /// One is made or removed at a time.
    changing: tokio::sync::Mutex<()>,
    _lock: fs::File,
}

impl StorageHost {
    /// Takes over what lies in the directory: daemons that run are adopted, the others started, each with the exports
    /// that its record says. Refuses a directory that another service has.
    pub async fn open(config: StorageHostConfig) -> Result<Self, VolumeError> {
        let directory = &config.directory;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(VolumeError::io("make", directory))?;
        let config = StorageHostConfig {
            directory: fs::canonicalize(directory).map_err(VolumeError::io("find", directory))?,
            credentials: match &config.credentials {
                // Daemons work in directories of their own.
                Some(given) => {
                    Some(fs::canonicalize(given).map_err(VolumeError::io("find", given))?)
                }
                None => None,
            },
            ..config
        };
        let directory = &config.directory;
        let path = directory.join(LOCK);
        let lock = fs::File::create(&path).map_err(VolumeError::io("make", &path))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
            |_| {
                VolumeError::Impossible(format!(
                    "another estive storage keeps the volumes in {}",
                    directory.display()
                ))
            },
        )?;
        let serving = Arc::new(Serving {
            address: config.address,
            credentials: config.credentials.clone(),
            ending: CancellationToken::new(),
        });
        let mut slots = BTreeMap::new();
        let entries = fs::read_dir(directory).map_err(VolumeError::io("read", directory))?;
        for entry in entries {
            let entry = entry.map_err(VolumeError::io("read", directory))?;
            let (path, file_name) = (entry.path(), entry.file_name());
            let file_name = file_name.to_string_lossy();
            if file_name.starts_with(NEW) || file_name.starts_with(GONE) {
                if let Err(error) = fs::remove_dir_all(&path) {
                    tracing::warn!(path = %path.display(), %error, "what was half made or half removed stays");
                }
                continue;
            }
            let Ok(name) = DomainName::new(&file_name) else {
                continue;
            };
            // One that cannot be understood is not served, and harms no other: without its record nobody knows who
            // was cut off.
            let record = match Record::read(&path) {
                Ok(record) if record.name == name => record,
                Ok(record) => {
                    let path = path.display();
                    tracing::error!(%path, "not served: it holds the record of {}", record.name);
                    continue;
                }
                Err(error) => {
                    tracing::error!(volume = %name, %error, "not served: see to its record, then start again");
                    continue;
                }
            };
            slots.insert(name, Slot::new(path, record, serving.clone()));
        }
        // Many at once: one whose daemon hangs, or whose image takes long to check, keeps no other waiting.
        let mut begun = tokio::task::JoinSet::new();
        let turns = Arc::new(tokio::sync::Semaphore::new(BEGUN_AT_ONCE));
        for slot in slots.values() {
            let (slot, turns) = (slot.clone(), turns.clone());
            begun.spawn(async move {
                // Never closed.
                let _turn = turns.acquire().await;
                slot.begin().await;
            });
        }
        while begun.join_next().await.is_some() {}
        let slots = Arc::new(Mutex::new(slots));
        if let Some(directory) = &config.credentials {
            let credentials = Credentials::load(directory);
            let credentials = credentials.map_err(|error| {
                VolumeError::Impossible(format!("{}: {error}", directory.display()))
            })?;
            let path = config.directory.join(LIST);
            let watching = obey_lists(credentials, path, Arc::clone(&slots));
            let ending = serving.ending.clone();
            tokio::spawn(async move { ending.run_until_cancelled(watching).await });
        }
        Ok(Self {
            config,
            serving,
            slots,
            changing: tokio::sync::Mutex::new(()),
            _lock: lock,
        })
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &DomainName) -> Option<Arc<Slot>> {
        self.slots().get(name).cloned()
    }

    fn slot(&self, name: &DomainName) -> Result<Arc<Slot>, VolumeError> {
        self.find(name)
            .ok_or_else(|| VolumeError::Missing(name.clone()))
    }

    /// A port that no volume has. Whoever else listens on it is met at the start of the daemon.
    fn free_port(&self) -> Result<u16, VolumeError> {
        let taken: BTreeSet<u16> = self.slots().values().map(|slot| slot.port).collect();
        let StorageHostConfig {
            address,
            first_port,
            last_port,
            ..
        } = self.config;
        (first_port..=last_port)
            .filter(|port| !taken.contains(port))
            .find(|port| std::net::TcpListener::bind((address, *port)).is_ok())
            .ok_or_else(|| {
                VolumeError::Impossible(format!(
                    "no port is left for another volume from {first_port} to {last_port}"
                ))
            })
    }
}

/// Daemons read the list of revoked certificates when they start: at another list they are started anew.
/// The list by which they were is in the file `known`: they outlive this service.
async fn obey_lists(credentials: Credentials, known: PathBuf, slots: Arc<Mutex<Slots>>) {
    let mut last = fs::read_to_string(&known)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    loop {
        let now = credentials.revocation_number();
        if last == now {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        last = now;
        let all: Vec<Arc<Slot>> = {
            let slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.values().cloned().collect()
        };
        tracing::info!(
            volumes = all.len(),
            "another list of revoked certificates: storage daemons are started anew"
        );
        for slot in all {
            slot.let_in_anew().await;
        }
        if let Err(error) = fs::write(&known, now.to_string()) {
            tracing::warn!(%error, "storage daemons will be started anew once more");
        }
    }
}

impl Drop for StorageHost {
    fn drop(&mut self) {
        self.serving.ending.cancel();
    }
}

/// In a task of its own: who asked may go away in the middle, and what was begun is brought to its end. Cut short between
/// two commands, it would leave a clone that runs without its disk.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, VolumeError>> + Send + 'static,
) -> Result<T, VolumeError> {
    tokio::spawn(work).await.unwrap_or_else(|error| {
        Err(VolumeError::Impossible(format!(
            "the service ended in the middle of it: {error}"
        )))
    })
}

fn host(by: By<'_>) -> Option<String> {
    match by {
        By::Host(host) => Some(host.to_owned()),
        By::Keeper => None,
    }
}

fn said_by(host: &Option<String>) -> By<'_> {
    host.as_deref().map_or(By::Keeper, By::Host)
}

#[async_trait]
impl Volumes for StorageHost {
    async fn create(
        &self,
        name: &DomainName,
        wish: &VolumeWish,
    ) -> Result<VolumeReport, VolumeError> {
        check_size(wish.size_bytes)?;
        let _changing = self.changing.lock().await;
        if let Some(slot) = self.find(name) {
            let record = slot.record().await;
            if record.owner != wish.owner {
                return Err(VolumeError::OthersVolume {
                    name: name.clone(),
                    owner: record.owner,
                });
            }
            return slot.report().await;
        }
        let place = self.config.directory.join(name.as_str());
        if fs::symlink_metadata(&place).is_ok() {
            return Err(VolumeError::Impossible(format!(
                "{} is there and is not served, its record is damaged: see to it on the storage host",
                place.display()
            )));
        }
        let aside = self.config.directory.join(format!("{NEW}{name}"));
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(VolumeError::io("remove", &aside))?;
        }
        DirBuilder::new()
            .mode(0o700)
            .create(&aside)
            .map_err(VolumeError::io("make", &aside))?;
        let record = Record {
            name: name.clone(),
            owner: wish.owner.clone(),
            size_bytes: wish.size_bytes,
            port: self.free_port()?,
            fenced: Generation(0),
            granted: BTreeMap::new(),
            exports: BTreeMap::new(),
        };
        let made = async {
            image::make(&aside, wish.size_bytes).await?;
            record.write(&aside)?;
            fs::rename(&aside, &place)
                .and_then(|()| sync_directory(&self.config.directory))
                .map_err(VolumeError::io("make", &place))
        };
        if let Err(error) = made.await {
            let _ = fs::remove_dir_all(&aside);
            return Err(error);
        }
        let slot = Slot::new(place, record, self.serving.clone());
        self.slots().insert(name.clone(), slot.clone());
        slot.begin().await;
        slot.report().await
    }

    async fn list(&self) -> Result<Vec<VolumeReport>, VolumeError> {
        let all: Vec<Arc<Slot>> = self.slots().values().cloned().collect();
        let mut reports = Vec::new();
        for slot in all {
            match slot.report().await {
                Ok(report) => reports.push(report),
                // Removed just now.
                Err(VolumeError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(reports)
    }

    async fn show(&self, name: &DomainName) -> Result<VolumeReport, VolumeError> {
        self.slot(name)?.report().await
    }

    async fn grant(
        &self,
        name: &DomainName,
        generation: Generation,
        client: &str,
    ) -> Result<VolumeReport, VolumeError> {
        let (slot, client) = (self.slot(name)?, client.to_owned());
        whole(async move { slot.grant(generation, &client).await }).await
    }

    async fn export(
        &self,
        name: &DomainName,
        generation: Generation,
        client: &str,
    ) -> Result<ExportPlace, VolumeError> {
        let (slot, client) = (self.slot(name)?, client.to_owned());
        whole(async move { slot.export(generation, &client).await }).await
    }

    async fn withdraw(
        &self,
        name: &DomainName,
        generation: Generation,
        by: By<'_>,
    ) -> Result<(), VolumeError> {
        let (slot, host) = (self.slot(name)?, host(by));
        whole(async move { slot.withdraw(generation, said_by(&host)).await.map(drop) }).await
    }

    async fn fence(
        &self,
        name: &DomainName,
        generation: Generation,
        by: By<'_>,
    ) -> Result<VolumeReport, VolumeError> {
        let (slot, host) = (self.slot(name)?, host(by));
        whole(async move { slot.fence(generation, said_by(&host)).await }).await
    }

    async fn fence_from(
        &self,
        name: &DomainName,
        only_at: &[Generation],
        generation: Generation,
        by: By<'_>,
    ) -> Result<VolumeReport, VolumeError> {
        let slot = self.slot(name)?;
        let (only_at, host) = (only_at.to_owned(), host(by));
        whole(async move { slot.fence_from(&only_at, generation, said_by(&host)).await }).await
    }

    async fn resize(
        &self,
        name: &DomainName,
        size_bytes: u64,
    ) -> Result<VolumeReport, VolumeError> {
        let slot = self.slot(name)?;
        whole(async move { slot.resize(size_bytes).await }).await
    }

    async fn snapshot(
        &self,
        name: &DomainName,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError> {
        let (slot, snapshot) = (self.slot(name)?, snapshot.clone());
        whole(async move { slot.snapshot(&snapshot).await }).await
    }

    async fn drop_snapshot(
        &self,
        name: &DomainName,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError> {
        let (slot, snapshot) = (self.slot(name)?, snapshot.clone());
        whole(async move { slot.drop_snapshot(&snapshot).await }).await
    }

    async fn restore(
        &self,
        name: &DomainName,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError> {
        let (slot, snapshot) = (self.slot(name)?, snapshot.clone());
        whole(async move { slot.restore(&snapshot).await }).await
    }

    async fn remove(&self, name: &DomainName) -> Result<(), VolumeError> {
        let _changing = self.changing.lock().await;
        let Some(slot) = self.find(name) else {
            return Ok(());
        };
        slot.remove().await?;
        let gone = self.config.directory.join(format!("{GONE}{name}"));
        // Of an earlier one that could not be removed whole.
        if gone.exists() {
            fs::remove_dir_all(&gone).map_err(VolumeError::io("remove", &gone))?;
        }
        fs::rename(&slot.directory, &gone)
            .and_then(|()| sync_directory(&self.config.directory))
            .map_err(VolumeError::io("remove", &slot.directory))?;
        self.slots().remove(name);
        fs::remove_dir_all(&gone).map_err(VolumeError::io("remove", &gone))
    }
}
