//! The real driver: one QEMU process for each domain, driven over QMP.
//!
//! ```text
//!   <runtime_dir>/<domain>/  pid  qmp.sock  console.sock  console.log  report  identity.sock  qga.sock  stderr
//! ```
//!
//! **Architecture invariant:** nothing an instance needs lives in this process. QEMUs have a session of their own and
//! are watched by pidfd; dropping the driver, or killing the agent, disturbs none, and [`Hypervisor::adopt`] finds
//! them all by their command lines.

mod arguments;
mod directory;
mod driver;
mod image_arguments;
mod images;
mod incoming;
mod instance;
mod kvm;
mod outgoing;
mod process;

pub use arguments::{MACHINE, arguments};
use image_arguments::image_arguments;
pub use kvm::KvmVerdict;

use crate::seam::*;
use directory::{Directory, failed};
use estive_model::{DomainName, Machine};
use instance::Instance;
use process::Process;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, broadcast};

/// Events kept for a slow reader.
const EVENTS_KEPT: usize = 1024;

/// How guests are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// By translation: works everywhere, slow.
    Tcg,
    /// By the processor's virtualisation. Must have been proved to work ([`KvmVerdict`]): a device that opens is no
    /// proof.
    Kvm,
}

impl Accel {
    /// The word QEMU, agents and tests use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

/// A network without any right on this host: QEMU itself answers for the router, and forwards connections made to
/// 127.0.0.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserNetwork {
    /// The guests' network, `10.77.0.0/24`.
    pub network: String,
    /// The router's address in it.
    pub router: Ipv4Addr,
    /// The name server's, another one.
    pub name_server: Ipv4Addr,
    /// The guest's own address.
    pub guest: Ipv4Addr,
    /// Ports of this host, each with the guest's.
    pub forwards: Vec<(u16, u16)>,
}

/// How QEMU is used on this host.
#[derive(Debug, Clone)]
pub struct QemuConfig {
    /// Directory of this host's instances, one directory for each. Short: the path of
    /// `<runtime_dir>/<domain>/identity.sock` must fit into the 107 bytes of a unix socket.
    pub runtime_dir: PathBuf,
    /// The emulator, a path or a name looked up in `PATH`.
    pub emulator: PathBuf,
    /// How guests are executed.
    pub accel: Accel,
    /// Directory with `ca-cert.pem`, `server-cert.pem`, `server-key.pem`, `client-cert.pem`, `client-key.pem` (QEMU's
    /// `tls-creds-x509`); needed for network block devices and streams over TLS.
    pub credentials: Option<PathBuf>,
    /// Directory of the cgroup (version 1 or 2) instances are put into.
    pub cgroup: Option<PathBuf>,
    /// How long a guest's reads wait for a network block device's server that went away, in seconds.
    pub nbd_reconnect_delay_s: u32,
    /// Longest time a command may take.
    pub patience: Duration,
    /// The network of an instance without taps and bridges; `None`: the tap that its spec names.
    pub user_network: Option<UserNetwork>,
}

impl QemuConfig {
    /// Emulation by translation, without credentials or cgroup.
    pub fn new(runtime_dir: impl Into<PathBuf>) -> Self {
        Self {
            runtime_dir: runtime_dir.into(),
            emulator: "qemu-system-x86_64".into(),
            accel: Accel::Tcg,
            credentials: None,
            cgroup: None,
            nbd_reconnect_delay_s: 60,
            patience: Duration::from_secs(10),
            user_network: None,
        }
    }
}

/// See the module.
pub struct QemuHypervisor {
    inner: Arc<Inner>,
}

struct Inner {
    config: QemuConfig,
    version: String,
    happenings: broadcast::Sender<InstanceEvent>,
    instances: Mutex<HashMap<DomainName, Arc<Instance>>>,
    /// Making and ending an instance of one domain takes turns.
    turns: Mutex<HashMap<DomainName, Arc<tokio::sync::Mutex<()>>>>,
}

