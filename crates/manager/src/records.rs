//! What the store holds, typed: one row for each domain and deployment, changed only by compare-and-swap.

use crate::agents::chain;
use crate::made_of::MadeOf;
use crate::volume_roots::ANY_ROOT;
use estive_api::Problem;
use estive_layers::UpCheck;
use estive_model::{DeploymentName, DomainName, Generation, HostName, OperationId};
use estive_moves::{Ownership, Wanted};
use estive_store::{Store, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A domain's row. A row is never removed: what was granted once must never be granted again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DomainRow {
    /// The domain is there.
    Live(Box<DomainRecord>),
    /// It was taken down.
    Retired {
        /// The highest generation ever granted for it.
        granted: Generation,
    },
}

impl DomainRow {
    pub fn granted(&self) -> Generation {
        match self {
            Self::Live(record) => record.ownership.granted,
            Self::Retired { granted } => *granted,
        }
    }

    pub fn live(self) -> Option<DomainRecord> {
        match self {
            Self::Live(record) => Some(*record),
            Self::Retired { .. } => None,
        }
    }
}

/// What the store says of a domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DomainRecord {
    pub name: DomainName,
    /// `None`: it was defined by itself, and has its disks in image files.
    #[serde(default)]
    pub deployment: Option<DeploymentName>,
    pub memory_mib: u64,
    pub cpus: u32,
    /// Without prefix; empty where it is not known.
    pub address: String,
    /// Empty without one.
    pub reference: String,
    /// What the herd file adds to its kernel's command line; `None`: it was recorded before this was.
    #[serde(default)]
    pub words: Option<Vec<String>>,
    /// What of its reference its host was sent; `None`: it was recorded before this was.
    #[serde(default)]
    pub made_of: Option<MadeOf>,
    /// Roots that its host was sent besides, and may have: nobody has heard that it took them.
    #[serde(default)]
    pub given: Vec<String>,
    /// Whether it has a volume; `None`: it was recorded before this was.
    #[serde(default)]
    pub volume: Option<bool>,
    /// Of the herd file, outermost first.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What counts as answering.
    pub checks: Vec<UpCheck>,
    pub post_copy_allowed: bool,
    pub ownership: Ownership<HostName>,
    /// The open move, as it was ordered.
    #[serde(default)]
    pub move_order: Option<OpenMove>,
}

/// What the store keeps of an open move besides its grant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenMove {
    pub operation: OperationId,
    /// When it was ordered, milliseconds since the epoch.
    pub ordered_ms: u64,
    /// Why it is to be given up, once it is.
    #[serde(default)]
    pub problem: Option<Problem>,
}

impl DomainRecord {
    /// The same record after write (4), or after the move is over without it.
    pub fn closed(&self, ownership: Ownership<HostName>) -> Self {
        Self {
            ownership,
            move_order: None,
            ..self.clone()
        }
    }

    /// Whether it is a clone of a herd; else a domain with image files.
    pub fn is_clone(&self) -> bool {
        self.deployment.is_some()
    }

    /// `of the deployment first`, for what is said to people.
    pub fn of_whom(&self) -> String {
        match &self.deployment {
            Some(deployment) => format!("of the deployment {deployment}"),
            None => "with disks of its own, of no deployment".to_owned(),
        }
    }

    /// What makes it again on a host that holds nothing of it.
    pub fn made_again_by(&self) -> String {
        match &self.deployment {
            Some(deployment) => format!("estive up {deployment} again, which makes it again"),
            None => format!(
                "estive define its XML again, or estive delete {}, which leaves its images",
                self.name
            ),
        }
    }

    /// It keeps what it writes on a volume, as far as is known.
    pub fn is_stateful(&self) -> bool {
        self.volume == Some(true)
    }

    /// A person has said that what it keeps may be laid over another root.
    pub fn takes_any_root(&self) -> bool {
        let mut words = self.words.iter().flatten();
        words.any(|word| word == ANY_ROOT)
    }

    pub fn wants_to_run(&self) -> bool {
        self.ownership.wanted == Wanted::Running
    }
}

/// A deployment's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeploymentRecord {
    pub name: DeploymentName,
    /// Its secret, 64 hex digits; kept when the deployment is taken down, so that its clones keep their keys.
    pub secret: String,
}

/// Typed access to the store.
#[derive(Clone)]
pub(crate) struct Records {
    store: Arc<dyn Store>,
}

/// What to write in place of what was read.
pub(crate) enum Change<T> {
    Write(T),
    Keep,
}

impl Records {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    pub async fn domain_row(&self, name: &DomainName) -> Result<Option<DomainRow>, Problem> {
        Ok(self.read(&domain_key(name)).await?.map(|(row, _)| row))
    }

    /// The record of a domain that is there.
    pub async fn domain(&self, name: &DomainName) -> Result<DomainRecord, Problem> {
        self.find_domain(name).await?.ok_or_else(|| no_domain(name))
    }

    /// The same for one that need not be there.
    pub async fn find_domain(&self, name: &DomainName) -> Result<Option<DomainRecord>, Problem> {
        Ok(self.domain_row(name).await?.and_then(DomainRow::live))
    }

    /// All domains that are there, by name.
    pub async fn domains(&self) -> Result<Vec<DomainRecord>, Problem> {
        let rows: Vec<DomainRow> = self.all("domain/").await?;
        Ok(rows.into_iter().filter_map(DomainRow::live).collect())
    }

    pub async fn domains_of(
        &self,
        deployment: &DeploymentName,
    ) -> Result<Vec<DomainRecord>, Problem> {
        let mut domains = self.domains().await?;
        domains.retain(|record| record.deployment.as_ref() == Some(deployment));
        Ok(domains)
    }

