//! The suite of volumes on both parts: the simulated one, and storage daemons with mutual TLS, whose clients are
//! `qemu-io` processes.

use async_trait::async_trait;
use estive_api::Role;
use estive_api::authority::Authority;
use estive_api::wire::ExportPlace;
use estive_model::DomainName;
use estive_volumes::conformance::{Bench, Client, suite};
use estive_volumes::{SimulatedVolumes, StorageHost, StorageHostConfig, Volumes};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
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
}

impl Real {
    fn config(&self) -> StorageHostConfig {
        StorageHostConfig {
            directory: self.volumes_directory(),
            address: "127.0.0.1".parse().unwrap(),
            first_port: 18_300,
            last_port: 18_330,
            credentials: Some(self.credentials("storage")),
        }
    }

    fn volumes_directory(&self) -> PathBuf {
        self.temporary.path().join("volumes")
    }

    fn credentials(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    async fn start() -> Self {
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
    suite(&mut Real::start().await).await;
}
