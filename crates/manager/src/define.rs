//! Domains of no herd: described by their owner, with disks in image files of their own. A person says on which host; from
//! there on they are started, stopped, moved, saved and shown as clones are.

use crate::agents;
use crate::floor::believed;
use crate::manager::Manager;
use crate::migrate::refuse_moving;
use crate::placement::{self, Wish};
use crate::records::{Change, DomainRecord, DomainRow};
use crate::status::refuse_doubt;
use bytes::Bytes;
use estive_api::domain_xml::{Description, ImagesXml};
use estive_api::wire::HerdDomain;
use estive_api::{Problem, fault};
use estive_model::{DomainName, Generation, HostName};
use estive_moves::{Entry, Holding, HostView, Ownership, Wanted};
use std::sync::Arc;

impl Manager {
    /// Has a host hold a domain, stopped; one that is stopped there already is made anew of the description. The record is
    /// written before the host is asked.
    pub async fn define_images(
        self: &Arc<Self>,
        name: &DomainName,
        host: Option<HostName>,
        description: Bytes,
    ) -> Result<HerdDomain, Problem> {
        let xml = read(name, &description)?;
        let _one = self.domain_lock(name).await;
        let former = self.records.find_domain(name).await?;
        let record = match &former {
            Some(record) => self.record_anew(record, host, &xml).await?,
            None => self.record_defined(host, &xml).await?,
        };
        let agent = &self.host(&record.ownership.host)?.agent;
        let generation = record.ownership.generation;
        fault::before("define.asked");
        let defined = agent.define(name, generation, description).await;
        fault::after("define.asked");
        if let Err(error) = defined {
            // It answered, so it holds what it held. Else it may have it by now.
            if error.problem().is_some() {
                self.unrecord(&record, former).await?;
            }
            let mut problem = agents::problem(&agent.name, format!("defining {name}"), &error);
            // What the host's operator does not allow is refused to whoever asks.
            if let Some(said) = error.problem() {
                problem.kind = said.kind;
            }
            return Err(problem);
        }
        self.herd_domain_now(name).await
    }

    /// Removes one that was defined so; its images stay.
    pub async fn delete(&self, name: &DomainName) -> Result<(), Problem> {
        let _one = self.domain_lock(name).await;
        let record = self.records.domain(name).await?;
        refuse_clone(&record, "removed")?;
        refuse_moving(&record)?;
        let agent = &self.host(&record.ownership.host)?.agent;
        let said = agent.status(name).await;
        let said =
            said.map_err(|error| agents::problem(&agent.name, format!("removing {name}"), &error))?;
        if let Some(report) = &said {
            refuse_doubt(report)?;
            if let HostView::Says(entry, _) = agents::view_of(report)
                && !matches!(
                    entry.holding,
                    Holding::Stopped | Holding::Saved | Holding::Absent
                )
            {
                return Err(Problem::impossible(format!(
                    "{name} is {} on {}; only a stopped domain is removed",
                    report.state, agent.name
                ))
                .advice(format!("estive stop {name}")));
            }
        }
        self.remove_locked(name).await
    }

    /// Of a domain that is new: the host is the person's choice, as nobody else knows where its images are.
    async fn record_defined(
        &self,
        host: Option<HostName>,
        xml: &ImagesXml,
    ) -> Result<DomainRecord, Problem> {
        let name = &xml.name;
        let host = host.ok_or_else(|| {
            Problem::impossible(format!("on which host {name} has its images is not said"))
                .advice("--host HOST; estive hosts shows those there are")
        })?;
        self.ask(self.host(&host)?).await;
        let _placing = self.placing.lock().await;
        let wish = Wish {
            domain: name.clone(),
            memory_mib: xml.memory_mib,
            cpus: xml.cpus,
            pinned: Some(host.clone()),
        };
        placement::place(&[wish], &self.spaces().await?)?;
        let floor = self.floor_there(name, &host).await?;
        fault::before("define.recorded");
        let row = self
            .records
            .change_row(name, |row| {
                if let Some(DomainRow::Live(record)) = &row {
                    return Err(Problem::impossible(format!(
                        "there is a domain {name} by now, {}",
                        record.of_whom()
                    )));
                }
                let granted = row.map_or(Generation(0), |row| row.granted());
                let granted = granted.max(believed(floor, granted, name, &host)?).next();
                Ok(Change::Write(DomainRow::Live(Box::new(DomainRecord {
                    name: name.clone(),
                    deployment: None,
                    memory_mib: xml.memory_mib,
                    cpus: xml.cpus,
                    address: String::new(),
                    reference: String::new(),
                    words: Some(Vec::new()),
                    made_of: None,
                    given: Vec::new(),
                    volume: Some(false),
                    groups: Vec::new(),
                    checks: Vec::new(),
                    post_copy_allowed: false,
                    ownership: Ownership {
                        host: host.clone(),
                        generation: granted,
                        granted,
                        wanted: Wanted::Stopped,
                        moving: None,
                    },
                    move_order: None,
                }))))
            })
            .await?;
        fault::after("define.recorded");
        row.and_then(DomainRow::live)
            .ok_or_else(|| Problem::failed("the store has lost the record that was just written"))
    }

