//! `up`: from a herd's folder to clones that answer. Every clone's record is written before anything of it is made;
//! when one fails, everything this `up` has made is taken down again, but for what others have moved, started or stopped
//! meanwhile. A `down` ends it, and takes down what it has made.

use crate::agents::{self, Agent};
use crate::boot_watch::{Asked, Awaited};
use crate::event_log::About;
use crate::herd_clones::Prepared;
use crate::made_of::Older;
use crate::manager::{Doing, Manager, lock};
use crate::records::{Change, DomainRecord};
use crate::take_back::Ours;
use bytes::Bytes;
use estive_api::Problem;
use estive_api::wire::{Placement, UpLine, UpRow};
use estive_model::{DeploymentName, DomainName, EventKind, Generation, HostName};
use estive_moves::{Entry, Holding, HostView};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What one `up` shares between its clones.
pub(crate) struct Telling {
    pub lines: mpsc::Sender<UpLine>,
    /// Another clone has failed, or the deployment is taken down: stop waiting.
    pub given_up: CancellationToken,
    pub ours: Ours,
    /// Those that go on with what their reference had before.
    pub older: Mutex<Older>,
}

/// Why an `up` did not come to its end.
pub(crate) enum Unfinished {
    /// Something went wrong.
    Failed(Problem),
    /// Somebody else has stopped clones meanwhile; nothing is wrong with the others.
    Stopped(Problem),
}

impl From<Problem> for Unfinished {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl Telling {
    /// Whoever asked may be gone, or read no more; the work goes on.
    pub fn step(&self, domain: &DomainName, step: &str, after_ms: u64) {
        let line = UpLine::Step {
            domain: domain.clone(),
            step: step.to_owned(),
            after_ms,
        };
        let _ = self.lines.try_send(line);
    }

    /// An error once nobody waits for the clones any more.
    fn go_on(&self) -> Result<(), Problem> {
        match self.given_up.is_cancelled() {
            true => Err(self.ended()),
            false => Ok(()),
        }
    }

    pub fn ended(&self) -> Problem {
        Problem::failed("given up, since another clone failed")
    }
}

impl Manager {
    /// Brings a deployment up, telling each step; ends with `Done` or `Failed`.
    pub async fn up(
        self: Arc<Self>,
        name: DeploymentName,
        folder: Bytes,
        lines: mpsc::Sender<UpLine>,
    ) {
        let line = match self.bring_up(&name, folder, &lines).await {
            Ok(clones) => {
                let reason = format!("{name} is up: {} clones answer", clones.len());
                self.events
                    .tell(EventKind::Deployment, About::default(), reason);
                UpLine::Done { clones }
            }
            Err(problem) => {
                let reason = format!("{name} could not be brought up: {}", problem.error);
                self.events
                    .tell(EventKind::Deployment, About::default(), reason);
                UpLine::Failed { problem }
            }
        };
        let _ = lines.send(line).await;
    }

    async fn bring_up(
        self: &Arc<Self>,
        name: &DeploymentName,
        folder: Bytes,
        lines: &mpsc::Sender<UpLine>,
    ) -> Result<Vec<UpRow>, Problem> {
        let result = self.bring_up_clones(name, folder, lines).await;
        self.forget_initramfs().await;
        result
    }

