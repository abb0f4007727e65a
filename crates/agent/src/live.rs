//! Which domains of this host read live references: a small file for each, which the host's cache process obeys.
//!
//! A domain's file is there before its QEMU is made, and goes when the journal says that it runs here no more; in a move
//! both hosts have it, until the source has released the domain. An agent that starts makes the files agree with its
//! journal; of domains that the journal cannot tell of, they stay as they are.

use crate::agent::Agent;
use crate::definition;
use estive_api::Problem;
use estive_api::domain_xml::{DomainXml, LiveSource};
use estive_api::wire::{LiveNote, write_note};
use estive_model::DomainName;
use estive_moves::Holding;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// Whether a domain held so may run on this host.
pub(crate) fn may_run(holding: Holding) -> bool {
    match holding {
        Holding::Running
        | Holding::Outgoing(_)
        | Holding::Incoming(_)
        | Holding::Saving
        | Holding::Restoring => true,
        Holding::Absent | Holding::Stopped | Holding::Released(_) | Holding::Saved => false,
    }
}

impl Agent {
    /// Lets a domain in to the live reference that it reads, if it does, by this host's door. Before its QEMU is made.
    pub(crate) async fn admit(&self, xml: &DomainXml) -> Result<(), Problem> {
        let Some(live) = &xml.live else {
            return Ok(());
        };
        self.check_door(xml, live)?;
        self.make_door(live).await?;
        let note = note(&self.place(&xml.name), xml, live)?;
        let path = self.roots.directory().live_note(&xml.name);
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || write(&path, &note)).await;
        written
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| Problem::failed(format!("could not write {shown}: {error}")))?;
        let for_what = format!("the live reference {}", live.reference);
        self.roots.await_door(live.door.into(), &for_what).await
    }

    async fn make_door(&self, live: &LiveSource) -> Result<(), Problem> {
        let door = *live.door.ip();
        let made = self.taps.door(&self.config.bridge, door).await;
        made.map_err(|reason| {
            Problem::failed(format!(
                "could not make the door {door} for the live reference {}: {reason}",
                live.reference
            ))
        })
    }

    /// No description chooses an address of this host: its operator does.
    fn check_door(&self, xml: &DomainXml, live: &LiveSource) -> Result<(), Problem> {
        let (name, wanted) = (&xml.name, live.door.ip());
        let has = match self.config.door {
            Some(door) if door == *wanted => return Ok(()),
            Some(door) => format!("this host's door is {door}"),
            None => "this host has no door".to_owned(),
        };
        Err(Problem::impossible(format!(
            "{name} reads the live reference {} by the door {wanted}, and {has}",
            live.reference
        ))
        .advice(format!(
            "write door: {wanted} into the agent's configuration, as on every host, and start the agent again"
        )))
    }

    /// Lets a domain that does not run here any more in no longer.
    pub(crate) async fn dismiss(&self, name: &DomainName) {
        let path = self.roots.directory().live_note(name);
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(domain = %name, %error, "it is still let in to its live reference");
            }
            _ => {}
        }
    }

    /// The same where the journal says so.
    pub(crate) async fn dismiss_unless_it_may_run(&self, name: &DomainName, holding: Holding) {
        if !may_run(holding) {
            self.dismiss(name).await;
        }
    }

    /// Makes the files agree with the journal and with the operator's word, before anything is done for a domain.
    pub(crate) async fn settle_admitted(&self) {
        let directory = self.roots.directory().live();
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let is_note = path.extension().is_some_and(|ending| ending == "json");
            let Some(name) = stem
                .filter(|_| is_note)
                .and_then(|stem| DomainName::new(stem).ok())
            else {
                continue;
            };
            let stays = self.domain(&name).is_some_and(|handle| {
                let shown = handle.shown.borrow();
                shown.damaged.is_some() || may_run(shown.record.entry.holding)
            });
            if !stays && let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(domain = %name, %error, "it is still let in to its live reference");
            }
        }
        let mut door_is_made = false;
        for handle in self.handles() {
            let record = handle.shown.borrow().record.clone();
            if !may_run(record.entry.holding) {
                continue;
            }
            if let Err(problem) = self.admit_again(&record.name, &mut door_is_made).await {
                tracing::warn!(domain = %record.name, %problem, "it is not let in to its live reference");
            }
        }
    }

    /// The cache's directory may have been emptied, the bridge been made anew, the host's door become another.
    async fn admit_again(&self, name: &DomainName, door_is_made: &mut bool) -> Result<(), Problem> {
        let place = self.place(name);
        let read = definition::read_clone(&place)?;
        let read = read.as_ref();
        let Some((read, live)) = read.and_then(|xml| Some((xml, xml.live.as_ref()?))) else {
            return Ok(());
        };
        if let Err(problem) = self.check_door(read, live) {
            self.dismiss(name).await;
            return Err(problem);
        }
        if !*door_is_made {
            *door_is_made = true;
            // It may come to be; who is let in there is known all the same.
            if let Err(problem) = self.make_door(live).await {
                tracing::warn!(%problem, "nobody comes to a live reference by it");
            }
        }
        let note = note(&place, read, live)?;
        let path = self.roots.directory().live_note(name);
        write(&path, &note).map_err(|error| {
            Problem::failed(format!("could not write {}: {error}", path.display()))
        })
    }
}

fn note(place: &Path, xml: &DomainXml, live: &LiveSource) -> Result<LiveNote, Problem> {
    let identity = definition::read_identity(place, xml)?;
    Ok(LiveNote {
        reference: live.reference.clone(),
        listen: live.door.into(),
        origins: live.origins.clone(),
        clone: IpAddr::V4(identity.address.address),
    })
}

/// Only when it says something else: the forwarder need not look again.
fn write(path: &Path, note: &LiveNote) -> io::Result<()> {
    if std::fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<LiveNote>(&bytes).ok())
        .is_some_and(|known| known == *note)
    {
        return Ok(());
    }
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    write_note(path, note)
}
