//! A herd's real programs in the topology: storage, an agent on each host, a manager.
//!
//! Everything lies under one directory of the outer namespace's private tmpfs:
//! `authority/`, `credentials/NAME/`, `roots/` (signed manifests), `log/NAME.log`,
//! `host1/{agent.yaml,agent.sock,state/,cache/,q/}`, `manager/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use estive_api::wire::{CacheAbout, CacheDirectory};
use estive_api::{Client, Endpoint};
use estive_model::{Capacity, DomainName};
use estive_network::namespace::Namespace;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::Command;

use crate::bed_files::{
    BedFiles, ROOTS_PORT, VOLUMES_PORT, make_directory, manager_socket, runtime,
};
use crate::part::{Part, listens, processes_in, tail};
use crate::topology::{self, Topology};
use crate::{Error, outer};

/// Ten times what a loaded machine was seen to need.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const COMMAND_LIMIT: Duration = Duration::from_secs(900);

pub use crate::bed_files::host_name;

/// One reference of the bed: a sealed root and what boots it.
#[derive(Debug, Clone)]
pub struct BedReference {
    /// The sealed root (EROFS), as sealing named it, its manifest beside it.
    pub image: PathBuf,
    /// Kernel.
    pub kernel: PathBuf,
    /// Initial RAM file system with `estive-init`.
    pub initramfs: PathBuf,
    /// Image of the kernel's modules.
    pub modules: PathBuf,
    /// Template sets of its clones; none for a root made by hand.
    pub sets: Vec<String>,
    /// For clones with a root line of their own: `estive-init`, and the tree with the kernel's modules.
    pub early: Option<(PathBuf, PathBuf)>,
}

/// What a bed is made of.
#[derive(Debug, Clone)]
pub struct BedConfig {
    /// The `estive` program.
    pub estive: PathBuf,
    /// The `estive-bed` program (loads, pings, witness).
    pub tool: PathBuf,
    /// References by name; a herd file without `reference:` takes `default`.
    pub references: BTreeMap<String, BedReference>,
    /// `tcg` or `kvm`.
    pub accel: String,
    /// Number of hosts.
    pub hosts: u8,
    /// What each host declares.
    pub capacity: Capacity,
    /// What the manager's configuration calls the roots of references in place of their digests: names that
    /// `estive seal --name` gave, beside their images.
    pub root_names: BTreeMap<String, String>,
    /// References whose clones read a directory of the storage place as it is now, by name; their images are not used.
    pub live: BTreeMap<String, PathBuf>,
    /// Directories that the clones of a reference share, as `estive storage --share` has them: `NAME:/AT=DIRECTORY`.
    pub shares: Vec<String>,
    /// Keep volumes of stateful clones at the storage place, in this directory.
    pub volumes: Option<PathBuf>,
    /// Encrypt QEMU's migration stream.
    pub migration_tls: bool,
    /// How long `estive up` waits for a clone, in seconds.
    pub boot_timeout_s: u64,
    /// Where everything is kept: short, since sockets lie below it. [`outer::WORK_DIRECTORY`] by default.
    pub directory: PathBuf,
}

impl BedConfig {
    /// Three hosts of 2 cores and 2048 MiB under TCG, with one reference `default`.
    #[must_use]
    pub fn new(estive: PathBuf, tool: PathBuf, default: BedReference) -> Self {
        Self {
            estive,
            tool,
            references: BTreeMap::from([("default".to_owned(), default)]),
            accel: "tcg".to_owned(),
            hosts: 3,
            capacity: Capacity {
                cores: 2,
                memory_mib: 2048,
            },
            root_names: BTreeMap::new(),
            live: BTreeMap::new(),
            shares: Vec::new(),
            volumes: None,
            migration_tls: true,
            boot_timeout_s: 300,
            directory: PathBuf::from(outer::WORK_DIRECTORY),
        }
    }
}

/// The running bed. Dropping it kills its programs (QEMUs that outlive their agent go with the outer namespace, or
/// by [`Bed::stop`]).
#[derive(Debug)]
pub struct Bed {
    config: BedConfig,
    topology: Topology,
    storage: Part,
    volumes: Option<Part>,
    caches: Vec<Part>,
    agents: Vec<Part>,
    manager: Part,
}

