//! One volume of this storage host: its record, its daemon, and the order of things done to them.
//!
//! Journal first: the record is durable before the daemon is told, and the daemon is looked at before anything is
//! confirmed. So whatever dies between the two, the next one who looks makes the daemon serve what the record says.

use crate::daemon::{Daemon, Serving, ended_within};
use crate::error::VolumeError;
use crate::image;
use crate::record::Record;
use crate::seam::{By, SNAPSHOTS_MAX, check_growth, had_already};
use estive_api::fault;
use estive_api::wire::{ExportPlace, SnapshotName, VolumeReport, export_name};
use estive_model::Generation;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

/// After a daemon has died, and again after each start that failed.
const START_AGAIN: Duration = Duration::from_millis(200);
/// From the end of its socket to its own.
const DYING: Duration = Duration::from_secs(1);
const START_AGAIN_MAX: Duration = Duration::from_secs(30);
/// The fault points of a fence.
const FENCED: &str = "volume.fence_written";

pub(crate) struct Slot {
    pub directory: PathBuf,
    /// Of its record, where it never changes.
    pub port: u16,
    serving: Arc<Serving>,
    /// What it serves is not what it should be: whoever looks after the daemon tries again.
    not_served: Notify,
    state: Mutex<State>,
}

struct State {
    record: Record,
    daemon: Option<Daemon>,
    /// The daemon does not serve what the record says, as far as is known.
    behind: bool,
    /// Why it is not served.
    note: Option<String>,
    /// Removed: nothing is done here any more.
    removed: bool,
    /// Somebody waits for the end of the daemon.
    watched: bool,
}

impl Slot {
    pub fn new(directory: PathBuf, record: Record, serving: Arc<Serving>) -> Arc<Self> {
        Arc::new(Self {
            directory,
            port: record.port,
            serving,
            not_served: Notify::new(),
            state: Mutex::new(State {
                record,
                daemon: None,
                behind: true,
                note: None,
                removed: false,
                watched: false,
            }),
        })
    }

