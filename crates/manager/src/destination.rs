//! Where a domain may move to: room, its very images where it has any, and nothing left there of an earlier move.

use crate::agents::{self, Agent, host_view};
use crate::inventory::Host;
use crate::manager::Manager;
use crate::migrate::LOOK;
use crate::placement;
use crate::records::DomainRecord;
use bytes::Bytes;
use estive_api::{ClientError, Problem, ProblemKind};
use estive_model::{DomainName, DomainState, HostName};
use estive_moves::{Entry, Holding, HostView};
use std::time::Duration;
use tokio::time::Instant;

/// How long a destination may take to drop what an earlier move has left there.
const REMAINS_GO: Duration = Duration::from_secs(10);

impl Manager {
    /// The host with which all are most even; of a domain with image files, among those that have the very same files. Where
    /// none has, or that cannot be told, the first is taken, and refused with the reason.
    pub(crate) async fn choose_destination(
        &self,
        record: &DomainRecord,
        source: &Agent,
    ) -> Result<(HostName, String), Problem> {
        let mut spaces = self.spaces().await?;
        spaces.retain(|space| space.host != record.ownership.host);
        let wish = placement::Wish {
            domain: record.name.clone(),
            memory_mib: record.memory_mib,
            cpus: record.cpus,
            pinned: None,
        };
        let archive = match record.is_clone() {
            true => None,
            false => source.archive(&record.name).await.ok(),
        };
        let mut first: Option<(HostName, String)> = None;
        loop {
            let placed = placement::place(std::slice::from_ref(&wish), &spaces);
            let placed = match (placed, &first) {
                (Ok(placed), _) => placed,
                (Err(_), Some(first)) => return Ok(first.clone()),
                (Err(problem), None) => return Err(problem),
            };
            let chosen = placed.into_iter().next();
            let chosen = chosen.ok_or_else(|| Problem::failed("no host was chosen"))?;
            let host = &self.host(&chosen.host)?.agent;
            let fits = match &archive {
                None => true,
                Some(archive) => {
                    let same = self.same_images(&record.name, archive.clone(), host);
                    same.await.is_ok()
                }
            };
            if fits {
                return Ok((chosen.host, chosen.reason));
            }
            spaces.retain(|space| space.host != chosen.host);
            first.get_or_insert((chosen.host, chosen.reason));
        }
    }

    /// An error, unless `host` has the very image files that the domain's source has.
    pub(crate) async fn same_images(
        &self,
        name: &DomainName,
        archive: Bytes,
        host: &Agent,
    ) -> Result<(), Problem> {
        let has = host.has_images(name, archive).await;
        has.map_err(|error| {
            let mut problem = agents::problem(&host.name, format!("moving {name}"), &error);
            // Not there, not allowed there, another file: it is impossible there.
            if error.problem().is_some() {
                problem.kind = ProblemKind::Impossible;
            }
            problem
        })
    }

    /// Declared memory that is free on `to`, in MiB, if it is enough.
    pub(crate) async fn room_for(
        &self,
        record: &DomainRecord,
        to: &HostName,
    ) -> Result<u64, Problem> {
        let spaces = self.spaces().await?;
        let space = spaces.iter().find(|space| space.host == *to);
        let free_mib = space.and_then(|space| space.free_memory_mib).unwrap_or(0);
        if free_mib >= record.memory_mib {
            return Ok(free_mib);
        }
        Err(Problem::impossible(format!(
            "not enough declared memory on {to}: {} needs {} MiB and {free_mib} MiB are free there",
            record.name, record.memory_mib
        ))
        .advice("estive hosts, to see where there is room")
        .details(serde_json::json!({
            "host": to,
            "needs_mib": record.memory_mib,
            "free_mib": free_mib,
        })))
    }

    /// Waits until a host holds nothing of a domain any more: what an earlier move has left there goes within moments.
    pub(crate) async fn free_of(
        &self,
        name: &DomainName,
        host: &Host,
    ) -> Result<HostView, Problem> {
        let agent = &host.agent;
        let silent = |error: &ClientError| {
            agents::problem(
                &agent.name,
                format!("moving {name} to {}", agent.name),
                error,
            )
        };
        let until = Instant::now() + REMAINS_GO;
        loop {
            let (about, said) = tokio::join!(agent.about(), agent.status(name));
            let view = host_view(&said);
            host.learn(about.map_err(|error| silent(&error))?);
            let said = said.map_err(|error| silent(&error))?;
            if !host.is_up() {
                self.ask(host).await;
            }
            match view {
                HostView::Says(
                    Entry {
                        holding: Holding::Absent,
                        ..
                    },
                    _,
                ) => return Ok(view),
                HostView::Says(
                    Entry {
                        holding: Holding::Incoming(_),
                        ..
                    },
                    _,
                ) => self.ask(host).await,
                _ => {}
            }
            if Instant::now() > until {
                let state = said.map_or(DomainState::Unknown, |report| report.state);
                return Err(Problem::impossible(format!(
                    "{} still holds {name} ({state}) from before; it can take it once that is gone",
                    agent.name
                ))
                .advice(format!("estive show {name}, and try again later")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
