//! `up`: from a herd's folder to clones that answer. Every clone's record is written before anything of it is made;
//! when one fails, everything this `up` has made is taken down again, but for what others have moved, started or stopped
//! meanwhile. A `down` ends it, and takes down what it has made.

use crate::agents::{self, Agent};
use crate::boot_watch::{Asked, Awaited};
use crate::clone_archive;
use crate::early::Made;
use crate::event_log::About;
use crate::herd_checks::{check_address, check_same, checks_of, words_of};
use crate::herd_folder;
use crate::herd_layers::LayerMaker;
use crate::manager::{Doing, Manager};
use crate::migrate::missing_files;
use crate::placement::{self, Wish};
use crate::records::{Change, DeploymentRecord, DomainRecord, DomainRow};
use crate::reference::Reference;
use crate::status::refuse_doubt;
use crate::take_back::Ours;
use bytes::Bytes;
use estive_api::Problem;
use estive_api::fault;
use estive_api::wire::{Placement, UpLine, UpRow};
use estive_layers::{ClonePlan, DeploymentSecret, HERD_FILE, HerdWarnings, RenderedHerd, UpCheck};
use estive_model::{DeploymentName, DomainName, EventKind, Generation, HostName};
use estive_moves::{Entry, Holding, HostView, Ownership, Wanted};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A clone as it is to be, ready to be sent.
pub(crate) struct Prepared {
    pub plan: ClonePlan,
    pub checks: Vec<UpCheck>,
    pub archive: Bytes,
}

/// A herd's clones and their layers, in one order.
pub(crate) struct RenderedClones {
    pub clones: Vec<(ClonePlan, Reference, Vec<UpCheck>)>,
    pub herd: RenderedHerd,
    pub warnings: HerdWarnings,
}

/// What one `up` shares between its clones.
pub(crate) struct Telling {
    pub lines: mpsc::Sender<UpLine>,
    /// Another clone has failed, or the deployment is taken down: stop waiting.
    pub given_up: CancellationToken,
    pub ours: Ours,
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
        let busy = self.occupy(name, Doing::Up)?;
        let ended = || {
            Problem::failed(format!(
                "{name} is being taken down, so it is not brought up"
            ))
        };
        let (prepared, warnings) = tokio::select! {
            prepared = self.prepare_clones(name, folder) => prepared?,
            () = busy.given_up.cancelled() => return Err(ended()),
        };
        for text in warnings.lines() {
            busy.say(lines, UpLine::Warning { text }).await;
        }
        self.ask_all().await;

