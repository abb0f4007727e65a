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
use crate::boot_log::BootLog;
use crate::journal::{Moving, Record};
use crate::layer::PushedLayer;
use crate::observe::see;
use crate::saved::Saved;
use estive_api::wire::{MoveOrder, PrepareQuery};
use estive_api::{Peer, Problem};
use estive_hypervisor::{FileId, HypervisorError, InstanceEvent};
use estive_model::{DomainName, Generation};
use estive_moves::{Answer, Grant, Holding, Input, Refusal, Seen};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

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
    /// Write its memory to disk and end it. Without a generation: as it runs.
    Save(Option<Generation>),
    /// Go on from what was saved. Without a generation: the next.
    Restore(Option<Generation>),
    /// Drop what was saved.
    DropSaved,
    /// Forget what the journal cannot tell of; no generation up to this one is taken any more.
    Disown(Option<Generation>),
    /// Stand ready to receive it.
    Prepare(Staged, PrepareQuery),
    /// Send it.
    Move(MoveOrder),
    /// Give the move up.
    Abort(Generation),
    /// Drop what was prepared.
    Discard(Generation),
    /// Whether the stream is loaded, and who asks.
    AskReady(Generation, Peer),
    /// Run it, and who says so.
    Commit(Generation, Peer),
    /// Take another layer, for the reason given; the domain must have this generation, if one is named.
    TakeLayer(PushedLayer, Option<Generation>, String),
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
    /// Held while a layer is pushed: one at a time.
    pub(crate) pushing: Arc<tokio::sync::Mutex<()>>,
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
    /// What was just written.
    pub saved: Option<Saved>,
    /// Its storage host said no.
    pub turned_away: bool,
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
    /// A look that is to come.
    pub(crate) look: Option<AbortHandle>,
    /// The files of what is being prepared here, as they were looked at.
    pub(crate) proven: Vec<FileId>,
    /// The last step was decided without knowing what the instance does.
    pub(crate) stepped_unclear: bool,
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
            look: None,
            proven: Vec::new(),
            stepped_unclear: false,
        }
    }

    pub(crate) async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        while let Some(message) = messages.recv().await {
            let damaged = self.handle.shown.borrow().damaged.clone();
            match message {
                Message::Order(order, reply)
                    if damaged.is_some() && !matches!(*order, Order::Disown(_)) =>
                {
                    let _ = reply.send(Err(Problem::impossible(damaged.unwrap_or_default())));
                }
                Message::Order(order, reply) if damaged.is_some() => {
                    let answered = self.obey(*order).await;
                    let _ = reply.send(answered);
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

    /// What was refused, as a problem that says what stands in the way.
    pub(crate) fn failed(&self, doing: &str, error: &(dyn std::error::Error + 'static)) -> Problem {
        let mut text = format!("could not {doing} {}: {error}", self.name);
        let mut source = error.source();
        while let Some(inner) = source {
            text.push_str(&format!(": {inner}"));
            source = inner.source();
        }
        let problem = Problem::failed(text);
        match error.downcast_ref() {
            Some(HypervisorError::DiedAtStart { .. }) => problem.advice(
                "see to what QEMU names: the kernel and initial file system of its reference, the server of its root, \
                 this host's memory",
            ),
            _ => problem,
        }
    }

    pub(crate) fn note(&self, note: impl Into<String>) {
        let note = note.into();
        self.handle
            .shown
            .send_modify(|shown| shown.note = Some(note));
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
        Refusal::Saving => (
            format!("the memory of {name} is being saved or restored"),
            "wait for that to end; a restore that does not end is given up by estive stop",
        ),
        Refusal::Saved => (
            format!("{name} is saved: it does not run, and its memory waits on disk"),
            "go on from it by estive restore, or drop it by estive save --drop",
        ),
        Refusal::NotSaved => (
            format!("nothing is saved of {name}"),
            "look at its status; estive save keeps a running one",
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
