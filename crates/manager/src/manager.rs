//! The manager's parts in one place; its acts are in the files named after them.

use crate::agents::Agent;
use crate::config::ManagerConfig;
use crate::error::ManagerError;
use crate::event_log::EventLog;
use crate::inventory::Host;
use crate::move_loop::ActiveMove;
use crate::probe::Prober;
use crate::readers::Readers;
use crate::records::Records;
use crate::references::References;
use crate::volumes::Storage;
use estive_api::wire::ManagerAbout;
use estive_api::{Client, Credentials, Problem};
use estive_model::{Clock, DeploymentName, DomainName, HostName};
use estive_sandbox::Worker;
use estive_store::Store;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a manager is made of besides its configuration: the seams.
pub struct Parts {
    /// Tells the time, for events and reports.
    pub clock: Arc<dyn Clock>,
    /// Asks clones whether they answer.
    pub prober: Arc<dyn Prober>,
    /// Renders herds where they can do no harm; `None`: in this process, and scripts of template sets are refused.
    pub worker: Option<Worker>,
}

/// What every request and task shares.
pub(crate) struct Manager {
    pub clock: Arc<dyn Clock>,
    pub records: Records,
    pub events: EventLog,
    pub hosts: BTreeMap<HostName, Host>,
    pub references: References,
    /// Where volumes are kept.
    pub storage: Option<Storage>,
    /// Who serves live references hears who may read.
    pub readers: Readers,
    pub prober: Arc<dyn Prober>,
    pub worker: Option<Worker>,
    /// What scripts of template sets have made.
    pub script_cache: PathBuf,
    /// Where built layers are kept.
    pub state: PathBuf,
    pub boot_timeout: Duration,
    /// Held while memory is counted and promised.
    pub placing: tokio::sync::Mutex<()>,
    /// Held for reading while there may be initial RAM file systems that no record names yet.
    pub making_initramfs: tokio::sync::RwLock<()>,
    pub moves: Mutex<HashMap<DomainName, ActiveMove>>,
    pub shutdown: CancellationToken,
    domains: Mutex<HashMap<DomainName, Arc<tokio::sync::Mutex<()>>>>,
    busy: Mutex<HashMap<DeploymentName, Place>>,
    tasks: Mutex<JoinSet<()>>,
}

/// What a deployment is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Up,
    Down,
    Push,
}

/// Of a deployment that is busy.
struct Place {
    doing: Doing,
    /// A `down` waits for it to end.
    given_up: CancellationToken,
    over: CancellationToken,
}

impl Place {
    fn is_given_up(&self) -> bool {
        self.given_up.is_cancelled()
    }
}

/// Keeps a deployment to one order at a time; dropped, it is free again.
pub(crate) struct BusyDeployment {
    manager: Arc<Manager>,
    name: DeploymentName,
    /// Somebody takes the deployment down: what is being done is to end, and leaves what it has made to that.
    pub given_up: CancellationToken,
    over: CancellationToken,
}

impl Drop for BusyDeployment {
    fn drop(&mut self) {
        lock(&self.manager.busy).remove(&self.name);
        self.over.cancel();
    }
}

impl BusyDeployment {
    /// Tells a line. Who asked may read no more: whoever takes the deployment down does not wait for that.
    pub async fn say<T>(&self, lines: &mpsc::Sender<T>, line: T) {
        tokio::select! {
            _ = lines.send(line) => {}
            () = self.given_up.cancelled() => {}
        }
    }
}

