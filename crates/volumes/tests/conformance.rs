//! The suite of volumes on both parts: the simulated one, and storage daemons with mutual TLS, whose clients are
//! `qemu-io` processes.

use async_trait::async_trait;
use estive_api::Role;
use estive_api::authority::Authority;
use estive_api::wire::{ExportPlace, VolumeWish};
use estive_model::{DeploymentName, DomainName, Generation};
use estive_volumes::conformance::{Bench, Client, suite};
use estive_volumes::{By, SimulatedVolumes, StorageHost, StorageHostConfig, VolumeError, Volumes};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

const DAY: Duration = Duration::from_secs(86_400);

struct Simulated(SimulatedVolumes);

struct SimulatedClient(SimulatedVolumes, String, String);

#[async_trait]
impl Client for SimulatedClient {
    async fn write(&mut self, mib: u64, byte: u8) -> Result<(), String> {
        self.0.write(&self.1, &self.2, mib, byte)
    }
    async fn is(&mut self, mib: u64, byte: u8) -> Result<bool, String> {
        Ok(self.0.read(&self.1, &self.2, mib)? == byte)
    }
}

#[async_trait]
impl Bench for Simulated {
    fn volumes(&self) -> Arc<dyn Volumes> {
        Arc::new(self.0.clone())
    }
    async fn client(
        &self,
        place: &ExportPlace,
        client: &str,
        _patient: bool,
    ) -> Result<Box<dyn Client>, String> {
        let (export, client) = (place.export.clone(), client.to_owned());
        let opened = SimulatedClient(self.0.clone(), export, client);
        self.0.read(&opened.1, &opened.2, 0)?;
        Ok(Box::new(opened))
    }
    // What is durable is all there is.
    async fn kill(&mut self, _: &DomainName) {}
    async fn restart(&mut self) {}
}

#[tokio::test]
async fn simulated_volumes() {
    suite(&mut Simulated(SimulatedVolumes::default())).await;
}

/// Storage daemons in a temporary directory.
struct Real {
    temporary: tempfile::TempDir,
    host: Option<Arc<StorageHost>>,
    first_port: u16,
}

impl Real {
    fn config(&self) -> StorageHostConfig {
        StorageHostConfig {
            directory: self.volumes_directory(),
            address: "127.0.0.1".parse().unwrap(),
            first_port: self.first_port,
            last_port: self.first_port + 19,
            credentials: Some(self.credentials("storage")),
        }
    }

    fn volumes_directory(&self) -> PathBuf {
        self.temporary.path().join("volumes")
    }

    fn credentials(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// Each test has twenty ports of its own.
    async fn start_at(first_port: u16) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(temporary.path().join("authority")).unwrap();
        let addresses = ["127.0.0.1".parse().unwrap()];
        for (role, name) in [
            (Role::Storage, "storage"),
            (Role::Agent, "h1"),
            (Role::Agent, "h2"),
        ] {
            let issued = authority.issue(role, name, &addresses, DAY).unwrap();
            issued.write_to(temporary.path().join(name)).unwrap();
        }
        let mut real = Self {
            temporary,
            host: None,
            first_port,
        };
        real.host = Some(Arc::new(StorageHost::open(real.config()).await.unwrap()));
        real
    }

    fn daemons(&self) -> Vec<i32> {
        let entries = std::fs::read_dir(self.volumes_directory()).unwrap();
        entries
            .filter_map(|entry| pid(&entry.unwrap().path()))
            .collect()
    }
}

