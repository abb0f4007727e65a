//! Taking a stream in: from another host, or from a file; and writing such a file.

use super::directory::failed;
use super::instance::Instance;
use super::outgoing::{LOOK, capabilities, over, progress};
use crate::seam::*;
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tokio::time::Instant;

/// Name under which QEMU keeps the descriptor of a file of saved state.
const FILE: &str = "saved";
/// A file is written and read as fast as it can be.
const UNLIMITED_BYTES_PER_S: u64 = 1 << 40;
/// The first QEMU that migrates to and from `file:` (and frowns on files given as `fd:` since 9.1).
const FILE_STREAMS: (u64, u64, u64) = (8, 2, 0);
/// The first QEMU that takes disks over no sooner than it starts processors, after any stream.
const DISKS_TAKEN_LATE: (u64, u64, u64) = (10, 0, 0);

impl Instance {
    /// Listens for a stream. `late`: its disks are taken over (and locked) no sooner than its processors are started,
    /// so that until then the source can go on.
    pub(super) async fn listen(
        &self,
        address: IpAddr,
        port: u16,
        tls: bool,
        parameters: &MigrationParameters,
        late: bool,
    ) -> Result<(), HypervisorError> {
        self.execute(
            "migrate-set-capabilities",
            capabilities(true, false, parameters.post_copy),
        )
        .await?;
        if late {
            let late =
                json!({"capabilities": [{"capability": "late-block-activate", "state": true}]});
            self.execute("migrate-set-capabilities", late).await?;
        }
        let credentials = if tls { "tls-server" } else { "" };
        self.execute("migrate-set-parameters", json!({"tls-creds": credentials}))
            .await?;
        let address = SocketAddr::new(address, port);
        self.execute("migrate-incoming", json!({"uri": format!("tcp:{address}")}))
            .await
            .map(drop)
    }

    /// Reads a file of saved state; the instance is halted after it, and known to have it loaded and not to have run.
    pub(super) async fn load(&self, from: &Path) -> Result<(), HypervisorError> {
        let file = fs::File::open(from).map_err(|source| {
            failed(
                format!("opening the saved state {}", from.display()),
                source,
            )
        })?;
        self.execute(
            "migrate-set-capabilities",
            capabilities(false, false, false),
        )
        .await?;
        let uri = self.file_stream(from, file).await?;
        let loaded = async {
            self.execute("migrate-incoming", json!({"uri": uri}))
                .await?;
            self.wait_for_stream("loading the saved state").await
        };
        loaded.await.map_err(|error| match error {
            HypervisorError::Died(domain) => HypervisorError::DiedAtStart {
                domain,
                detail: self.directory.last_words(),
            },
            other => other,
        })
    }

    /// Takes the disks over (and locks them) before processors are started. Older QEMUs do it while they load, and
    /// only complain when they cannot.
    pub(super) async fn take_disks(&self) -> Result<(), HypervisorError> {
        if self.monitor().await?.version() < DISKS_TAKEN_LATE {
            return Ok(());
        }
        self.execute("blockdev-set-active", json!({"active": true}))
            .await
            .map(drop)
    }

    /// Halts the instance and writes its state to a file. If that fails the instance goes on as it was.
    pub(super) async fn save(&self, to: &Path) -> Result<(), HypervisorError> {
        let _order = self.orders.lock().await;
        let before = self.state().await?;
        if matches!(before, InstanceState::AwaitingStream | InstanceState::Gone) {
            return Err(self.rejected("migrate", format!("it cannot be saved: it is {before:?}")));
        }
        let doing = |source| failed(format!("writing the saved state {}", to.display()), source);
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(to)
            .map_err(doing)?;
        let saved = async {
            self.execute("stop", Value::Null).await?;
            // A guest that has just powered off has nothing to go on with.
            if self.state().await? == InstanceState::GuestStopped {
                return Err(self.rejected("migrate", "the guest has ended"));
            }
            self.execute(
                "migrate-set-capabilities",
                capabilities(false, false, false),
            )
            .await?;
            let parameters = json!({"max-bandwidth": UNLIMITED_BYTES_PER_S, "tls-creds": "", "tls-hostname": ""});
            self.execute("migrate-set-parameters", parameters).await?;
            let uri = self.file_stream(to, file).await?;
            self.execute("migrate", json!({"uri": uri})).await?;
            self.wait_for_stream("saving").await?;
            let written = to.to_owned();
            let syncing = move || {
                fs::File::open(&written)?.sync_all()?;
                fs::File::open(written.parent().unwrap_or(Path::new(".")))?.sync_all()
            };
            // Gigabytes may have to go to disk.
            tokio::task::spawn_blocking(syncing)
                .await
                .unwrap_or_else(|error| Err(std::io::Error::other(error)))
                .map_err(doing)
        };
        let saved = saved.await;
        if saved.is_err() {
            let _ = fs::remove_file(to);
            let _ = self.execute("migrate_cancel", Value::Null).await;
            if before == InstanceState::Running {
                let _ = self.execute("cont", Value::Null).await;
            }
        }
        saved
    }

    /// The name of a file as a stream of this QEMU.
    async fn file_stream(&self, path: &Path, file: fs::File) -> Result<String, HypervisorError> {
        let doing = |source| failed(format!("finding {}", path.display()), source);
        let path: PathBuf = std::path::absolute(path).map_err(doing)?;
        match path.to_str() {
            Some(path)
                if self.monitor().await?.version() >= FILE_STREAMS
                    && !path.contains(",offset=") =>
            {
                Ok(format!("file:{path}"))
            }
            _ => {
                self.pass(FILE, file.into()).await?;
                Ok(format!("fd:{FILE}"))
            }
        }
    }

    /// Waits until the stream to or from a file is complete. It may take as long as it goes on.
    async fn wait_for_stream(&self, doing: &str) -> Result<(), HypervisorError> {
        let mut seen = (0, 0);
        let mut moved = Instant::now();
        loop {
            let said = self.execute("query-migrate", Value::Null).await?;
            let now = progress(&said);
            match now.status {
                MigrationStatus::Completed => return Ok(()),
                _ if over(&said) && now.status != MigrationStatus::None => {
                    let error = now.error.unwrap_or_else(|| format!("{:?}", now.status));
                    return Err(self.rejected(doing, error));
                }
                _ => {}
            }
            if seen != (now.sent_bytes, now.remaining_bytes) {
                seen = (now.sent_bytes, now.remaining_bytes);
                moved = Instant::now();
            }
            // An incoming stream has no figures; loading a few GiB takes seconds, not minutes.
            let patience = if now.total_bytes == 0 {
                self.patience * 6
            } else {
                self.patience
            };
            if moved.elapsed() > patience {
                return Err(self.silent(doing));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
