//! A domain's memory on disk: written, gone on from, and removed once the journal does not name it any more.
//!
//! The file lies in the domain's directory and counts only while the journal says so. It holds the guest's memory: 0600,
//! never in an archive, never on a link.

use crate::agent::{Agent, lock};
use crate::domain::Domain;
use crate::image_marks::ImageMark;
use crate::journal::Record;
use estive_api::{Problem, ProblemKind};
use estive_model::{DomainName, Generation};
use estive_moves::Holding;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "saved";
/// What an instance's devices, and the list of its pages, may take beside its memory.
const DEVICES_BYTES: u64 = 64 << 20;
/// Room that is left to everybody else: the journal lies on the same disk.
const SPARE_BYTES: u64 = 256 << 20;

/// What the journal knows of a domain's saved memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// When, milliseconds since the epoch.
    pub saved_ms: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Under which it was saved, and each that a restore was tried under since and may have been let in: nobody but
    /// these may have had its volume.
    pub generations: Vec<Generation>,
    /// By which emulator, under what. Unknown of what was saved before this was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What an ordinary machine's images were like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageMark>,
}

/// Tries that are remembered. One more needs a look at what goes wrong.
const TRIES_MAX: usize = 1000;

/// Where it lies, or would.
pub(crate) fn path(place: &Path) -> PathBuf {
    place.join(FILE)
}

/// What the journal's record says of it once the entry is `record.entry`.
///
/// `turned_away`: its storage host's record has refused the last try.
pub(crate) fn follow(record: &mut Record, written: Option<Saved>, turned_away: bool) {
    let generation = record.entry.generation;
    match record.entry.holding {
        Holding::Saved => {
            if let Some(written) = written {
                record.saved = Some(written);
            }
            if let Some(saved) = record.saved.as_mut().filter(|_| turned_away) {
                saved.generations.retain(|tried| *tried != generation);
            }
        }
        Holding::Saving => {}
        Holding::Restoring => {
            if let Some(saved) = &mut record.saved {
                saved.generations.push(generation);
            }
        }
        _ => record.saved = None,
    }
}

/// Whether the storage host's record has refused a try, so that its fence surely does not stand there. Any other failure may
/// come after the fence was written down.
pub(crate) fn is_turned_away(kind: ProblemKind) -> bool {
    matches!(kind, ProblemKind::Impossible | ProblemKind::Refused)
}

/// Room that is set aside on the state directory's disk; given back when dropped.
struct Room<'a> {
    agent: &'a Agent,
    name: &'a DomainName,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        lock(&self.agent.saving_bytes).remove(self.name);
    }
}

impl Agent {
    /// Refuses what the disk has no room for.
    fn set_room_aside<'a>(
        &'a self,
        name: &'a DomainName,
        memory_mib: u64,
    ) -> Result<Room<'a>, Problem> {
        let state = &self.config.state;
        let disk = rustix::fs::statvfs(state).map_err(|error| {
            Problem::failed(format!(
                "could not ask for the room in {}: {error}",
                state.display()
            ))
        })?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = (memory_mib << 20) + DEVICES_BYTES;
        let mut saving = lock(&self.saving_bytes);
        let others: u64 = saving.values().sum();
        let room = free.saturating_sub(others).saturating_sub(SPARE_BYTES);
        if needed > room {
            return Err(Problem::impossible(format!(
                "{name} cannot be saved on {}: its memory takes up to {} MiB, and {} has room for {} MiB",
                self.config.name,
                needed >> 20,
                state.display(),
                room >> 20
            ))
            .advice("make room there, drop what else is saved, or stop it instead: estive stop"));
        }
        saving.insert(name.clone(), needed);
        Ok(Room { agent: self, name })
    }
}

impl Domain {
    /// Asked before anything begins.
    pub(crate) fn room_to_save(&self) -> Result<(), Problem> {
        self.agent
            .set_room_aside(&self.name, self.record.memory_mib)
            .map(drop)
    }