fn pid(directory: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(directory.join("pid")).ok()?;
    text.trim().parse().ok()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

impl Drop for Real {
    fn drop(&mut self) {
        for pid in self.daemons() {
            kill(pid);
        }
    }
}

/// An interactive `qemu-io`, which keeps its connection.
struct QemuIo {
    child: Child,
}

impl QemuIo {
    async fn tell(&mut self, line: &str) -> Result<String, String> {
        let stdin = self.child.stdin.as_mut().unwrap();
        let told = stdin.write_all(format!("{line}\n").as_bytes()).await;
        told.map_err(|error| error.to_string())?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<String, String> {
        let stdout = self.child.stdout.as_mut().unwrap();
        let mut said = Vec::new();
        let reading = async {
            while !said.ends_with(b"qemu-io> ") {
                let mut byte = [0];
                if stdout.read(&mut byte).await.unwrap_or(0) == 0 {
                    break;
                }
                said.push(byte[0]);
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reading)
            .await
            .map_err(|_| "qemu-io says nothing".to_owned())?;
        let text = String::from_utf8_lossy(&said).into_owned();
        if said.ends_with(b"qemu-io> ") {
            return Ok(text);
        }
        let mut why = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.read_to_string(&mut why).await;
        }
        Err(format!("{text} {why}"))
    }
}

#[async_trait]
impl Client for QemuIo {
    async fn write(&mut self, mib: u64, byte: u8) -> Result<(), String> {
        let said = self.tell(&format!("write -P {byte} {mib}M 1M")).await?;
        match said.contains("wrote 1048576/1048576") {
            true => Ok(()),
            false => Err(said),
        }
    }
    async fn is(&mut self, mib: u64, byte: u8) -> Result<bool, String> {
        let said = self.tell(&format!("read -P {byte} {mib}M 1M")).await?;
        match said.contains("read 1048576/1048576") {
            true => Ok(!said.contains("Pattern verification failed")),
            false => Err(said),
        }
    }
}

#[async_trait]
impl Bench for Real {
    fn volumes(&self) -> Arc<dyn Volumes> {
        self.host.clone().unwrap()
    }

    async fn client(
        &self,
        place: &ExportPlace,
        client: &str,
        patient: bool,
    ) -> Result<Box<dyn Client>, String> {
        assert!(place.tls);
        let credentials = self.credentials(client);
        let mut child = Command::new("qemu-io")
            .arg("--object")
            .arg(format!(
                "tls-creds-x509,id=tls,endpoint=client,verify-peer=yes,dir={}",
                credentials.display()
            ))
            .arg("--image-opts")
            .arg(format!(
                "driver=nbd,server.type=inet,server.host={},server.port={},export={},tls-creds=tls,discard=unmap,\
                 reconnect-delay={}",
                place.host,
                place.port,
                place.export,
                if patient { 60 } else { 0 }
            ))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // Complaints come in the same order as answers.
        drop(child.stderr.take());
        let mut opened = QemuIo { child };
        opened.answer().await?;
        Ok(Box::new(opened))
    }

    async fn kill(&mut self, name: &DomainName) {
        let directory = self.volumes_directory().join(name.as_str());
        kill(pid(&directory).unwrap());
    }

    async fn restart(&mut self) {
        let before = self.daemons();
        self.host = None;
        self.host = Some(Arc::new(StorageHost::open(self.config()).await.unwrap()));
        let mut after = self.daemons();
        after.retain(|pid| before.contains(pid));
        assert_eq!(after.len(), before.len(), "a daemon was not adopted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_daemons() {
    suite(&mut Real::start_at(18_300).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_volume_that_cannot_be_understood_harms_no_other_and_is_kept() {
    let mut real = Real::start_at(18_320).await;
    let volumes = real.volumes();
    let names = ["sick", "well", "away"].map(|name| DomainName::new(name).unwrap());
    let [sick, well, away] = &names;
    let wish = VolumeWish {
        owner: DeploymentName::new("web").unwrap(),
        size_bytes: 64 << 20,
    };
    for name in &names {
        volumes.create(name, &wish).await.unwrap();
    }
    // What a removal has left that was cut off in the middle does not keep the next one from being done.
    let directory = real.volumes_directory();
    let left = directory.join(".gone-away");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("disk.qcow2"), "x").unwrap();
    volumes.remove(away).await.unwrap();
    assert!(!left.exists() && !directory.join("away").exists());

    drop(volumes);
    let record = directory.join("sick/record.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replacen('{', "(", 1)).unwrap();
    real.host = None;
    let host = StorageHost::open(real.config()).await.unwrap();
    host.grant(well, Generation(1), "h1").await.unwrap();
    let place = host.export(well, Generation(1), "h1").await.unwrap();
    let mut client = real.client(&place, "h1", false).await.unwrap();
    client.write(3, 3).await.unwrap();
    // Nobody knows who was cut off from it: nobody is let in, and no fence is confirmed.
    let fenced = host.fence(sick, Generation(2), By::Keeper).await;
    assert!(matches!(fenced, Err(VolumeError::Missing(_))));
    let anew = host.create(sick, &wish).await;
    assert!(matches!(anew, Err(VolumeError::Impossible(_))));
    std::fs::write(&record, text).unwrap();
    drop(host);
    let host = StorageHost::open(real.config()).await.unwrap();
    assert_eq!(host.show(sick).await.unwrap().note, None);
}

/// Polls `future` so often at most, and drops it; what it gave, if it came to its end.
async fn given_up_after<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if let Poll::Ready(given) = future.as_mut().poll(context) {
            return Poll::Ready(Some(given));
        }
        left -= 1;
        match left {
            0 => Poll::Ready(None),
            _ => Poll::Pending,
        }
    })
    .await
}

/// The destination of a move that is given up gives its generation back, and goes away before that is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_away_in_the_middle_takes_no_disk_from_the_clone_that_runs() {
    let real = Real::start_at(18_460).await;
    let volumes = real.volumes();
    let wish = VolumeWish {
        owner: DeploymentName::new("web").unwrap(),
        size_bytes: 64 << 20,
    };
    let name = DomainName::new("runs").unwrap();
    volumes.create(&name, &wish).await.unwrap();
    volumes.grant(&name, Generation(1), "h1").await.unwrap();
    let place = volumes.export(&name, Generation(1), "h1").await.unwrap();
    let mut running = real.client(&place, "h1", true).await.unwrap();
    running.write(0, 1).await.unwrap();
    // At every moment at which a request can end.
    for polls in 1.. {
        let given_up = Generation(1 + polls as u64);
        volumes.grant(&name, given_up, "h2").await.unwrap();
        volumes.export(&name, given_up, "h2").await.unwrap();
        let withdrawing = volumes.withdraw(&name, given_up, By::Host("h2"));
        let withdrawn = given_up_after(withdrawing, polls).await;
        running
            .write(polls as u64 % 60, 2)
            .await
            .unwrap_or_else(|error| panic!("dropped after {polls} polls: {error}"));
        if let Some(withdrawn) = withdrawn {
            withdrawn.unwrap();
            break;
        }
    }
}

/// A daemon that is stopped, as one is whose disk does not answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_daemon_hangs_keeps_no_other_from_being_made() {
    let real = Real::start_at(18_340).await;
    let volumes = real.volumes();
    let wish = VolumeWish {
        owner: DeploymentName::new("web").unwrap(),
        size_bytes: 64 << 20,
    };
    let name = |name| DomainName::new(name).unwrap();
    let (hung, other) = (name("hung"), name("other"));
    volumes.create(&hung, &wish).await.unwrap();
    let daemon = rustix::process::Pid::from_raw(real.daemons()[0]).unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::STOP).unwrap();
    let waiting = volumes.fence(&hung, Generation(2), By::Keeper);
    let made = volumes.create(&other, &wish);
    tokio::select! {
        biased;
        fenced = waiting => panic!("the fence of a hung daemon came first: {:?}", fenced.map(|_| ())),
        made = made => drop(made.unwrap()),
    }
    // Killed with the others; what is stopped is killed too.
}

/// More of them than the daemon would take by itself, and none says a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_say_nothing_keep_nobody_out() {
    let real = Real::start_at(18_360).await;
    let volumes = real.volumes();
    let wish = VolumeWish {
        owner: DeploymentName::new("web").unwrap(),
        size_bytes: 64 << 20,
    };
    let name = DomainName::new("quiet").unwrap();
    volumes.create(&name, &wish).await.unwrap();
    volumes.grant(&name, Generation(1), "h1").await.unwrap();
    let place = volumes.export(&name, Generation(1), "h1").await.unwrap();
    let mut strangers = Vec::new();
    for _ in 0..300 {
        let at = (place.host.as_str(), place.port);
        strangers.push(tokio::net::TcpStream::connect(at).await.unwrap());
    }
    let mut client = real.client(&place, "h1", false).await.unwrap();
    client.write(1, 1).await.unwrap();
    drop(strangers);
    assert!(client.is(1, 1).await.unwrap());
}

