//! What this host was asked to do with each domain, on disk: the truth that survives the agent.
//!
//! One JSON file for each domain ever heard of. A file changes whole: written beside, synced, renamed, directory
//! synced. A domain that is gone leaves its entry, so that late orders of an ended grant are still refused.

use crate::AgentError;
use crate::saved::Saved;
use estive_api::wire::Prepared;
use estive_model::{Digest, DomainName, HostName, OperationId};
use estive_moves::Entry;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const VERSION: u32 = 1;
const MAX_RECORD_BYTES: u64 = 64 * 1024;

/// What the journal says of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// The domain.
    pub name: DomainName,
    /// The state machine's entry.
    pub entry: Entry,
    /// Its memory, in MiB.
    #[serde(default)]
    pub memory_mib: u64,
    /// Its virtual processors.
    #[serde(default)]
    pub cpus: u32,
    /// Size of its layer's archive, which is padded on disk.
    #[serde(default)]
    pub layer_bytes: u64,
    /// The layer that was pushed since it was defined; it lies in a file of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed: Option<Digest>,
    /// The move it takes part in.
    #[serde(default)]
    pub moving: Option<Moving>,
    /// When its last start was asked for, milliseconds since the epoch.
    #[serde(default)]
    pub asked_ms: Option<u64>,
    /// How it ended by itself, once that was noticed.
    #[serde(default)]
    pub crashed: Option<String>,
    /// Its memory on disk, while that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<Saved>,
}

/// What is needed to go on with a move after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "side", rename_all = "snake_case", deny_unknown_fields)]
pub enum Moving {
    /// This host sends.
    Source {
        /// The operation.
        operation: OperationId,
        /// Where to.
        destination: HostName,
        /// URL of the destination's agent.
        destination_url: String,
        /// Where the stream goes.
        stream: Prepared,
        /// When it was ordered, milliseconds since the epoch.
        asked_ms: u64,
    },
    /// This host receives.
    Destination {
        /// The operation.
        operation: OperationId,
        /// Where from.
        source: HostName,
        /// Where the stream is awaited.
        stream: Prepared,
        /// When it was prepared, milliseconds since the epoch.
        asked_ms: u64,
    },
}

impl Moving {
    /// The operation.
    pub fn operation(&self) -> &OperationId {
        match self {
            Self::Source { operation, .. } | Self::Destination { operation, .. } => operation,
        }
    }
}

impl Record {
    /// Of a domain never heard of.
    pub fn new(name: DomainName) -> Self {
        Self {
            version: VERSION,
            name,
            entry: Entry::default(),
            memory_mib: 0,
            cpus: 0,
            layer_bytes: 0,
            pushed: None,
            moving: None,
            asked_ms: None,
            crashed: None,
            saved: None,
        }
    }
}

/// All records of a host.
#[derive(Debug, Clone)]
pub struct Journal {
    directory: Arc<PathBuf>,
    writing: Arc<Mutex<()>>,
}

impl Journal {
    /// Opens (makes) the journal's directory.
    pub fn open(directory: PathBuf) -> Result<Self, AgentError> {
        fs::create_dir_all(&directory)
            .map_err(|source| AgentError::file("make the directory", &directory, source))?;
        Ok(Self {
            directory: Arc::new(directory),
            writing: Arc::default(),
        })
    }

    /// Where a domain's record lies.
    pub fn path(&self, name: &DomainName) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    /// Every record; one that cannot be understood comes as the sentence that says so.
    pub fn read_all(&self) -> Result<BTreeMap<DomainName, Result<Record, String>>, AgentError> {
        let failed = |source| AgentError::file("read the journal", &self.directory, source);
        let mut records = BTreeMap::new();
        for file in fs::read_dir(&*self.directory).map_err(failed)? {
            let path = file.map_err(failed)?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_suffix(".json"))
                .and_then(|name| DomainName::new(name).ok());
            match name {
                Some(name) => {
                    let record = read(&path, &name);
                    records.insert(name, record);
                }
                // Left by a write that was cut short: it was never in force.
                None => {
                    tracing::warn!(path = %path.display(), "removing what is no record from the journal");
                    let _ = fs::remove_file(&path);
                }
            }
        }
        Ok(records)
    }

    /// Makes `record` durable: on return it is what the next start reads.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = serde_json::to_vec(record)?;
        text.push(b'\n');
        let path = self.path(&record.name);
        write_durably(&path, &text)
    }

    /// Waits until no write is under way.
    pub fn settle(&self) {
        drop(self.writing.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn read(path: &Path, name: &DomainName) -> Result<Record, String> {
    let damaged = |reason: String| {
        format!(
            "the journal's record {} is damaged ({reason}): what this host decided about {name} cannot be told; look \
             whether it runs elsewhere, put the file back from a copy and restart the agent",
            path.display()
        )
    };
    let bytes = fs::metadata(path)
        .and_then(|metadata| match metadata.len() {
            0..=MAX_RECORD_BYTES => fs::read(path),
            _ => Err(io::Error::other("it is too large")),
        })
        .map_err(|error| damaged(error.to_string()))?;
    let record: Record =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if record.version != VERSION {
        return Err(damaged(format!(
            "its version is {}, not {VERSION}",
            record.version
        )));
    }
    if record.name != *name {
        return Err(damaged(format!("it is about {}", record.name)));
    }
    Ok(record)
}

/// Writes a file whole and on disk, or not at all.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = fs::File::create(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&partial, path)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_model::Generation;
    use estive_moves::{Grant, Holding};

    #[test]
    fn what_was_written_is_read_and_damage_is_told() {
        let home = tempfile::tempdir().unwrap();
        let journal = Journal::open(home.path().join("journal")).unwrap();
        let name = |text: &str| DomainName::new(text).unwrap();
        let mut record = Record::new(name("clone01"));
        record.entry = Entry {
            holding: Holding::Released(Grant {
                generation: Generation(4),
                post_copy: true,
            }),
            generation: Generation(3),
            floor: Generation(4),
        };
        record.moving = Some(Moving::Source {
            operation: OperationId::new("op-1").unwrap(),
            destination: HostName::new("host2").unwrap(),
            destination_url: "https://10.77.0.12:7601".into(),
            stream: Prepared {
                address: [10, 77, 0, 12].into(),
                port: 49152,
                tls_name: None,
            },
            asked_ms: 5,
        });
        journal.write(&record).unwrap();
        journal.write(&Record::new(name("clone02"))).unwrap();
        journal.write(&Record::new(name("clone03"))).unwrap();
        let half = fs::read(journal.path(&name("clone03"))).unwrap();
        fs::write(journal.path(&name("clone03")), &half[..half.len() / 2]).unwrap();
        fs::rename(
            journal.path(&name("clone02")),
            journal.path(&name("clone04")),
        )
        .unwrap();
        fs::write(home.path().join("journal/clone01.partial"), "x").unwrap();

        let records = journal.read_all().unwrap();
        assert_eq!(records[&name("clone01")], Ok(record));
        for (damaged, word) in [("clone03", "damaged"), ("clone04", "it is about clone02")] {
            let error = records[&name(damaged)].clone().unwrap_err();
            assert!(
                error.contains(word) && error.contains("restart the agent"),
                "{error}"
            );
        }
        assert_eq!(records.len(), 3);
        assert!(!home.path().join("journal/clone01.partial").exists());
    }
}
