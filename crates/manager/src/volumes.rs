//! Volumes of stateful clones: made at the first `up`, found again by every later one, and what people ask of them.

use crate::agents::{self, chain};
use crate::config::VolumesConfig;
use crate::error::ManagerError;
use crate::manager::Manager;
use crate::records::DomainRecord;
use crate::status::refuse_doubt;
use estive_api::domain_xml::DomainXml;
use estive_api::wire::{
    FenceOrder, ResizeOrder, RestoreOrder, SnapshotName, VolumeGrant, VolumeReport, VolumeWish,
};
use estive_api::{Client, ClientError, Credentials, Endpoint, Problem, ProblemKind, fault};
use estive_layers::ClonePlan;
use estive_model::{DeploymentName, DomainName, Generation, HostName, NbdSource};
use estive_moves::{Entry, Holding, HostView, Seen, Wanted};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

const QUESTION: Duration = Duration::from_secs(10);
/// The end of a move waits for it.
const REVOKE: Duration = Duration::from_secs(3);
/// Making a file system, going back to a snapshot: on a disk that may be busy.
const ORDER: Duration = Duration::from_secs(120);

/// The storage host.
pub(crate) struct Storage {
    host: String,
    port: u16,
    client: Client,
}

impl Storage {
    pub fn new(
        config: &VolumesConfig,
        credentials: Option<&Credentials>,
    ) -> Result<Self, ManagerError> {
        let endpoint = Endpoint::Tls {
            host: config.host.clone(),
            port: config.port,
        };
        Ok(Self {
            host: config.host.clone(),
            port: config.port,
            client: Client::new(endpoint, credentials).map_err(|source| ManagerError::Storage {
                source: Box::new(source),
            })?,
        })
    }

    fn failed(&self, doing: &str, error: &ClientError) -> Problem {
        let place = format!("storage host {}:{}", self.host, self.port);
        match error.problem() {
            Some(said) => {
                let mut problem = said.clone();
                problem.error = format!("{doing}: {place}: {}", said.error);
                problem
            }
            None if agents::is_silence(error) => Problem::unreachable(format!(
                "{doing}: the {place} does not answer ({})",
                chain(error)
            ))
            .advice("is estive storage running there, with --volumes?"),
            None if error.is_not_found() => {
                Problem::not_found(format!("{doing}: {place}: {}", chain(error)))
                    .advice("estive volume ls lists those there are")
            }
            None => Problem::failed(format!("{doing}: {place}: {}", chain(error))),
        }
    }

    async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        doing: &str,
    ) -> Result<T, Problem> {
        let answered = self.client.put_json(path, body, ORDER).await;
        answered.map_err(|error| self.failed(doing, &error))
    }
}

fn path(name: &DomainName) -> String {
    format!("/v1/volumes/{name}")
}

impl Manager {
    fn storage(&self) -> Result<&Storage, Problem> {
        self.storage.as_ref().ok_or_else(|| {
            Problem::impossible("this manager knows no storage host for volumes")
                .advice("write volumes: {host: …, port: …} into its configuration")
        })
    }