    /// Takes a daemon that runs over, or starts one. What fails is said in the report, and tried again.
    pub async fn begin(self: &Arc<Self>) {
        let mut state = self.state.lock().await;
        let name = state.record.name.clone();
        match Daemon::adopt(&name, &self.directory).await {
            Ok(Some(daemon)) => state.daemon = Some(daemon),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(volume = %name, %error, "its daemon cannot be asked");
                state.note = Some(error.to_string());
            }
        }
        if let Err(error) = self.served(&mut state).await {
            tracing::error!(volume = %name, %error, "the volume is not served");
        }
    }

    /// Has the daemon read its credentials anew, as it does when it starts: its clients come again, those that may.
    pub async fn let_in_anew(self: &Arc<Self>) {
        let Ok(mut state) = self.held().await else {
            return;
        };
        let name = state.record.name.clone();
        if let Some(daemon) = state.daemon.take()
            && let Err(error) = daemon.end().await
        {
            tracing::error!(volume = %name, %error, "its daemon goes on with the credentials that it has");
        }
        if let Err(error) = self.served(&mut state).await {
            tracing::error!(volume = %name, %error, "the volume is not served");
        }
    }

    /// Waits for its turn; an error when the volume was removed meanwhile.
    async fn held(&self) -> Result<tokio::sync::MutexGuard<'_, State>, VolumeError> {
        let state = self.state.lock().await;
        match state.removed {
            true => Err(VolumeError::Missing(state.record.name.clone())),
            false => Ok(state),
        }
    }

    /// Makes the daemon run and serve what the record says.
    async fn served<'a>(
        self: &Arc<Self>,
        state: &'a mut State,
    ) -> Result<&'a mut Daemon, VolumeError> {
        if state.daemon.as_ref().is_some_and(Daemon::is_gone) {
            state.daemon = None;
        }
        state.behind = true;
        let mut outcome = self.serve_anew(state).await;
        // It may have died at that moment.
        if let (Err(_), Some(daemon)) = (&outcome, &state.daemon)
            && ended_within(&daemon.pidfd(), DYING).await
        {
            state.daemon = None;
            outcome = self.serve_anew(state).await;
        }
        state.note = outcome.as_ref().err().map(VolumeError::to_string);
        state.behind = outcome.is_err();
        self.watch(state);
        if state.behind {
            self.not_served.notify_one();
        }
        outcome?;
        state.daemon.as_mut().ok_or_else(|| VolumeError::Daemon {
            name: state.record.name.clone(),
            doing: "start",
            detail: "it is gone again".to_owned(),
        })
    }

    async fn serve_anew(&self, state: &mut State) -> Result<(), VolumeError> {
        let daemon = match state.daemon.take() {
            Some(daemon) => daemon,
            None => {
                // One that runs and could not be asked before.
                match Daemon::adopt(&state.record.name, &self.directory).await? {
                    Some(daemon) => daemon,
                    None => {
                        image::check(&state.record.name, &self.directory).await?;
                        Daemon::start(&self.directory, &state.record, &self.serving).await?
                    }
                }
            }
        };
        let daemon = state.daemon.insert(daemon);
        if self.serving.credentials.is_some() {
            let clients = state.record.exports.values().map(String::as_str).collect();
            daemon.let_in(&clients).await?;
        }
        let wanted = &state.record.exports;
        let is_let_in = |client: &String| wanted.values().any(|known| known == client);
        // One that is wanted again while it is still being cut goes first, or it would be gone in a moment.
        let (mut stays, extra): (Vec<_>, Vec<_>) = daemon
            .exports()
            .await?
            .into_iter()
            .partition(|served| wanted.contains_key(&served.generation.0) && !served.ending);
        // A host that goes may have opened what another was granted: the daemon tells hosts apart at its door only. So
        // all are cut, and who is still let in comes again. Those of the host that goes are last: they tell of it.
        let goes = extra.iter().any(|served| !is_let_in(&served.client));
        let mut outcome = Ok(());
        if goes && self.serving.credentials.is_some() {
            outcome = daemon.cut(&std::mem::take(&mut stays)).await;
        }
        outcome = outcome.and(daemon.cut(&extra).await);
        // Also when a cut failed: who is still let in, and runs, must not lose its disk over one that goes.
        for (generation, client) in wanted {
            let generation = Generation(*generation);
            if !stays.iter().any(|served| served.generation == generation) {
                outcome = outcome.and(daemon.add(generation, client).await);
            }
        }
        outcome
    }

    /// Starts the daemon again when it dies, and tries again what it did not do, until the volume is removed.
    fn watch(self: &Arc<Self>, state: &mut State) {
        if std::mem::replace(&mut state.watched, true) {
            return;
        }
        let slot = self.clone();
        let ending = self.serving.ending.clone();
        tokio::spawn(async move {
            ending.run_until_cancelled(slot.keep()).await;
        });
    }

    async fn keep(self: &Arc<Self>) {
        let mut pause = START_AGAIN;
        loop {
            let pidfd = {
                let state = self.state.lock().await;
                if state.removed {
                    return;
                }
                state.daemon.as_ref().map(Daemon::pidfd)
            };
            let began = Instant::now();
            if let Some(pidfd) = pidfd {
                tokio::select! {
                    _ = pidfd.readable() => {}
                    () = self.not_served.notified() => {}
                }
                if began.elapsed() > START_AGAIN_MAX {
                    pause = START_AGAIN;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(START_AGAIN_MAX);
            let mut state = self.state.lock().await;
            let runs = state
                .daemon
                .as_ref()
                .is_some_and(|daemon| !daemon.is_gone());
            // Ended on purpose and started again meanwhile, or removed, or done by the next who asked.
            if state.removed || runs && !state.behind {
                continue;
            }
            let name = state.record.name.clone();
            match runs {
                true => {
                    tracing::warn!(volume = %name, "its storage daemon is told again what to serve")
                }
                false => {
                    tracing::warn!(volume = %name, "its storage daemon is gone; starting it again")
                }
            }
            match self.served(&mut state).await {
                Ok(_) => {}
                Err(error) => tracing::error!(volume = %name, %error, "the volume is not served"),
            }
        }
    }

    fn write(&self, state: &mut State, record: Record) -> Result<(), VolumeError> {
        record.write(&self.directory)?;
        state.record = record;
        Ok(())
    }

    /// The same between two fault points. After it the record is durable and the daemon does not know it yet.
    fn write_at(&self, point: &str, state: &mut State, record: Record) -> Result<(), VolumeError> {
        fault::before(point);
        self.write(state, record)?;
        fault::after(point);
        Ok(())
    }

    pub async fn report(self: &Arc<Self>) -> Result<VolumeReport, VolumeError> {
        let mut state = self.held().await?;
        Ok(self.reported(&mut state).await)
    }

    async fn reported(&self, state: &mut State) -> VolumeReport {
        let snapshots = match &state.daemon {
            Some(daemon) => daemon.snapshots().await,
            None => Ok(Vec::new()),
        };
        let (snapshots, silent) = match snapshots {
            Ok(snapshots) => (snapshots, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let record = &state.record;
        VolumeReport {
            name: record.name.clone(),
            owner: record.owner.clone(),
            size_bytes: record.size_bytes,
            used_bytes: image::used_bytes(&self.directory),
            fenced: record.fenced,
            granted: record.granted(),
            exports: record.exports(),
            snapshots,
            note: state.note.clone().or(silent),
        }
    }

    pub async fn export(
        self: &Arc<Self>,
        generation: Generation,
        client: &str,
    ) -> Result<ExportPlace, VolumeError> {
        let mut state = self.held().await?;
        let mut record = state.record.clone();
        if record.let_in(generation, client)? {
            self.write_at("volume.let_in_written", &mut state, record)?;
        }
        self.served(&mut state).await?;
        Ok(ExportPlace {
            host: self.serving.address.to_string(),
            port: state.record.port,
            export: export_name(&state.record.name, generation),
            tls: self.serving.credentials.is_some(),
        })
    }

    pub async fn grant(
        self: &Arc<Self>,
        generation: Generation,
        client: &str,
    ) -> Result<VolumeReport, VolumeError> {
        let mut state = self.held().await?;
        let mut record = state.record.clone();
        record.grant(generation, client)?;
        if record != state.record {
            self.write_at("volume.grant_written", &mut state, record)?;
        }
        Ok(self.reported(&mut state).await)
    }

    pub async fn withdraw(
        self: &Arc<Self>,
        generation: Generation,
        by: By<'_>,
    ) -> Result<VolumeReport, VolumeError> {
        let point = "volume.revoke_written";
        self.cut(point, |record| record.withdraw(generation, by))
            .await
    }

    pub async fn fence(
        self: &Arc<Self>,
        generation: Generation,
        by: By<'_>,
    ) -> Result<VolumeReport, VolumeError> {
        self.cut(FENCED, |record| record.fence(generation, by))
            .await
    }

    pub async fn fence_from(
        self: &Arc<Self>,
        only_at: &[Generation],
        generation: Generation,
        by: By<'_>,
    ) -> Result<VolumeReport, VolumeError> {
        let fence = |record: &mut Record| record.fence_from(only_at, generation, by);
        self.cut(FENCED, fence).await
    }

    async fn cut(
        self: &Arc<Self>,
        point: &str,
        change: impl FnOnce(&mut Record) -> Result<(), VolumeError>,
    ) -> Result<VolumeReport, VolumeError> {
        let mut state = self.held().await?;
        let mut record = state.record.clone();
        change(&mut record)?;
        if record != state.record {
            self.write_at(point, &mut state, record)?;
        }
        // Looked at in the daemon, not believed from the record: that may have been written by one who then died.
        match self.served(&mut state).await {
            // That is served to nobody, and a snapshot may be restored or the volume removed.
            Ok(_) | Err(VolumeError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(self.reported(&mut state).await)
    }

    pub async fn resize(self: &Arc<Self>, size_bytes: u64) -> Result<VolumeReport, VolumeError> {
        let mut state = self.held().await?;
        check_growth(state.record.size_bytes, size_bytes)?;
        state.record.refuse_use()?;
        self.served(&mut state).await?.resize(size_bytes).await?;
        let record = Record {
            size_bytes,
            ..state.record.clone()
        };
        self.write(&mut state, record)?;
        Ok(self.reported(&mut state).await)
    }

    pub async fn snapshot(
        self: &Arc<Self>,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError> {
        let mut state = self.held().await?;
        let name = state.record.name.clone();
        let daemon = self.served(&mut state).await?;
        let known = daemon.snapshots().await?;
        if known.contains(snapshot) {
            let report = self.reported(&mut state).await;
            return Ok(had_already(report, snapshot));
        }
        if known.len() >= SNAPSHOTS_MAX {
            return Err(VolumeError::Impossible(format!(
                "{name} has {SNAPSHOTS_MAX} snapshots, the most there may be; drop one first"
            )));
        }
        daemon.snapshot(snapshot).await?;
        Ok(self.reported(&mut state).await)
    }

    pub async fn drop_snapshot(
        self: &Arc<Self>,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError> {
        let mut state = self.held().await?;
        let daemon = self.served(&mut state).await?;
        if daemon.snapshots().await?.contains(snapshot) {
            daemon.drop_snapshot(snapshot).await?;
        }
        Ok(self.reported(&mut state).await)
    }

    pub async fn restore(
        self: &Arc<Self>,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, VolumeError> {
        let mut state = self.held().await?;
        state.record.refuse_use()?;
        let known = match self.served(&mut state).await {
            Ok(daemon) => daemon.snapshots().await?,
            // A damaged image is what snapshots are for: qemu-img will say whether there is this one.
            Err(VolumeError::Damaged { .. }) => vec![snapshot.clone()],
            Err(error) => return Err(error),
        };
        if !known.contains(snapshot) {
            let known: Vec<&str> = known.iter().map(SnapshotName::as_str).collect();
            return Err(VolumeError::Impossible(format!(
                "{} has no snapshot {snapshot}; it has: {}",
                state.record.name,
                known.join(", ")
            )));
        }
        if let Some(daemon) = state.daemon.take() {
            daemon.end().await?;
        }
        let restored = image::restore(&self.directory, snapshot).await;
        // A snapshot has the size of its day.
        if let Ok(size_bytes) = image::size_bytes(&self.directory).await {
            let record = Record {
                size_bytes,
                ..state.record.clone()
            };
            self.write(&mut state, record)?;
        }
        self.served(&mut state).await?;
        restored?;
        Ok(self.reported(&mut state).await)
    }

    /// Ends the daemon; from then on the slot is dead. The directory is the caller's.
    pub async fn remove(&self) -> Result<(), VolumeError> {
        let mut state = self.state.lock().await;
        if state.removed {
            return Ok(());
        }
        state.record.refuse_use()?;
        if state.daemon.is_none() {
            state.daemon = Daemon::adopt(&state.record.name, &self.directory).await?;
        }
        if let Some(daemon) = state.daemon.take() {
            daemon.end().await?;
        }
        state.removed = true;
        Ok(())
    }

    pub async fn record(&self) -> Record {
        self.state.lock().await.record.clone()
    }
}
