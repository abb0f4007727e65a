//! Over which root a stateful clone has written. Its early userspace refuses any other, at a console that nobody reads:
//! so it is said before it is started.

use crate::herd_clones::Prepared;
use crate::manager::Manager;
use crate::records::DomainRecord;
use estive_api::Problem;
use estive_model::{DeploymentName, DomainName};
use estive_moves::{Entry, Holding, HostView};
use serde::{Deserialize, Serialize};

/// The word by which a person has a clone's writes laid over another root.
pub(crate) const ANY_ROOT: &str = "estive.over=any";

/// What the store keeps, also while there is no such clone: its volume stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeRoot {
    pub volume: DomainName,
    /// The name of the root that it was started over last.
    pub root: String,
}

pub(crate) const PREFIX: &str = "volume-root/";

fn key(name: &DomainName) -> String {
    format!("{PREFIX}{name}")
}

impl Manager {
    /// Notes it down before a stateful clone is started.
    pub(crate) async fn note_volume_root(&self, record: &DomainRecord) -> Result<(), Problem> {
        let Some(made_of) = record.made_of.as_ref().filter(|_| record.is_stateful()) else {
            return Ok(());
        };
        let now = VolumeRoot {
            volume: record.name.clone(),
            root: made_of.root.clone(),
        };
        let key = key(&record.name);
        match self.records.get::<VolumeRoot>(&key).await? {
            Some(known) if known == now => Ok(()),
            _ => self.records.put(&key, &now).await,
        }
    }

    /// The volume is gone, or is as it was some time ago: it is not known any more.
    pub(crate) async fn forget_volume_root(&self, name: &DomainName) -> Result<(), Problem> {
        self.records.remove(&key(name)).await
    }

    /// An error where an `up` would start stateful clones over another root than they have written over.
    pub(crate) async fn refuse_other_roots(
        &self,
        deployment: &DeploymentName,
        prepared: &[Prepared],
    ) -> Result<(), Problem> {
        let mut refused: Vec<(String, String, String)> = Vec::new();
        for clone in prepared {
            let plan = &clone.plan;
            if plan.volume_bytes.is_none() || plan.words.iter().any(|word| word == ANY_ROOT) {
                continue;
            }
            let Some(known) = self.records.get::<VolumeRoot>(&key(&plan.name)).await? else {
                continue;
            };
            if known.root != clone.made_of.root && self.would_be_made(&plan.name).await? {
                let now = clone.made_of.root.clone();
                refused.push((plan.name.to_string(), known.root, now));
            }
        }
        let Some((_, before, now)) = refused.first() else {
            return Ok(());
        };
        let names: Vec<&str> = refused.iter().map(|(name, ..)| name.as_str()).collect();
        Err(Problem::refused(format!(
            "what {} keeps on its volume was written over the root {before}; the reference has {now} now, and nothing \
             was started",
            names.join(", ")
        ))
        .advice(format!(
            "to go on with the root of before: name it at the reference in the manager's configuration, or estive start \
             each clone that is stopped; to lay what was written over the new root, hiding what is new in the same \
             places: estive down {deployment}, which keeps volumes, write words: {ANY_ROOT} at these clones in the herd \
             file, estive up"
        )))
    }

    /// Whether an `up` would have its host make it: not of one that runs, or crashed.
    async fn would_be_made(&self, name: &DomainName) -> Result<bool, Problem> {
        let Some(record) = self.records.find_domain(name).await? else {
            return Ok(true);
        };
        let Some(host) = self.hosts.get(&record.ownership.host) else {
            return Ok(false);
        };
        Ok(match host.view(name) {
            None => true,
            Some(HostView::Says(Entry { holding, .. }, _)) => {
                matches!(holding, Holding::Stopped | Holding::Absent)
            }
            // Nothing of it is started.
            Some(HostView::Silent) => false,
        })
    }
}
