//! What is durable of a volume besides its image.

use crate::error::VolumeError;
use crate::seam::{By, EXPORTS_MAX};
use estive_api::wire::VolumeExport;
use estive_model::{DeploymentName, DomainName, Generation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub(crate) const RECORD: &str = "record.json";
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// The record of one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub name: DomainName,
    pub owner: DeploymentName,
    pub size_bytes: u64,
    /// TCP port of its daemon.
    pub port: u16,
    pub fenced: Generation,
    /// Generations that may be let in, with their host.
    #[serde(default)]
    pub granted: BTreeMap<u64, String>,
    /// Generations that may use it, with their host.
    pub exports: BTreeMap<u64, String>,
}

/// How far above all that a volume has seen a generation may lie. Far more than are ever granted in vain, and so little
/// that no single order comes near the end of the numbers, behind which there is no further start.
const STEP_MAX: u64 = 1 << 32;

impl Record {
    pub fn exports(&self) -> Vec<VolumeExport> {
        listed(&self.exports)
    }

    pub fn granted(&self) -> Vec<VolumeExport> {
        listed(&self.granted)
    }

    /// See [`Volumes::grant`](crate::Volumes::grant).
    pub fn grant(&mut self, generation: Generation, client: &str) -> Result<(), VolumeError> {
        self.refuse_old(generation)?;
        self.refuse_far(generation)?;
        match self.granted.get(&generation.0) {
            Some(known) if known == client => return Ok(()),
            Some(known) => {
                return Err(VolumeError::Granted {
                    name: self.name.clone(),
                    generation,
                    client: known.clone(),
                });
            }
            None => {}
        }
        // Said late, or by a manager that does not know what another one did.
        if let Some((newer, _)) = self.granted.range(generation.0..).next() {
            return Err(VolumeError::OldGrant {
                name: self.name.clone(),
                generation,
                newer: Generation(*newer),
            });
        }
        let exports = &self.exports;
        self.granted.retain(|known, _| exports.contains_key(known));
        self.granted.insert(generation.0, client.to_owned());
        Ok(())
    }

    /// Lets it in; whether that is new.
    pub fn let_in(&mut self, generation: Generation, client: &str) -> Result<bool, VolumeError> {
        self.refuse_old(generation)?;
        self.refuse_ungranted(generation, client)?;
        if self.exports.contains_key(&generation.0) {
            return Ok(false);
        }
        if self.exports.len() >= EXPORTS_MAX {
            return Err(VolumeError::TooMany {
                name: self.name.clone(),
                size_mib: self.size_bytes >> 20,
            });
        }
        self.exports.insert(generation.0, client.to_owned());
        Ok(true)
    }

    /// See [`Volumes::withdraw`](crate::Volumes::withdraw).
    pub fn withdraw(&mut self, generation: Generation, by: By<'_>) -> Result<(), VolumeError> {
        if let (By::Host(client), true) = (by, self.granted.contains_key(&generation.0)) {
            self.refuse_ungranted(generation, client)?;
        }
        self.exports.remove(&generation.0);
        self.granted.remove(&generation.0);
        Ok(())
    }

    /// See [`Volumes::fence_from`](crate::Volumes::fence_from).
    pub fn fence_from(
        &mut self,
        only_at: &[Generation],
        generation: Generation,
        by: By<'_>,
    ) -> Result<(), VolumeError> {
        match only_at.contains(&self.fenced) {
            true => self.fence(generation, by),
            false => Err(VolumeError::GoneOn {
                name: self.name.clone(),
                fenced: self.fenced,
            }),
        }
    }

    /// See [`Volumes::fence`](crate::Volumes::fence).
    pub fn fence(&mut self, generation: Generation, by: By<'_>) -> Result<(), VolumeError> {
        match by {
            // One that was granted and then fenced off must not run, though there is nothing left to cut.
            By::Host(client) => {
                self.refuse_old(generation)?;
                self.refuse_ungranted(generation, client)?;
            }
            By::Keeper => self.refuse_far(generation)?,
        }
        self.exports.retain(|known, _| *known >= generation.0);
        self.granted.retain(|known, _| *known >= generation.0);
        self.fenced = self.fenced.max(generation);
        Ok(())
    }

