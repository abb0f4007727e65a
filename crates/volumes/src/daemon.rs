//! One `qemu-storage-daemon` with one volume: started, found again, told what to serve.

use crate::error::VolumeError;
use crate::image::IMAGE;
use crate::record::Record;
use estive_api::wire::{SnapshotName, export_name};
use estive_hypervisor::qmp::{Qmp, QmpError};
use estive_model::{DomainName, Generation};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const PROGRAM: &str = "qemu-storage-daemon";
const PACKAGE: &str = "qemu-utils or qemu-system-common";
const SOCKET: &str = "qmp.sock";
const PID: &str = "pid";
const LOG: &str = "log";
/// Name of the image's node in the daemon.
const NODE: &str = "volume";
/// For a command. A snapshot or a cut waits for writes under way, on a disk that may be busy.
const COMMAND: Duration = Duration::from_secs(20);
const READY: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Clients of one volume at once: every generation that is let in, those that reconnect, and strangers that say nothing
/// until the daemon drops them (after ten seconds, since QEMU 9.1).
const CONNECTIONS: u32 = 1024;

/// Where and how daemons serve.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub address: IpAddr,
    pub credentials: Option<PathBuf>,
    /// The service ends: nobody looks after the daemons any more, which go on.
    pub ending: CancellationToken,
}

/// A daemon that runs.
pub(crate) struct Daemon {
    name: DomainName,
    qmp: Qmp,
    pidfd: Arc<AsyncFd<OwnedFd>>,
}