impl Bed {
    /// Makes the topology, issues certificates, writes configurations, starts everything and waits until each answers.
    pub async fn start(config: BedConfig) -> Result<Self, Error> {
        let topology = Topology::make(config.hosts).await?;
        let mut bed = Self::prepare(config, topology).await?;
        bed.start_storage().await?;
        bed.start_volumes().await?;
        for host in 1..=bed.config.hosts {
            bed.caches[usize::from(host - 1)].start(&[])?;
            bed.agents[usize::from(host - 1)].start(&[])?;
        }
        for host in 1..=bed.config.hosts {
            bed.wait_for_agent(host).await?;
        }
        bed.start_manager().await?;
        Ok(bed)
    }

    /// Everything but the start of programs.
    async fn prepare(config: BedConfig, topology: Topology) -> Result<Self, Error> {
        let files = BedFiles { config: &config };
        for directory in ["log", "manager/state", "storage"] {
            make_directory(&config.directory.join(directory))?;
        }
        files
            .issue("storage", "storage", &[topology::STORAGE_ADDRESS.into()])
            .await?;
        files
            .issue("manager", "manager", &[topology::MANAGER_ADDRESS.into()])
            .await?;
        files.issue("user", "demo", &[]).await?;
        files.sign_roots().await?;
        let storage = Part::new(files.storage(&topology));
        let mut caches = Vec::new();
        let directory = config.volumes.as_deref();
        let volumes = directory.map(|directory| Part::new(files.volumes(&topology, directory)));
        let mut agents = Vec::new();
        for host in 1..=config.hosts {
            let name = host_name(host);
            files
                .issue("agent", &name, &[topology::host_address(host).into()])
                .await?;
            agents.push(Part::new(files.agent(&topology, host)?));
            caches.push(Part::new(files.cache(&topology, host)));
        }
        let manager = Part::new(files.manager(&topology)?);
        Ok(Self {
            config,
            topology,
            storage,
            volumes,
            caches,
            agents,
            manager,
        })
    }

    /// The namespaces.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// What it was made of.
    #[must_use]
    pub fn config(&self) -> &BedConfig {
        &self.config
    }

    /// The manager's unix socket.
    #[must_use]
    pub fn manager_socket(&self) -> PathBuf {
        manager_socket()
    }

    /// The unix socket of host `host`'s agent (hosts count from 1).
    #[must_use]
    pub fn agent_socket(&self, host: u8) -> PathBuf {
        self.config
            .directory
            .join(host_name(host))
            .join("agent.sock")
    }

    /// Credentials of the user `demo`.
    #[must_use]
    pub fn user_credentials(&self) -> PathBuf {
        self.config.directory.join("credentials/demo")
    }

    /// SIGKILL to the agent of `host`; its QEMUs run on.
    pub async fn kill_agent(&mut self, host: u8) -> Result<(), Error> {
        self.agent_part(host)?.kill().await;
        Ok(())
    }

    /// Starts the agent of `host` (if it does not run) and waits until it answers.
    pub async fn start_agent(&mut self, host: u8) -> Result<(), Error> {
        self.start_agent_with(host, &[]).await
    }

    /// As [`Bed::start_agent`], with variables in its environment, as `ESTIVE_FAULT`.
    pub async fn start_agent_with(
        &mut self,
        host: u8,
        environment: &[(&str, &str)],
    ) -> Result<(), Error> {
        self.agent_part(host)?.start(environment)?;
        // It went with its host, if that was killed.
        self.start_cache(host).await?;
        self.wait_for_agent(host).await
    }

    /// Waits until the agent of `host` ended by itself, as at a fault point; gives its exit code (137: killed).
    pub async fn agent_ended(&mut self, host: u8, within: Duration) -> Result<i32, Error> {
        self.agent_part(host)?.ended(within).await
    }

    /// Does the agent of `host` run?
    pub fn agent_is_running(&mut self, host: u8) -> bool {
        self.agent_part(host).is_ok_and(Part::is_running)
    }

    /// SIGKILL to every process of `host`: agent and QEMUs, as when its power goes.
    pub async fn kill_host(&mut self, host: u8) -> Result<(), Error> {
        self.kill_agent(host).await?;
        self.kill_cache(host).await;
        kill_all_in(&self.topology.hosts[usize::from(host - 1)]).await;
        Ok(())
    }

    /// SIGKILL to the manager.
    pub async fn kill_manager(&mut self) {
        self.manager.kill().await;
    }