    /// Of one that is there: on its host, where it must not run.
    async fn record_anew(
        &self,
        record: &DomainRecord,
        host: Option<HostName>,
        xml: &ImagesXml,
    ) -> Result<DomainRecord, Problem> {
        let name = &record.name;
        refuse_clone(record, "defined")?;
        refuse_moving(record)?;
        let owner = &record.ownership.host;
        if host.is_some_and(|host| host != *owner) {
            return Err(Problem::impossible(format!("{name} is on {owner} already"))
                .advice("leave --host away to have it there made anew; estive migrate moves it while it runs"));
        }
        let agent = &self.host(owner)?.agent;
        let said = agent.status(name).await;
        let said =
            said.map_err(|error| agents::problem(owner, format!("defining {name}"), &error))?;
        if let Some(report) = &said {
            refuse_doubt(report)?;
        }
        let floor = match said.as_ref().map(agents::view_of) {
            None => Generation(0),
            Some(HostView::Says(
                Entry {
                    holding: Holding::Stopped | Holding::Absent,
                    floor,
                    ..
                },
                _,
            )) => floor,
            Some(_) => {
                return Err(Problem::impossible(format!(
                    "{name} is not stopped on {owner}: it is defined anew only then"
                ))
                .advice(format!("estive stop {name}")));
            }
        };
        let _placing = self.placing.lock().await;
        let mut spaces = self.spaces().await?;
        for space in &mut spaces {
            // What it has by now is its own.
            if space.host == *owner
                && let Some(free_mib) = &mut space.free_memory_mib
            {
                *free_mib += record.memory_mib;
            }
        }
        let wish = Wish {
            domain: name.clone(),
            memory_mib: xml.memory_mib,
            cpus: xml.cpus,
            pinned: Some(owner.clone()),
        };
        placement::place(&[wish], &spaces)?;
        self.records
            .change_domain(name, |record| {
                refuse_moving(record)?;
                let ownership = &record.ownership;
                let floor = believed(floor, ownership.granted, name, &ownership.host)?;
                let ownership = ownership
                    .defining(floor)
                    .ok_or_else(|| Problem::impossible(format!("{name} is being moved")))?;
                Ok(Change::Write(DomainRecord {
                    memory_mib: xml.memory_mib,
                    cpus: xml.cpus,
                    ownership,
                    ..record.clone()
                }))
            })
            .await
    }

    /// Its host has refused it: a new one is not there, another is as it was. What was granted stays granted.
    async fn unrecord(
        &self,
        record: &DomainRecord,
        former: Option<DomainRecord>,
    ) -> Result<(), Problem> {
        let Some(former) = former else {
            return self.records.retire(&record.name).await;
        };
        let back = |now: &DomainRecord| {
            Ok(Change::Write(DomainRecord {
                memory_mib: former.memory_mib,
                cpus: former.cpus,
                ..now.clone()
            }))
        };
        self.records.change_domain(&record.name, back).await?;
        Ok(())
    }
}

/// The description must be of this domain, and not of a clone.
fn read(name: &DomainName, description: &[u8]) -> Result<ImagesXml, Problem> {
    let text = std::str::from_utf8(description)
        .map_err(|error| Problem::invalid(format!("the description is not UTF-8: {error}")))?;
    let read = Description::parse(text).map_err(|error| {
        Problem::invalid(error.to_string())
            .details(serde_json::json!({"line": error.line, "column": error.column}))
    })?;
    match read {
        Description::Images(xml) if xml.name == *name => Ok(xml),
        Description::Images(xml) => Err(Problem::invalid(format!(
            "the description is of {}, not of {name}",
            xml.name
        ))),
        Description::Clone(_) => Err(Problem::impossible(format!(
            "{name} is described as a clone, and clones come from a herd's folder"
        ))
        .advice("estive up DIR")),
    }
}

/// What a herd has belongs to its folder.
fn refuse_clone(record: &DomainRecord, done: &str) -> Result<(), Problem> {
    match &record.deployment {
        None => Ok(()),
        Some(deployment) => Err(Problem::impossible(format!(
            "{} is a clone {}: it is not {done} by itself",
            record.name,
            record.of_whom()
        ))
        .advice(format!(
            "estive up, with its herd's folder; or estive down {deployment}"
        ))),
    }
}