        let ours = Ours::default();
        let mut made = Vec::new();
        let placed = self.record_clones(name, &prepared, &mut made).await;
        let result = match placed {
            Ok(placements) => {
                let line = UpLine::Planned {
                    placements: placements.clone(),
                };
                busy.say(lines, line).await;
                let telling = Arc::new(Telling {
                    lines: lines.clone(),
                    given_up: busy.given_up.child_token(),
                    ours: ours.clone(),
                });
                self.bring_clones(prepared, placements, &telling).await
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

    /// Layers and archives of all clones; nothing is changed anywhere but the deployment's secret.
    async fn prepare_clones(
        &self,
        name: &DeploymentName,
        folder: Bytes,
    ) -> Result<(Vec<Prepared>, HerdWarnings), Problem> {
        let rendered = self.render_clones(name, folder).await?;
        let (name, state) = (name.clone(), self.state.clone());
        blocking(move || {
            let mut made = Made::default();
            let RenderedClones {
                clones,
                herd,
                warnings,
            } = rendered;
            let prepared: Result<Vec<Prepared>, Problem> = clones
                .into_iter()
                .zip(&herd.layers)
                .map(|((plan, reference, checks), layer)| {
                    let layer = herd.layer(layer).map(|layer| layer.bytes);
                    let layer = layer.unwrap_or_default();
                    let initramfs = made.initramfs(&plan, &reference, &state)?;
                    let archive =
                        clone_archive::pack(&name, &plan, &reference, &initramfs, &layer)?;
                    Ok(Prepared {
                        plan,
                        checks,
                        archive,
                    })
                })
                .collect();
            Ok((prepared?, warnings))
        })
        .await
    }

    /// The layers of all clones of a herd's folder; nothing is changed anywhere but the deployment's secret.
    pub(crate) async fn render_clones(
        &self,
        name: &DeploymentName,
        folder: Bytes,
    ) -> Result<RenderedClones, Problem> {
        let default_name = name.clone();
        // A clone that is there keeps its address, whoever comes to the herd.
        let domains = self.records.domains_of(name).await?;
        let addresses: BTreeMap<String, Ipv4Addr> = domains
            .iter()
            .filter_map(|record| Some((record.name.to_string(), record.address.parse().ok()?)))
            .collect();
        let (sets, mut plan) = blocking(move || {
            let folder = herd_folder::read(&folder)?;
            let (text, default) = (&folder.herd_file, default_name.as_str());
            let plan = estive_layers::herd::parse_knowing(HERD_FILE, text, default, &addresses)
                .map_err(|error| {
                    Problem::impossible(error.to_string()).advice("correct the herd file")
                })?;
            Ok((folder.sets, plan))
        })
        .await?;
        // Whatever the file calls itself: this is the name that `down` will be given.
        plan.deployment = name.clone();
        let mut clones = Vec::new();
        for clone in &mut plan.clones {
            let reference = self.references.get(&clone.reference).ok_or_else(|| {
                let known: Vec<&str> = self.references.keys().map(String::as_str).collect();
                Problem::impossible(format!(
                    "{} is to be made from the reference {:?}, and there is none of that name; there are {}: {}",
                    clone.name,
                    clone.reference,
                    known.len(),
                    known.join(", ")
                ))
                .advice("correct reference: in the herd file, or references: in the manager's configuration")
            })?;
            if clone.sets.is_empty() {
                clone.sets = reference.sets.clone();
            }
            let checks = checks_of(clone, &clone.sets);
            clones.push((clone.clone(), reference.clone(), checks));
        }
        let secret = self.secret(name).await?;
        let maker = LayerMaker::of(self);
        blocking(move || {
            let (herd, warnings) = maker.render(&plan, &sets, &secret)?;
            Ok(RenderedClones {
                clones,
                herd,
                warnings,
            })
        })
        .await
    }

    /// The deployment's secret, made at its first `up`.
    pub async fn secret(&self, name: &DeploymentName) -> Result<DeploymentSecret, Problem> {
        let fresh = DeploymentSecret::new(crate::random_bytes()).to_hex();
        let record = self
            .records
            .change_deployment(name, |known| {
                Ok(match known {
                    Some(_) => Change::Keep,
                    None => Change::Write(DeploymentRecord {
                        name: name.clone(),
                        secret: fresh.clone(),
                    }),
                })
            })
            .await?;
        record
            .and_then(|record| DeploymentSecret::from_hex(&record.secret))
            .ok_or_else(|| {
                Problem::failed(format!(
                    "the secret of {name} in the manager's store is damaged"
                ))
            })
    }

    /// Places the clones that are new and writes their records; their names go to `made`, also when it fails.
    async fn record_clones(
        &self,
        name: &DeploymentName,
        prepared: &[Prepared],
        made: &mut Vec<DomainName>,
    ) -> Result<Vec<Placement>, Problem> {
        let _placing = self.placing.lock().await;
        let known: BTreeMap<DomainName, DomainRecord> = self
            .records
            .domains()
            .await?
            .into_iter()
            .map(|record| (record.name.clone(), record))
            .collect();
        let mut placements = Vec::new();
        let mut wishes = Vec::new();
        for clone in prepared {
            let plan = &clone.plan;
            match known.get(&plan.name) {
                Some(record) => {
                    check_same(name, plan, record)?;
                    placements.push(Placement {
                        domain: plan.name.clone(),
                        host: record.ownership.host.clone(),
                        reason: "it is there already".to_owned(),
                    });
                }
                None => {
                    check_address(plan, known.values())?;
                    wishes.push(Wish {
                        domain: plan.name.clone(),
                        memory_mib: plan.memory_mib,
                        pinned: plan.host.clone(),
                    });
                }
            }
        }
        let placed = placement::place(&wishes, &self.spaces().await?)?;
        for placement in &placed {
            let Some(clone) = prepared
                .iter()
                .find(|clone| clone.plan.name == placement.domain)
            else {
                continue;
            };
            let floor = self.floor_there(&placement.domain, &placement.host).await?;
            fault::before("up.recorded");
            self.record_clone(name, clone, &placement.host, floor)
                .await?;
            fault::after("up.recorded");
            made.push(placement.domain.clone());
        }
        placements.extend(placed);
        placements.sort_by(|a, b| a.domain.cmp(&b.domain));
        Ok(placements)
    }

    /// What the host's journal remembers of earlier domains of that name; it must not hold one now.
    async fn floor_there(
        &self,
        domain: &DomainName,
        host: &HostName,
    ) -> Result<Generation, Problem> {
        let agent = &self.host(host)?.agent;
        let report = agent
            .status(domain)
            .await
            .map_err(|error| agents::problem(host, format!("placing {domain}"), &error))?;
        if let Some(report) = &report {
            refuse_doubt(report)?;
        }
        match report.as_ref().map(agents::view_of) {
            None => Ok(Generation(0)),
            Some(HostView::Says(
                Entry {
                    holding: Holding::Absent,
                    floor,
                    ..
                },
                _,
            )) => Ok(floor),
            Some(_) => Err(Problem::impossible(format!(
                "host {host} holds a domain {domain} that this manager knows nothing of"
            ))
            .advice(format!(
                "choose another name, or remove it: estive --agent {} delete {domain}",
                agent.endpoint
            ))),
        }
    }

    async fn record_clone(
        &self,
        deployment: &DeploymentName,
        clone: &Prepared,
        host: &HostName,
        floor: Generation,
    ) -> Result<(), Problem> {
        let plan = &clone.plan;
        self.records
            .change_row(&plan.name, |row| {
                if let Some(DomainRow::Live(record)) = &row {
                    return Err(Problem::impossible(format!(
                        "{} was just made by {}",
                        plan.name, record.deployment
                    )));
                }
                let granted = row
                    .map_or(Generation(0), |row| row.granted())
                    .max(floor)
                    .next();
                Ok(Change::Write(DomainRow::Live(Box::new(DomainRecord {
                    name: plan.name.clone(),
                    deployment: deployment.clone(),
                    memory_mib: plan.memory_mib,
                    cpus: plan.cpus,
                    address: plan.address.to_string(),
                    reference: plan.reference.clone(),
                    words: Some(words_of(plan)),
                    groups: plan.groups.clone(),
                    checks: clone.checks.clone(),
                    post_copy_allowed: plan.post_copy_allowed,
                    ownership: Ownership {
                        host: host.clone(),
                        generation: granted,
                        granted,
                        wanted: Wanted::Running,
                        moving: None,
                    },
                    move_order: None,
                }))))
            })
            .await?;
        Ok(())
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
        let record = self.define(clone, agent, record).await?;
        telling.step(name, "defined", ms_since(begun));
        telling.go_on()?;
        let asked = Instant::now();
        // Of one that runs it records no more than that it is to; one that was paused goes on, and does not boot.
        let Some(ordered) = self.start(&record).await?.ordered else {
            return Ok(None);
        };
        telling.step(name, "started", ms_since(asked));
        Ok(Some(Asked { at: asked, ordered }))
    }

    /// Sends the clone's archive, unless its host holds it already.
    async fn define(
        &self,
        clone: &Prepared,
        agent: &Agent,
        mut record: DomainRecord,
    ) -> Result<DomainRecord, Problem> {
        let name = &clone.plan.name;
        let failed = |error| agents::problem(&agent.name, format!("sending {name}"), &error);
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
            Some(_) => return Ok(record),
        };
        if record.ownership.generation <= floor {
            record = self
                .records
                .change_domain(name, |record| {
                    crate::migrate::refuse_moving(record)?;
                    let mut raised = record.clone();
                    let granted = record.ownership.granted.max(floor).next();
                    raised.ownership.granted = granted;
                    raised.ownership.generation = granted;
                    Ok(Change::Write(raised))
                })
                .await?;
        }
        let generation = record.ownership.generation;
        fault::before("up.defined");
        let mut defined = agent.define(name, generation, clone.archive.clone()).await;
        if matches!(&defined, Err(error) if missing_files(error).is_some()) {
            // One clone sends the files, those beside it find them there.
            let _one = self.host(&agent.name)?.uploads.lock().await;
            defined = agent.define(name, generation, clone.archive.clone()).await;
            if let Err(error) = &defined
                && let Some(missing) = missing_files(error)
            {
                self.upload(agent, &missing).await?;
                defined = agent.define(name, generation, clone.archive.clone()).await;
            }
        }
        defined.map_err(failed)?;
        fault::after("up.defined");
        Ok(record)
    }
}

pub(crate) fn ms_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(Problem::failed(format!(
                "a part of the manager failed: {error}"
            )))
        })
}
