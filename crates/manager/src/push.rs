//! A change of a herd's folder for the clones that are up: their layers are made anew, and each goes to the agent
//! of its clone's host. Nothing is recorded here: the agent keeps the layer, and a push that the manager did not see
//! to its end is made good by the next.

use crate::agents;
use crate::event_log::About;
use crate::herd_checks::check_same;
use crate::herd_clones::{HerdClone, RenderedClones};
use crate::manager::{Doing, Manager};
use crate::migrate::refuse_moving;
use bytes::Bytes;
use estive_api::Problem;
use estive_api::wire::{LayerLine, PushLine, PushOutcome, PushQuery, PushRow};
use estive_model::{DeploymentName, DomainName, EventKind};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Clones that are pushed to at once.
const AT_ONCE: usize = 64;
/// An agent that says nothing for so long, with all the time it gives a guest, has gone.
const SILENCE: Duration = Duration::from_secs(300);

impl Manager {
    /// Pushes the layers of a herd's clones, telling of each; ends with `Done` or `Failed`.
    pub async fn push_layers(
        self: Arc<Self>,
        name: DeploymentName,
        query: PushQuery,
        folder: Bytes,
        lines: mpsc::Sender<PushLine>,
    ) {
        let line = match self.push_all(&name, &query, folder, &lines).await {
            Ok(clones) => {
                if !query.dry_run {
                    let reason = summary(&name, &clones);
                    self.events
                        .tell(EventKind::Deployment, About::default(), reason);
                }
                PushLine::Done { clones }
            }
            Err(problem) => PushLine::Failed { problem },
        };
        let _ = lines.send(line).await;
    }

    async fn push_all(
        self: &Arc<Self>,
        name: &DeploymentName,
        query: &PushQuery,
        folder: Bytes,
        lines: &mpsc::Sender<PushLine>,
    ) -> Result<Vec<PushRow>, Problem> {
        let _busy = self.occupy(name, Doing::Push)?;
        let rendered = self.render_clones(name, folder).await?;
        let wanted = wanted(&rendered, query)?;
        for text in rendered.warnings.lines() {
            let _ = lines.send(PushLine::Warning { text }).await;
        }
        for text in self.not_in_herd(name, &rendered).await? {
            let _ = lines.send(PushLine::Warning { text }).await;
        }
        let clones = wanted.len() as u64;
        let _ = lines.send(PushLine::Planned { clones }).await;

        let places = Arc::new(Semaphore::new(AT_ONCE));
        let rendered = Arc::new(rendered);
        let mut work = JoinSet::new();
        for number in wanted {
            let (manager, name, rendered) = (self.clone(), name.clone(), rendered.clone());
            let (places, lines, dry_run) = (places.clone(), lines.clone(), query.dry_run);
            work.spawn(async move {
                // Closed never.
                let _place = places.acquire_owned().await;
                let clone = &rendered.clones[number];
                let layer = rendered.herd.layers.get(number);
                let layer = layer.and_then(|layer| rendered.herd.layer(layer));
                let bytes = layer.map(|layer| layer.bytes).unwrap_or_default();
                let row = manager
                    .push_one(&name, clone, bytes.into(), dry_run, &lines)
                    .await;
                let _ = lines.send(PushLine::Clone { row: row.clone() }).await;
                row
            });
        }
        let mut rows = Vec::new();
        while let Some(done) = work.join_next().await {
            rows.push(done.map_err(|error| {
                Problem::failed(format!("a part of the manager failed: {error}"))
            })?);
        }
        rows.sort_by(|a, b| a.domain.cmp(&b.domain));
        Ok(rows)
    }

    /// Clones of the deployment that the herd file no longer has: nothing is pushed to them.
    async fn not_in_herd(
        &self,
        name: &DeploymentName,
        rendered: &RenderedClones,
    ) -> Result<Vec<String>, Problem> {
        let herd: BTreeSet<&DomainName> = rendered
            .clones
            .iter()
            .map(|clone| &clone.plan.name)
            .collect();
        let records = self.records.domains().await?;
        let strangers = records.iter().filter(|record| {
            record.deployment.as_ref() == Some(name) && !herd.contains(&record.name)
        });
        Ok(strangers
            .map(|record| {
                format!(
                    "{} is up and not in the herd file: left as it is",
                    record.name
                )
            })
            .collect())
    }

