//! What all domains of a host share: its parts, its capacity, its ports, and who is to be asked about which domain.

use crate::AgentError;
use crate::boot_log::BootLog;
use crate::config::AgentConfig;
use crate::domain::{Domain, Handle, Message, Shown};
use crate::events::EventLog;
use crate::files::Files;
use crate::image_locks::Proofs;
use crate::journal::{Journal, Record};
use crate::observe::{domain_state, see};
use crate::operations::Operations;
use crate::roots::{self, Roots};
use crate::strangers;
use crate::taps::Taps;
use estive_api::wire::{AgentAbout, DomainReport, JournalReport, OperationPhase, SavedReport};
use estive_api::{Client, Credentials, Endpoint, Problem};
use estive_hypervisor::Hypervisor;
use estive_model::{Clock, DomainName, Event, EventKind, Generation, OperationId};
use estive_moves::{Holding, Seen};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::future::Future;
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

/// How long a report waits for a QEMU that does not answer.
const REPORT_PATIENCE: Duration = Duration::from_secs(2);

/// What an agent is made of.
pub struct Parts {
    /// Runs the domains.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Tells the time, for events and reports.
    pub clock: Arc<dyn Clock>,
    /// Makes their network interfaces.
    pub taps: Arc<dyn Taps>,
    /// Who this agent is to others; none when it only serves its unix socket.
    pub credentials: Option<Credentials>,
}

/// See the module.
pub struct Agent {
    pub(crate) config: AgentConfig,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) taps: Arc<dyn Taps>,
    pub(crate) journal: Journal,
    pub(crate) files: Files,
    pub(crate) events: EventLog,
    pub(crate) operations: Operations,
    pub(crate) roots: Roots,
    pub(crate) image_proofs: Proofs,
    credentials: Option<Credentials>,
    domains: Mutex<BTreeMap<DomainName, Handle>>,
    /// Memory of every domain that is held or about to be, in MiB.
    held_mib: Mutex<BTreeMap<DomainName, u64>>,
    /// What saves under way may write, by domain.
    pub(crate) saving_bytes: Mutex<BTreeMap<DomainName, u64>>,
    ports: Mutex<Ports>,
    clients: Mutex<HashMap<String, Client>>,
    tasks: Mutex<JoinSet<()>>,
    _state_lock: fs::File,
}

