//! What this host's cache is told of roots, and what it tells: small files, so that either of the two may be killed and
//! started at any time without the other. QEMUs read from the cache, never from here.

use crate::agent::Agent;
use crate::definition;
use estive_api::client::ClientError;
use estive_api::domain_xml::{DiskSource, DomainXml, RootSource};
use estive_api::wire::{
    CacheAbout, CacheDirectory, MAX_NOTE_BYTES, NOTE_ASIDE, RootNote, RootReady, Trouble,
    write_note,
};
use estive_api::{Client, Endpoint, Problem};
use estive_model::{Event, EventKind};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a cache that does not answer is waited for: it may just be being started again.
const CACHE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a cache may take to get a manifest, of its origins which may be away.
const MANIFEST_PATIENCE: Duration = Duration::from_secs(60);
/// How often what the cache tells is looked for.
const LOOK: Duration = Duration::from_millis(500);
/// Troubles taken at once.
const TAKEN_AT_ONCE: usize = 64;

/// See the module.
pub(crate) struct Roots {
    directory: CacheDirectory,
    domains: PathBuf,
    /// One writes or removes at a time: what is just being named must not be swept.
    writing: Arc<Mutex<()>>,
}

impl Roots {
    /// `domains`: where the descriptions of this host's domains lie.
    pub fn new(directory: CacheDirectory, domains: PathBuf) -> Self {
        Self {
            directory,
            domains,
            writing: Arc::default(),
        }
    }

    pub fn directory(&self) -> &CacheDirectory {
        &self.directory
    }

    /// Tells the cache of the sealed roots that a domain reads, and waits until it has their manifests: a QEMU that is
    /// started then finds them, and what is wrong is said here, in words.
    pub async fn make_ready(&self, xml: &DomainXml) -> Result<(), Problem> {
        for root in sealed(xml) {
            self.tell(root).await?;
            self.ask(root).await?;
        }
        Ok(())
    }