    async fn push_one(
        &self,
        deployment: &DeploymentName,
        clone: &HerdClone,
        layer: Bytes,
        dry_run: bool,
        lines: &mpsc::Sender<PushLine>,
    ) -> PushRow {
        let domain = clone.plan.name.clone();
        // A move, a start or a stop waits until it is over.
        let (_one, record) = match self.lock_at_rest(&domain).await {
            Ok((one, Some(record))) => (one, record),
            Ok((_, None)) => {
                let reason = "it is not up: estive up makes it with this layer".to_owned();
                return PushRow {
                    domain,
                    host: None,
                    outcome: PushOutcome::NextStart { reason },
                };
            }
            Err(problem) => {
                return PushRow {
                    domain,
                    host: None,
                    outcome: PushOutcome::Failed { problem },
                };
            }
        };
        let pushed = async {
            check_same(deployment, &clone.plan, &clone.words, &record)?;
            refuse_moving(&record)?;
            let agent = &self.host(&record.ownership.host)?.agent;
            let failed = |error| {
                agents::problem(
                    &agent.name,
                    format!("pushing the layer of {domain}"),
                    &error,
                )
            };
            let generation = record.ownership.generation;
            let mut told = agent
                .push_layer(&domain, generation, dry_run, layer)
                .await
                .map_err(failed)?;
            loop {
                let line = tokio::time::timeout(SILENCE, told.next()).await;
                match line.unwrap_or(None).transpose().map_err(failed)? {
                    Some(LayerLine::Laying) => {
                        let domain = domain.clone();
                        // Never waited for: nobody else may order anything of it meanwhile.
                        let _ = lines.try_send(PushLine::Laying { domain });
                    }
                    Some(LayerLine::Done { outcome }) => return Ok(outcome.into()),
                    Some(LayerLine::Failed { problem }) => return Err(problem),
                    None => {
                        return Err(Problem::unreachable(format!(
                            "host {} did not say what became of the layer of {domain}",
                            agent.name
                        ))
                        .advice("push again: what it has of it already is left as it is"));
                    }
                }
            }
        };
        let outcome = pushed
            .await
            .unwrap_or_else(|problem| PushOutcome::Failed { problem });
        PushRow {
            domain,
            host: Some(record.ownership.host.clone()),
            outcome,
        }
    }
}

/// Numbers of the clones to push to; a name that the herd does not have is none of its clones.
fn wanted(rendered: &RenderedClones, query: &PushQuery) -> Result<Vec<usize>, Problem> {
    let Some(names) = &query.clones else {
        return Ok((0..rendered.clones.len()).collect());
    };
    let mut wanted = BTreeSet::new();
    for name in names.split(',') {
        let found = rendered
            .clones
            .iter()
            .position(|clone| clone.plan.name.as_str() == name);
        wanted.insert(found.ok_or_else(|| {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
            Problem::impossible(format!("there is no clone {shown:?} in the herd file"))
                .advice("estive list shows the clones there are")
        })?);
    }
    Ok(wanted.into_iter().collect())
}

/// For the log of events.
fn summary(name: &DeploymentName, rows: &[PushRow]) -> String {
    let count =
        |wanted: fn(&PushOutcome) -> bool| rows.iter().filter(|row| wanted(&row.outcome)).count();
    let parts = [
        (
            count(|outcome| matches!(outcome, PushOutcome::Laid { .. })),
            "have them now",
        ),
        (
            count(|outcome| {
                matches!(
                    outcome,
                    PushOutcome::NextStart { .. } | PushOutcome::Unreached { .. }
                )
            }),
            "take them at their next start",
        ),
        (
            count(|outcome| matches!(outcome, PushOutcome::Failed { .. })),
            "failed",
        ),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    format!(
        "layers of {name} pushed to {} clones: {}",
        rows.len(),
        parts.join(", ")
    )
}
