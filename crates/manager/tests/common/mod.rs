//! A manager and its agents in this process, over a simulated hypervisor: each with its own state and unix socket.

#![allow(dead_code, reason = "each test binary uses its part")]

use async_trait::async_trait;
use estive_agent::{AccelConfig, AgentConfig, CapacityConfig, MigrationConfig, NoTaps};
use estive_api::clock::SystemClock;
use estive_api::wire::*;
use estive_api::{Client, ClientError, Credentials, Endpoint};
use estive_hypervisor::*;
use estive_layers::UpCheck;
use estive_manager::{
    EarlyConfig, LiveConfig, ManagerConfig, Parts, Prober, ReferenceConfig, RootConfig, RootName,
    VolumesConfig,
};
use estive_model::{DomainName, HostName, Machine};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Ten times what anything here was seen to take, on a busy machine.
pub const BOUND: Duration = Duration::from_secs(60);

/// A simulated hypervisor whose guests report their boot as `estive-init` does.
struct Reporting {
    inner: SimulatedHypervisor,
    directory: PathBuf,
    silent: Arc<Mutex<BTreeSet<String>>>,
    /// Made, and never run yet: one that moved here, or goes on, does not boot.
    fresh: Mutex<BTreeSet<DomainName>>,
}

#[async_trait]
impl Hypervisor for Reporting {
    async fn create(&self, machine: &Machine) -> Result<(), HypervisorError> {
        let _ = std::fs::remove_file(self.channels(machine.name()).report);
        self.fresh.lock().unwrap().insert(machine.name().clone());
        self.inner.create(machine).await
    }
    async fn create_incoming(
        &self,
        machine: &Machine,
        listen: IpAddr,
        port: u16,
        tls: bool,
        parameters: &MigrationParameters,
    ) -> Result<(), HypervisorError> {
        self.inner
            .create_incoming(machine, listen, port, tls, parameters)
            .await
    }
    async fn restore(&self, machine: &Machine, from: &Path) -> Result<(), HypervisorError> {
        self.inner.restore(machine, from).await
    }
    async fn grip(&self, domain: &DomainName, file: FileId) -> Result<Grip, HypervisorError> {
        self.inner.grip(domain, file).await
    }
    async fn save(&self, domain: &DomainName, to: &Path) -> Result<(), HypervisorError> {
        self.inner.save(domain, to).await
    }
    async fn resume(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        self.inner.resume(domain).await?;
        let boots = self.fresh.lock().unwrap().remove(domain);
        if boots && !self.silent.lock().unwrap().contains(domain.as_str()) {
            let phases = [
                "init", "modules", "identity", "layer", "root", "union", "network", "switch",
            ];
            let text: String = phases
                .iter()
                .map(|phase| format!("{{\"phase\":\"{phase}\",\"uptime_ms\":0}}\n"))
                .collect();
            std::fs::write(self.channels(domain).report, text).unwrap();
        }
        Ok(())
    }
    async fn pause(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        self.inner.pause(domain).await
    }
    async fn power_button(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        self.inner.power_button(domain).await
    }
    async fn kill(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        self.inner.kill(domain).await
    }
    async fn state(&self, domain: &DomainName) -> Result<InstanceState, HypervisorError> {
        self.inner.state(domain).await
    }
    async fn migrate(
        &self,
        domain: &DomainName,
        to: &StreamAddress,
        parameters: &MigrationParameters,
    ) -> Result<(), HypervisorError> {
        self.inner.migrate(domain, to, parameters).await
    }
    async fn migration(&self, domain: &DomainName) -> Result<MigrationProgress, HypervisorError> {
        self.inner.migration(domain).await
    }
    async fn cancel_migration(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        self.inner.cancel_migration(domain).await
    }
    async fn start_post_copy(&self, domain: &DomainName) -> Result<(), HypervisorError> {
        self.inner.start_post_copy(domain).await
    }
    async fn adopt(&self) -> Result<Vec<Found>, HypervisorError> {
        self.inner.adopt().await
    }
    fn channels(&self, domain: &DomainName) -> Channels {
        let file = |kind: &str| self.directory.join(format!("{domain}.{kind}"));
        Channels {
            console: file("console"),
            console_log: file("log"),
            report: file("report"),
            identity: file("identity"),
            guest_agent: file("qga"),
        }
    }
    fn events(&self) -> broadcast::Receiver<InstanceEvent> {
        self.inner.events()
    }
    fn patience(&self) -> Duration {
        self.inner.patience()
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// A clone answers while it runs, as the fabric sees it, unless it is deaf.
struct FabricProber {
    fabric: SimulatedFabric,
    deaf: Arc<Mutex<BTreeSet<String>>>,
    asked: Arc<Mutex<BTreeMap<String, u64>>>,
}

#[async_trait]
impl Prober for FabricProber {
    async fn answers(&self, _: UpCheck, domain: &DomainName, _: Ipv4Addr, _: &Client) -> bool {
        *self
            .asked
            .lock()
            .unwrap()
            .entry(domain.to_string())
            .or_default() += 1;
        let is_deaf = self.deaf.lock().unwrap().contains(domain.as_str());
        !is_deaf && !self.fabric.runs_at(domain).is_empty()
    }
}

pub type Service = Option<(CancellationToken, tokio::task::JoinHandle<()>)>;

pub struct World {
    pub fabric: SimulatedFabric,
    pub home: tempfile::TempDir,
    /// Domains whose guests never report.
    pub silent: Arc<Mutex<BTreeSet<String>>>,
    /// Domains that boot and do not answer.
    pub deaf: Arc<Mutex<BTreeSet<String>>>,
    asked: Arc<Mutex<BTreeMap<String, u64>>>,
    pub boot_timeout_s: u64,
    pub hosts: u8,
    /// Real QEMUs.
    pub real: bool,
    /// There is a reference `live` too, and `default` has shared directories.
    pub live: bool,
    /// Who serves `live` and the shared directories.
    pub live_origin: Endpoint,
    /// What is done to the references of the manager's configuration last.
    pub edit: fn(&mut BTreeMap<String, ReferenceConfig>),
    /// What the manager's configuration says of its root, and of who may be asked for it.
    pub root: String,
    pub origin: Endpoint,
    pub credentials: Option<PathBuf>,
    pub agent_credentials: Option<PathBuf>,
    pub volumes: Option<VolumesConfig>,
    agents: Vec<Service>,
    manager: Service,
}

/// Ends what QEMUs a failed case has left.
pub struct Ender(pub PathBuf);

impl Drop for Ender {
    fn drop(&mut self) {
        let below = |path: &Path| {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let domains = below(&self.0)
            .into_iter()
            .flat_map(|host| below(&host.join("run")));
        for domain in domains {
            let pid = std::fs::read_to_string(domain.join("pid")).unwrap_or_default();
            let Some(pid) = pid
                .trim()
                .parse()
                .ok()
                .and_then(rustix::process::Pid::from_raw)
            else {
                continue;
            };
            let line = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
            let line = std::fs::read(line).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&*self.0.to_string_lossy()) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

pub fn address(host: u8) -> IpAddr {
    [127, 0, 0, host].into()
}

pub fn name(text: &str) -> DomainName {
    DomainName::new(text).unwrap()
}

pub fn host(number: u8) -> HostName {
    HostName::new(format!("host{number}")).unwrap()
}

/// A host's cache as far as its agent speaks to it: every root is there.
fn serve_cache(directory: &std::path::Path, shutdown: CancellationToken) {
    std::fs::create_dir_all(directory).unwrap();
    let listen = estive_api::server::Listen::Unix(directory.join("control.sock"));
    let about = axum::routing::get(async || axum::Json(CacheAbout::default()));
    let router = axum::Router::new()
        .route("/about", about)
        .fallback(async || r#"{"size_bytes": 1}"#);
    tokio::spawn(async move {
        estive_api::server::serve(listen, router, shutdown)
            .await
            .expect("the cache serves");
    });
}

impl World {
    /// Hosts of 512 MiB each, all started, and their manager.
    pub async fn new(hosts: u8) -> Self {
        Self::build(hosts, false).await
    }

    /// The same with real QEMUs, for domains with images.
    pub async fn with_qemu(hosts: u8) -> Self {
        Self::build(hosts, true).await
    }

    async fn build(hosts: u8, real: bool) -> Self {
        let home = tempfile::Builder::new()
            .prefix("manager-")
            .tempdir()
            .unwrap();
        for file in ["kernel", "initramfs", "modules"] {
            std::fs::write(home.path().join(file), file).unwrap();
        }
        let mut world = Self {
            fabric: SimulatedFabric::new(),
            home,
            silent: Arc::default(),
            deaf: Arc::default(),
            asked: Arc::default(),
            boot_timeout_s: 60,
            hosts,
            real,
            live: false,
            live_origin: "https://127.0.0.1:7610".parse().unwrap(),
            edit: |_| {},
            root: format!("sha256:{}", "0f".repeat(32)),
            origin: "https://127.0.0.1:7610".parse().unwrap(),
            credentials: None,
            agent_credentials: None,
            volumes: None,
            agents: (0..hosts).map(|_| None).collect(),
            manager: None,
        };
        for number in 1..=hosts {
            world.start_agent(number).await;
        }
        world.start_manager().await;
        world
    }

    /// Where hosts have images, one directory for all; host 3 allows none.
    pub fn images(&self) -> PathBuf {
        let images = self.home.path().join("images");
        std::fs::create_dir_all(&images).unwrap();
        images.canonicalize().unwrap()
    }

    fn agent_socket(&self, number: u8) -> PathBuf {
        self.home.path().join(format!("host{number}.sock"))
    }

    pub async fn start_agent(&mut self, number: u8) {
        let place = self.home.path().join(format!("host{number}"));
        let directory = place.join("channels");
        std::fs::create_dir_all(&directory).unwrap();
        let config = AgentConfig {
            name: host(number),
            listen: None,
            socket: self.agent_socket(number),
            state: place.join("state"),
            runtime: place.join("run"),
            credentials: self.agent_credentials.clone(),
            cache: None,
            plain_disks: false,
            images: match number {
                3 => Vec::new(),
                _ => vec![self.images()],
            },
            bridge: "br0".into(),
            door: Some([10, 77, 0, 9].into()),
            capacity: CapacityConfig {
                cores: 2,
                memory_mib: 512,
            },
            accel: AccelConfig::Tcg,
            migration: MigrationConfig {
                address: address(number),
                first_port: 49152,
                last_port: 49160,
                tls: false,
            },
            cgroup: None,
            emulator: None,
        };
        let hypervisor: Arc<dyn Hypervisor> = match self.real {
            true => Arc::new(QemuHypervisor::new(config.qemu()).await.unwrap()),
            false => Arc::new(Reporting {
                inner: self.fabric.hypervisor(address(number)),
                directory,
                silent: self.silent.clone(),
                fresh: Mutex::default(),
            }),
        };
        let parts = estive_agent::Parts {
            hypervisor,
            clock: Arc::new(SystemClock),
            taps: Arc::new(NoTaps),
            credentials: self
                .agent_credentials
                .as_ref()
                .map(|path| Credentials::load(path).unwrap()),
        };
        let shutdown = CancellationToken::new();
        serve_cache(&place.join("state/cache"), shutdown.clone());
        let ending = shutdown.clone();
        let task = tokio::spawn(async move {
            estive_agent::run_with(config, parts, ending)
                .await
                .expect("the agent serves");
        });
        self.agents[usize::from(number - 1)] = Some((shutdown, task));
        let client = self.agent(number);
        until("the agent answers", async || {
            client.get_json::<AgentAbout>("/about", BOUND).await.is_ok()
        })
        .await;
    }

    /// The agent is gone; what runs on its host runs on.
    pub async fn stop_agent(&mut self, number: u8) {
        end(&mut self.agents[usize::from(number - 1)]).await;
    }

    pub fn manager_config(&self) -> ManagerConfig {
        let home = self.home.path();
        let hosts = (1..=self.hosts)
            .map(|number| (host(number), Endpoint::Unix(self.agent_socket(number))));
        let reference = ReferenceConfig {
            root: Some(RootConfig {
                name: RootName::try_from(self.root.clone()).unwrap(),
                origins: vec![self.origin.clone()],
            }),
            live: None,
            shares: None,
            kernel: home.join("kernel"),
            initramfs: home.join("initramfs"),
            modules: home.join("modules"),
            early: None,
            tree: None,
            sets: vec![],
        };
        let mut references: BTreeMap<_, _> = [("default".to_owned(), reference)].into();
        if self.live {
            self.add_live(&mut references);
        }
        (self.edit)(&mut references);
        ManagerConfig {
            listen: None,
            socket: home.join("manager.sock"),
            state: home.join("manager"),
            credentials: self.credentials.clone(),
            hosts: hosts.collect(),
            references,
            volumes: self.volumes.clone(),
            boot_timeout_s: self.boot_timeout_s,
        }
    }

    fn add_live(&self, references: &mut BTreeMap<String, ReferenceConfig>) {
        let home = self.home.path();
        let modules = home.join("tree/lib/modules/6.1");
        std::fs::create_dir_all(&modules).unwrap();
        std::fs::create_dir_all(home.join("tree/boot")).unwrap();
        std::fs::write(home.join("tree/boot/vmlinuz-6.1"), "kernel").unwrap();
        std::fs::write(home.join("init"), "init").unwrap();
        std::fs::write(modules.join("modules.dep"), "").unwrap();
        let needed = estive_boot::modules::BEFORE_IDENTITY;
        let names = needed.iter().chain(&["nfs", "nfsv3", "loop", "ext4"]);
        let builtin: String = names.map(|name| format!("kernel/{name}.ko\n")).collect();
        std::fs::write(modules.join("modules.builtin"), builtin).unwrap();
        let route = LiveConfig {
            origins: vec![self.live_origin.clone()],
            door: [10, 77, 0, 9].into(),
            port: 2049,
        };
        let default = references.get_mut("default").unwrap();
        default.early = Some(EarlyConfig {
            init: home.join("init"),
            kernel_tree: home.join("tree"),
        });
        let live = ReferenceConfig {
            root: None,
            live: Some(route.clone()),
            ..default.clone()
        };
        default.shares = Some(route);
        references.insert("live".to_owned(), live);
    }

    pub fn manager_parts(&self) -> Parts {
        Parts {
            clock: Arc::new(SystemClock),
            prober: Arc::new(FabricProber {
                fabric: self.fabric.clone(),
                deaf: self.deaf.clone(),
                asked: self.asked.clone(),
            }),
            worker: None,
        }
    }

    pub async fn start_manager(&mut self) {
        let (config, parts) = (self.manager_config(), self.manager_parts());
        let shutdown = CancellationToken::new();
        let ending = shutdown.clone();
        let task = tokio::spawn(async move {
            estive_manager::run_with(config, parts, ending)
                .await
                .expect("the manager serves");
        });
        self.manager = Some((shutdown, task));
        let client = self.client();
        until("the manager answers", async || {
            client
                .get_json::<ManagerAbout>("/about", BOUND)
                .await
                .is_ok()
        })
        .await;
    }

    pub async fn stop_manager(&mut self) {
        end(&mut self.manager).await;
        // A connection that is just being closed may hold it a moment longer.
        let store = self.home.path().join("manager/store.redb");
        until("the manager's store is free", async || {
            estive_store::EmbeddedStore::open(&store).is_ok()
        })
        .await;
    }

    pub async fn stop(mut self) {
        self.stop_manager().await;
        for number in 1..=self.hosts {
            self.stop_agent(number).await;
        }
        assert_eq!(self.fabric.ran_twice(), []);
    }

    pub fn client(&self) -> Client {
        Client::new(Endpoint::Unix(self.home.path().join("manager.sock")), None).unwrap()
    }

    pub fn agent(&self, number: u8) -> Client {
        Client::new(Endpoint::Unix(self.agent_socket(number)), None).unwrap()
    }

    /// Where the guest agent of a domain is awaited.
    pub fn guest_agent(&self, on: &HostName, domain: &DomainName) -> PathBuf {
        let place = self.home.path().join(on.as_str()).join("channels");
        place.join(format!("{domain}.qga"))
    }

    /// The last line of `up`, and all steps before it.
    pub async fn up(&self, deployment: &str, herd: &str) -> (UpLine, Vec<UpLine>) {
        self.up_folder(deployment, folder(herd)).await
    }

    /// The same for a folder with more than a herd file.
    pub async fn up_folder(&self, deployment: &str, body: Vec<u8>) -> (UpLine, Vec<UpLine>) {
        let path = format!("/deployment/{deployment}");
        let lines = self
            .client()
            .stream_lines_of(http::Method::PUT, &path, "application/x-tar", body, BOUND)
            .await
            .unwrap();
        last(lines).await
    }

    pub async fn down(&self, deployment: &str) -> (DownLine, Vec<DownLine>) {
        let path = format!("/deployment/{deployment}");
        let lines = self
            .client()
            .stream_lines_of(
                http::Method::DELETE,
                &path,
                "application/json",
                Vec::new(),
                BOUND,
            )
            .await
            .unwrap();
        last(lines).await
    }

    pub async fn migrate(
        &self,
        domain: &str,
        to: Option<u8>,
    ) -> Result<(MigrateLine, Vec<MigrateLine>), ClientError> {
        let order = MigrateOrder {
            to: to.map(host),
            reason: None,
        };
        let lines = self
            .client()
            .stream_lines_of(
                http::Method::POST,
                &format!("/domain/{domain}/migrate"),
                "application/json",
                serde_json::to_vec(&order).unwrap(),
                BOUND,
            )
            .await?;
        Ok(last(lines).await)
    }

    pub async fn order(
        &self,
        domain: &str,
        state: estive_model::DomainState,
    ) -> Result<HerdDomain, ClientError> {
        let order = StatusOrder {
            state,
            generation: None,
            grace_ms: 0,
        };
        self.client()
            .put_json(&format!("/domain/{domain}/status"), &order, BOUND)
            .await
    }

    pub async fn show(&self, domain: &str) -> HerdDomain {
        self.client()
            .get_json(&format!("/domain/{domain}"), BOUND)
            .await
            .unwrap()
    }

    pub async fn ls(&self) -> Vec<HerdDomain> {
        self.client().get_json("/domains", BOUND).await.unwrap()
    }

    /// How often a domain was asked whether it answers.
    pub fn asked(&self, domain: &str) -> u64 {
        let asked = self.asked.lock().unwrap();
        asked.get(domain).copied().unwrap_or_default()
    }

    /// Domains that agents hold, of those that answer.
    pub async fn held(&self) -> Vec<String> {
        let mut held = Vec::new();
        for number in 1..=self.hosts {
            let reports: Result<Vec<DomainReport>, _> =
                self.agent(number).get_json("/domains", BOUND).await;
            held.extend(
                reports
                    .unwrap_or_default()
                    .into_iter()
                    .map(|report| report.name.to_string()),
            );
        }
        held.sort();
        held
    }
}

async fn end(service: &mut Service) {
    if let Some((shutdown, task)) = service.take() {
        shutdown.cancel();
        tokio::time::timeout(BOUND, task)
            .await
            .expect("it does not end")
            .unwrap();
    }
}

pub async fn last<T: serde::de::DeserializeOwned>(
    mut lines: estive_api::client::Lines<T>,
) -> (T, Vec<T>) {
    let mut all = Vec::new();
    let read = async {
        while let Some(line) = lines.next().await {
            all.push(line.unwrap());
        }
    };
    tokio::time::timeout(BOUND, read)
        .await
        .expect("the answer does not end");
    let last = all.pop().expect("an answer has a last line");
    (last, all)
}

/// A herd's folder with only its herd file.
pub fn folder(herd: &str) -> Vec<u8> {
    folder_with(herd, &[])
}

/// A herd's folder with other files beside its herd file.
pub fn folder_with(herd: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in [("herd.yaml", herd)].iter().chain(files) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap()
}

pub async fn until(what: &str, mut fact: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !fact().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain until {what}"));
}