/// What these mutexes guard is whole between any two statements, also after a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Manager {
    /// Reads the references and the log. Nothing is asked of any agent yet.
    pub async fn new(
        config: &ManagerConfig,
        credentials: Option<&Credentials>,
        store: Arc<dyn Store>,
        parts: Parts,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, ManagerError> {
        let mut hosts = BTreeMap::new();
        for (name, endpoint) in &config.hosts {
            let client = Client::new(endpoint.clone(), credentials).map_err(|error| {
                let source = Box::new(error);
                ManagerError::Host {
                    host: name.clone(),
                    source,
                }
            })?;
            hosts.insert(name.clone(), Host::new(Agent::new(name.clone(), client)));
        }
        let storage = config.volumes.as_ref();
        let storage = storage
            .map(|volumes| Storage::new(volumes, credentials))
            .transpose()?;
        let (wanted, ours) = (config.clone(), credentials.cloned());
        let load = move || References::load(&wanted, ours.as_ref());
        let references = tokio::task::spawn_blocking(load)
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        let records = Records::new(store);
        let events = EventLog::open(records.clone(), parts.clock.clone())
            .await
            .map_err(ManagerError::Store)?;
        Ok(Arc::new(Self {
            clock: parts.clock,
            prober: parts.prober,
            worker: parts.worker,
            script_cache: config.state.join("scripts"),
            state: config.state.clone(),
            records,
            events,
            hosts,
            references: references?,
            storage,
            readers: Readers::new(credentials),
            boot_timeout: Duration::from_secs(config.boot_timeout_s),
            placing: tokio::sync::Mutex::default(),
            making_initramfs: tokio::sync::RwLock::default(),
            moves: Mutex::default(),
            shutdown,
            domains: Mutex::default(),
            busy: Mutex::default(),
            tasks: Mutex::default(),
        }))
    }

    /// Runs work that outlives the request which asked for it, and ends with the manager.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    /// The same for work whose result is waited for.
    pub async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.spawn(async move {
            // Nobody may be waiting any more; the work is done all the same.
            let _ = tell.send(work.await);
        });
        told.await
            .unwrap_or_else(|_| Err(Problem::failed("the manager is ending")))
    }

    /// Ends all work at once, as the manager's death would; the store then holds what another manager goes on with.
    pub async fn end(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.shutdown().await;
        self.events.close().await;
    }

    /// A host that the configuration names.
    pub fn host(&self, name: &HostName) -> Result<&Host, Problem> {
        self.hosts.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.hosts.keys().map(HostName::as_str).collect();
            Problem::impossible(format!(
                "there is no host {name}; there are {}: {}",
                known.len(),
                known.join(", ")
            ))
            .advice("estive hosts, or add it to hosts: in the manager's configuration")
            .details(serde_json::json!({ "host": name, "hosts": known }))
        })
    }

    /// Orders to one domain come one after the other.
    pub async fn domain_lock(&self, name: &DomainName) -> tokio::sync::OwnedMutexGuard<()> {
        let mutex = {
            let mut domains = lock(&self.domains);
            // Forget those that nobody holds, so that the map stays as small as what is under way.
            domains.retain(|_, mutex| Arc::strong_count(mutex) > 1);
            domains.entry(name.clone()).or_default().clone()
        };
        mutex.lock_owned().await
    }

    /// Refuses a second order to a deployment while one is under way.
    pub fn occupy(
        self: &Arc<Self>,
        name: &DeploymentName,
        doing: Doing,
    ) -> Result<BusyDeployment, Problem> {
        let mut busy = lock(&self.busy);
        match busy.get(name) {
            Some(place) => Err(is_busy(name, place)),
            None => Ok(self.take_place(&mut busy, name, doing)),
        }
    }

    /// The same for `down`, which ends an `up` that is under way; says whether there was one.
    pub async fn occupy_for_down(
        self: &Arc<Self>,
        name: &DeploymentName,
    ) -> Result<(BusyDeployment, bool), Problem> {
        let mut ended = false;
        loop {
            let over = {
                let mut busy = lock(&self.busy);
                match busy.get(name) {
                    None => return Ok((self.take_place(&mut busy, name, Doing::Down), ended)),
                    Some(place) if place.doing == Doing::Up && !place.is_given_up() => {
                        place.given_up.cancel();
                        place.over.clone()
                    }
                    Some(place) => return Err(is_busy(name, place)),
                }
            };
            over.cancelled().await;
            ended = true;
        }
    }

    fn take_place(
        self: &Arc<Self>,
        busy: &mut HashMap<DeploymentName, Place>,
        name: &DeploymentName,
        doing: Doing,
    ) -> BusyDeployment {
        let (given_up, over) = (CancellationToken::new(), CancellationToken::new());
        let place = Place {
            doing,
            given_up: given_up.clone(),
            over: over.clone(),
        };
        busy.insert(name.clone(), place);
        BusyDeployment {
            manager: self.clone(),
            name: name.clone(),
            given_up,
            over,
        }
    }

    pub async fn about(&self) -> Result<ManagerAbout, Problem> {
        Ok(ManagerAbout {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hosts: self.hosts.len() as u64,
            domains: self.records.domains().await?.len() as u64,
            pid: std::process::id(),
        })
    }
}

fn is_busy(name: &DeploymentName, place: &Place) -> Problem {
    let (what, advice) = match place.doing {
        Doing::Up if !place.is_given_up() => (
            "brought up",
            format!(
                "wait until that is over, or estive down {name} to end it; estive ls shows how far it is"
            ),
        ),
        Doing::Up | Doing::Down => ("taken down", "wait until that is over".to_owned()),
        Doing::Push => ("pushed to", "wait until that is over".to_owned()),
    };
    Problem::impossible(format!("the deployment {name} is just being {what}")).advice(advice)
}
