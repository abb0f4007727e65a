//! What a domain is ordered to do: each order as the input it means.

use crate::archive::Staged;
use crate::definition;
use crate::domain::{Answered, Doing, Domain, Order};
use crate::images::blocking;
use crate::journal::Moving;
use estive_api::domain_xml::Description;
use estive_api::wire::{MoveOrder, PrepareQuery, Prepared};
use estive_api::{Peer, Problem};
use estive_model::Generation;
use estive_moves::{Answer, Grant, Holding, Input, Refusal, Seen};

impl Domain {
    pub(crate) async fn obey(&mut self, order: Order) -> Answered {
        let entry = self.record.entry;
        let now_ms = self.agent.clock.now_ms();
        match order {
            Order::Define(staged, generation) => self.define(staged, generation).await,
            Order::Start(generation) => {
                let seen = self.see().await;
                let held = entry.holding == Holding::Running
                    && generation.is_none_or(|generation| generation == entry.generation);
                if held && seen == Seen::Paused {
                    self.resume().await?;
                    return Ok(Answer::Done);
                }
                let generation = generation.unwrap_or(match held && seen != Seen::Gone {
                    true => entry.generation,
                    false => entry.floor.next(),
                });
                let doing = Doing {
                    asked_ms: Some(now_ms),
                    ..Doing::because(format!("asked to run as generation {}", generation.0))
                };
                self.answered(Input::Start(generation), doing).await
            }
            Order::Pause => {
                let seen = self.see().await;
                match (entry.holding, seen) {
                    (Holding::Running, Seen::Running) => {
                        let paused = self.agent.hypervisor.pause(&self.name).await;
                        paused.map_err(|error| self.failed("pause", &error))?;
                        Ok(Answer::Done)
                    }
                    (Holding::Running, Seen::Paused) => Ok(Answer::Done),
                    (Holding::Outgoing(_), _) => Ok(Answer::Refused(Refusal::Moving)),
                    (Holding::Running, _) => Ok(Answer::Refused(Refusal::NotRunning)),
                    _ => Ok(Answer::Refused(Refusal::NotHeldSo)),
                }
            }
            Order::PowerButton => {
                if entry.holding == Holding::Running && self.see().await == Seen::Running {
                    let pressed = self.agent.hypervisor.power_button(&self.name).await;
                    pressed.map_err(|error| self.failed("press the power button of", &error))?;
                }
                Ok(Answer::Done)
            }
            Order::Stop => {
                self.answered(Input::Stop, Doing::because("asked to stop"))
                    .await
            }
            Order::Forget => {
                self.answered(Input::Forget, Doing::because("asked to remove it"))
                    .await
            }
            Order::Save(generation) => {
                let runs = entry.holding == Holding::Running;
                if runs {
                    self.refuse_to_save_images().await?;
                    self.room_to_save()?;
                }
                let generation = generation.unwrap_or(entry.generation);
                let doing = Doing::because("asked to save it");
                self.answered(Input::Save(generation), doing).await
            }
            Order::Restore(generation) => {
                self.refuse_endless_tries()?;
                self.refuse_another_emulator()?;
                let held = matches!(entry.holding, Holding::Running | Holding::Restoring);
                let generation =
                    generation.unwrap_or(match held && self.see().await == Seen::Loaded {
                        true => entry.generation,
                        false => entry.floor.next(),
                    });
                let doing =
                    Doing::because(format!("asked to go on as generation {}", generation.0));
                self.answered(Input::Restore(generation), doing).await
            }
            Order::DropSaved => {
                let doing = Doing::because("asked to drop what was saved");
                self.answered(Input::DropSaved, doing).await
            }
            Order::Disown(floor) => self.disown(floor).await,
            Order::Prepare(staged, query) => self.prepare(staged, query).await,
            Order::Move(order) => self.send_away(order).await,
            Order::Abort(generation) => {
                let doing = Doing::because(format!("asked to give up move {}", generation.0));
                self.answered(Input::Abort(generation), doing).await
            }
            Order::Discard(generation) => {
                let doing = Doing::because(format!("the source has ended move {}", generation.0));
                self.answered(Input::Discard(generation), doing).await
            }
            Order::TakeLayer(layer, generation, reason) => {
                self.only_of_a_clone("no layer is pushed to it")?;
                self.take_layer(layer, generation, reason).await
            }
            Order::AskReady(generation, peer) => {
                self.refuse_who_is_not_the_source(&peer)?;
                self.answered(Input::AskReady(generation), Doing::default())
                    .await
            }
            Order::Commit(generation, peer) => {
                self.refuse_who_is_not_the_source(&peer)?;
                let doing = Doing::because(format!(
                    "the source has released it: runs here as generation {}",
                    generation.0
                ));
                self.answered(Input::Commit(generation), doing).await
            }
        }
    }

