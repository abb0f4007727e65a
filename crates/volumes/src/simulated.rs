//! Volumes in memory, with the same promises; for tests of what stands above.

use crate::error::VolumeError;
use crate::seam::{EXPORTS_MAX, SNAPSHOTS_MAX, Volumes, check_growth, check_size};
use async_trait::async_trait;
use estive_api::wire::{
    ExportPlace, SnapshotName, VolumeExport, VolumeReport, VolumeWish, export_name,
};
use estive_model::{DomainName, Generation};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Content by MiB: what was never written is zero.
type Content = BTreeMap<u64, u8>;

#[derive(Debug, Clone)]
struct Volume {
    wish: VolumeWish,
    fenced: Generation,
    exports: BTreeMap<Generation, String>,
    content: Content,
    snapshots: Vec<(SnapshotName, u64, Content)>,
}

#[derive(Debug, Default)]
struct State {
    volumes: BTreeMap<DomainName, Volume>,
    silent: bool,
}

/// A simulated storage host. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SimulatedVolumes {
    state: Arc<Mutex<State>>,
}

impl SimulatedVolumes {
    /// From now on it answers nothing, or answers again.
    pub fn be_silent(&self, silent: bool) {
        self.state().silent = silent;
    }

    /// Writes one byte over a whole MiB through an export, as its host.
    pub fn write(&self, export: &str, client: &str, mib: u64, byte: u8) -> Result<(), String> {
        let mut state = self.state();
        let volume = entered(&mut state, export, client)?;
        if mib >= volume.wish.size_bytes >> 20 {
            return Err("beyond the end".to_owned());
        }
        volume.content.insert(mib, byte);
        Ok(())
    }

    /// The byte of a MiB through an export.
    pub fn read(&self, export: &str, client: &str, mib: u64) -> Result<u8, String> {
        let mut state = self.state();
        let volume = entered(&mut state, export, client)?;
        Ok(volume.content.get(&mib).copied().unwrap_or(0))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        name: &DomainName,
        act: impl FnOnce(&mut Volume) -> Result<T, VolumeError>,
    ) -> Result<T, VolumeError> {
        let mut state = self.state();
        answers(&state, name)?;
        let volume = state.volumes.get_mut(name);
        act(volume.ok_or_else(|| VolumeError::Missing(name.clone()))?)
    }
}

fn answers(state: &State, name: &DomainName) -> Result<(), VolumeError> {
    match state.silent {
        true => Err(VolumeError::Daemon {
            name: name.clone(),
            doing: "answer",
            detail: "it is silent".to_owned(),
        }),
        false => Ok(()),
    }
}

fn entered<'a>(state: &'a mut State, export: &str, client: &str) -> Result<&'a mut Volume, String> {
    let none = || format!("no export {export}");
    let (name, generation) = export.split_once('@').ok_or_else(none)?;
    let name = DomainName::new(name).map_err(|_| none())?;
    let generation = Generation(generation.parse().map_err(|_| none())?);
    let volume = state.volumes.get_mut(&name).ok_or_else(none)?;
    match volume.exports.get(&generation) {
        Some(_) if volume.exports.values().any(|allowed| allowed == client) => Ok(volume),
        _ => Err(none()),
    }
}

fn report(name: &DomainName, volume: &Volume) -> VolumeReport {
    VolumeReport {
        name: name.clone(),
        owner: volume.wish.owner.clone(),
        size_bytes: volume.wish.size_bytes,
        used_bytes: (volume.content.len() as u64) << 20,
        fenced: volume.fenced,
        exports: volume
            .exports
            .iter()
            .map(|(generation, client)| VolumeExport {
                generation: *generation,
                client: client.clone(),
            })
            .collect(),
        snapshots: volume
            .snapshots
            .iter()
            .map(|(name, ..)| name.clone())
            .collect(),
        note: None,
    }
}

fn refuse_use(name: &DomainName, volume: &Volume) -> Result<(), VolumeError> {
    match volume.exports.last_key_value() {
        None => Ok(()),
        Some((generation, client)) => Err(VolumeError::InUse {
            name: name.clone(),
            generation: *generation,
            client: client.clone(),
        }),
    }
}

