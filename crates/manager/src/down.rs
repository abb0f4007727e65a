//! `down`: a deployment's domains are stopped and removed. What cannot be reached stays on record, and is named. An
//! `up` of the deployment that is under way is ended first.

use crate::agents;
use crate::event_log::About;
use crate::herd_layers::LayerMaker;
use crate::manager::Manager;
use crate::records::DomainRecord;
use estive_api::wire::DownLine;
use estive_api::{Problem, ProblemKind};
use estive_model::{DeploymentName, DomainName, EventKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How long an open move may take to end before what waits for it is not done.
pub(crate) const MOVE_ENDS: Duration = Duration::from_secs(60);

impl Manager {
    /// Takes a deployment down, telling each domain that is gone.
    pub async fn down(self: Arc<Self>, name: DeploymentName, lines: mpsc::Sender<DownLine>) {
        let taken = self.take_down(&name, &lines).await;
        self.forget_initramfs().await;
        let line = match taken {
            Ok(()) => DownLine::Done,
            Err(problem) => DownLine::Failed { problem },
        };
        // Nobody may be listening any more; what was to be done is done.
        let _ = lines.send(line).await;
    }

    async fn take_down(
        self: &Arc<Self>,
        name: &DeploymentName,
        lines: &mpsc::Sender<DownLine>,
    ) -> Result<(), Problem> {
        let (_busy, ended_an_up) = self.occupy_for_down(name).await?;
        let domains = self.records.domains_of(name).await?;
        // An up that had made nothing yet is as good as taken down.
        if domains.is_empty() && !ended_an_up {
            return Err(Problem::not_found(format!("there is no deployment {name}"))
                .advice("estive ls, to see those there are"));
        }
        let mut work = JoinSet::new();
        for record in domains {
            let manager = self.clone();
            work.spawn(async move {
                let removed = manager.remove(&record.name).await;
                (record.name, removed)
            });
        }
        let mut gone = 0;
        let mut remain: Vec<(DomainName, Problem)> = Vec::new();
        while let Some(done) = work.join_next().await {
            let Ok((domain, removed)) = done else {
                continue;
            };
            match removed {
                Ok(()) => {
                    gone += 1;
                    let _ = lines.send(DownLine::Gone { domain }).await;
                }
                Err(problem) => remain.push((domain, problem)),
            }
        }
        if remain.is_empty() {
            self.forget_layers(name).await;
            self.events.tell(
                EventKind::Deployment,
                About::default(),
                format!("{name} was taken down: {gone} domains"),
            );
            return Ok(());
        }
        let problem = what_remains(name, remain);
        self.events.tell(
            EventKind::Deployment,
            About::default(),
            problem.error.clone(),
        );
        Err(problem)
    }

    /// What is left behind is found and written over by the next `up`.
    async fn forget_layers(&self, name: &DeploymentName) {
        let (maker, deployment) = (LayerMaker::of(self), name.clone());
        let forgotten = tokio::task::spawn_blocking(move || maker.forget(&deployment)).await;
        if let Ok(Err(problem)) = forgotten {
            tracing::warn!(deployment = %name, error = %problem.error, "layers could not be removed");
        }
    }

    /// Stops a domain, removes it from its host, and only then from the record.
    pub async fn remove(&self, name: &DomainName) -> Result<(), Problem> {
        let _one = self.domain_lock(name).await;
        self.remove_locked(name).await
    }

    /// The same. Whoever calls holds the domain's lock.
    pub async fn remove_locked(&self, name: &DomainName) -> Result<(), Problem> {
        self.end_move(name).await?;
        let record = match self.records.domain(name).await {
            Err(problem) if problem.kind == ProblemKind::NotFound => return Ok(()),
            record => record?,
        };
        self.stop(&record, 0).await?;
        let agent = &self.host(&record.ownership.host)?.agent;
        agent
            .delete(name)
            .await
            .map_err(|error| agents::problem(&agent.name, format!("removing {name}"), &error))?;
        self.retire(&record).await
    }

    async fn retire(&self, record: &DomainRecord) -> Result<(), Problem> {
        self.records.retire(&record.name).await?;
        self.readers.change();
        let about = About {
            domain: Some(record.name.clone()),
            host: Some(record.ownership.host.clone()),
            ..About::default()
        };
        self.events.tell(
            EventKind::Deleted,
            about,
            match &record.deployment {
                Some(deployment) => format!("{deployment} is taken down"),
                None => "asked for; its images stay".to_owned(),
            },
        );
        Ok(())
    }

    /// Gives an open move up, or waits until it can no longer be given up and is over.
    async fn end_move(&self, name: &DomainName) -> Result<(), Problem> {
        let open = async || match self.records.domain(name).await {
            Ok(record) => Ok(record.ownership.moving.is_some()),
            Err(problem) if problem.kind == ProblemKind::NotFound => Ok(false),
            Err(problem) => Err(problem),
        };
        if !open().await? {
            return Ok(());
        }
        let _ = self
            .give_up_move(name, Problem::failed(format!("{name} is being taken down")))
            .await;
        let ended = async {
            while open().await? {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        };
        tokio::time::timeout(MOVE_ENDS, ended)
            .await
            .unwrap_or_else(|_| {
                Err(Problem::unreachable(format!(
                    "{name} is in the middle of a move that cannot end, since a host is silent"
                )))
            })
    }
}

/// One problem for all that could not be taken down.
pub(crate) fn what_remains(
    name: &DeploymentName,
    mut remain: Vec<(DomainName, Problem)>,
) -> Problem {
    remain.sort_by(|a, b| a.0.cmp(&b.0));
    let silent = remain
        .iter()
        .any(|(_, problem)| problem.kind == ProblemKind::Unreachable);
    let kind = if silent {
        ProblemKind::Unreachable
    } else {
        ProblemKind::Failed
    };
    let names: Vec<&str> = remain.iter().map(|(domain, _)| domain.as_str()).collect();
    let why: Vec<String> = remain
        .iter()
        .map(|(domain, problem)| format!("{domain}: {}", problem.error))
        .collect();
    Problem::new(
        kind,
        format!(
            "{} of {name} could not be taken down and stay on record: {}",
            names.join(", "),
            why.join("; ")
        ),
    )
    .advice(format!("estive down {name} again, once their hosts answer"))
    .details(serde_json::json!({ "remain": names }))
}
