//! Agents of a simulated world in this process, each with its own state, socket and certificate.

#![allow(dead_code, reason = "each test binary uses its part")]

use estive_agent::{
    AccelConfig, AgentConfig, CapacityConfig, MigrationConfig, NoTaps, Parts, Taps, run_with,
};
use estive_api::authority::Authority;
use estive_api::clock::SystemClock;
use estive_api::domain_xml::{Accelerator, DiskSource, DomainXml};
use estive_api::wire::*;
use estive_api::{Client, ClientError, Credentials, Endpoint, Role};
use estive_hypervisor::{Hypervisor, QemuHypervisor, SimulatedFabric};
use estive_model::{Digest, DomainName, DomainState, Generation, HostName, OperationId};
use estive_moves::{Answer, Entry, Holding};
use sha2::Digest as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Ten times what anything here was seen to take, on a busy machine.
pub const BOUND: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

pub struct World {
    pub fabric: SimulatedFabric,
    pub home: tempfile::TempDir,
    pub authority: Authority,
}

impl World {
    pub fn new() -> Self {
        let home = tempfile::Builder::new().prefix("agent-").tempdir().unwrap();
        let authority = Authority::open_or_create(home.path().join("authority")).unwrap();
        Self {
            fabric: SimulatedFabric::new(),
            home,
            authority,
        }
    }

    /// A host at 127.0.0.`number`, not started.
    pub fn host(&self, number: u8) -> Host {
        let address: IpAddr = [127, 0, 0, number].into();
        let name = format!("host{number}");
        let place = self.home.path().join(&name);
        let credentials = place.join("tls");
        std::fs::create_dir_all(&place).unwrap();
        self.authority
            .issue(Role::Agent, &name, &[address], DAY)
            .unwrap()
            .write_to(&credentials)
            .unwrap();
        // Free a moment ago; nobody else uses this address.
        let listen = std::net::TcpListener::bind((address, 0))
            .unwrap()
            .local_addr()
            .unwrap();
        let config = AgentConfig {
            cache: None,
            plain_disks: false,
            images: Vec::new(),
            name: HostName::new(&name).unwrap(),
            listen: Some(listen),
            socket: place.join("agent.sock"),
            state: place.join("state"),
            runtime: place.join("run"),
            credentials: Some(credentials),
            bridge: "br0".into(),
            door: Some([10, 77, 0, 9].into()),
            capacity: CapacityConfig {
                cores: 2,
                memory_mib: 512,
            },
            accel: AccelConfig::Tcg,
            migration: MigrationConfig {
                address,
                first_port: 49152,
                last_port: 49160,
                tls: true,
            },
            cgroup: None,
            emulator: None,
        };
        Host {
            config,
            fabric: Some(self.fabric.clone()),
            taps: Arc::new(NoTaps),
            address,
            running: None,
        }
    }
}

/// Ends what QEMUs a failed case has left.
pub struct Ender<'a>(pub &'a Path);