    /// Only the source knows that it runs what is awaited here no more. Once it was taken here, a repetition starts
    /// nothing that was not decided, whoever says it.
    fn refuse_who_is_not_the_source(&self, peer: &Peer) -> Result<(), Problem> {
        let Peer::Certified { name: said, .. } = peer else {
            return Ok(());
        };
        if !matches!(self.record.entry.holding, Holding::Incoming(_)) {
            return Ok(());
        }
        match &self.record.moving {
            Some(Moving::Destination { source, .. }) if source.as_str() == said => Ok(()),
            _ => Err(Problem::refused(format!(
                "{peer} does not send {} here; only its source may say that it is released",
                self.name
            ))
            .advice("order moves at the manager")),
        }
    }

    /// An ordinary machine is taken in where its files are.
    async fn prove_images(&mut self, staged: &Staged) -> Result<(), Problem> {
        self.proven.clear();
        let Description::Images(xml) = &staged.xml else {
            return Ok(());
        };
        let (agent, xml, proofs) = (self.agent.clone(), xml.clone(), staged.proofs.clone());
        self.proven = blocking(move || agent.prove_images(&xml, &proofs)).await?;
        Ok(())
    }

    /// What only a clone has.
    fn only_of_a_clone(&self, what: &str) -> Result<(), Problem> {
        match definition::read_xml(&self.agent.place(&self.name)) {
            Ok(Description::Images(_)) => Err(Problem::impossible(format!(
                "{} has disks in image files: {what}",
                self.name
            ))),
            // No description, no domain: the answer to that is the order's own.
            _ => Ok(()),
        }
    }

    async fn define(&mut self, staged: Staged, generation: Option<Generation>) -> Answered {
        let entry = self.record.entry;
        let generation = generation.unwrap_or(match entry.holding {
            Holding::Stopped => entry.generation,
            _ => entry.floor.next(),
        });
        if entry.holding == Holding::Absent {
            self.agent.reserve(&self.name, staged.xml.memory_mib())?;
        }
        let doing = Doing {
            reason: format!(
                "{} MiB, {} processors, a layer of {} bytes",
                staged.xml.memory_mib(),
                staged.xml.cpus(),
                staged.layer_bytes
            ),
            staged: Some(staged),
            ..Doing::default()
        };
        let answered = self.answered(Input::Define(generation), doing).await;
        self.give_back_if_absent();
        answered
    }

    async fn prepare(&mut self, staged: Staged, query: PrepareQuery) -> Answered {
        let grant = Grant {
            generation: query.generation,
            post_copy: query.post_copy,
        };
        let mut moving = None;
        // What an older move left expected here is replaced: it needs a port and an operation of its own.
        let is_new = match self.record.entry.holding {
            Holding::Absent => true,
            Holding::Incoming(held) => held.generation < grant.generation,
            _ => false,
        };
        if is_new {
            self.prove_images(&staged).await?;
            self.agent.reserve(&self.name, staged.xml.memory_mib())?;
            let (address, port) = self.agent.take_port(&self.name).inspect_err(|_| {
                self.agent.release(&self.name);
            })?;
            moving = Some(Moving::Destination {
                operation: query.operation,
                source: query.source.clone(),
                stream: Prepared {
                    address,
                    port,
                    // What QEMU on the source checks this host's certificate against.
                    tls_name: self.agent.config.migration.tls.then(|| address.to_string()),
                },
                asked_ms: self.agent.clock.now_ms(),
            });
        }
        let doing = Doing {
            reason: format!("awaits it from {}", query.source),
            staged: Some(staged),
            moving,
            ..Doing::default()
        };
        let answered = self.answered(Input::Prepare(grant), doing).await;
        self.give_back_if_absent();
        answered
    }

    async fn send_away(&mut self, order: MoveOrder) -> Answered {
        let grant = Grant {
            generation: order.generation,
            post_copy: order.post_copy,
        };
        // A destination that cannot be spoken to is found out before anything begins.
        self.agent.client(&order.destination_url)?;
        let doing = Doing {
            reason: format!("asked to move it to {}", order.destination),
            moving: Some(Moving::Source {
                operation: order.operation.clone(),
                destination: order.destination,
                destination_url: order.destination_url,
                stream: order.stream,
                asked_ms: self.agent.clock.now_ms(),
            }),
            ..Doing::default()
        };
        self.answered(Input::Move(grant), doing).await
    }

    async fn answered(&mut self, input: Input, doing: Doing) -> Answered {
        let answer = self.apply(input, doing).await?;
        // `step` answers every order; see its exploration.
        answer.ok_or_else(|| Problem::failed(format!("{}: the order brought no answer", self.name)))
    }

    fn give_back_if_absent(&self) {
        if self.record.entry.holding == Holding::Absent {
            self.agent.release(&self.name);
        }
    }
}