    /// Starts the manager (if it does not run) and waits until it answers.
    pub async fn start_manager(&mut self) -> Result<(), Error> {
        self.start_manager_with(&[]).await
    }

    /// As [`Bed::start_manager`], with variables in its environment.
    pub async fn start_manager_with(&mut self, environment: &[(&str, &str)]) -> Result<(), Error> {
        self.manager.start(environment)?;
        let socket = manager_socket();
        self.manager
            .wait_until(ANSWER_LIMIT, || answers(&socket))
            .await
    }

    /// Waits until the manager ended by itself; gives its exit code (137: killed).
    pub async fn manager_ended(&mut self, within: Duration) -> Result<i32, Error> {
        self.manager.ended(within).await
    }

    /// Does the manager run?
    pub fn manager_is_running(&mut self) -> bool {
        self.manager.is_running()
    }

    /// SIGKILL to the server of the roots.
    pub async fn kill_storage(&mut self) {
        self.storage.kill().await;
    }

    /// Starts the server of the roots and waits until it listens.
    pub async fn start_storage(&mut self) -> Result<(), Error> {
        self.storage.start(&[])?;
        let pid = self.storage.pid().unwrap_or_default();
        let listening = || async move {
            match listens(pid, ROOTS_PORT) {
                true => Ok(()),
                false => Err(format!("nothing listens on port {ROOTS_PORT}")),
            }
        };
        self.storage.wait_until(ANSWER_LIMIT, listening).await
    }

    /// SIGKILL to the cache of `host`; its QEMUs run on, and wait for what they read.
    pub async fn kill_cache(&mut self, host: u8) {
        self.caches[usize::from(host - 1)].kill().await;
    }

    /// Starts the cache of `host` (if it does not run) and waits until it answers.
    pub async fn start_cache(&mut self, host: u8) -> Result<(), Error> {
        let control = self.cache_directory(host).control();
        let part = &mut self.caches[usize::from(host - 1)];
        part.start(&[])?;
        part.wait_until(ANSWER_LIMIT, || answers(&control)).await
    }

    /// What the cache of `host` did since it started.
    pub async fn cache_about(&self, host: u8) -> Result<CacheAbout, Error> {
        let control = Endpoint::Unix(self.cache_directory(host).control());
        let client = Client::new(control, None);
        let asked = async { client?.get_json("/about", ANSWER_LIMIT).await };
        asked
            .await
            .map_err(|error| Error::system("asking a cache")(std::io::Error::other(error)))
    }

    /// The directory of the cache of `host`.
    #[must_use]
    pub fn cache_directory(&self, host: u8) -> CacheDirectory {
        let files = BedFiles {
            config: &self.config,
        };
        files.cache_directory(host)
    }

    /// SIGKILL to the keeper of volumes; its storage daemons go on.
    pub async fn kill_volumes(&mut self) {
        if let Some(part) = &mut self.volumes {
            part.kill().await;
        }
    }

    /// Starts the keeper of volumes, if the bed has one, and waits until it listens.
    pub async fn start_volumes(&mut self) -> Result<(), Error> {
        self.start_volumes_with(&[]).await
    }

    /// Waits until the keeper of volumes ended by itself; gives its exit code (137: killed).
    pub async fn volumes_ended(&mut self, within: Duration) -> Result<i32, Error> {
        match &mut self.volumes {
            Some(part) => part.ended(within).await,
            None => Ok(-1),
        }
    }

    /// As [`Bed::start_volumes`], with variables in its environment.
    pub async fn start_volumes_with(&mut self, environment: &[(&str, &str)]) -> Result<(), Error> {
        let Some(part) = &mut self.volumes else {
            return Ok(());
        };
        part.start(environment)?;
        let pid = part.pid().unwrap_or_default();
        let listening = || async move {
            match listens(pid, VOLUMES_PORT) {
                true => Ok(()),
                false => Err(format!("nothing listens on port {VOLUMES_PORT}")),
            }
        };
        part.wait_until(ANSWER_LIMIT, listening).await
    }

    /// An `estive` command of a person at the client's place (so that addresses of clones are reached), output taken.
    pub async fn estive(&self, arguments: &[&str]) -> Result<Output, Error> {
        self.estive_with(arguments, &[]).await
    }