/// The list of revoked certificates is put beside the storage host's credentials, and nothing else is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_certificate_is_revoked_is_cut_off_and_no_other() {
    let mut real = Real::start_at(18_380).await;
    let volumes = real.volumes();
    let wish = VolumeWish {
        owner: DeploymentName::new("web").unwrap(),
        size_bytes: 64 << 20,
    };
    let mut clients = Vec::new();
    for (volume, host) in [("stolen", "h1"), ("kept", "h2")] {
        let name = DomainName::new(volume).unwrap();
        volumes.create(&name, &wish).await.unwrap();
        volumes.grant(&name, Generation(1), host).await.unwrap();
        let place = volumes.export(&name, Generation(1), host).await.unwrap();
        let mut client = real.client(&place, host, true).await.unwrap();
        client.write(1, 1).await.unwrap();
        clients.push((place, client));
    }
    let authority = Authority::open(real.temporary.path().join("authority")).unwrap();
    authority.revoke(&["agent:h1".to_owned()]).unwrap();
    let before = real.daemons();
    authority.put_list(&real.credentials("storage")).unwrap();
    let anew = async || {
        while real.daemons().iter().any(|pid| before.contains(pid)) || real.daemons().len() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), anew())
        .await
        .unwrap();
    // Its connection is gone, and it makes no other; the other host's clone has waited a moment.
    let (stolen, _) = &clients[0];
    assert!(real.client(stolen, "h1", false).await.is_err());
    let (kept, client) = &mut clients[1];
    client.write(2, 2).await.unwrap();
    assert!(client.is(1, 1).await.unwrap());
    drop(real.client(kept, "h2", false).await.unwrap());
    // They are not started anew for a list that they know.
    drop(volumes);
    drop(clients);
    real.restart().await;
}