impl QemuHypervisor {
    /// Makes the runtime directory and asks the emulator for its version. Starts and finds nothing: see
    /// [`Hypervisor::adopt`].
    pub async fn new(mut config: QemuConfig) -> Result<Self, HypervisorError> {
        let directory = config.runtime_dir.clone();
        let doing = |source| {
            failed(
                format!("making the directory {}", directory.display()),
                source,
            )
        };
        std::fs::create_dir_all(&directory).map_err(doing)?;
        // Instances are recognised by this path: it must have one spelling only.
        config.runtime_dir = directory.canonicalize().map_err(doing)?;
        for file in [&mut config.credentials, &mut config.cgroup]
            .into_iter()
            .flatten()
        {
            *file = std::path::absolute(&*file)
                .map_err(|source| failed(format!("finding {}", file.display()), source))?;
        }
        let version = version(&config).await?;
        let (happenings, _) = broadcast::channel(EVENTS_KEPT);
        let inner = Inner {
            config,
            version,
            happenings,
            instances: Mutex::default(),
            turns: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The configuration in use.
    pub fn config(&self) -> &QemuConfig {
        &self.inner.config
    }
}

impl Drop for QemuHypervisor {
    fn drop(&mut self) {
        // A QEMU takes one monitor connection at a time: let go of all at once, for whoever adopts next.
        for instance in self.inner.instances().values() {
            instance.outgoing().abandon();
        }
    }
}

async fn version(config: &QemuConfig) -> Result<String, HypervisorError> {
    let emulator = config.emulator.display();
    let doing = format!("asking {emulator} for its version (is QEMU installed?)");
    let mut command = tokio::process::Command::new(&config.emulator);
    command
        .arg("--version")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = match tokio::time::timeout(config.patience, command.output()).await {
        Ok(output) => output.map_err(|source| failed(doing.clone(), source))?,
        Err(_) => return Err(failed(doing, std::io::ErrorKind::TimedOut.into())),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    // `QEMU emulator version 10.0.2 (Debian ...)`
    let version = text
        .split_once("version ")
        .and_then(|(_, rest)| rest.split_whitespace().next());
    match version {
        Some(version) if output.status.success() => Ok(version.to_owned()),
        _ => Err(failed(
            doing,
            std::io::Error::other(format!("it said {:?}", text.trim())),
        )),
    }
}

impl Inner {
    fn instances(&self) -> MutexGuard<'_, HashMap<DomainName, Arc<Instance>>> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn(&self, domain: &DomainName) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|name, turn| name == domain || Arc::strong_count(turn) > 1);
            turns.entry(domain.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }

    fn directory(&self, domain: &DomainName) -> Directory {
        Directory::of(&self.config.runtime_dir, domain)
    }

    fn known(&self, domain: &DomainName) -> Option<Arc<Instance>> {
        self.instances()
            .get(domain)
            .filter(|instance| !instance.process.is_gone())
            .cloned()
    }

    /// The living instance of `domain`, known or found.
    fn find(
        self: &Arc<Self>,
        domain: &DomainName,
    ) -> Result<Option<Arc<Instance>>, HypervisorError> {
        if let Some(instance) = self.known(domain) {
            return Ok(Some(instance));
        }
        self.discover(|name| name == domain)?;
        Ok(self.known(domain))
    }

    fn required(self: &Arc<Self>, domain: &DomainName) -> Result<Arc<Instance>, HypervisorError> {
        self.find(domain)?
            .ok_or_else(|| HypervisorError::NoInstance(domain.clone()))
    }

    /// Takes hold of living instances that are not known yet.
    fn discover(
        self: &Arc<Self>,
        wanted: impl Fn(&DomainName) -> bool,
    ) -> Result<(), HypervisorError> {
        let found = Process::find(&self.config.runtime_dir, |domain| {
            wanted(domain) && self.known(domain).is_none()
        })
        .map_err(|source| failed("looking for running instances in /proc".into(), source))?;
        for (domain, process) in found {
            self.hold(domain, process);
        }
        Ok(())
    }

    /// Enters a living process as the instance of `domain`. Of two that hold it at once, the first stays.
    fn hold(self: &Arc<Self>, domain: DomainName, process: Process) -> Arc<Instance> {
        let instance = {
            let mut instances = self.instances();
            let known = instances
                .get(&domain)
                .filter(|instance| !instance.process.is_gone());
            if let Some(known) = known {
                return known.clone();
            }
            let instance = Arc::new(Instance::new(
                domain.clone(),
                self.directory(&domain),
                process,
                self.config.patience,
                self.happenings.clone(),
            ));
            instances.insert(domain, instance.clone());
            instance
        };
        tokio::spawn(bury(
            Arc::downgrade(self),
            Arc::downgrade(&instance),
            instance.process.clone(),
        ));
        instance
    }

    /// Starts a process and waits until its monitor answers. Leaves nothing behind when it fails.
    async fn launch(
        self: &Arc<Self>,
        machine: &Machine,
        incoming: bool,
    ) -> Result<Arc<Instance>, HypervisorError> {
        let name = machine.name();
        if self.find(name)?.is_some() {
            return Err(HypervisorError::Exists(name.clone()));
        }
        // Before anything is made: what cannot be opened leaves nothing.
        let opened = match machine {
            Machine::Clone(_) => images::Opened::default(),
            Machine::Images(spec) => {
                let spec = spec.clone();
                // On storage that is gone it waits, and nobody else is to wait for that.
                tokio::task::spawn_blocking(move || images::Opened::open(&spec))
                    .await
                    .unwrap_or_else(|error| {
                        let source = std::io::Error::other(error);
                        Err(failed("opening images".into(), source))
                    })?
            }
        };
        let directory = self.directory(name);
        let (identity, line) = match machine {
            Machine::Clone(spec) => (
                spec.identity.as_deref(),
                arguments(spec, &self.config, incoming),
            ),
            Machine::Images(spec) => (None, image_arguments(spec, &opened, &self.config, incoming)),
        };
        let stderr = directory.prepare(identity, incoming)?;
        let emulator = &self.config.emulator;
        let process = Process::start(emulator, &line, stderr, opened.into_descriptors()).map_err(
            |source| {
                directory.discard();
                failed(format!("starting {}", emulator.display()), source)
            },
        )?;
        if let Some(cgroup) = &self.config.cgroup
            && let Err(error) = process.enter_cgroup(cgroup)
        {
            let cgroup = cgroup.display();
            tracing::warn!(domain = %name, %cgroup, %error, "QEMU runs outside of its cgroup");
        }
        let instance = self.hold(name.clone(), process);
        let asked = async {
            instance.execute("query-status", Value::Null).await?;
            match machine {
                Machine::Images(spec) => instance.has_no_other_files(spec).await,
                Machine::Clone(_) => Ok(()),
            }
        };
        match asked.await {
            Ok(()) => {
                let _ = std::fs::remove_file(directory.identity_file());
                Ok(instance)
            }
            Err(error) => {
                let error = match error {
                    HypervisorError::Died(domain) => HypervisorError::DiedAtStart {
                        domain,
                        detail: directory.last_words(),
                    },
                    other => other,
                };
                self.remove(&instance).await?;
                directory.discard();
                Err(error)
            }
        }
    }

    /// Kills the process, waits for its end and removes its sockets.
    async fn remove(&self, instance: &Arc<Instance>) -> Result<(), HypervisorError> {
        let domain = &instance.domain;
        instance.outgoing().abandon();
        instance
            .process
            .kill()
            .map_err(|source| failed(format!("killing QEMU of {domain}"), source))?;
        let ended = tokio::time::timeout(self.config.patience, instance.process.ended()).await;
        if ended.is_err() {
            return Err(HypervisorError::Silent {
                domain: domain.clone(),
                command: "SIGKILL".into(),
                waited_ms: u64::try_from(self.config.patience.as_millis()).unwrap_or(u64::MAX),
            });
        }
        self.forget(instance);
        Ok(())
    }

    /// Drops a process that has ended. The turn of its domain is held.
    fn forget(&self, instance: &Arc<Instance>) {
        let mut instances = self.instances();
        if instances
            .get(&instance.domain)
            .is_some_and(|known| Arc::ptr_eq(known, instance))
        {
            instances.remove(&instance.domain);
            instance.directory.clear();
        }
    }
}

/// Waits for the end of an instance, then tells of it and cleans up after it.
async fn bury(driver: Weak<Inner>, instance: Weak<Instance>, process: Process) {
    process.ended().await;
    let (Some(driver), Some(instance)) = (driver.upgrade(), instance.upgrade()) else {
        return;
    };
    instance.outgoing().abandon();
    instance.tell(InstanceHappening::Gone);
    let _turn = driver.turn(&instance.domain).await;
    driver.forget(&instance);
}