#[derive(Default)]
struct Ports {
    taken: BTreeMap<u16, DomainName>,
    last: u16,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    /// Opens the state, takes over what runs and goes on with what was under way.
    pub async fn start(config: AgentConfig, parts: Parts) -> Result<Arc<Self>, AgentError> {
        let state = &config.state;
        let file = |doing| {
            let path = state.clone();
            move |source| AgentError::File {
                doing,
                path,
                source,
            }
        };
        for part in ["domains", "tmp"] {
            fs::create_dir_all(state.join(part)).map_err(file("make directories in"))?;
        }
        let state_lock =
            fs::File::create(state.join("lock")).map_err(file("make the lock file in"))?;
        match state_lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(AgentError::StateHeld {
                    path: state.clone(),
                });
            }
            Err(fs::TryLockError::Error(source)) => return Err(file("lock")(source)),
        }
        // Nothing in there was ever in force.
        for entry in fs::read_dir(state.join("tmp")).map_err(file("clear"))? {
            let path = entry.map_err(file("clear"))?.path();
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
        let journal = Journal::open(state.join("journal"))?;
        let agent = Arc::new(Self {
            files: Files::open(state.join("files")).map_err(file("open the files in"))?,
            events: EventLog::open(state.join("events.jsonl"), parts.clock.clone())?,
            operations: Operations::open(state.join("operations"))
                .map_err(file("open the operations in"))?,
            image_proofs: Proofs::default(),
            roots: Roots::new(config.cache(), state.join("domains")),
            journal,
            hypervisor: parts.hypervisor,
            clock: parts.clock,
            taps: parts.taps,
            credentials: parts.credentials,
            domains: Mutex::default(),
            held_mib: Mutex::default(),
            saving_bytes: Mutex::default(),
            ports: Mutex::default(),
            clients: Mutex::default(),
            tasks: Mutex::default(),
            _state_lock: state_lock,
            config,
        });
        agent.take_over().await?;
        agent.spawn(roots::watch(agent.clone()));
        Ok(agent)
    }

    async fn take_over(self: &Arc<Self>) -> Result<(), AgentError> {
        let mut happenings = self.hypervisor.events();
        let records = self.journal.read_all()?;
        let found = self.hypervisor.adopt().await?;
        self.take_note_of_strangers(&records, &found).await?;
        for (name, record) in records {
            match record {
                Ok(record) => drop(self.add(record, None)),
                Err(reason) => {
                    tracing::error!(domain = %name, "{reason}");
                    let reason = format!("{reason}; or {}", strangers::way_out(&name));
                    drop(self.add(self.distrusted(&name), Some(reason)));
                }
            }
        }
        for instance in &found {
            let handle = self.domain_or_new(&instance.domain);
            handle
                .shown
                .send_modify(|shown| shown.pid = Some(instance.pid));
            let shown = handle.shown.borrow().clone();
            if shown.damaged.is_none() {
                self.tell(Event {
                    sequence: 0,
                    time_ms: 0,
                    kind: EventKind::Adopted,
                    domain: Some(instance.domain.clone()),
                    host: None,
                    generation: Some(shown.record.entry.generation),
                    operation: None,
                    reason: format!("the agent started and found QEMU {} standing", instance.pid),
                });
            }
        }
        self.settle_admitted().await;
        for handle in self.handles() {
            handle.send(Message::Restarted);
        }
        let agent = self.clone();
        self.spawn(async move {
            loop {
                match happenings.recv().await {
                    Ok(event) => {
                        if let Some(handle) = agent.domain(&event.domain) {
                            handle.send(Message::Happened(event));
                        }
                    }
                    // Whatever was missed shows in what the instances are now.
                    Err(RecvError::Lagged(_)) => {
                        for handle in agent.handles() {
                            handle.send(Message::Restarted);
                        }
                    }
                    Err(RecvError::Closed) => return,
                }
            }
        });
        Ok(())
    }

    pub(crate) fn add(self: &Arc<Self>, record: Record, damaged: Option<String>) -> Handle {
        let name = record.name.clone();
        // What one may use of which the journal says nothing is not given away either.
        if record.entry.holding != Holding::Absent || damaged.is_some() {
            lock(&self.held_mib).insert(name.clone(), record.memory_mib);
        }
        if let Some(crate::journal::Moving::Destination { stream, .. }) = &record.moving {
            lock(&self.ports).taken.insert(stream.port, name.clone());
        }
        let (orders, received) = mpsc::unbounded_channel();
        let handle = Handle {
            orders,
            boot: Arc::new(Mutex::new(BootLog::load(
                &self.place(&name),
                &self.config.name,
            ))),
            pushing: Arc::default(),
            shown: watch::Sender::new(Shown {
                record,
                creating: false,
                note: None,
                pid: None,
                damaged,
            }),
        };
        lock(&self.domains).insert(name.clone(), handle.clone());
        let domain = Domain::new(self.clone(), name, handle.clone());
        self.spawn(domain.run(received));
        handle
    }

    /// Ends all work of this agent at once, as its death would; QEMUs run on. On return nothing is being written.
    pub async fn end(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.shutdown().await;
        let journal = self.journal.clone();
        let _ = tokio::task::spawn_blocking(move || journal.settle()).await;
        // They hold each other by the handles.
        lock(&self.domains).clear();
    }

    /// Runs work that ends with the agent.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work)
    }

    /// Who answers for a domain that the journal knows.
    pub(crate) fn domain(&self, name: &DomainName) -> Option<Handle> {
        lock(&self.domains).get(name).cloned()
    }

    /// Who answers for a domain, also for one never heard of.
    pub(crate) fn domain_or_new(self: &Arc<Self>, name: &DomainName) -> Handle {
        match self.domain(name) {
            Some(handle) => handle,
            None => self.add(Record::new(name.clone()), None),
        }
    }

    pub(crate) fn handles(&self) -> Vec<Handle> {
        lock(&self.domains).values().cloned().collect()
    }

    /// The directory of a domain's files.
    pub(crate) fn place(&self, name: &DomainName) -> PathBuf {
        self.config.state.join("domains").join(name.as_str())
    }

    /// For what is being unpacked.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.config.state.join("tmp")
    }

    pub(crate) fn tell(&self, mut event: Event) {
        event.host = Some(self.config.name.clone());
        self.events.add(event);
    }

    /// A client of another agent; connections are shared and kept.
    pub(crate) fn client(&self, url: &str) -> Result<Client, Problem> {
        let mut clients = lock(&self.clients);
        if let Some(client) = clients.get(url) {
            return Ok(client.clone());
        }
        let client = Endpoint::parse(url)
            .map_err(|error| Problem::invalid(error.to_string()))
            .and_then(|endpoint| {
                Client::new(endpoint, self.credentials.as_ref())
                    .map_err(|error| Problem::invalid(error.to_string()))
            })?;
        clients.insert(url.to_owned(), client.clone());
        Ok(client)
    }

    /// Sets memory aside for a domain, or says how much is missing.
    pub(crate) fn reserve(&self, name: &DomainName, memory_mib: u64) -> Result<(), Problem> {
        let mut held = lock(&self.held_mib);
        let others: u64 = held
            .iter()
            .filter(|(other, _)| *other != name)
            .map(|(_, mib)| mib)
            .sum();
        let capacity = self.config.capacity.memory_mib;
        let free_mib = capacity.saturating_sub(others);
        if memory_mib > free_mib {
            return Err(Problem::impossible(format!(
                "{} has {free_mib} MiB left of the {capacity} MiB it declares, {name} needs {memory_mib} MiB",
                self.config.name
            ))
            .advice("use another host, delete a domain here, or declare more memory")
            .details(serde_json::json!({"free_memory_mib": free_mib, "needed_memory_mib": memory_mib})));
        }
        held.insert(name.clone(), memory_mib);
        Ok(())
    }

    /// Gives back what was set aside.
    pub(crate) fn release(&self, name: &DomainName) {
        lock(&self.held_mib).remove(name);
        self.release_port(name);
    }

    /// A port of the configured range that no other move uses.
    pub(crate) fn take_port(&self, name: &DomainName) -> Result<(IpAddr, u16), Problem> {
        let range = &self.config.migration;
        let mut ports = lock(&self.ports);
        let count = u32::from(range.last_port - range.first_port) + 1;
        // The one after the last used: a late connection of an ended move finds nobody.
        let start = match ports.last {
            last if (range.first_port..range.last_port).contains(&last) => last + 1,
            _ => range.first_port,
        };
        for step in 0..count {
            let offset = (u32::from(start - range.first_port) + step) % count;
            let port = range.first_port + offset as u16;
            if ports.taken.contains_key(&port) || TcpListener::bind((range.address, port)).is_err()
            {
                continue;
            }
            ports.taken.insert(port, name.clone());
            ports.last = port;
            return Ok((range.address, port));
        }
        Err(Problem::impossible(format!(
            "no port from {} to {} of {} is free for a stream",
            range.first_port, range.last_port, range.address
        ))
        .advice("wait until moves to this host are over, or configure more ports"))
    }

    pub(crate) fn release_port(&self, name: &DomainName) {
        lock(&self.ports).taken.retain(|_, holder| holder != name);
    }

    /// Who this is.
    pub(crate) fn about(&self) -> AgentAbout {
        AgentAbout {
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hypervisor: self.hypervisor.describe(),
            capacity: self.config.capacity(),
            used_memory_mib: lock(&self.held_mib).values().sum(),
            domains: self
                .handles()
                .iter()
                .filter(|handle| handle.shown.borrow().is_listed())
                .count() as u64,
            pid: std::process::id(),
            note: strangers::note(self),
        }
    }

    /// What is known of a domain, and what its instance looks like now.
    pub(crate) async fn report(&self, handle: &Handle) -> DomainReport {
        let shown = handle.shown.borrow().clone();
        let record = &shown.record;
        let entry = record.entry;
        let looked = see(&*self.hypervisor, &record.name, entry.holding);
        let looked = tokio::time::timeout(REPORT_PATIENCE, looked);
        let mut seen = match &shown.damaged {
            Some(_) => Seen::Unclear,
            None => looked.await.unwrap_or(Seen::Unclear),
        };
        // It is on its way, not gone.
        if shown.creating && seen == Seen::Gone {
            seen = match entry.holding {
                Holding::Incoming(_) => Seen::Awaiting,
                _ => Seen::Prelaunch,
            };
        }
        let json = |value| serde_json::to_value(value).unwrap_or_default();
        let mut boot = {
            let log = lock(&handle.boot);
            let mut times = log.times();
            if log.boots.last().is_none() {
                times.asked_ms = record.asked_ms;
            }
            times
        };
        if matches!(
            seen,
            Seen::Gone | Seen::Prelaunch | Seen::Awaiting | Seen::Loaded
        ) {
            boot.registered = None;
        }
        DomainReport {
            name: record.name.clone(),
            state: domain_state(entry.holding, seen),
            journal: JournalReport {
                entry: json(entry),
                seen: serde_json::to_value(seen).unwrap_or_default(),
                doubt: shown.damaged.clone(),
            },
            memory_mib: record.memory_mib,
            cpus: record.cpus,
            pid: shown.pid.filter(|_| seen != Seen::Gone),
            saved: record.saved.as_ref().map(|saved| SavedReport {
                saved_ms: saved.saved_ms,
                bytes: saved.bytes,
            }),
            operation: record.moving.as_ref().map(|m| m.operation().clone()),
            note: shown.damaged.or(record.crashed.clone()).or(shown.note),
            boot,
        }
    }

    /// Begins the report of a move that this host sends.
    pub(crate) fn begin_operation(
        &self,
        operation: &OperationId,
        name: &DomainName,
        generation: Generation,
        phase: OperationPhase,
    ) {
        self.operations.begin(operation, name, generation, phase);
    }

    /// Looks at a domain again after a while.
    pub(crate) fn look_again(&self, handle: &Handle, after: Duration) -> AbortHandle {
        let handle = handle.clone();
        self.spawn(async move {
            tokio::time::sleep(after).await;
            handle.send(Message::Restarted);
        })
    }
}