    async fn bring_up_clones(
        self: &Arc<Self>,
        name: &DeploymentName,
        folder: Bytes,
        lines: &mpsc::Sender<UpLine>,
    ) -> Result<Vec<UpRow>, Problem> {
        let busy = self.occupy(name, Doing::Up)?;
        let _making = self.making_initramfs.read().await;
        let ended = || {
            Problem::failed(format!(
                "{name} is being taken down, so it is not brought up"
            ))
        };
        let preparing = async {
            self.read_references().await;
            self.prepare_clones(name, folder).await
        };
        let (prepared, warnings) = tokio::select! {
            prepared = preparing => prepared?,
            () = busy.given_up.cancelled() => return Err(ended()),
        };
        for text in warnings.lines() {
            busy.say(lines, UpLine::Warning { text }).await;
        }
        let used: BTreeSet<&String> = prepared.iter().map(|clone| &clone.plan.reference).collect();
        for trouble in used
            .into_iter()
            .filter_map(|name| self.references.trouble(name))
        {
            let text = format!("{}; it stays as it was", trouble.error);
            busy.say(lines, UpLine::Warning { text }).await;
        }
        self.ask_all().await;
        self.refuse_other_roots(name, &prepared).await?;

        let ours = Ours::default();
        let mut made = Vec::new();
        let placed = self.record_clones(name, &prepared, &mut made).await;
        let result = match placed {
            Ok(placements) => {
                let line = UpLine::Planned {
                    placements: placements.clone(),
                };
                busy.say(lines, line).await;
                let plans = prepared.iter().map(|clone| &clone.plan);
                for text in self.volumes_of_other_sizes(plans).await {
                    busy.say(lines, UpLine::Warning { text }).await;
                }
                let telling = Arc::new(Telling {
                    lines: lines.clone(),
                    given_up: busy.given_up.child_token(),
                    ours: ours.clone(),
                    older: Mutex::default(),
                });
                let brought = self.bring_clones(prepared, placements, &telling).await;
                let older = lock(&telling.older).lines();
                for text in older {
                    busy.say(lines, UpLine::Warning { text }).await;
                }
                brought
            }
            Err(problem) => Err(Unfinished::Failed(problem)),
        };
        match result {
            Ok(rows) => Ok(rows),
            // Whoever takes it down takes what is there.
            Err(_) if busy.given_up.is_cancelled() => Err(ended()),
            Err(Unfinished::Stopped(problem)) => Err(problem),
            Err(Unfinished::Failed(problem)) => {
                Err(self.take_back(name, made, &ours, problem).await)
            }
        }
    }

    /// All clones at once; the first that fails stops the waiting for the others, one that somebody has stopped does not.
    async fn bring_clones(
        self: &Arc<Self>,
        prepared: Vec<Prepared>,
        placements: Vec<Placement>,
        telling: &Arc<Telling>,
    ) -> Result<Vec<UpRow>, Unfinished> {
        let mut work = JoinSet::new();
        for clone in prepared {
            let Some(placement) = placements
                .iter()
                .find(|placement| placement.domain == clone.plan.name)
            else {
                continue;
            };
            let (manager, telling, host) = (self.clone(), telling.clone(), placement.host.clone());
            work.spawn(async move { manager.bring_clone(&clone, &host, &telling).await });
        }
        let mut rows = Vec::new();
        let mut failed: Option<Problem> = None;
        let mut stopped: Vec<String> = Vec::new();
        while let Some(done) = work.join_next().await {
            match done.unwrap_or_else(|error| {
                Err(Unfinished::Failed(Problem::failed(format!(
                    "a part of the manager failed: {error}"
                ))))
            }) {
                Ok(row) => rows.push(row),
                Err(Unfinished::Stopped(problem)) => stopped.push(problem.error),
                Err(Unfinished::Failed(problem)) => {
                    telling.given_up.cancel();
                    failed.get_or_insert(problem);
                }
            }
        }
        if let Some(problem) = failed {
            return Err(Unfinished::Failed(problem));
        }
        if !stopped.is_empty() {
            stopped.sort();
            let others = match rows.is_empty() {
                true => "",
                false => ", and the other clones answer",
            };
            let problem = Problem::failed(format!(
                "{}; nothing was taken back{others}",
                stopped.join("; ")
            ));
            return Err(Unfinished::Stopped(problem.advice(
                "estive ls; estive up again starts what is stopped or paused",
            )));
        }
        rows.sort_by(|a, b| a.domain.cmp(&b.domain));
        Ok(rows)
    }