    /// Changes a domain's row by compare-and-swap; `change` is asked again when another write came between.
    pub async fn change_row(
        &self,
        name: &DomainName,
        mut change: impl FnMut(Option<DomainRow>) -> Result<Change<DomainRow>, Problem> + Send,
    ) -> Result<Option<DomainRow>, Problem> {
        self.change(&domain_key(name), &mut change).await
    }

    /// Changes the record of a domain that is there; the answer is the record as it stands then.
    pub async fn change_domain(
        &self,
        name: &DomainName,
        mut change: impl FnMut(&DomainRecord) -> Result<Change<DomainRecord>, Problem> + Send,
    ) -> Result<DomainRecord, Problem> {
        let row = self
            .change_row(name, |row| {
                let record = row
                    .and_then(DomainRow::live)
                    .ok_or_else(|| no_domain(name))?;
                Ok(match change(&record)? {
                    Change::Write(record) => Change::Write(DomainRow::Live(Box::new(record))),
                    Change::Keep => Change::Keep,
                })
            })
            .await?;
        row.and_then(DomainRow::live).ok_or_else(|| no_domain(name))
    }

    /// The domain is gone: what was granted stays on record.
    pub async fn retire(&self, name: &DomainName) -> Result<(), Problem> {
        self.change_row(name, |row| {
            Ok(match row {
                Some(DomainRow::Live(record)) => Change::Write(DomainRow::Retired {
                    granted: record.ownership.granted,
                }),
                _ => Change::Keep,
            })
        })
        .await?;
        Ok(())
    }

    pub async fn change_deployment(
        &self,
        name: &DeploymentName,
        mut change: impl FnMut(Option<DeploymentRecord>) -> Result<Change<DeploymentRecord>, Problem>
        + Send,
    ) -> Result<Option<DeploymentRecord>, Problem> {
        self.change(&format!("deployment/{name}"), &mut change)
            .await
    }

    /// Any row by its key, for the event log.
    pub async fn put(&self, key: &str, value: &(impl Serialize + Sync)) -> Result<(), Problem> {
        loop {
            let revision = self.get_raw(key).await?.map(|(_, revision)| revision);
            let bytes = serde_json::to_vec(value).map_err(|error| broken(key, &error))?;
            if self.swap_raw(key, revision, Some(bytes)).await? {
                return Ok(());
            }
        }
    }

    pub async fn remove(&self, key: &str) -> Result<(), Problem> {
        while let Some((_, revision)) = self.get_raw(key).await? {
            if self.swap_raw(key, Some(revision), None).await? {
                break;
            }
        }
        Ok(())
    }

    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Problem> {
        Ok(self.read(key).await?.map(|(value, _)| value))
    }

    /// All rows under a prefix, in the order of their keys.
    pub async fn all<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, Problem> {
        self.list_raw(prefix)
            .await?
            .into_iter()
            .map(|(key, bytes)| {
                serde_json::from_slice(&bytes).map_err(|error| broken(&key, &error))
            })
            .collect()
    }

    async fn change<T: Serialize + DeserializeOwned + Clone + Send>(
        &self,
        key: &str,
        change: &mut (dyn FnMut(Option<T>) -> Result<Change<T>, Problem> + Send),
    ) -> Result<Option<T>, Problem> {
        loop {
            let read = self.read::<T>(key).await?;
            let (value, revision) = match read {
                Some((value, revision)) => (Some(value), Some(revision)),
                None => (None, None),
            };
            match change(value.clone())? {
                Change::Keep => return Ok(value),
                Change::Write(new) => {
                    let bytes = serde_json::to_vec(&new).map_err(|error| broken(key, &error))?;
                    if self.swap_raw(key, revision, Some(bytes)).await? {
                        return Ok(Some(new));
                    }
                }
            }
        }
    }

    async fn get_raw(&self, key: &str) -> Result<Option<(Vec<u8>, u64)>, Problem> {
        let found = self
            .store
            .get(key)
            .await
            .map_err(|error| store_failed(&error))?;
        Ok(found.map(|found| (found.value, found.version)))
    }

    /// Whether it was written; not when another write came first.
    async fn swap_raw(
        &self,
        key: &str,
        expected: Option<u64>,
        value: Option<Vec<u8>>,
    ) -> Result<bool, Problem> {
        match self.store.compare_and_swap(key, expected, value).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(store_failed(&error)),
        }
    }

    async fn list_raw(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Problem> {
        let found = self
            .store
            .list(prefix)
            .await
            .map_err(|error| store_failed(&error))?;
        Ok(found
            .into_iter()
            .map(|(key, found)| (key, found.value))
            .collect())
    }

    async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, u64)>, Problem> {
        match self.get_raw(key).await? {
            None => Ok(None),
            Some((bytes, revision)) => {
                let value = serde_json::from_slice(&bytes).map_err(|error| broken(key, &error))?;
                Ok(Some((value, revision)))
            }
        }
    }
}

fn domain_key(name: &DomainName) -> String {
    format!("domain/{name}")
}

pub(crate) fn no_domain(name: &DomainName) -> Problem {
    Problem::not_found(format!("there is no domain {name}"))
        .advice("estive ls, to see those there are")
}

fn store_failed(error: &StoreError) -> Problem {
    Problem::failed(format!("the manager's store: {}", chain(error)))
}

fn broken(key: &str, error: &serde_json::Error) -> Problem {
    Problem::failed(format!("the store's row {key} is not understood: {error}"))
        .advice("was the store written by another version of Estive?")
}
