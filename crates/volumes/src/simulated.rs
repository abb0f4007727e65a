//! Volumes in memory, with the same promises; for tests of what stands above.

use crate::error::VolumeError;
use crate::record::Record;
use crate::seam::{By, SNAPSHOTS_MAX, Volumes, check_growth, check_size, had_already};
use async_trait::async_trait;
use estive_api::wire::{ExportPlace, SnapshotName, VolumeReport, VolumeWish, export_name};
use estive_model::{DomainName, Generation};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Content by MiB: what was never written is zero.
type Content = BTreeMap<u64, u8>;

#[derive(Debug, Clone)]
struct Volume {
    record: Record,
    content: Content,
    snapshots: Vec<(SnapshotName, u64, Content)>,
}

#[derive(Debug, Default)]
struct State {
    volumes: BTreeMap<DomainName, Volume>,
    silent: bool,
    /// What is written down is not done.
    failing: bool,
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

    /// From now on a fence is recorded, and then it fails to be done; or it is done again.
    pub fn fail_once_recorded(&self, failing: bool) {
        self.state().failing = failing;
    }

    /// Writes one byte over a whole MiB through an export, as its host.
    pub fn write(&self, export: &str, client: &str, mib: u64, byte: u8) -> Result<(), String> {
        let mut state = self.state();
        let volume = entered(&mut state, export, client)?;
        if mib >= volume.record.size_bytes >> 20 {
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

    fn once_recorded(&self, name: &DomainName) -> Result<VolumeReport, VolumeError> {
        let failing = self.state().failing;
        match failing {
            true => Err(VolumeError::Daemon {
                name: name.clone(),
                doing: "cut",
                detail: "it does not answer".to_owned(),
            }),
            false => self.with(name, |volume| Ok(report(volume))),
        }
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
    let generation: u64 = generation.parse().map_err(|_| none())?;
    let volume = state.volumes.get_mut(&name).ok_or_else(none)?;
    let exports = &volume.record.exports;
    match exports.get(&generation) {
        Some(_) if exports.values().any(|allowed| allowed == client) => Ok(volume),
        _ => Err(none()),
    }
}

fn report(volume: &Volume) -> VolumeReport {
    let record = &volume.record;
    VolumeReport {
        name: record.name.clone(),
        owner: record.owner.clone(),
        size_bytes: record.size_bytes,
        used_bytes: (volume.content.len() as u64) << 20,
        fenced: record.fenced,
        granted: record.granted(),
        exports: record.exports(),
        snapshots: volume
            .snapshots
            .iter()
            .map(|(name, ..)| name.clone())
            .collect(),
        note: None,
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
            record: Record {
                name: name.clone(),
                owner: wish.owner.clone(),
                size_bytes: wish.size_bytes,
                port: 1,
                fenced: Generation(0),
                granted: BTreeMap::new(),
                exports: BTreeMap::new(),
            },
            content: Content::new(),
            snapshots: Vec::new(),
        });
        match volume.record.owner == wish.owner {
            true => Ok(report(volume)),
            false => Err(VolumeError::OthersVolume {
                name: name.clone(),
                owner: volume.record.owner.clone(),
            }),
        }
    }

    async fn list(&self) -> Result<Vec<VolumeReport>, VolumeError> {
        let state = self.state();
        Ok(state.volumes.values().map(report).collect())
    }

    async fn show(&self, name: &DomainName) -> Result<VolumeReport, VolumeError> {
        self.with(name, |volume| Ok(report(volume)))
    }

    async fn grant(
        &self,
        name: &DomainName,
        generation: Generation,
        client: &str,
    ) -> Result<VolumeReport, VolumeError> {
        self.with(name, |volume| {
            volume.record.grant(generation, client)?;
            Ok(report(volume))
        })
    }

    async fn export(
        &self,
        name: &DomainName,
        generation: Generation,
        client: &str,
    ) -> Result<ExportPlace, VolumeError> {
        self.with(name, |volume| {
            let mut record = volume.record.clone();
            record.let_in(generation, client)?;
            volume.record = record;
            Ok(ExportPlace {
                host: "127.0.0.1".to_owned(),
                port: 1,
                export: export_name(name, generation),
                tls: false,
            })
        })
    }

    async fn withdraw(
        &self,
        name: &DomainName,
        generation: Generation,
        by: By<'_>,
    ) -> Result<(), VolumeError> {
        self.with(name, |volume| volume.record.withdraw(generation, by))
    }

    async fn fence(
        &self,
        name: &DomainName,
        generation: Generation,
        by: By<'_>,
    ) -> Result<VolumeReport, VolumeError> {
        self.with(name, |volume| volume.record.fence(generation, by))?;
        self.once_recorded(name)
    }

    async fn fence_from(
        &self,
        name: &DomainName,
        only_at: &[Generation],
        generation: Generation,
        by: By<'_>,
    ) -> Result<VolumeReport, VolumeError> {
        self.with(name, |volume| {
            volume.record.fence_from(only_at, generation, by)
        })?;
        self.once_recorded(name)
    }

    async fn resize(
        &self,
        name: &DomainName,
        size_bytes: u64,
    ) -> Result<VolumeReport, VolumeError> {
        self.with(name, |volume| {
            check_growth(volume.record.size_bytes, size_bytes)?;
            volume.record.refuse_use()?;
            volume.record.size_bytes = size_bytes;
            Ok(report(volume))
        })
    }

    async fn snapshot(
        &self,
        name: &DomainName,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError> {
        self.with(name, |volume| {
            if volume.snapshots.iter().any(|(known, ..)| known == snapshot) {
                return Ok(had_already(report(volume), snapshot));
            }
            if volume.snapshots.len() >= SNAPSHOTS_MAX {
                return Err(VolumeError::Impossible(format!(
                    "{name} cannot take a snapshot {snapshot}"
                )));
            }
            let kept = (
                snapshot.clone(),
                volume.record.size_bytes,
                volume.content.clone(),
            );
            volume.snapshots.push(kept);
            Ok(report(volume))
        })
    }

    async fn drop_snapshot(
        &self,
        name: &DomainName,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError> {
        self.with(name, |volume| {
            volume.snapshots.retain(|(known, ..)| known != snapshot);
            Ok(report(volume))
        })
    }

    async fn restore(
        &self,
        name: &DomainName,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError> {
        self.with(name, |volume| {
            volume.record.refuse_use()?;
            let kept = volume
                .snapshots
                .iter()
                .find(|(known, ..)| known == snapshot);
            let Some((_, size_bytes, content)) = kept else {
                return Err(VolumeError::Impossible(format!(
                    "{name} has no snapshot {snapshot}"
                )));
            };
            volume.record.size_bytes = *size_bytes;
            volume.content = content.clone();
            Ok(report(volume))
        })
    }

    async fn remove(&self, name: &DomainName) -> Result<(), VolumeError> {
        let mut state = self.state();
        answers(&state, name)?;
        if let Some(volume) = state.volumes.get(name) {
            volume.record.refuse_use()?;
        }
        state.volumes.remove(name);
        Ok(())
    }
}
