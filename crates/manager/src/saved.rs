//! Saving a domain's memory on its host, and going on from there. The store is written before the agent is asked.

use crate::agents::{self, Agent};
use crate::manager::Manager;
use crate::migrate::refuse_moving;
use crate::records::{Change, DomainRecord};
use crate::status::refuse_doubt;
use estive_api::wire::HerdDomain;
use estive_api::{Problem, fault};
use estive_model::DomainName;
use estive_moves::{Entry, Holding, HostView, Seen, Wanted};
use std::sync::Arc;

/// To start one that is saved would make its memory worthless.
pub(crate) fn refuse(name: &DomainName) -> Problem {
    Problem::impossible(format!(
        "{name} is saved: it does not run, and its memory waits on its host"
    ))
    .advice(format!(
        "go on from it by estive restore {name}, or drop it by estive save {name} --drop and start it then"
    ))
}

impl Manager {
    /// Has its host write its memory to disk and end it.
    pub async fn order_save(self: &Arc<Self>, name: &DomainName) -> Result<HerdDomain, Problem> {
        let _one = self.domain_lock(name).await;
        let record = self.records.domain(name).await?;
        refuse_moving(&record)?;
        let agent = &self.host(&record.ownership.host)?.agent;
        let (entry, seen) = held(agent, name, "saving").await?;
        match (entry.holding, seen) {
            (Holding::Saved, _) => {
                self.want(&record, Wanted::Saved).await?;
                return self.herd_domain_now(name).await;
            }
            (Holding::Running, Seen::Running) => {}
            _ => {
                return Err(Problem::impossible(format!(
                    "{name} does not run on {}; only a running domain can be saved",
                    agent.name
                ))
                .advice(format!("estive show {name}, to see why it does not run")));
            }
        }
        fault::before("save.asked");
        self.want(&record, Wanted::Saved).await?;
        let saved = agent.save(name, entry.generation).await;
        fault::after("save.asked");
        if let Err(error) = saved {
            // It answered, so it runs on. One that is silent may be at it still.
            if !agents::is_silence(&error) {
                self.want(&record, record.ownership.wanted).await?;
            }
            return Err(agents::problem(
                &agent.name,
                format!("saving {name}"),
                &error,
            ));
        }
        self.herd_domain_now(name).await
    }

    /// Has a saved domain go on.
    pub async fn order_restore(self: &Arc<Self>, name: &DomainName) -> Result<HerdDomain, Problem> {
        let _one = self.domain_lock(name).await;
        let record = self.records.domain(name).await?;
        if !self.go_on_if_saved(&record).await? {
            return Err(
                Problem::impossible(format!("nothing is saved of {name} on its host"))
                    .advice(format!("estive show {name}; estive start {name} boots it")),
            );
        }
        self.herd_domain_now(name).await
    }

    /// Whether it was saved and goes on. Whoever calls holds the domain's lock.
    pub async fn go_on_if_saved(&self, record: &DomainRecord) -> Result<bool, Problem> {
        refuse_moving(record)?;
        let name = &record.name;
        let agent = &self.host(&record.ownership.host)?.agent;
        let (entry, _) = held(agent, name, "restoring").await?;
        if !matches!(entry.holding, Holding::Saved | Holding::Restoring) {
            return Ok(false);
        }
        let record = self.grant_run(record, entry.floor).await?;
        fault::before("restore.asked");
        let restored = agent.restore(name, record.ownership.generation).await;
        fault::after("restore.asked");
        let Err(error) = restored else {
            return Ok(true);
        };
        // It answered, so it is saved as before, and nobody wants it to run. One that is silent may be at it still.
        if !agents::is_silence(&error)
            && let Ok((entry, _)) = held(agent, name, "asking for").await
            && entry.holding == Holding::Saved
        {
            self.want(&record, Wanted::Saved).await?;
        }
        Err(agents::problem(
            &agent.name,
            format!("restoring {name}"),
            &error,
        ))
    }

    /// Has what was saved dropped: the domain is stopped.
    pub async fn drop_saved(self: &Arc<Self>, name: &DomainName) -> Result<HerdDomain, Problem> {
        let _one = self.domain_lock(name).await;
        let record = self.records.domain(name).await?;
        refuse_moving(&record)?;
        let agent = &self.host(&record.ownership.host)?.agent;
        let (entry, _) = held(agent, name, "asking for").await?;
        if !matches!(entry.holding, Holding::Saved | Holding::Stopped) {
            return Err(Problem::impossible(format!(
                "nothing is saved of {name} on {}",
                agent.name
            )));
        }
        // One that was only stopped is wanted as it was.
        if entry.holding == Holding::Saved || record.ownership.wanted == Wanted::Saved {
            self.want(&record, Wanted::Stopped).await?;
        }
        let dropped = agent.drop_saved(name).await;
        dropped.map_err(|error| {
            agents::problem(
                &agent.name,
                format!("dropping what was saved of {name}"),
                &error,
            )
        })?;
        self.herd_domain_now(name).await
    }

    pub(crate) async fn want(&self, record: &DomainRecord, wanted: Wanted) -> Result<(), Problem> {
        let change = |record: &DomainRecord| {
            refuse_moving(record)?;
            let mut changed = record.clone();
            changed.ownership.wanted = wanted;
            Ok(Change::Write(changed))
        };
        self.records.change_domain(&record.name, change).await?;
        Ok(())
    }
}

/// What the owner holds of it, and sees.
async fn held(agent: &Agent, name: &DomainName, doing: &str) -> Result<(Entry, Seen), Problem> {
    let said = agent.status(name).await;
    let said =
        said.map_err(|error| agents::problem(&agent.name, format!("{doing} {name}"), &error))?;
    if let Some(report) = &said {
        refuse_doubt(report)?;
    }
    match said.as_ref().map(agents::view_of) {
        Some(HostView::Says(entry, seen)) => Ok((entry, seen)),
        _ => Err(Problem::impossible(format!(
            "host {} holds nothing of {name} that can be told",
            agent.name
        ))
        .advice(format!("estive show {name}"))),
    }
}
