//! What is durable of a volume besides its image.

use crate::error::VolumeError;
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
    /// Generations that may use it, with their host.
    pub exports: BTreeMap<u64, String>,
}

impl Record {
    pub fn exports(&self) -> Vec<VolumeExport> {
        let exports = self.exports.iter();
        exports
            .map(|(generation, client)| VolumeExport {
                generation: Generation(*generation),
                client: client.clone(),
            })
            .collect()
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
            Ok(serde_json::from_reader(std::io::BufReader::new(file))?)
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