    /// As [`Bed::estive`], with variables in its environment.
    pub async fn estive_with(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Output, Error> {
        let shown = format!("estive {}", arguments.join(" "));
        let mut command = self.estive_command();
        command
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        tokio::time::timeout(COMMAND_LIMIT, command.output())
            .await
            .map_err(|_| Error::TooSlow {
                what: shown.clone(),
                limit_s: COMMAND_LIMIT.as_secs(),
            })?
            .map_err(Error::system(format!("running '{shown}'")))
    }

    /// As [`Bed::estive`], with `--output json` added; a failed command is an error with what it said.
    pub async fn estive_json(&self, arguments: &[&str]) -> Result<Value, Error> {
        let mut all = vec!["--output", "json"];
        all.extend(arguments);
        let output = self.estive(&all).await?;
        let shown = || format!("estive {}", all.join(" "));
        if !output.status.success() {
            return Err(Error::Command {
                command: shown(),
                status: output.status,
                stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        serde_json::from_slice(&output.stdout).map_err(|source| Error::Json {
            what: shown(),
            source,
        })
    }

    /// The `estive` command at the client's place, to be given arguments.
    #[must_use]
    pub fn estive_command(&self) -> Command {
        let mut command = self.topology.client.command(&self.config.estive);
        command.env(
            "ESTIVE_MANAGER",
            format!("unix:{}", manager_socket().display()),
        );
        command.env("ESTIVE_CREDENTIALS", self.user_credentials());
        command
    }

    /// The living QEMU of `domain` on `host`, by the pid file that QEMU itself locks; `None` if there is none.
    #[must_use]
    pub fn qemu_pid(&self, domain: &DomainName, host: u8) -> Option<u32> {
        let path = runtime(&self.config.directory.join(host_name(host)))
            .join(domain.as_str())
            .join("pid");
        let pid: u32 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let name = line.split(|byte| *byte == 0).next()?;
        String::from_utf8_lossy(name)
            .contains("qemu")
            .then_some(pid)
    }

    /// SIGKILL to the QEMU of `domain` on `host`. Says whether there was one.
    #[must_use]
    pub fn kill_qemu(&self, domain: &DomainName, host: u8) -> bool {
        let pid = self
            .qemu_pid(domain, host)
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
    }

    /// The ends of all logs, to be shown when something failed.
    #[must_use]
    pub fn logs(&self) -> String {
        let parts = self
            .agents
            .iter()
            .chain(&self.caches)
            .chain([&self.storage])
            .chain(&self.volumes)
            .chain([&self.manager]);
        parts
            .map(|part| format!("--- {}\n{}", part.recipe.name, tail(&part.recipe.log, 4096)))
            .collect()
    }

    /// Ends everything, QEMUs too. The namespaces go with the outer one.
    pub async fn stop(mut self) {
        self.manager.kill().await;
        for host in 1..=self.config.hosts {
            let _ = self.kill_host(host).await;
        }
        self.kill_storage().await;
        self.kill_volumes().await;
        kill_all_in(&self.topology.storage).await;
    }

    fn agent_part(&mut self, host: u8) -> Result<&mut Part, Error> {
        let most = u64::from(self.config.hosts);
        let limit = Error::Limit {
            what: "number of the host",
            given: u64::from(host),
            least: 1,
            most,
        };
        usize::from(host)
            .checked_sub(1)
            .and_then(|index| self.agents.get_mut(index))
            .ok_or(limit)
    }

    async fn wait_for_agent(&mut self, host: u8) -> Result<(), Error> {
        let socket = self.agent_socket(host);
        self.agent_part(host)?
            .wait_until(ANSWER_LIMIT, || answers(&socket))
            .await
    }
}

/// Does the service behind this unix socket say what it is?
async fn answers(socket: &Path) -> Result<(), String> {
    let client =
        Client::new(Endpoint::Unix(socket.to_owned()), None).map_err(|error| error.to_string())?;
    let about: Result<Value, _> = client.get_json("/about", Duration::from_secs(5)).await;
    about.map(drop).map_err(|error| error.to_string())
}

async fn kill_all_in(namespace: &Namespace) {
    // Twice, for what was being started while the first list was read.
    for _ in 0..2 {
        let pids = processes_in(namespace);
        for pid in pids.iter().copied().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let deadline = tokio::time::Instant::now() + ANSWER_LIMIT;
        while !processes_in(namespace).is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
