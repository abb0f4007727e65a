//! A stopped clone takes, when it is started, what its reference has by now: its host gives its archive, which is
//! described anew and given back. One that runs, or crashed, goes on with what it has.

use crate::agents::{self, Agent};
use crate::clone_archive;
use crate::floor::believed;
use crate::made_of::MadeOf;
use crate::manager::Manager;
use crate::migrate::{missing_files, refuse_moving};
use crate::records::{Change, DomainRecord};
use crate::reference::Reference;
use bytes::Bytes;
use estive_api::domain_xml::{CONFIG_FILE, DiskSource, DomainXml};
use estive_api::fault;
use estive_api::wire::DomainReport;
use estive_api::{ClientError, Problem};
use estive_model::{Digest, Generation};
use estive_moves::{Entry, Holding, HostView};
use std::io::Read;

impl Manager {
    /// Has its host make a stopped clone of what its reference has by now. `report` is what that host says of it.
    /// Whoever calls holds the domain's lock.
    pub(crate) async fn renew(
        &self,
        record: DomainRecord,
        agent: &Agent,
        report: &DomainReport,
    ) -> Result<DomainRecord, Problem> {
        let HostView::Says(
            Entry {
                holding: Holding::Stopped,
                floor,
                ..
            },
            _,
        ) = agents::view_of(report)
        else {
            return Ok(record);
        };
        let reference = self.references.get(&record.reference);
        // Of one that was recorded before this was known, nothing is said.
        let Some((made_of, reference)) = record.made_of.as_ref().zip(reference) else {
            return Ok(record);
        };
        let now = made_of.of_now(&reference);
        let has_it = now == *made_of && record.given.is_empty();
        if has_it || !can_take(&record, made_of, &now) {
            return Ok(record);
        }
        let failed = |error| {
            let doing = format!("reading the archive of {}", record.name);
            agents::problem(&agent.name, doing, &error)
        };
        let archive = agent.archive(&record.name).await.map_err(failed)?;
        let initramfs = now.initramfs.clone();
        let work = move || described_anew(&archive, &reference, &initramfs);
        let archive = tokio::task::spawn_blocking(work).await;
        let archive = archive
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|error| {
                Problem::failed(format!(
                    "the archive of {} on {}: {error}",
                    record.name, agent.name
                ))
            })?;
        self.give(agent, record, floor, archive, &now).await
    }

    /// Sends a clone's archive to its host, which holds none of that generation, with the files that this lacks; then
    /// records what the clone is made of. That its host may have the root is recorded before: a root that nobody needs
    /// may be removed at any time, also when this manager dies in the middle.
    pub(crate) async fn give(
        &self,
        agent: &Agent,
        mut record: DomainRecord,
        floor: Generation,
        archive: Bytes,
        made_of: &MadeOf,
    ) -> Result<DomainRecord, Problem> {
        let name = record.name.clone();
        let failed =
            |error: ClientError| agents::problem(&agent.name, format!("sending {name}"), &error);
        let floor = believed(floor, record.ownership.granted, &name, &agent.name)?;
        let is_other = record.made_of.as_ref() != Some(made_of);
        let is_said = !is_other || record.given.contains(&made_of.root);
        if record.ownership.generation <= floor || !is_said {
            let before = |record: &DomainRecord| {
                refuse_moving(record)?;
                let mut before = record.clone();
                if record.ownership.generation <= floor
                    && let Some(defining) = record.ownership.defining(floor)
                {
                    before.ownership = defining;
                }
                if !is_said {
                    before.given.push(made_of.root.clone());
                }
                Ok(Change::Write(before))
            };
            record = self.records.change_domain(&name, before).await?;
        }
        let generation = record.ownership.generation;
        fault::before("up.defined");
        let mut defined = agent.define(&name, generation, archive.clone()).await;
        if matches!(&defined, Err(error) if missing_files(error).is_some()) {
            // One clone sends the files, those beside it find them there.
            let _one = self.host(&agent.name)?.uploads.lock().await;
            defined = agent.define(&name, generation, archive.clone()).await;
            if let Err(error) = &defined
                && let Some(missing) = missing_files(error)
            {
                self.upload(agent, &missing, None).await?;
                defined = agent.define(&name, generation, archive).await;
            }
        }
        defined.map_err(failed)?;
        fault::after("up.defined");
        if !is_other && record.given.is_empty() {
            return Ok(record);
        }
        let made_of = |record: &DomainRecord| {
            Ok(Change::Write(DomainRecord {
                made_of: Some(made_of.clone()),
                given: Vec::new(),
                ..record.clone()
            }))
        };
        self.records.change_domain(&name, made_of).await
    }
}

/// Whether a start alone may change that: what else it takes only `up` can make, or a person must say.
fn can_take(record: &DomainRecord, made_of: &MadeOf, now: &MadeOf) -> bool {
    // An initial RAM file system of its own has the modules of the kernel that it was made for.
    let other_kernel = made_of.own_initramfs && made_of.kernel != now.kernel;
    // What it has written lies over the root of before.
    let over_another = record.is_stateful() && made_of.root != now.root && !record.takes_any_root();
    // The command line says from where its root is mounted, and the initial RAM file system has what mounts it.
    let door = |made_of: &MadeOf| made_of.route.as_ref().map(|route| route.door);
    let other_line = made_of.is_live() != now.is_live() || door(made_of) != door(now);
    !other_kernel && !over_another && !other_line
}

/// The archive with another root, and other files that boot it; all else as it is.
fn described_anew(
    archive: &[u8],
    reference: &Reference,
    initramfs: &Digest,
) -> std::io::Result<Bytes> {
    let wrong = |error: String| std::io::Error::other(error);
    let mut from = tar::Archive::new(archive);
    let mut to = tar::Builder::new(Vec::new());
    for member in from.entries()? {
        let mut member = member?;
        let path = member.path()?.into_owned();
        let mut content = Vec::new();
        member.read_to_end(&mut content)?;
        if path.as_os_str() == CONFIG_FILE {
            let text = std::str::from_utf8(&content).map_err(|error| wrong(error.to_string()))?;
            let mut xml = DomainXml::parse(text).map_err(|error| wrong(error.to_string()))?;
            xml.kernel = reference.kernel.digest.clone();
            xml.initramfs = initramfs.clone();
            xml.root = clone_archive::root_disk(reference);
            xml.modules = DiskSource::File(reference.modules.digest.clone());
            // By the same door, perhaps from elsewhere.
            if xml.live.is_some() {
                xml.live.clone_from(&reference.route);
            }
            content = xml.to_xml().into_bytes();
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        to.append_data(&mut header, &path, &content[..])?;
    }
    to.into_inner().map(Bytes::from)
}