impl Daemon {
    /// Starts one for the volume in `directory`; it serves nothing yet.
    pub async fn start(
        directory: &Path,
        record: &Record,
        serving: &Serving,
    ) -> Result<Self, VolumeError> {
        let failed = |detail: String| VolumeError::Daemon {
            name: record.name.clone(),
            doing: "start",
            detail,
        };
        let log = directory.join(LOG);
        let said = File::create(&log).map_err(VolumeError::io("write", &log))?;
        let _ = fs::remove_file(directory.join(SOCKET));
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments(record, serving))
            .current_dir(directory)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(said.try_clone().map_err(VolumeError::io("open", &log))?)
            .stderr(said)
            // What ends this service by a signal to its group leaves the volumes served.
            .process_group(0);
        let mut child = command.spawn().map_err(|error| VolumeError::Program {
            program: PROGRAM,
            package: PACKAGE,
            detail: error.to_string(),
        })?;
        let pid = Pid::from_child(&child);
        let pidfd = watched(pid).map_err(|error| failed(error.to_string()))?;
        // Reaped whenever it ends; the pid file and the pidfd say the rest.
        std::thread::spawn(move || child.wait());
        let started = Instant::now();
        loop {
            if let Ok(qmp) = connect(directory).await {
                return Ok(Self {
                    name: record.name.clone(),
                    qmp,
                    pidfd,
                });
            }
            let ended = ended_within(&pidfd, LOOK_AGAIN).await;
            if ended || started.elapsed() > READY {
                let _ = rustix::process::pidfd_send_signal(pidfd.get_ref(), Signal::KILL);
                let words = fs::read_to_string(&log).unwrap_or_default();
                let words: String = words.trim().chars().take(600).collect();
                return Err(failed(words.replace('\n', "; ")));
            }
        }
    }

    /// The one that runs for the volume in `directory`, if any. One that runs and does not answer is an error.
    pub async fn adopt(name: &DomainName, directory: &Path) -> Result<Option<Self>, VolumeError> {
        let Some(pid) = running(directory) else {
            return Ok(None);
        };
        let failed = |detail: String| VolumeError::Daemon {
            name: name.clone(),
            doing: "be taken over",
            detail,
        };
        let Ok(pidfd) = watched(pid) else {
            return Ok(None);
        };
        let started = Instant::now();
        loop {
            match connect(directory).await {
                Ok(qmp) => {
                    return Ok(Some(Self {
                        name: name.clone(),
                        qmp,
                        pidfd,
                    }));
                }
                Err(_) if ended_within(&pidfd, LOOK_AGAIN).await => return Ok(None),
                Err(error) if started.elapsed() > READY => return Err(failed(error.to_string())),
                Err(_) => {}
            }
        }
    }

    /// Whether it has ended.
    pub fn is_gone(&self) -> bool {
        is_gone(self.pidfd.get_ref())
    }

    /// Becomes readable when it ends.
    pub fn pidfd(&self) -> Arc<AsyncFd<OwnedFd>> {
        self.pidfd.clone()
    }

    /// What it serves, also what is being cut.
    pub async fn exports(&self) -> Result<Vec<Served>, VolumeError> {
        let listed = self
            .tell("say what it serves", "query-block-exports", json!({}))
            .await?;
        let exports = listed.as_array().into_iter().flatten();
        Ok(exports
            .filter_map(|export| {
                let id = export.get("id")?.as_str()?;
                let ending = export.get("shutting-down").and_then(Value::as_bool);
                Served::named(id, ending.unwrap_or(false))
            })
            .collect())
    }

    /// Lets in these hosts' agents and nobody else. Who is in stays in.
    pub async fn let_in(&self, clients: &BTreeSet<&str>) -> Result<(), VolumeError> {
        let rules: Vec<Value> = clients
            .iter()
            .map(|client| {
                json!({"match": format!("CN=agent:{client}"), "policy": "allow", "format": "exact"})
            })
            .collect();
        let set = json!({"path": "/objects/clients", "property": "rules", "value": rules});
        self.tell("say who may connect", "qom-set", set)
            .await
            .map(drop)
    }

    /// Serves a generation, for a host.
    pub async fn add(&self, generation: Generation, client: &str) -> Result<(), VolumeError> {
        let export = json!({
            "type": "nbd",
            "id": id(generation, client),
            "node-name": NODE,
            "name": export_name(&self.name, generation),
            "writable": true,
            "writethrough": true,
        });
        self.tell("serve a generation", "block-export-add", export)
            .await
            .map(drop)
    }

    /// Cuts these off, and waits until their last write under way is done.
    pub async fn cut(&self, exports: &[Served]) -> Result<(), VolumeError> {
        for export in exports {
            let which = json!({"id": export.id, "mode": "hard"});
            // Refused: it is gone already, or being cut. What counts is that it is not there in the end.
            match self.qmp.execute("block-export-del", which, COMMAND).await {
                Ok(_) | Err(QmpError::Refused { .. }) => {}
                Err(error) => return Err(self.failed("cut a generation off", &error)),
            }
        }
        let started = Instant::now();
        loop {
            let left = self.exports().await?;
            let cut = |left: &&Served| exports.iter().any(|export| export.id == left.id);
            let Some(still) = left.iter().find(cut) else {
                return Ok(());
            };
            if started.elapsed() > COMMAND {
                return Err(VolumeError::Daemon {
                    name: self.name.clone(),
                    doing: "cut a generation off",
                    detail: format!(
                        "writes of generation {} are still under way",
                        still.generation
                    ),
                });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    pub async fn resize(&self, size_bytes: u64) -> Result<(), VolumeError> {
        let size = json!({"node-name": NODE, "size": size_bytes});
        self.tell("grow", "block_resize", size).await.map(drop)
    }

    pub async fn snapshot(&self, snapshot: &SnapshotName) -> Result<(), VolumeError> {
        let what = json!({"device": NODE, "name": snapshot.as_str()});
        let command = "blockdev-snapshot-internal-sync";
        self.tell("take a snapshot", command, what).await.map(drop)
    }

    pub async fn drop_snapshot(&self, snapshot: &SnapshotName) -> Result<(), VolumeError> {
        let what = json!({"device": NODE, "name": snapshot.as_str()});
        let command = "blockdev-snapshot-delete-internal-sync";
        self.tell("drop a snapshot", command, what).await.map(drop)
    }

    /// The image's snapshots, the oldest first.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotName>, VolumeError> {
        let flat = json!({"flat": true});
        let nodes = self
            .tell("name its snapshots", "query-named-block-nodes", flat)
            .await?;
        let nodes = nodes.as_array().into_iter().flatten();
        let image = nodes
            .filter(|node| node.get("node-name").and_then(Value::as_str) == Some(NODE))
            .find_map(|node| node.pointer("/image/snapshots")?.as_array());
        Ok(image
            .into_iter()
            .flatten()
            .filter_map(|snapshot| SnapshotName::new(snapshot.get("name")?.as_str()?).ok())
            .collect())
    }

    /// Ends it, and waits until it is gone.
    pub async fn end(self) -> Result<(), VolumeError> {
        // It may end before it has answered.
        let _ = self.qmp.execute("quit", json!({}), COMMAND).await;
        if ended_within(&self.pidfd, COMMAND).await {
            return Ok(());
        }
        let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
        match ended_within(&self.pidfd, COMMAND).await {
            true => Ok(()),
            false => Err(VolumeError::Daemon {
                name: self.name.clone(),
                doing: "end",
                detail: "it does not let go".to_owned(),
            }),
        }
    }

    async fn tell(
        &self,
        doing: &'static str,
        command: &str,
        arguments: Value,
    ) -> Result<Value, VolumeError> {
        let answered = self.qmp.execute(command, arguments, COMMAND).await;
        answered.map_err(|error| self.failed(doing, &error))
    }

    fn failed(&self, doing: &'static str, error: &QmpError) -> VolumeError {
        VolumeError::Daemon {
            name: self.name.clone(),
            doing,
            detail: error.to_string(),
        }
    }
}

/// One export that a daemon has. Its id says also for which host it was made: the daemon itself does not keep that.
#[derive(Debug)]
pub(crate) struct Served {
    pub generation: Generation,
    /// Empty: made by a service of before this was said.
    pub client: String,
    /// It is being cut.
    pub ending: bool,
    id: String,
}

impl Served {
    fn named(id: &str, ending: bool) -> Option<Self> {
        let named = id.strip_prefix('g')?;
        let (number, client) = named.split_once('-').unwrap_or((named, ""));
        Some(Self {
            generation: Generation(number.parse().ok()?),
            client: client.to_owned(),
            ending,
            id: id.to_owned(),
        })
    }
}

/// Of what is allowed in an id (letters, digits, `-`, `.`, `_`) names in certificates are made.
fn id(generation: Generation, client: &str) -> String {
    format!("g{}-{client}", generation.0)
}

fn arguments(record: &Record, serving: &Serving) -> Vec<String> {
    let mut words: Vec<String> = [
        "--pidfile",
        PID,
        "--chardev",
        &format!("socket,id=qmp,path={SOCKET},server=on,wait=off"),
        "--monitor",
        "qmp",
        "--blockdev",
        &format!("driver=file,node-name=file,filename={IMAGE},discard=unmap,aio=threads"),
        "--blockdev",
        &format!("driver=qcow2,node-name={NODE},file=file,discard=unmap"),
    ]
    .map(str::to_owned)
    .into();
    let (address, port) = (serving.address, record.port);
    let mut server = format!(
        "addr.type=inet,addr.host={address},addr.port={port},max-connections={CONNECTIONS}"
    );
    if let Some(credentials) = &serving.credentials {
        // A comma in a value is written twice.
        let dir = credentials.display().to_string().replace(',', ",,");
        let objects = [
            format!("tls-creds-x509,id=tls,dir={dir},endpoint=server,verify-peer=yes"),
            // Empty, and what is not in it is denied.
            "authz-list,id=clients,policy=deny".to_owned(),
        ];
        for object in objects {
            words.extend(["--object".to_owned(), object]);
        }
        server.push_str(",tls-creds=tls,tls-authz=clients");
    }
    words.extend(["--nbd-server".to_owned(), server]);
    words
}

/// The process that has this directory's pid file, if it is still a daemon that works in this directory.
fn running(directory: &Path) -> Option<Pid> {
    let text = fs::read_to_string(directory.join(PID)).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let here = fs::canonicalize(directory).ok()?;
    let runs_here = fs::read_link(proc.join("cwd")).ok()? == here
        && is_program(&fs::read_link(proc.join("exe")).ok()?);
    if runs_here { Pid::from_raw(pid) } else { None }
}

/// Whether it is the daemon's program, also after an upgrade of its package has put another in its place.
fn is_program(exe: &Path) -> bool {
    let name = exe.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(" (deleted)").unwrap_or(&name) == PROGRAM
}

async fn connect(directory: &Path) -> Result<Qmp, QmpError> {
    // A unix socket's path has 107 bytes at most; the directory's may be longer.
    let opened = File::open(directory).map_err(|source| QmpError::Connect {
        path: directory.display().to_string(),
        source,
    })?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
    let (qmp, _) = Qmp::connect(Path::new(&path), COMMAND).await?;
    Ok(qmp)
}

fn watched(pid: Pid) -> std::io::Result<Arc<AsyncFd<OwnedFd>>> {
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    // SAFETY: an `OwnedFd` is the same open descriptor until it is dropped, which only `AsyncFd` does here.
    Ok(Arc::new(unsafe { AsyncFd::register(pidfd) }?))
}

fn is_gone(pidfd: &OwnedFd) -> bool {
    let mut poll = [rustix::event::PollFd::new(
        pidfd,
        rustix::event::PollFlags::IN,
    )];
    matches!(rustix::event::poll(&mut poll, Some(&rustix::time::Timespec::default())), Ok(n) if n > 0)
}

pub(crate) async fn ended_within(pidfd: &AsyncFd<OwnedFd>, within: Duration) -> bool {
    matches!(
        tokio::time::timeout(within, pidfd.readable()).await,
        Ok(Ok(_))
    ) || is_gone(pidfd.get_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_says_whose_it_is() {
        let served = Served::named(&id(Generation(7), "host-1.a"), false).unwrap();
        assert_eq!(
            (served.generation, &*served.client),
            (Generation(7), "host-1.a")
        );
        let older = Served::named("g7", true).unwrap();
        assert_eq!((older.generation, &*older.client), (Generation(7), ""));
        assert!(Served::named("x7-h", false).is_none());
    }

    #[test]
    fn a_daemon_is_known_whatever_became_of_the_file_it_was_started_from() {
        for (exe, is) in [
            ("/usr/bin/qemu-storage-daemon", true),
            ("/usr/bin/qemu-storage-daemon (deleted)", true),
            ("/usr/bin/qemu-storage-daemon-2", false),
            ("/usr/bin/bash (deleted)", false),
            ("/", false),
        ] {
            assert_eq!(is_program(Path::new(exe)), is, "{exe}");
        }
    }
}
