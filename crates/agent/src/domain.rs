//! One domain of this host: a task that takes one input after the other through [`estive_moves::step`] and does what
//! that says, in order. Nothing else decides.
//!
//! ```text
//!   orders (REST) ──┐
//!   happenings ─────┼──► queue ──► see ──► step(entry, seen, input) ──► effects, in order ──► answer
//!   side tasks ─────┘                                                     │
//!      ▲            watch a stream · ask the destination · send commit    │
//!      └──────────────────────────────────────────────────────────────────┘
//! ```

use crate::agent::Agent;
use crate::archive::Staged;
use crate::boot::BootLog;
use crate::journal::{Moving, Record};
use crate::observe::see;
use estive_api::wire::{MoveOrder, OperationPhase, PrepareQuery, Prepared};
use estive_api::{Problem, fault};
use estive_hypervisor::{InstanceEvent, InstanceHappening, InstanceState, MigrationStatus};
use estive_model::{DomainName, Generation};
use estive_moves::{Answer, Grant, Holding, Input, Refusal, Seen};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

/// After this an observation that could not be acted on is made again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What is asked of a domain.
#[derive(Debug)]
pub enum Order {
    /// Hold it, stopped. Without a generation: the next.
    Define(Staged, Option<Generation>),
    /// Run it. Without a generation: the next, or as it runs.
    Start(Option<Generation>),
    /// Halt its processors.
    Pause,
    /// Ask the guest to power itself off.
    PowerButton,
    /// End it.
    Stop,
    /// Remove it.
    Forget,
    /// Stand ready to receive it.
    Prepare(Staged, PrepareQuery),
    /// Send it.
    Move(MoveOrder),
    /// Give the move up.
    Abort(Generation),
    /// Drop what was prepared.
    Discard(Generation),
    /// Whether the stream is loaded.
    AskReady(Generation),
    /// Run it.
    Commit(Generation),
}

/// An order's answer.
pub type Answered = Result<Answer, Problem>;

/// What reaches a domain's task.
pub enum Message {
    /// From outside.
    Order(Box<Order>, oneshot::Sender<Answered>),
    /// From a side task; one about a grant counts only while that grant is out.
    Observed {
        /// The grant's generation.
        generation: Option<Generation>,
        /// What was seen.
        input: Input,
        /// In words.
        note: String,
    },
    /// From the instance.
    Happened(InstanceEvent),
    /// The agent has started.
    Restarted,
}

/// What others may see of a domain without asking its task.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The journal's record.
    pub record: Record,
    /// An instance is being made right now.
    pub creating: bool,
    /// The last error.
    pub note: Option<String>,
    /// Process id of its QEMU.
    pub pid: Option<u32>,
    /// Why the journal cannot be believed.
    pub damaged: Option<String>,
}

impl Shown {
    /// Whether it stands in the list of domains: held, or not to be told.
    pub fn is_listed(&self) -> bool {
        self.damaged.is_some() || self.record.entry.holding != Holding::Absent
    }
}

/// How a domain's task is reached.
#[derive(Clone)]
pub struct Handle {
    pub(crate) orders: mpsc::UnboundedSender<Message>,
    pub(crate) shown: watch::Sender<Shown>,
    pub(crate) boot: Arc<Mutex<BootLog>>,
}

impl Handle {
    pub(crate) fn send(&self, message: Message) {
        // The task ends only with the agent.
        let _ = self.orders.send(message);
    }

    /// Orders, and waits for the answer.
    pub(crate) async fn order(&self, order: Order) -> Answered {
        let (reply, answered) = oneshot::channel();
        self.send(Message::Order(Box::new(order), reply));
        answered.await.unwrap_or_else(|_| {
            Err(Problem::unreachable(
                "the agent is ending; whether this was done shows when it is back",
            ))
        })
    }
}

/// What an input brings along.
#[derive(Default)]
pub(crate) struct Doing {
    /// Why, for events.
    pub reason: String,
    pub staged: Option<Staged>,
    pub moving: Option<Moving>,
    pub asked_ms: Option<u64>,
}

impl Doing {
    pub(crate) fn because(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            ..Self::default()
        }
    }
}

pub(crate) struct Domain {
    pub(crate) agent: Arc<Agent>,
    pub(crate) name: DomainName,
    pub(crate) handle: Handle,
    pub(crate) record: Record,
    /// Follows the outgoing stream.
    pub(crate) watcher: Option<AbortHandle>,
    /// Asks the destination whether it has the stream.
    pub(crate) asker: Option<AbortHandle>,
    /// Tells the destination to run it.
    pub(crate) committer: Option<(Grant, AbortHandle)>,
    pub(crate) boot_watch: Option<AbortHandle>,
}

impl Domain {
    pub(crate) fn new(agent: Arc<Agent>, name: DomainName, handle: Handle) -> Self {
        let record = handle.shown.borrow().record.clone();
        Self {
            agent,
            name,
            handle,
            record,
            watcher: None,
            asker: None,
            committer: None,
            boot_watch: None,
        }
    }

