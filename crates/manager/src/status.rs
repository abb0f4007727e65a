//! Orders to one domain: start, stop, pause, resume. The store is written before the agent is asked.

use crate::agents;
use crate::boot_watch::Asked;
use crate::event_log::About;
use crate::floor::believed;
use crate::manager::Manager;
use crate::migrate::refuse_moving;
use crate::records::{Change, DomainRecord};
use estive_api::Problem;
use estive_api::fault;
use estive_api::wire::{DomainReport, HerdDomain, StatusOrder};
use estive_model::{DomainName, DomainState, EventKind, Generation};
use estive_moves::{Entry, Holding, HostView, Wanted};
use std::sync::Arc;
use tokio::time::Instant;

/// A domain that runs.
pub(crate) struct Started {
    /// When its host was asked to start it; none when it ran already.
    pub ordered: Option<Instant>,
}

/// The longest that a guest is given to power off, in milliseconds.
const MAX_GRACE_MS: u64 = 150_000;

impl Manager {
    /// Brings a domain into a state on the host that owns it, and nowhere else.
    pub async fn order_status(
        self: &Arc<Self>,
        name: &DomainName,
        order: StatusOrder,
    ) -> Result<HerdDomain, Problem> {
        if order.generation.is_some() {
            return Err(Problem::invalid(
                "generations are granted by the manager; leave generation away",
            ));
        }
        if order.grace_ms > MAX_GRACE_MS {
            return Err(Problem::invalid(format!(
                "grace_ms is at most {MAX_GRACE_MS}"
            )));
        }
        if order.state == DomainState::Running {
            self.read_references().await;
        }
        let _one = self.domain_lock(name).await;
        let record = self.records.domain(name).await?;
        refuse_moving(&record)?;
        match order.state {
            DomainState::Running => {
                let asked = Instant::now();
                let started = self.start(&record).await?;
                // What a domain with images of its own does when it has booted is its own business.
                if let Some(ordered) = started.ordered
                    && record.is_clone()
                {
                    let asked = Asked { at: asked, ordered };
                    self.spawn(self.clone().watch_answers(name.clone(), asked));
                }
            }
            DomainState::Paused => {
                let agent = &self.host(&record.ownership.host)?.agent;
                agent.order(name, &order).await.map_err(|error| {
                    agents::problem(&agent.name, format!("pausing {name}"), &error)
                })?;
            }
            DomainState::Stopped => self.stop(&record, order.grace_ms).await?,
            other => {
                return Err(Problem::invalid(format!(
                    "a domain cannot be asked to be {other}; use running, paused or stopped"
                )));
            }
        }
        self.herd_domain_now(name).await
    }

    /// Runs a domain that is defined on its owner: a new generation is granted first. One that runs already is left
    /// as it is, a paused one goes on. Whoever calls holds the domain's lock.
    pub async fn start(&self, record: &DomainRecord) -> Result<Started, Problem> {
        let name = &record.name;
        let agent = &self.host(&record.ownership.host)?.agent;
        let failed = |error| agents::problem(&agent.name, format!("starting {name}"), &error);
        let report = agent.status(name).await.map_err(failed)?.ok_or_else(|| {
            Problem::impossible(format!("host {} holds nothing of {name}", agent.name))
                .advice(record.made_again_by())
        })?;
        refuse_doubt(&report)?;
        let running = |generation: Generation| StatusOrder {
            state: DomainState::Running,
            generation: Some(generation),
            grace_ms: 0,
        };
        match report.state {
            DomainState::Running => {
                self.want_running(record).await?;
                return Ok(Started { ordered: None });
            }
            DomainState::Paused => {
                self.want_running(record).await?;
                let held = match agents::view_of(&report) {
                    HostView::Says(entry, _) => entry.generation,
                    HostView::Silent => record.ownership.generation,
                };
                agent.order(name, &running(held)).await.map_err(failed)?;
                return Ok(Started { ordered: None });
            }
            DomainState::Saved => return Err(crate::saved::refuse(name)),
            _ => {}
        }
        let floor = match agents::view_of(&report) {
            HostView::Says(
                Entry {
                    holding: Holding::Absent,
                    ..
                },
                _,
            ) => {
                return Err(Problem::impossible(format!(
                    "host {} holds nothing of {name}",
                    agent.name
                ))
                .advice(record.made_again_by()));
            }
            HostView::Says(entry, _) => entry.floor,
            HostView::Silent => Generation(0),
        };
        let renewed = self.renew(record.clone(), agent, &report).await?;
        self.note_volume_root(&renewed).await?;
        let record = self.grant_run(&renewed, floor).await?;
        let generation = record.ownership.generation;
        fault::before("up.started");
        let ordered = Some(Instant::now());
        agent
            .order(name, &running(generation))
            .await
            .map_err(failed)?;
        fault::after("up.started");
        Ok(Started { ordered })
    }