    /// The volumes of a herd's stateful clones, as their descriptions name them.
    pub(crate) fn volumes_of<'a>(
        &self,
        plans: impl Iterator<Item = &'a ClonePlan>,
    ) -> Result<BTreeMap<DomainName, NbdSource>, Problem> {
        let stateful = plans.filter(|plan| plan.volume_bytes.is_some());
        stateful
            .map(|plan| {
                let storage = self.storage().map_err(|mut problem| {
                    problem.error = format!("{} is stateful: {}", plan.name, problem.error);
                    problem
                })?;
                let source = NbdSource {
                    host: storage.host.clone(),
                    port: storage.port,
                    export: plan.name.to_string(),
                    tls: true,
                };
                Ok((plan.name.clone(), source))
            })
            .collect()
    }

    /// Makes the volume of a clone that is new, or finds it again. What it gives is below every generation that may use
    /// it: whatever the records of before say, a new one is above all that ever had it.
    pub(crate) async fn find_volume(
        &self,
        deployment: &DeploymentName,
        plan: &ClonePlan,
    ) -> Result<Generation, Problem> {
        let Some(size_bytes) = plan.volume_bytes else {
            return Ok(Generation(0));
        };
        let wish = VolumeWish {
            owner: deployment.clone(),
            size_bytes,
        };
        let doing = format!("the volume of {}", plan.name);
        let report: VolumeReport = self
            .storage()?
            .put(&path(&plan.name), &wish, &doing)
            .await?;
        Ok(highest(&report))
    }

    /// Before a host is told to run a domain under a generation, or to stand ready for it: names it to the storage host,
    /// which lets no other in. It may be said again.
    pub(crate) async fn grant_volume(
        &self,
        record: &DomainRecord,
        generation: Generation,
        host: &HostName,
    ) -> Result<(), Problem> {
        let Some(storage) = self.storage.as_ref() else {
            return Ok(());
        };
        if !self.has_volume(record).await? {
            return Ok(());
        }
        let path = format!("{}/grants/{generation}", path(&record.name));
        let grant = VolumeGrant {
            client: host.clone(),
        };
        let doing = format!("the volume of {} for {host}", record.name);
        fault::before("volume.granted");
        let granted: Result<VolumeReport, _> = storage.put(&path, &grant, &doing).await;
        if granted.is_ok() {
            fault::after("volume.granted");
        }
        match granted {
            // The agent will find that it is missing.
            Err(problem) if problem.kind == ProblemKind::NotFound => Ok(()),
            granted => granted.map(drop),
        }
    }

    /// Takes back what was granted for a move that is given up, before that is written: a manager that dies in between
    /// comes here again. A storage host that does not hear it has it done by the next fence.
    pub(crate) async fn revoke_volume(&self, record: &DomainRecord, generation: Generation) {
        let Some(storage) = self.storage.as_ref() else {
            return;
        };
        if let Ok(false) = self.has_volume(record).await {
            return;
        }
        let path = format!("{}/exports/{generation}", path(&record.name));
        fault::before("volume.revoked");
        let revoked: Result<(), _> = storage.client.delete_json(&path, REVOKE).await;
        if revoked.is_ok() {
            fault::after("volume.revoked");
        }
        if let Err(error) = revoked
            && !error.is_not_found()
        {
            tracing::warn!(domain = %record.name, %generation, error = %chain(&error), "its grant was not taken back");
        }
    }

    /// A line for each clone whose volume has another size than the herd file says: it stays as it is.
    pub(crate) async fn volumes_of_other_sizes(
        &self,
        plans: impl Iterator<Item = &ClonePlan>,
    ) -> Vec<String> {
        let wished: BTreeMap<&DomainName, u64> = plans
            .filter_map(|plan| Some((&plan.name, plan.volume_bytes?)))
            .collect();
        if wished.is_empty() {
            return Vec::new();
        }
        match self.volume_list().await {
            Ok(volumes) => volumes
                .iter()
                .filter_map(|volume| other_size(volume, *wished.get(&volume.name)?))
                .collect(),
            // Whoever needs it says so.
            Err(problem) => {
                tracing::warn!(%problem, "sizes of volumes were not compared");
                Vec::new()
            }
        }
    }

    /// Of one that was recorded before this was, its description says it, on its host: whoever has none needs no storage
    /// host.
    async fn has_volume(&self, record: &DomainRecord) -> Result<bool, Problem> {
        if let Some(known) = record.volume {
            return Ok(known);
        }
        let (name, agent) = (&record.name, &self.host(&record.ownership.host)?.agent);
        let described = agent.description(name).await.map_err(|error| {
            let doing = format!("asking whether {name} has a volume");
            agents::problem(&agent.name, doing, &error)
        })?;
        let described = DomainXml::parse(&String::from_utf8_lossy(&described));
        let described = described.map_err(|error| {
            Problem::failed(format!(
                "the description of {name} on host {}: {error}",
                agent.name
            ))
        })?;
        Ok(described.volume.is_some())
    }

    pub async fn volume_list(&self) -> Result<Vec<VolumeReport>, Problem> {
        let storage = self.storage()?;
        let listed = storage.client.get_json("/v1/volumes", QUESTION).await;
        listed.map_err(|error| storage.failed("listing volumes", &error))
    }

    pub async fn volume(&self, name: &DomainName) -> Result<VolumeReport, Problem> {
        let storage = self.storage()?;
        let shown = storage.client.get_json(&path(name), QUESTION).await;
        shown.map_err(|error| storage.failed(&format!("the volume {name}"), &error))
    }

    pub async fn snapshot_volume(
        &self,
        name: &DomainName,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, Problem> {
        let path = format!("{}/snapshots/{snapshot}", path(name));
        let doing = format!("a snapshot of {name}");
        self.storage()?.put(&path, &(), &doing).await
    }

    pub async fn drop_volume_snapshot(
        &self,
        name: &DomainName,
        snapshot: &SnapshotName,
    ) -> Result<VolumeReport, Problem> {
        let storage = self.storage()?;
        let path = format!("{}/snapshots/{snapshot}", path(name));
        let dropped = storage.client.delete_json(&path, ORDER).await;
        dropped.map_err(|error| storage.failed(&format!("a snapshot of {name}"), &error))
    }

    pub async fn resize_volume(
        &self,
        name: &DomainName,
        order: ResizeOrder,
    ) -> Result<VolumeReport, Problem> {
        let _one = self.domain_lock(name).await;
        self.free_volume(name).await?;
        let path = format!("{}/size", path(name));
        self.storage()?
            .put(&path, &order, &format!("resizing the volume {name}"))
            .await
    }

    pub async fn restore_volume(
        &self,
        name: &DomainName,
        order: &RestoreOrder,
    ) -> Result<VolumeReport, Problem> {
        let _one = self.domain_lock(name).await;
        self.free_volume(name).await?;
        let storage = self.storage()?;
        let path = format!("{}/restore", path(name));
        let restored = storage.client.post_json(&path, order, ORDER).await;
        let restored = restored
            .map_err(|error| storage.failed(&format!("restoring the volume {name}"), &error));
        // Refused, it is as it was. Otherwise it may have been done, whatever was answered.
        let refused = |problem: &Problem| {
            matches!(
                problem.kind,
                ProblemKind::Invalid
                    | ProblemKind::Impossible
                    | ProblemKind::Refused
                    | ProblemKind::NotFound
            )
        };
        if !restored.as_ref().is_err_and(refused) {
            self.forget_volume_root(name).await?;
        }
        restored
    }

    pub async fn remove_volume(&self, name: &DomainName) -> Result<(), Problem> {
        let _one = self.domain_lock(name).await;
        if self.live(name).await?.is_some() {
            return Err(Problem::impossible(format!(
                "{name} is there, and its state lies in its volume"
            ))
            .advice("estive down its deployment first"));
        }
        self.free_volume(name).await?;
        let storage = self.storage()?;
        let removed = storage.client.delete_json(&path(name), ORDER).await;
        let () = removed
            .map_err(|error| storage.failed(&format!("removing the volume {name}"), &error))?;
        self.forget_volume_root(name).await
    }

    async fn live(&self, name: &DomainName) -> Result<Option<DomainRecord>, Problem> {
        match self.records.domain(name).await {
            Ok(record) => Ok(Some(record)),
            Err(problem) if problem.kind == ProblemKind::NotFound => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// Has every export of a volume cut whose domain surely does not run. Whoever calls holds the domain's lock.
    async fn free_volume(&self, name: &DomainName) -> Result<(), Problem> {
        let report = self.volume(name).await?;
        let mut fence = highest(&report).next();
        if let Some(record) = self.live(name).await? {
            let stop_first = || {
                Problem::impossible(format!("{name} is not stopped"))
                    .advice(format!("estive stop {name} first"))
            };
            let ownership = &record.ownership;
            if ownership.moving.is_some() {
                return Err(stop_first());
            }
            let agent = &self.host(&ownership.host)?.agent;
            let said = agent.status(name).await;
            let said = said.map_err(|error| {
                agents::problem(&agent.name, format!("asking for {name}"), &error)
            })?;
            if let Some(said) = &said {
                refuse_doubt(said)?;
            }
            match said.as_ref().map(agents::view_of) {
                Some(HostView::Says(
                    Entry {
                        holding: Holding::Stopped,
                        ..
                    },
                    Seen::Gone,
                )) if ownership.wanted != Wanted::Running => {}
                Some(HostView::Says(
                    Entry {
                        holding: Holding::Saved | Holding::Restoring,
                        ..
                    },
                    _,
                )) => {
                    return Err(Problem::impossible(format!(
                        "{name} is saved, and its memory goes with the volume as it is"
                    ))
                    .advice(format!(
                        "estive restore {name}, then stop it; or drop its memory: estive save {name} --drop"
                    )));
                }
                _ => return Err(stop_first()),
            }
            // What the next start is granted, so it must not be above that, however often this is done before.
            let had = had(&report).fold(ownership.granted, Generation::max);
            fence = had.next().max(report.fenced);
        }
        let order = FenceOrder {
            generation: fence,
            only_at: None,
        };
        let path = format!("{}/fence", path(name));
        // Also when nobody has it open: what was saved over the volume as it was must find that it has gone on.
        let doing = format!("cutting off who had the volume {name}");
        let _: VolumeReport = self.storage()?.put(&path, &order, &doing).await?;
        Ok(())
    }
}

/// The highest generation that the volume has seen.
fn highest(report: &VolumeReport) -> Generation {
    had(report).fold(report.fenced, Generation::max)
}

/// The generations that have it, or may.
fn had(report: &VolumeReport) -> impl Iterator<Item = Generation> {
    let seen = report.exports.iter().chain(&report.granted);
    seen.map(|export| export.generation)
}

fn other_size(volume: &VolumeReport, wished_bytes: u64) -> Option<String> {
    let (name, mib) = (&volume.name, |bytes: u64| bytes >> 20);
    let (has, wished) = (mib(volume.size_bytes), mib(wished_bytes));
    let advice = match wished.cmp(&has) {
        Ordering::Equal => return None,
        Ordering::Greater => format!(
            "make it larger by: estive stop {name}; estive volume resize {name} {wished}M; estive start {name}"
        ),
        Ordering::Less => {
            format!("a volume is never made smaller: write volume: {{size: {has}M}}")
        }
    };
    Some(format!(
        "the volume of {name} has {has} MiB, the herd file says {wished} MiB, and it stays as it is; {advice}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_size_is_said_with_what_changes_it() {
        let volume = VolumeReport {
            name: DomainName::new("db01").unwrap(),
            owner: DeploymentName::new("web").unwrap(),
            size_bytes: 64 << 20,
            used_bytes: 0,
            fenced: Generation(0),
            exports: Vec::new(),
            granted: Vec::new(),
            snapshots: Vec::new(),
            note: None,
        };
        assert_eq!(other_size(&volume, 64 << 20), None);
        let larger = other_size(&volume, 96 << 20).unwrap();
        assert!(larger.contains("estive volume resize db01 96M"), "{larger}");
        let smaller = other_size(&volume, 32 << 20).unwrap();
        assert!(smaller.contains("{size: 64M}"), "{smaller}");
    }
}
