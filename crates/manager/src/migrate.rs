//! An order to move a domain: what must be so before it, and write (1). The loop in `move_loop` does the rest.

use crate::agents::{self, Agent, host_view};
use crate::down::MOVE_ENDS;
use crate::early;
use crate::event_log::About;
use crate::floor::believed;
use crate::manager::Manager;
use crate::move_loop::{Known, Stage};
use crate::records::{Change, DomainRecord, OpenMove};
use crate::reference::digest_of;
use bytes::Bytes;
use estive_api::fault;
use estive_api::wire::{MigrateLine, MigrateOrder, MissingFiles};
use estive_api::{ClientError, Problem};
use estive_model::{Digest, DomainName, DomainState, EventKind, Generation};
use estive_moves::{Entry, Holding, HostView, PendingMove, Seen};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;

/// Between two looks while memory is copied.
pub(crate) const LOOK: Duration = Duration::from_millis(12);
/// A move that was ordered: its first line, and where to see the rest.
pub(crate) struct Ordered {
    pub line: MigrateLine,
    pub stage: watch::Receiver<Stage>,
}

impl Manager {
    /// Checks that the move can be, makes write (1) and starts the loop.
    pub async fn order_move(
        self: &Arc<Self>,
        name: &DomainName,
        order: MigrateOrder,
    ) -> Result<Ordered, Problem> {
        let started = Instant::now();
        let _one = self.domain_lock(name).await;
        let record = self.records.domain(name).await?;
        refuse_moving(&record)?;
        let source = &self.host(&record.ownership.host)?.agent;
        let (to, chosen_for) = match &order.to {
            Some(to) if *to == source.name => {
                return Err(Problem::impossible(format!("{name} is on {to} already")));
            }
            Some(to) => (to.clone(), None),
            None => {
                self.ask_all().await;
                let (to, reason) = self.choose_destination(&record, source).await?;
                (to, Some(reason))
            }
        };
        let there = self.host(&to)?;
        let (said, archive, ready) = tokio::join!(
            source.status(name),
            source.archive(name),
            self.free_of(name, there)
        );
        let view = host_view(&said);
        let said =
            said.map_err(|error| agents::problem(&source.name, format!("moving {name}"), &error))?;
        match view {
            HostView::Says(
                Entry {
                    holding: Holding::Running,
                    ..
                },
                Seen::Running,
            ) => {}
            _ => {
                let state = said.map_or(DomainState::Unknown, |report| report.state);
                if state == DomainState::Saved {
                    return Err(crate::saved::refuse(name));
                }
                return Err(Problem::impossible(format!(
                    "{name} is {state} on {}; only a running domain moves live",
                    source.name
                ))
                .advice(format!(
                    "estive start {name}, or estive show {name} to see why it does not run"
                )));
            }
        }
        let archive = archive.map_err(|error| {
            agents::problem(
                &source.name,
                format!("reading the archive of {name}"),
                &error,
            )
        })?;
        let at_destination = ready?;
        if !record.is_clone() {
            self.same_images(name, archive.clone(), &there.agent)
                .await?;
        }
        let floor = [view, at_destination].map(|view| match view {
            HostView::Says(entry, _) => entry.floor,
            HostView::Silent => Generation(0),
        });

        let placing = self.placing.lock().await;
        let free_mib = self.room_for(&record, &to).await?;
        let reason = chosen_for.unwrap_or_else(|| format!("asked for ({free_mib} MiB free)"));
        let destination = to;
        let operation = crate::new_operation("move");
        let ordered_ms = self.clock.now_ms();
        fault::before("move.ordered");
        let record = self
            .records
            .change_domain(name, |now| {
                refuse_moving(now)?;
                if now.ownership.host != record.ownership.host {
                    return Err(Problem::impossible(format!(
                        "{name} has just moved to {}",
                        now.ownership.host
                    )));
                }
                let mut ownership = now.ownership.clone();
                // The agents may have been driven alone meanwhile.
                let granted = ownership.granted;
                for (floor, host) in floor.into_iter().zip([&source.name, &destination]) {
                    let floor = believed(floor, granted, name, host)?;
                    ownership.granted = ownership.granted.max(floor);
                }
                let ownership = ownership
                    .ordered(destination.clone(), now.post_copy_allowed)
                    .ok_or_else(|| Problem::impossible(format!("{name} is being moved already")))?;
                let move_order = Some(OpenMove {
                    operation: operation.clone(),
                    ordered_ms,
                    problem: None,
                });
                Ok(Change::Write(DomainRecord {
                    ownership,
                    move_order,
                    ..now.clone()
                }))
            })
            .await?;
        fault::after("move.ordered");
        drop(placing);
        let Some(pending) = &record.ownership.moving else {
            return Err(Problem::failed(
                "the store has lost the move that was just written",
            ));
        };
        let reason = match &order.reason {
            Some(given) => format!(
                "{reason}; {}",
                given
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(500)
                    .collect::<String>()
            ),
            None => reason,
        };
        let about = About {
            domain: Some(name.clone()),
            host: Some(record.ownership.host.clone()),
            generation: Some(pending.grant.generation),
            operation: Some(operation.clone()),
        };
        self.events.tell(
            EventKind::MoveOrdered,
            about,
            format!("to {destination}: {reason}"),
        );
        let line = MigrateLine::Ordered {
            operation,
            source: record.ownership.host.clone(),
            destination,
            generation: pending.grant.generation,
            reason,
        };
        let view = Some((view, Instant::now()));
        let stage = self.drive(
            name.clone(),
            Known {
                archive: Some(archive),
                source: view,
                destination: Some((at_destination, Instant::now())),
                started: Some(started),
            },
        );
        Ok(Ordered { line, stage })
    }