impl Drop for Ender<'_> {
    fn drop(&mut self) {
        for host in std::fs::read_dir(self.0).into_iter().flatten().flatten() {
            for domain in std::fs::read_dir(host.path().join("run"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let pid = std::fs::read_to_string(domain.path().join("pid")).unwrap_or_default();
                let pid = pid
                    .trim()
                    .parse()
                    .ok()
                    .and_then(rustix::process::Pid::from_raw);
                let command = pid.map(|pid| format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
                let command = command
                    .and_then(|path| std::fs::read(path).ok())
                    .unwrap_or_default();
                if let Some(pid) = pid
                    && String::from_utf8_lossy(&command).contains(&*self.0.to_string_lossy())
                {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
    }
}

pub struct Host {
    pub config: AgentConfig,
    /// None: real QEMUs.
    pub fabric: Option<SimulatedFabric>,
    pub taps: Arc<dyn Taps>,
    pub address: IpAddr,
    running: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

impl Host {
    pub async fn start(&mut self) {
        let credentials = Credentials::load(self.config.credentials.as_ref().unwrap()).unwrap();
        let hypervisor: Arc<dyn Hypervisor> = match &self.fabric {
            Some(fabric) => Arc::new(fabric.hypervisor(self.address)),
            None => Arc::new(QemuHypervisor::new(self.config.qemu()).await.unwrap()),
        };
        let parts = Parts {
            hypervisor,
            clock: Arc::new(SystemClock),
            taps: self.taps.clone(),
            credentials: Some(credentials),
        };
        let shutdown = CancellationToken::new();
        let (config, ending) = (self.config.clone(), shutdown.clone());
        let task = tokio::spawn(async move {
            run_with(config, parts, ending)
                .await
                .expect("the agent starts");
        });
        self.running = Some((shutdown, task));
        let client = self.client();
        until("the agent answers", async || {
            client.get_json::<AgentAbout>("/about", BOUND).await.is_ok()
        })
        .await;
    }

    /// Ends the agent between two steps, as its death would; what runs, runs on.
    pub async fn stop(&mut self) {
        if let Some((shutdown, task)) = self.running.take() {
            shutdown.cancel();
            tokio::time::timeout(BOUND, task).await.unwrap().unwrap();
        }
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub fn client(&self) -> Client {
        Client::new(Endpoint::Unix(self.config.socket.clone()), None).unwrap()
    }

    /// Reached over the network with the certificate of `other`.
    pub fn seen_by(&self, other: &Host) -> Client {
        let credentials = Credentials::load(other.config.credentials.as_ref().unwrap()).unwrap();
        let endpoint = Endpoint::Tls {
            host: self.address.to_string(),
            port: self.listen().port(),
        };
        Client::new(endpoint, Some(&credentials)).unwrap()
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.config.listen.unwrap())
    }

    pub fn listen(&self) -> SocketAddr {
        self.config.listen.unwrap()
    }

    pub async fn define(&self, name: &str) -> DomainReport {
        self.try_define(name, archive(name, 128)).await.unwrap()
    }

    pub async fn try_define(
        &self,
        name: &str,
        archive: Vec<u8>,
    ) -> Result<DomainReport, ClientError> {
        let path = format!("/domain/{name}");
        self.client()
            .put_bytes(&path, "application/x-tar", archive, BOUND)
            .await
    }

    pub async fn ask(&self, name: &str, state: DomainState) -> Result<DomainReport, ClientError> {
        let order = StatusOrder {
            state,
            generation: None,
            grace_ms: 0,
        };
        let path = format!("/domain/{name}/status");
        self.client().put_json(&path, &order, BOUND).await
    }

    pub async fn save(&self, name: &str) -> Result<DomainReport, ClientError> {
        let path = format!("/domain/{name}/saved");
        let order = SaveOrder::default();
        self.client().put_json(&path, &order, BOUND).await
    }

    pub async fn restore(&self, name: &str) -> Result<DomainReport, ClientError> {
        let path = format!("/domain/{name}/restore");
        let order = SaveOrder::default();
        self.client().post_json(&path, &order, BOUND).await
    }

    pub async fn drop_saved(&self, name: &str) -> Result<DomainReport, ClientError> {
        let path = format!("/domain/{name}/saved");
        self.client().delete_json(&path, BOUND).await
    }

    pub async fn report(&self, name: &str) -> DomainReport {
        let path = format!("/domain/{name}/status");
        self.client().get_json(&path, BOUND).await.unwrap()
    }

    pub async fn entry(&self, name: &str) -> Entry {
        match self
            .client()
            .get_json::<DomainReport>(&format!("/domain/{name}/status"), BOUND)
            .await
        {
            Ok(report) => serde_json::from_value(report.journal.entry).unwrap(),
            Err(error) if error.is_not_found() => Entry::default(),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn holds(&self, name: &str, what: &str, wanted: impl Fn(Holding) -> bool) {
        until(what, async || wanted(self.entry(name).await.holding)).await;
    }

    pub async fn grant(&self, name: &str, verb: &str, generation: u64) -> Answer {
        let order = GrantOrder {
            generation: Generation(generation),
        };
        let path = format!("/domain/{name}/{verb}");
        let answer: GrantAnswer = self.client().post_json(&path, &order, BOUND).await.unwrap();
        serde_json::from_value(answer.answer).unwrap()
    }

    /// Has this host stand ready for `name` from `source`.
    pub async fn prepare(
        &self,
        source: &Host,
        name: &str,
        generation: u64,
        post_copy: bool,
    ) -> Result<Prepared, ClientError> {
        let archive = source
            .client()
            .get_bytes(&format!("/domain/{name}"), 64 << 20, BOUND)
            .await
            .unwrap();
        let path = format!(
            "/domain/{name}/incoming?generation={generation}&post_copy={post_copy}&operation=op-{generation}&source={}",
            source.config.name
        );
        match self
            .client()
            .put_bytes(&path, "application/x-tar", archive, BOUND)
            .await
        {
            Err(error) if missing(&error) > 0 => {
                let archive = source
                    .client()
                    .get_bytes(&format!("/domain/{name}?whole=true"), 64 << 20, BOUND)
                    .await
                    .unwrap();
                self.client()
                    .put_bytes(&path, "application/x-tar", archive, BOUND)
                    .await
            }
            other => other,
        }
    }

    /// Has this host send `name` to `destination`.
    pub async fn send(
        &self,
        destination: &Host,
        stream: Prepared,
        name: &str,
        generation: u64,
        post_copy: bool,
    ) -> Result<OperationReport, ClientError> {
        let order = MoveOrder {
            operation: operation(generation),
            generation: Generation(generation),
            post_copy,
            destination: destination.config.name.clone(),
            destination_url: destination.url(),
            stream,
        };
        let path = format!("/domain/{name}/move");
        self.client().post_json(&path, &order, BOUND).await
    }

    pub async fn operation(&self, generation: u64) -> OperationReport {
        let path = format!("/operation/op-{generation}");
        self.client().get_json(&path, BOUND).await.unwrap()
    }
}

pub fn operation(generation: u64) -> OperationId {
    OperationId::new(format!("op-{generation}")).unwrap()
}

/// How many files an answer says are missing.
pub fn missing(error: &ClientError) -> usize {
    error
        .problem()
        .and_then(|problem| serde_json::from_value::<MissingFiles>((*problem.details).clone()).ok())
        .map_or(0, |files| files.missing.len())
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

pub fn name(text: &str) -> DomainName {
    DomainName::new(text).unwrap()
}

pub fn digest(content: &[u8]) -> Digest {
    let hex: String = sha2::Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Digest::new(format!("sha256:{hex}")).unwrap()
}

pub fn description(name: &str, memory_mib: u64) -> DomainXml {
    DomainXml {
        accelerator: Accelerator::Emulation,
        name: self::name(name),
        uuid: "8d2f0a3e-0000-4000-8000-00000000000a".into(),
        memory_mib,
        cpus: 1,
        kernel: digest(b"kernel"),
        initramfs: digest(b"initramfs"),
        command_line: "console=ttyS0 quiet".into(),
        identity_by_fw_cfg: true,
        root: DiskSource::File(digest(b"root")),
        modules: DiskSource::File(digest(b"modules")),
        volume: None,
        live: None,
        mac: Some("52:54:00:00:00:01".into()),
    }
}

pub fn identity(name: &str) -> String {
    format!(
        r#"{{"version":1,"name":"{name}","hostname":"{name}","mac":"52:54:00:00:00:01","address":"127.0.0.9/8","gateway":null}}"#
    )
    // Loopback is no clone's address.
    .replace("127.0.0.9/8", "10.77.1.101/24")
}

/// A whole domain archive.
pub fn archive(name: &str, memory_mib: u64) -> Vec<u8> {
    archive_of(&description(name, memory_mib))
}

pub fn archive_of(description: &DomainXml) -> Vec<u8> {
    let (xml, name) = (description.to_xml(), description.name.as_str());
    let identity = identity(name);
    let mut members = vec![
        ("config.xml".to_owned(), xml.into_bytes()),
        ("layer".to_owned(), vec![7; 1000]),
        ("identity.json".to_owned(), identity.into_bytes()),
    ];
    for content in [&b"kernel"[..], b"initramfs", b"root", b"modules"] {
        members.push((format!("files/{}", digest(content).hex()), content.to_vec()));
    }
    tar_of(&members)
}

pub fn tar_of(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, path, &content[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

pub fn count_files(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}
