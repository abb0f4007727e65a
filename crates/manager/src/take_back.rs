//! What an `up` that failed takes down again: what it has made, as long as nobody else has moved, started, stopped or
//! paused it since.

use crate::down::what_remains;
use crate::manager::Manager;
use crate::records::DomainRecord;
use estive_api::Problem;
use estive_model::{DeploymentName, DomainName, Generation};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;

/// The generation that an `up` left each clone with; none once it is somebody else's.
#[derive(Clone, Default)]
pub(crate) struct Ours(Arc<Mutex<BTreeMap<DomainName, Option<Generation>>>>);

impl Ours {
    pub fn leave(&self, domain: &DomainName, generation: Generation) {
        // Nothing panics while it is held.
        let mut ours = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ours.insert(domain.clone(), Some(generation));
    }

    /// Somebody else has done something with it that the store does not tell.
    pub fn give_away(&self, domain: &DomainName) {
        let mut ours = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ours.insert(domain.clone(), None);
    }

    /// Whether somebody else has moved, started, stopped or paused it since.
    fn is_anothers(&self, record: &DomainRecord) -> bool {
        let ours = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = ours.get(&record.name);
        left.is_some_and(|left| {
            Some(record.ownership.generation) != *left
                || record.ownership.moving.is_some()
                || !record.wants_to_run()
        })
    }
}

impl Manager {
    /// Removes what this `up` has made; the problem then says whether anything stays, and why.
    pub async fn take_back(
        self: &Arc<Self>,
        name: &DeploymentName,
        made: Vec<DomainName>,
        ours: &Ours,
        problem: Problem,
    ) -> Problem {
        let mut work = JoinSet::new();
        for domain in made {
            let (manager, ours) = (self.clone(), ours.clone());
            work.spawn(async move {
                let gone = manager.take_one_back(&domain, &ours).await;
                (domain, gone)
            });
        }
        let mut anothers = Vec::new();
        let mut remain = Vec::new();
        while let Some(done) = work.join_next().await {
            match done {
                Ok((_, Ok(true))) => {}
                Ok((domain, Ok(false))) => anothers.push(domain.to_string()),
                Ok((domain, Err(problem))) => remain.push((domain, problem)),
                Err(error) => tracing::error!(%error, "a part of the manager failed"),
            }
        }
        let mut problem = problem;
        if !anothers.is_empty() {
            anothers.sort();
            problem.error = format!(
                "{}. Left as they are, since somebody else has moved, started, stopped or paused them meanwhile: {}",
                problem.error,
                anothers.join(", ")
            );
        }
        if !remain.is_empty() {
            let rest = what_remains(name, remain);
            problem.error = format!("{}. And {}", problem.error, rest.error);
            problem.advice = rest.advice;
        }
        problem
    }

    /// Whether it is gone; not when it is somebody else's by now.
    async fn take_one_back(&self, domain: &DomainName, ours: &Ours) -> Result<bool, Problem> {
        // Held over both: nobody orders anything in between.
        let _one = self.domain_lock(domain).await;
        if let Some(record) = self.records.find_domain(domain).await?
            && ours.is_anothers(&record)
        {
            return Ok(false);
        }
        self.remove_locked(domain).await?;
        Ok(true)
    }
}