#[async_trait]
impl Volumes for SimulatedVolumes {
    async fn create(
        &self,
        name: &DomainName,
        wish: &VolumeWish,
    ) -> Result<VolumeReport, VolumeError> {
        check_size(wish.size_bytes)?;
        let mut state = self.state();
        answers(&state, name)?;
        let volume = state.volumes.entry(name.clone()).or_insert_with(|| Volume {
            wish: wish.clone(),
            fenced: Generation(0),
            exports: BTreeMap::new(),
            content: Content::new(),
            snapshots: Vec::new(),
        });
        match volume.wish.owner == wish.owner {
            true => Ok(report(name, volume)),
            false => Err(VolumeError::OthersVolume {
                name: name.clone(),
                owner: volume.wish.owner.clone(),
            }),
        }
    }

    async fn list(&self) -> Result<Vec<VolumeReport>, VolumeError> {
        let state = self.state();
        let volumes = state.volumes.iter();
        Ok(volumes.map(|(name, volume)| report(name, volume)).collect())
    }

    async fn show(&self, name: &DomainName) -> Result<VolumeReport, VolumeError> {
        self.with(name, |volume| Ok(report(name, volume)))
    }

    async fn export(
        &self,
        name: &DomainName,
        generation: Generation,
        client: &str,
    ) -> Result<ExportPlace, VolumeError> {
        self.with(name, |volume| {
            if generation < volume.fenced {
                return Err(VolumeError::OldGeneration {
                    name: name.clone(),
                    generation,
                    fenced: volume.fenced,
                });
            }
            let known = volume.exports.get(&generation);
            if let Some(other) = known.filter(|known| *known != client) {
                return Err(VolumeError::InUse {
                    name: name.clone(),
                    generation,
                    client: other.clone(),
                });
            }
            if volume.exports.len() >= EXPORTS_MAX && !volume.exports.contains_key(&generation) {
                return Err(VolumeError::Impossible(format!(
                    "{name} has {EXPORTS_MAX} exports already"
                )));
            }
            volume.exports.insert(generation, client.to_owned());
            Ok(ExportPlace {
                host: "127.0.0.1".to_owned(),
                port: 1,
                export: export_name(name, generation),
                tls: false,
            })
        })
    }

    async fn withdraw(&self, name: &DomainName, generation: Generation) -> Result<(), VolumeError> {
        self.with(name, |volume| {
            volume.exports.remove(&generation);
            Ok(())
        })
    }

    async fn fence(
        &self,
        name: &DomainName,
        generation: Generation,
    ) -> Result<VolumeReport, VolumeError> {
        self.with(name, |volume| {
            volume.fenced = volume.fenced.max(generation);
            volume.exports.retain(|other, _| *other >= generation);
            Ok(report(name, volume))
        })
    }

    async fn resize(
        &self,
        name: &DomainName,
        size_bytes: u64,
    ) -> Result<VolumeReport, VolumeError> {
        self.with(name, |volume| {
            check_growth(volume.wish.size_bytes, size_bytes)?;
            refuse_use(name, volume)?;
            volume.wish.size_bytes = size_bytes;
            Ok(report(name, volume))
        })
    }

    async fn snapshot(
        &self,
        name: &DomainName,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError> {
        self.with(name, |volume| {
            if volume.snapshots.iter().any(|(known, ..)| known == snapshot)
                || volume.snapshots.len() >= SNAPSHOTS_MAX
            {
                return Err(VolumeError::Impossible(format!(
                    "{name} cannot take a snapshot {snapshot}"
                )));
            }
            let kept = (
                snapshot.clone(),
                volume.wish.size_bytes,
                volume.content.clone(),
            );
            volume.snapshots.push(kept);
            Ok(report(name, volume))
        })
    }

    async fn drop_snapshot(
        &self,
        name: &DomainName,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError> {
        self.with(name, |volume| {
            volume.snapshots.retain(|(known, ..)| known != snapshot);
            Ok(report(name, volume))
        })
    }

    async fn restore(
        &self,
        name: &DomainName,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError> {
        self.with(name, |volume| {
            refuse_use(name, volume)?;
            let kept = volume
                .snapshots
                .iter()
                .find(|(known, ..)| known == snapshot);
            let Some((_, size_bytes, content)) = kept else {
                return Err(VolumeError::Impossible(format!(
                    "{name} has no snapshot {snapshot}"
                )));
            };
            volume.wish.size_bytes = *size_bytes;
            volume.content = content.clone();
            Ok(report(name, volume))
        })
    }

    async fn remove(&self, name: &DomainName) -> Result<(), VolumeError> {
        let mut state = self.state();
        answers(&state, name)?;
        if let Some(volume) = state.volumes.get(name) {
            refuse_use(name, volume)?;
        }
        state.volumes.remove(name);
        Ok(())
    }
}
