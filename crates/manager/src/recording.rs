//! The records of a herd's clones: each that is new is placed, and written down before anything of it is made.

use crate::agents;
use crate::floor::believed;
use crate::herd_checks::{check_address, check_same};
use crate::herd_clones::Prepared;
use crate::manager::Manager;
use crate::placement::{self, Wish};
use crate::records::{Change, DomainRecord, DomainRow};
use crate::status::refuse_doubt;
use estive_api::Problem;
use estive_api::fault;
use estive_api::wire::Placement;
use estive_model::{DeploymentName, DomainName, Generation, HostName};
use estive_moves::{Entry, Holding, HostView, Ownership, Wanted};
use std::collections::BTreeMap;

impl Manager {
    /// Places the clones that are new and writes their records; their names go to `made`, also when it fails.
    pub(crate) async fn record_clones(
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
                    check_same(name, plan, &clone.words, record)?;
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
                        cpus: plan.cpus,
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
            let seen = self.find_volume(name, &clone.plan).await?;
            fault::before("up.recorded");
            self.record_clone(name, clone, &placement.host, (floor, seen))
                .await?;
            fault::after("up.recorded");
            made.push(placement.domain.clone());
        }
        placements.extend(placed);
        placements.sort_by(|a, b| a.domain.cmp(&b.domain));
        Ok(placements)
    }

    /// What the host's journal remembers of earlier domains of that name; it must not hold one now.
    pub(crate) async fn floor_there(
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

    /// Above the `floor` of its host's journal, and all that its volume has `seen`.
    async fn record_clone(
        &self,
        deployment: &DeploymentName,
        clone: &Prepared,
        host: &HostName,
        (floor, seen): (Generation, Generation),
    ) -> Result<(), Problem> {
        let plan = &clone.plan;
        self.records
            .change_row(&plan.name, |row| {
                if let Some(DomainRow::Live(record)) = &row {
                    return Err(Problem::impossible(format!(
                        "there is a domain {} by now, {}",
                        plan.name,
                        record.of_whom()
                    )));
                }
                let granted = row.map_or(Generation(0), |row| row.granted()).max(seen);
                let floor = believed(floor, granted, &plan.name, host)?;
                let granted = granted.max(floor).next();
                Ok(Change::Write(DomainRow::Live(Box::new(DomainRecord {
                    name: plan.name.clone(),
                    deployment: Some(deployment.clone()),
                    memory_mib: plan.memory_mib,
                    cpus: plan.cpus,
                    address: plan.address.to_string(),
                    reference: plan.reference.clone(),
                    words: Some(clone.words.clone()),
                    made_of: Some(clone.made_of.clone()),
                    given: Vec::new(),
                    volume: Some(plan.volume_bytes.is_some()),
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
}