    /// Write (1) of a start or a restore: a new generation for it on its owner, whose journal has this `floor`.
    pub(crate) async fn grant_run(
        &self,
        record: &DomainRecord,
        floor: Generation,
    ) -> Result<DomainRecord, Problem> {
        let name = &record.name;
        let record = self
            .records
            .change_domain(name, |record| {
                refuse_moving(record)?;
                let mut ownership = record.ownership.clone();
                // The agent may have been driven alone meanwhile.
                let floor = believed(floor, ownership.granted, name, &ownership.host)?;
                ownership.granted = ownership.granted.max(floor);
                let ownership = ownership
                    .starting()
                    .ok_or_else(|| Problem::impossible(format!("{name} is being moved")))?;
                Ok(Change::Write(DomainRecord {
                    ownership,
                    ..record.clone()
                }))
            })
            .await?;
        self.events.tell(
            EventKind::Started,
            About {
                generation: Some(record.ownership.generation),
                ..about(&record)
            },
            "asked for: generation granted".to_owned(),
        );
        let generation = record.ownership.generation;
        self.grant_volume(&record, generation, &record.ownership.host)
            .await?;
        self.let_read(&record).await?;
        Ok(record)
    }

    /// A stop that was asked for and never came to its host is taken back.
    async fn want_running(&self, record: &DomainRecord) -> Result<(), Problem> {
        if record.wants_to_run() {
            return Ok(());
        }
        let wanted = |record: &DomainRecord| {
            let mut wanted = record.clone();
            wanted.ownership.wanted = Wanted::Running;
            Ok(Change::Write(wanted))
        };
        self.records.change_domain(&record.name, wanted).await?;
        Ok(())
    }

    /// Stops a domain on its owner. Whoever calls holds the domain's lock.
    pub async fn stop(&self, record: &DomainRecord, grace_ms: u64) -> Result<(), Problem> {
        let name = &record.name;
        let agent = &self.host(&record.ownership.host)?.agent;
        let failed = |error| agents::problem(&agent.name, format!("stopping {name}"), &error);
        // A silent host changes nothing, not even what is wanted.
        let Some(report) = agent.status(name).await.map_err(failed)? else {
            return Ok(());
        };
        // Nor does one that has lost its journal.
        refuse_doubt(&report)?;
        // What was saved stays, and is no more to run.
        let wanted = match agents::view_of(&report) {
            HostView::Says(entry, _) => match entry.holding {
                Holding::Saved => return self.want(record, Wanted::Saved).await,
                Holding::Restoring => Wanted::Saved,
                _ => Wanted::Stopped,
            },
            HostView::Silent => Wanted::Stopped,
        };
        fault::before("stop.asked");
        let record = self
            .records
            .change_domain(name, |record| {
                refuse_moving(record)?;
                let mut stopped = record.clone();
                stopped.ownership.wanted = wanted;
                Ok(Change::Write(stopped))
            })
            .await?;
        self.events
            .tell(EventKind::Stopped, about(&record), "asked for".to_owned());
        let order = StatusOrder {
            state: DomainState::Stopped,
            generation: None,
            grace_ms,
        };
        agent.order(name, &order).await.map_err(failed)?;
        fault::after("stop.asked");
        Ok(())
    }
}

/// Nothing is ordered, nor written, on the strength of a journal that cannot be believed.
pub(crate) fn refuse_doubt(report: &DomainReport) -> Result<(), Problem> {
    match &report.journal.doubt {
        Some(doubt) => Err(Problem::impossible(doubt.clone())),
        None => Ok(()),
    }
}

fn about(record: &DomainRecord) -> About {
    About {
        domain: Some(record.name.clone()),
        host: Some(record.ownership.host.clone()),
        ..About::default()
    }
}