    /// Halts it and writes its memory; on return the file is whole and on disk.
    pub(crate) async fn save_state(&self) -> Result<Saved, Problem> {
        let _room = self
            .agent
            .set_room_aside(&self.name, self.record.memory_mib)?;
        let path = path(&self.agent.place(&self.name));
        let saved = self.agent.hypervisor.save(&self.name, &path).await;
        saved.map_err(|error| self.failed("save", &error))?;
        let unread = |error: io::Error| {
            Problem::failed(format!("could not look at {}: {error}", path.display()))
        };
        Ok(Saved {
            saved_ms: self.agent.clock.now_ms(),
            bytes: std::fs::metadata(&path).map_err(unread)?.len(),
            generations: vec![self.record.entry.generation],
            by: Some(self.agent.hypervisor.describe()),
            images: self.marks().await?,
        })
    }

    /// Makes an instance of it, processors halted.
    pub(crate) async fn create_restored(&mut self) -> Result<(), Problem> {
        let path = path(&self.agent.place(&self.name));
        let known = self.record.saved.as_ref().map(|saved| saved.bytes);
        let here = std::fs::metadata(&path).map(|file| file.len());
        match (known, here) {
            (Some(known), Ok(here)) if known == here => {}
            (_, here) => {
                let is = match here {
                    Ok(bytes) => format!("has {bytes} bytes"),
                    Err(error) => error.to_string(),
                };
                return Err(Problem::failed(format!(
                    "what was saved of {} is not what it was: {} {is}, the journal says {known:?}",
                    self.name,
                    path.display()
                ))
                .advice(format!(
                    "put the file back, or give it up: estive save {} --drop, then start it",
                    self.name
                )));
            }
        }
        self.agent.image_proofs.end(&self.name).await;
        let spec = self.spec(self.record.entry.generation).await?;
        self.boot_log().report_begins_anew();
        let restored = self.agent.hypervisor.restore(&spec, &path).await;
        restored.map_err(|error| self.failed("restore", &error))?;
        match self.images()? {
            Some(xml) => self.are_as_saved(&xml).await,
            None => Ok(()),
        }
    }

    /// Where its volume's fence may stand, while it is being restored; elsewhere: anywhere. `first`: this try has not
    /// fenced yet, so that whoever has its number is somebody else.
    pub(crate) fn may_have_had_the_volume(&self, first: bool) -> Option<Vec<Generation>> {
        let saved = self.record.saved.as_ref();
        if self.record.entry.holding != Holding::Restoring {
            return None;
        }
        let mut tried = saved.map_or(Vec::new(), |saved| saved.generations.clone());
        if first {
            tried.retain(|tried| *tried != self.record.entry.generation);
        }
        Some(tried)
    }

    /// Another emulator may read the same bytes as something else, or the guest miss what its processor had.
    pub(crate) fn refuse_another_emulator(&self) -> Result<(), Problem> {
        let here = self.agent.hypervisor.describe();
        match self.record.saved.as_ref().and_then(|saved| saved.by.as_ref()) {
            Some(by) if *by != here => Err(Problem::impossible(format!(
                "{} was saved by {by}; this host has {here}",
                self.name
            ))
            .advice(format!(
                "have that one again on this host, or give it up: estive save {} --drop, then start it",
                self.name
            ))),
            _ => Ok(()),
        }
    }

    /// A restore that has been tried so often goes wrong for a reason.
    pub(crate) fn refuse_endless_tries(&self) -> Result<(), Problem> {
        let tries = self.record.saved.as_ref();
        match tries.is_some_and(|saved| saved.generations.len() > TRIES_MAX) {
            false => Ok(()),
            true => Err(Problem::impossible(format!(
                "a restore of {} was tried {TRIES_MAX} times in vain",
                self.name
            ))
            .advice(format!(
                "give it up: estive save {} --drop, then start it",
                self.name
            ))),
        }
    }

    /// Removes the file, unless the journal names it.
    pub(crate) async fn remove_unnamed_state(&self) {
        if matches!(
            self.record.entry.holding,
            Holding::Saving | Holding::Saved | Holding::Restoring
        ) {
            return;
        }
        let path = path(&self.agent.place(&self.name));
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(domain = %self.name, %error, "what was saved of it was not removed");
            }
            _ => {}
        }
    }
}