    pub(crate) async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        while let Some(message) = messages.recv().await {
            let damaged = self.handle.shown.borrow().damaged.clone();
            match message {
                Message::Order(_, reply) if damaged.is_some() => {
                    let _ = reply.send(Err(Problem::failed(damaged.unwrap_or_default())));
                }
                // Cannot tell: change nothing.
                _ if damaged.is_some() => {}
                Message::Order(order, reply) => {
                    let answered = self.obey(*order).await;
                    let _ = reply.send(answered);
                }
                Message::Observed {
                    generation,
                    input,
                    note,
                } => {
                    let current = match self.record.entry.holding {
                        Holding::Outgoing(grant) | Holding::Released(grant) => {
                            Some(grant.generation)
                        }
                        _ => None,
                    };
                    // What was seen of an ended move says nothing of the next.
                    if generation.is_none() || generation == current {
                        self.observe(input, note).await;
                    }
                }
                Message::Happened(event) => self.happened(event).await,
                Message::Restarted => self.restarted().await,
            }
        }
    }

    pub(crate) async fn see(&self) -> Seen {
        see(
            &*self.agent.hypervisor,
            &self.name,
            self.record.entry.holding,
        )
        .await
    }

    async fn obey(&mut self, order: Order) -> Answered {
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
            Order::AskReady(generation) => {
                self.answered(Input::AskReady(generation), Doing::default())
                    .await
            }
            Order::Commit(generation) => {
                let doing = Doing::because(format!(
                    "the source has released it: runs here as generation {}",
                    generation.0
                ));
                self.answered(Input::Commit(generation), doing).await
            }
        }
    }

    async fn define(&mut self, staged: Staged, generation: Option<Generation>) -> Answered {
        let entry = self.record.entry;
        let generation = generation.unwrap_or(match entry.holding {
            Holding::Stopped => entry.generation,
            _ => entry.floor.next(),
        });
        if entry.holding == Holding::Absent {
            self.agent.reserve(&self.name, staged.xml.memory_mib)?;
        }
        let doing = Doing {
            reason: format!(
                "{} MiB, {} processors, a layer of {} bytes",
                staged.xml.memory_mib, staged.xml.cpus, staged.layer_bytes
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
        if self.record.entry.holding == Holding::Absent {
            self.agent.reserve(&self.name, staged.xml.memory_mib)?;
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

    /// Takes in what was seen; what could not be acted on is looked at again.
    pub(crate) async fn observe(&mut self, input: Input, note: String) {
        fault_around_sent(&input, true);
        let acted = self.apply(input, Doing::because(note)).await;
        fault_around_sent(&input, false);
        let unclear = match acted {
            Err(problem) => {
                tracing::warn!(domain = %self.name, ?input, %problem, "could not act on what was seen");
                self.note(problem.error);
                // An instance that is gone cannot be acted on any better later, unless something must be told.
                self.see().await != Seen::Gone
                    || matches!(
                        self.record.entry.holding,
                        Holding::Outgoing(_) | Holding::Released(_)
                    )
            }
            Ok(_) => self.needs_another_look(input).await,
        };
        if unclear {
            self.agent.look_again(&self.handle, LOOK_AGAIN);
        }
    }

    /// Whether nobody would come back to this by himself.
    async fn needs_another_look(&self, input: Input) -> bool {
        let lives = |task: &AbortHandle| !task.is_finished();
        match self.record.entry.holding {
            Holding::Outgoing(_) => ![&self.watcher, &self.asker]
                .into_iter()
                .flatten()
                .any(lives),
            // Told that it is taken, and not dropped: the rest of its memory still follows, or it cannot be asked.
            Holding::Released(_) => {
                matches!(input, Input::Committed(..))
                    || !self.committer.as_ref().is_some_and(|(_, task)| lives(task))
            }
            Holding::Incoming(_) => false,
            _ => self.see().await == Seen::Unclear,
        }
    }

    async fn restarted(&mut self) {
        let holding = self.record.entry.holding;
        self.begin_report_again();
        if holding == Holding::Running && self.is_guest_stopped().await {
            let doing = Doing::because("the guest powered itself off while the agent was away");
            if let Err(problem) = self.apply(Input::Stop, doing).await {
                self.note(problem.error);
            }
            return;
        }
        self.observe(
            Input::Restarted,
            "found so after a restart of the agent".to_owned(),
        )
        .await;
        match self.record.entry.holding {
            Holding::Absent => self.clean_up().await,
            Holding::Outgoing(grant) if self.see().await == Seen::Streaming => {
                self.watch_stream(grant, self.agent.hypervisor.events());
            }
            Holding::Running => match self.see().await {
                Seen::Gone => self.mark_crashed("found gone").await,
                _ => self.watch_boot(),
            },
            _ => {}
        }
    }

    async fn is_guest_stopped(&self) -> bool {
        matches!(
            self.agent.hypervisor.state(&self.name).await,
            Ok(InstanceState::GuestStopped)
        )
    }

    async fn happened(&mut self, event: InstanceEvent) {
        let holding = self.record.entry.holding;
        match event.what {
            InstanceHappening::Gone => self.instance_gone().await,
            InstanceHappening::GuestPoweredOff => self.guest_powered_off().await,
            InstanceHappening::GuestPanicked => self.guest_panicked().await,
            // A move that was given up may have ended well all the same, and left it halted.
            InstanceHappening::Migration(
                MigrationStatus::Completed | MigrationStatus::Failed | MigrationStatus::Cancelled,
            ) if holding == Holding::Running => {
                self.observe(
                    Input::Restarted,
                    "a stream that was given up has ended".into(),
                )
                .await;
            }
            _ => {}
        }
    }

    async fn instance_gone(&mut self) {
        // An event of an instance that was replaced since says nothing.
        if self.see().await != Seen::Gone {
            return;
        }
        self.observe(Input::InstanceGone, "its QEMU is gone".into())
            .await;
        match self.record.entry.holding {
            Holding::Running => self.mark_crashed("its QEMU ended by itself").await,
            Holding::Incoming(_) => self.note(format!("its QEMU ended: {}", self.last_words())),
            _ => {}
        }
    }

    async fn guest_powered_off(&mut self) {
        const REASON: &str = "the guest powered itself off";
        if let Holding::Outgoing(grant) = self.record.entry.holding {
            let given_up = self.apply(Input::Abort(grant.generation), Doing::because(REASON));
            if let Err(problem) = given_up.await {
                self.note(problem.error);
            }
        }
        if self.record.entry.holding == Holding::Running
            && self.is_guest_stopped().await
            && let Err(problem) = self.apply(Input::Stop, Doing::because(REASON)).await
        {
            self.note(problem.error);
        }
    }

    async fn guest_panicked(&mut self) {
        if self.record.entry.holding != Holding::Running || !self.is_guest_stopped().await {
            return;
        }
        let words = self.last_words();
        // Halted for ever: its QEMU is of no more use.
        if let Err(error) = self.agent.hypervisor.kill(&self.name).await {
            tracing::warn!(domain = %self.name, %error, "its panicked guest was not ended");
        }
        self.mark_crashed(&format!("the guest's kernel panicked: {words}"))
            .await;
    }

    /// What was refused, as a problem that says what stands in the way.
    pub(crate) fn failed(&self, doing: &str, error: &dyn std::error::Error) -> Problem {
        let mut text = format!("could not {doing} {}: {error}", self.name);
        let mut source = error.source();
        while let Some(inner) = source {
            text.push_str(&format!(": {inner}"));
            source = inner.source();
        }
        Problem::failed(text)
    }

    pub(crate) fn note(&self, note: impl Into<String>) {
        let note = note.into();
        self.handle
            .shown
            .send_modify(|shown| shown.note = Some(note));
    }

    fn begin_report_again(&self) {
        let (phase, grant) = match self.record.entry.holding {
            Holding::Outgoing(grant) => (OperationPhase::Copying, grant),
            Holding::Released(grant) => (OperationPhase::Released, grant),
            _ => return,
        };
        if let Some(Moving::Source { operation, .. }) = &self.record.moving {
            self.agent
                .begin_operation(operation, &self.name, grant.generation, phase);
        }
    }
}

fn fault_around_sent(input: &Input, before: bool) {
    if *input == Input::StreamSent {
        match before {
            true => fault::before("move.sent"),
            false => fault::after("move.sent"),
        }
    }
}

/// A refusal as an HTTP problem.
pub fn refusal_problem(record: &Record, refusal: Refusal) -> Problem {
    let entry = record.entry;
    let name = &record.name;
    let (reason, advice) = match refusal {
        Refusal::OldGeneration => (
            format!(
                "{name}: this generation is not newer than {}, which is decided here already",
                entry.floor.0
            ),
            "order it with a newer generation",
        ),
        Refusal::NotHeldSo => (
            format!(
                "{name} is not held here in a way that allows this ({:?})",
                entry.holding
            ),
            "look at its status; stop it first, or delete it",
        ),
        Refusal::Moving => (
            format!("{name} is being moved"),
            "wait for the move to end, or abort it",
        ),
        Refusal::Released => (
            format!("{name} was released to another host"),
            "ask the other host",
        ),
        Refusal::NotRunning => (
            format!("{name} does not run here now"),
            "look at its status; start it first",
        ),
        Refusal::Unknown => (
            format!("{name} is not known here"),
            "define it first, or ask another host",
        ),
    };
    let problem = match refusal {
        Refusal::Unknown => Problem::not_found(reason),
        _ => Problem::impossible(reason),
    };
    problem
        .advice(advice)
        .details(serde_json::json!({"refusal": refusal, "entry": entry}))
}