    /// A domain's lock, and its record once it does not move; also after a while in which its move did not end.
    pub async fn lock_at_rest(
        &self,
        name: &DomainName,
    ) -> Result<(OwnedMutexGuard<()>, Option<DomainRecord>), Problem> {
        let until = Instant::now() + MOVE_ENDS;
        loop {
            let one = self.domain_lock(name).await;
            let record = self.records.find_domain(name).await?;
            let moves = |record: &DomainRecord| record.ownership.moving.is_some();
            if !record.as_ref().is_some_and(moves) || Instant::now() > until {
                return Ok((one, record));
            }
            drop(one);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Asks that an open move be given up; the loop does it, if it still can be done.
    pub async fn give_up_move(&self, name: &DomainName, problem: Problem) -> Result<(), Problem> {
        self.records
            .change_domain(name, |record| {
                let (Some(pending), Some(order)) = (&record.ownership.moving, &record.move_order)
                else {
                    return Err(Problem::impossible(format!("{name} is not being moved")));
                };
                if pending.give_up {
                    return Ok(Change::Keep);
                }
                let mut given_up = record.clone();
                given_up.ownership.moving = Some(PendingMove {
                    give_up: true,
                    ..pending.clone()
                });
                given_up.move_order = Some(OpenMove {
                    problem: Some(problem.clone()),
                    ..order.clone()
                });
                Ok(Change::Write(given_up))
            })
            .await?;
        Ok(())
    }

    /// Sends the files that an agent lacks, each once. What no reference has any more is taken from where the domain
    /// is, if it is somewhere.
    pub async fn upload(
        &self,
        agent: &Agent,
        missing: &[Digest],
        from: Option<(&Agent, &DomainName)>,
    ) -> Result<(), Problem> {
        for digest in missing {
            let file = match self.references.file(digest) {
                Some(file) => Some(file),
                None => early::made(&self.state, digest).await,
            };
            let bytes = match (file, from) {
                (Some(file), _) => file.read().await?,
                (None, Some((source, domain))) => shared_file(source, domain, digest).await?,
                (None, None) => {
                    return Err(Problem::impossible(format!(
                        "host {} lacks the file {digest}, which no reference of this manager has any more",
                        agent.name
                    ))
                    .advice(
                        "put back the kernel, initramfs or modules that the clone was made with",
                    ));
                }
            };
            agent.put_file(digest, bytes).await.map_err(|error| {
                agents::problem(&agent.name, format!("sending {digest}"), &error)
            })?;
        }
        Ok(())
    }
}

/// From the host of a domain that is started with it; it must be what it is said to be.
async fn shared_file(
    source: &Agent,
    domain: &DomainName,
    digest: &Digest,
) -> Result<Bytes, Problem> {
    let bytes = source.shared_file(domain, digest).await.map_err(|error| {
        let doing = format!("reading {digest}, which no reference has any more");
        agents::problem(&source.name, doing, &error)
    })?;
    let is = digest_of(Sha256::new_with_prefix(&bytes))
        .map_err(|error| Problem::failed(error.to_string()))?;
    match is == *digest {
        true => Ok(bytes),
        false => Err(Problem::failed(format!(
            "what host {} has as {digest} is {is}",
            source.name
        ))),
    }
}

/// An open move refuses every other order.
pub(crate) fn refuse_moving(record: &DomainRecord) -> Result<(), Problem> {
    match &record.ownership.moving {
        None => Ok(()),
        Some(pending) => Err(Problem::impossible(format!(
            "{} is being moved from {} to {}",
            record.name, record.ownership.host, pending.destination
        ))
        .advice(format!(
            "wait until the move is over; estive show {} says what it waits for",
            record.name
        ))),
    }
}

/// The digests that an agent asks for, if that is why it refused.
pub(crate) fn missing_files(error: &ClientError) -> Option<Vec<Digest>> {
    let details = &error.problem()?.details;
    let missing: MissingFiles = serde_json::from_value((**details).clone()).ok()?;
    (!missing.missing.is_empty()).then_some(missing.missing)
}