    async fn tell(&self, root: &RootSource) -> Result<(), Problem> {
        let note = RootNote {
            origins: root.origins.clone(),
        };
        let (directory, writing) = (self.directory.clone(), self.writing.clone());
        let path = directory.root_note(&root.name);
        let shown = path.display().to_string();
        let telling = move || {
            let _one = writing.lock().unwrap_or_else(PoisonError::into_inner);
            if read_note::<RootNote>(&path).is_ok_and(|known| known == note) {
                return Ok(());
            }
            fs::create_dir_all(directory.roots())?;
            write_note(&path, &note)
        };
        let told = tokio::task::spawn_blocking(telling).await;
        told.unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| Problem::failed(format!("could not write {shown}: {error}")))
    }

    async fn ask(&self, root: &RootSource) -> Result<(), Problem> {
        let path = format!("/roots/{}", root.name.hex());
        let _: RootReady = self.get(&path, &root.name.to_string()).await?;
        Ok(())
    }

    /// Waits until this host's clones are let in at an address; an error when nobody serves them there.
    pub async fn await_door(&self, listen: SocketAddr, for_what: &str) -> Result<(), Problem> {
        let deadline = Instant::now() + CACHE_PATIENCE;
        loop {
            let about: CacheAbout = self.get("/about", for_what).await?;
            // A cache of before does not say.
            let Some(doors) = about.doors else {
                return Ok(());
            };
            let door = doors.into_iter().find(|door| door.listen == listen);
            let wrong = door.map(|door| door.wrong);
            if let Some(None) = wrong {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let wrong = wrong.flatten();
                let wrong = wrong.unwrap_or_else(|| "it has not tried".to_owned());
                return Err(Problem::failed(format!(
                    "{for_what} is read by way of {listen}, where this host's cache cannot listen: {wrong}"
                ))
                .advice(
                    "end what has that port on this host, or name another at the reference: port: in the manager's \
                     configuration",
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, for_what: &str) -> Result<T, Problem> {
        let socket = self.directory.control();
        let client = Client::new(Endpoint::Unix(socket.clone()), None)
            .map_err(|error| Problem::failed(error.to_string()))?;
        let deadline = Instant::now() + CACHE_PATIENCE;
        loop {
            match client.get_json::<T>(path, MANIFEST_PATIENCE).await {
                Ok(told) => return Ok(told),
                Err(ClientError::Unreachable { .. } | ClientError::Interrupted { .. })
                    if Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(ClientError::Failed { problem, .. }) => return Err(problem),
                Err(error) => {
                    return Err(Problem::failed(format!(
                        "{for_what} is read through this host's cache, which does not answer: {error}"
                    ))
                    .advice(format!(
                        "start it: estive cache --directory {} --credentials DIR",
                        self.directory.path().display()
                    )));
                }
            }
        }
    }

    /// Tells the cache of all roots that domains here read: its directory may have been emptied.
    async fn tell_all(&self) {
        let domains = self.domains.clone();
        let reading = move || {
            let places = fs::read_dir(domains).into_iter().flatten().flatten();
            places
                .filter_map(|place| definition::read_clone(&place.path()).ok().flatten())
                .collect::<Vec<_>>()
        };
        for xml in tokio::task::spawn_blocking(reading)
            .await
            .unwrap_or_default()
        {
            for root in sealed(&xml) {
                if let Err(problem) = self.tell(root).await {
                    tracing::warn!(root = %root.name, %problem, "the cache was not told");
                }
            }
        }
    }

    /// Takes from the cache's list what no domain here reads any more. Its chunks go when others need the room.
    pub async fn sweep(&self) {
        let (directory, domains) = (self.directory.clone(), self.domains.clone());
        let writing = self.writing.clone();
        let sweeping = move || {
            let _one = writing.lock().unwrap_or_else(PoisonError::into_inner);
            sweep(&directory.roots(), &domains)
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(sweeping).await {
            tracing::warn!(%error, "the cache's list of roots was not swept");
        }
    }
}

/// The sealed roots among a domain's disks.
fn sealed(xml: &DomainXml) -> impl Iterator<Item = &RootSource> {
    [&xml.root, &xml.modules]
        .into_iter()
        .filter_map(|disk| match disk {
            DiskSource::Root(root) => Some(root),
            _ => None,
        })
}

fn sweep(roots: &Path, domains: &Path) -> io::Result<()> {
    let mut needed = BTreeSet::new();
    for place in fs::read_dir(domains)? {
        let place = place?.path();
        match definition::read_clone(&place) {
            Ok(None) => {}
            Ok(Some(xml)) => needed.extend(sealed(&xml).map(|root| root.name.hex().to_owned())),
            // "Cannot tell" changes nothing.
            Err(_) if place.join(estive_api::domain_xml::CONFIG_FILE).exists() => return Ok(()),
            Err(_) => {}
        }
    }
    for entry in fs::read_dir(roots).into_iter().flatten() {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        // A note of ours that was half written: whoever writes one holds what we hold.
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(NOTE_ASIDE)) {
            fs::remove_file(&path)?;
            continue;
        }
        let ours = path
            .extension()
            .is_some_and(|ending| ending == "json" || ending == "manifest");
        if ours && stem.is_some_and(|stem| stem.len() == 64 && !needed.contains(stem)) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Makes events of what the cache tells, for as long as the agent lives.
pub(crate) async fn watch(agent: Arc<Agent>) {
    agent.roots.tell_all().await;
    // Of domains that went while it told, and what a kill has left.
    agent.roots.sweep().await;
    let directory = agent.roots.directory().troubles();
    loop {
        let place = directory.clone();
        let taken = tokio::task::spawn_blocking(move || take_troubles(&place)).await;
        for trouble in taken.unwrap_or_default() {
            agent.tell(Event {
                sequence: 0,
                time_ms: 0,
                kind: EventKind::ChunkRefused,
                domain: None,
                host: None,
                generation: None,
                operation: None,
                reason: trouble.reason,
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn take_troubles(directory: &Path) -> Vec<Trouble> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut troubles = Vec::new();
    for entry in entries.take(TAKEN_AT_ONCE) {
        let path = entry.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        match read_note(&path) {
            Ok(trouble) => troubles.push(trouble),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the cache's word cannot be read");
            }
        }
        let _ = fs::remove_file(&path);
    }
    troubles
}

fn read_note<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MAX_NOTE_BYTES)
        .read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}