    async fn bring_clone(
        &self,
        clone: &Prepared,
        host: &HostName,
        telling: &Telling,
    ) -> Result<UpRow, Unfinished> {
        let name = &clone.plan.name;
        let one = self.domain_lock(name).await;
        let begun = self.begin_clone(clone, host, telling).await;
        // However that went: what becomes of it from here on is what others do.
        let record = self.records.domain(name).await;
        if let Ok(record) = &record {
            telling.ours.leave(name, record.ownership.generation);
        }
        drop(one);
        let (asked, generation) = (begun?, record?.ownership.generation);
        let awaited = Awaited {
            name: name.clone(),
            address: clone.plan.address,
            checks: clone.checks.clone(),
        };
        self.await_answers(&awaited, asked, generation, telling)
            .await
    }

    /// Has its host make and run it; says when that was asked, unless it ran already. Whoever calls holds the domain's
    /// lock.
    async fn begin_clone(
        &self,
        clone: &Prepared,
        host: &HostName,
        telling: &Telling,
    ) -> Result<Option<Asked>, Problem> {
        let name = &clone.plan.name;
        let agent = &self.host(host)?.agent;
        let begun = Instant::now();
        let record = self.records.domain(name).await?;
        crate::migrate::refuse_moving(&record)?;
        telling.go_on()?;
        let record = self.define(clone, agent, record, telling).await?;
        telling.step(name, "defined", ms_since(begun));
        telling.go_on()?;
        let asked = Instant::now();
        // One that was saved goes on, and does not boot.
        if self.go_on_if_saved(&record).await? {
            telling.step(name, "restored", ms_since(asked));
            return Ok(None);
        }
        // Of one that runs it records no more than that it is to; one that was paused goes on, and does not boot.
        let Some(ordered) = self.start(&record).await?.ordered else {
            return Ok(None);
        };
        telling.step(name, "started", ms_since(asked));
        Ok(Some(Asked { at: asked, ordered }))
    }

    /// Sends the clone's archive, unless its host holds it already. One that is stopped, and of which the reference has
    /// something else by now, is made of that.
    async fn define(
        &self,
        clone: &Prepared,
        agent: &Agent,
        record: DomainRecord,
        telling: &Telling,
    ) -> Result<DomainRecord, Problem> {
        let name = &clone.plan.name;
        let failed = |error| agents::problem(&agent.name, format!("sending {name}"), &error);
        // Of one that was recorded before this was known, nothing is said.
        let older = record.made_of.as_ref();
        let older = older.map_or(Vec::new(), |made_of| made_of.older_than(&clone.made_of));
        let floor = match agent
            .status(name)
            .await
            .map_err(failed)?
            .as_ref()
            .map(agents::view_of)
        {
            None => Generation(0),
            Some(HostView::Says(
                Entry {
                    holding: Holding::Absent,
                    floor,
                    ..
                },
                _,
            )) => floor,
            Some(HostView::Says(
                Entry {
                    holding: Holding::Stopped,
                    floor,
                    ..
                },
                _,
            )) if !older.is_empty() || !record.given.is_empty() => floor,
            Some(_) => {
                if !older.is_empty() {
                    lock(&telling.older).note(name, &record.reference, older);
                }
                return Ok(record);
            }
        };
        // Of one that was recorded before this was, it is found out here.
        let record = self.note_volume(record, clone).await?;
        let (archive, made_of) = (clone.archive.clone(), &clone.made_of);
        self.give(agent, record, floor, archive, made_of).await
    }

    async fn note_volume(
        &self,
        record: DomainRecord,
        clone: &Prepared,
    ) -> Result<DomainRecord, Problem> {
        let volume = Some(clone.plan.volume_bytes.is_some());
        if record.volume == volume {
            return Ok(record);
        }
        let noted = |record: &DomainRecord| {
            let mut noted = record.clone();
            noted.volume = volume;
            Ok(Change::Write(noted))
        };
        self.records.change_domain(&record.name, noted).await
    }
}

pub(crate) fn ms_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