    fn refuse_old(&self, generation: Generation) -> Result<(), VolumeError> {
        match generation < self.fenced {
            true => Err(VolumeError::OldGeneration {
                name: self.name.clone(),
                generation,
                fenced: self.fenced,
            }),
            false => Ok(()),
        }
    }

    fn refuse_ungranted(&self, generation: Generation, client: &str) -> Result<(), VolumeError> {
        match self.granted.get(&generation.0) {
            Some(granted) if granted == client => Ok(()),
            _ => Err(VolumeError::NotGranted {
                name: self.name.clone(),
                generation,
                client: client.to_owned(),
            }),
        }
    }

    fn refuse_far(&self, generation: Generation) -> Result<(), VolumeError> {
        let granted = self.granted.last_key_value();
        let highest = self
            .fenced
            .0
            .max(granted.map_or(0, |(generation, _)| *generation));
        match generation.0.saturating_sub(highest) > STEP_MAX {
            true => Err(VolumeError::Impossible(format!(
                "generation {generation} of {} is no next one: the volume has seen {highest} at most",
                self.name
            ))),
            false => Ok(()),
        }
    }

    /// Nobody may be writing.
    pub fn refuse_use(&self) -> Result<(), VolumeError> {
        match self.exports().pop() {
            None => Ok(()),
            Some(export) => Err(VolumeError::InUse {
                name: self.name.clone(),
                generation: export.generation,
                client: export.client,
            }),
        }
    }

    pub fn read(directory: &Path) -> Result<Self, VolumeError> {
        let path = directory.join(RECORD);
        let read = || -> std::io::Result<Self> {
            let file = File::open(&path)?;
            if file.metadata()?.len() > RECORD_BYTES_MAX {
                return Err(std::io::Error::other("it is too long"));
            }
            let mut record: Self = serde_json::from_reader(std::io::BufReader::new(file))?;
            // Of before there were grants.
            for (generation, client) in &record.exports {
                let granted = record.granted.entry(*generation);
                granted.or_insert_with(|| client.clone());
            }
            Ok(record)
        };
        read().map_err(VolumeError::io("read", &path))
    }

    /// Durable when it returns.
    pub fn write(&self, directory: &Path) -> Result<(), VolumeError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(std::io::Error::from);
        let path = directory.join(RECORD);
        bytes
            .and_then(|bytes| replace(directory, RECORD, &bytes))
            .map_err(VolumeError::io("write", &path))
    }
}

fn listed(generations: &BTreeMap<u64, String>) -> Vec<VolumeExport> {
    let generations = generations.iter();
    generations
        .map(|(generation, client)| VolumeExport {
            generation: Generation(*generation),
            client: client.clone(),
        })
        .collect()
}

fn replace(directory: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let aside = directory.join(format!("{name}.new"));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, directory.join(name))?;
    sync_directory(directory)
}

pub(crate) fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_api::Problem;

    #[test]
    fn one_export_too_many_leaves_no_trace_and_says_what_helps() {
        let mut record = Record {
            name: DomainName::new("db01").unwrap(),
            owner: DeploymentName::new("web").unwrap(),
            size_bytes: 64 << 20,
            port: 1,
            fenced: Generation(0),
            granted: BTreeMap::new(),
            exports: BTreeMap::new(),
        };
        let next = EXPORTS_MAX as u64 + 1;
        for generation in 1..next {
            record.grant(Generation(generation), "h1").unwrap();
            assert!(record.let_in(Generation(generation), "h1").unwrap());
        }
        assert!(!record.let_in(Generation(next - 1), "h1").unwrap());
        record.grant(Generation(next), "h1").unwrap();
        for _ in 0..2 {
            let refused = record.let_in(Generation(next), "h1").unwrap_err();
            assert_eq!(record.exports.len(), EXPORTS_MAX);
            let advice = Problem::from(refused).advice.unwrap();
            assert!(advice.contains("estive volume resize db01 64M"), "{advice}");
        }
        // As that does it.
        record.fence(Generation(next + 1), By::Keeper).unwrap();
        record.grant(Generation(next + 1), "h1").unwrap();
        assert!(record.let_in(Generation(next + 1), "h1").unwrap());
    }
}
