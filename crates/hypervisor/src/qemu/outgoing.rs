//! Sending an instance to another host.
//!
//! The driver opens the connection itself and hands it to QEMU (`getfd`, `migrate fd:`): QEMU's own `connect` cannot
//! be given a deadline, nor interrupted (field notes: it hangs 25 to 70 s in `setup` when a switch has lost the way).
//! A copy of the socket is kept until `setup` is over, so that a TLS handshake that never ends can be cut too.
//!
//! ```text
//!  migrate() ─► Connecting ──connected──► QEMU has it ──setup over──► (as QEMU says)
//!                  │  │                      │
//!          refused,│  │cancel        deadline│
//!          deadline▼  ▼                      ▼
//!            NeverBegan(Failed|Cancelled)  GivenUp ─► QEMU cancels; reported as Failed
//! ```

use super::directory::failed;
use super::instance::{Instance, migration_status};
use crate::seam::*;
use rustix::net::Shutdown;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// Pause between two looks at a migration this driver waits for.
pub(super) const LOOK: Duration = Duration::from_millis(10);
/// Name under which QEMU keeps the stream's descriptor.
const STREAM: &str = "stream";
/// A destination that acknowledges nothing for so long has gone.
const PEER_TIMEOUT_MS: u32 = 15_000;

#[derive(Default)]
enum Stage {
    /// QEMU knows all there is to know.
    #[default]
    AsQemuSays,
    /// QEMU has not been told of it.
    Connecting,
    /// It ended before QEMU was told of it.
    NeverBegan(MigrationStatus, Option<String>),
    /// It was cancelled because it stayed in `setup`; why.
    GivenUp(String),
}

/// What the driver itself knows of an outgoing migration.
#[derive(Default)]
pub(super) struct Outgoing {
    stage: Stage,
    /// The task that connects and watches `setup`.
    task: Option<AbortHandle>,
    /// A copy of the stream's socket, during `setup` only: held longer it would hide QEMU's end from the destination.
    socket: Option<Arc<OwnedFd>>,
}

impl Outgoing {
    /// Lets go of everything: the process has ended, or the driver ends.
    pub(super) fn abandon(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.socket = None;
    }
}

/// Capabilities of both sides. All are named, as an earlier migration may have left others.
pub(super) fn capabilities(return_path: bool, auto_converge: bool, post_copy: bool) -> Value {
    let states = [
        ("events", true),
        // With it the source says `completed` only when the destination has loaded everything.
        ("return-path", return_path),
        ("auto-converge", auto_converge),
        ("postcopy-ram", post_copy),
    ];
    let states = states.map(|(name, state)| json!({"capability": name, "state": state}));
    json!({"capabilities": states})
}

impl Instance {
    /// Starts sending the instance to `to`.
    pub(super) async fn migrate(
        self: &Arc<Self>,
        to: &StreamAddress,
        parameters: &MigrationParameters,
    ) -> Result<(), HypervisorError> {
        let _order = self.orders.lock().await;
        if matches!(self.outgoing().stage, Stage::Connecting) {
            return Err(self.rejected("migrate", "an outgoing migration is under way"));
        }
        match self.state().await? {
            InstanceState::AwaitingStream => {
                return Err(self.rejected("migrate", "its own incoming stream is not complete"));
            }
            InstanceState::Sent => {
                return Err(self.rejected("migrate", "it was sent already; resume it first"));
            }
            _ => {}
        }
        let capabilities = capabilities(true, parameters.auto_converge, parameters.post_copy);
        self.execute("migrate-set-capabilities", capabilities)
            .await?;
        let limits = json!({
            "max-bandwidth": parameters.bandwidth_bytes_per_s,
            "downtime-limit": parameters.downtime_limit_ms,
            "tls-creds": if to.tls_name.is_some() { "tls-client" } else { "" },
            "tls-hostname": to.tls_name.as_deref().unwrap_or_default(),
        });
        self.execute("migrate-set-parameters", limits).await?;
        let task = tokio::spawn(self.clone().send_out(to.clone(), parameters.clone()));
        let mut outgoing = self.outgoing();
        // The watcher of an earlier migration that has ended.
        outgoing.abandon();
        *outgoing = Outgoing {
            stage: Stage::Connecting,
            task: Some(task.abort_handle()),
            socket: None,
        };
        Ok(())
    }

    async fn send_out(self: Arc<Self>, to: StreamAddress, parameters: MigrationParameters) {
        let deadline = Duration::from_millis(parameters.setup_deadline_ms);
        let until = tokio::time::Instant::now() + deadline;
        let address = SocketAddr::new(to.host, to.port);
        let too_long = format!(
            "connecting to {address} took longer than {} ms",
            parameters.setup_deadline_ms
        );
        let connected = tokio::time::timeout_at(until, connect(address, &parameters)).await;
        // From here to the order no cancellation may come between. The order was given while `migrate` held this.
        let order = self.orders.lock().await;
        if !matches!(self.outgoing().stage, Stage::Connecting) {
            return;
        }
        let (socket, copy) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => {
                return self.never_began(format!("connecting to {address} failed: {error}"));
            }
            Err(_) => return self.never_began(too_long),
        };
        let copy = Arc::new(copy);
        self.outgoing().socket = Some(copy.clone());
        if let Err(error) = self.hand_over(socket, &copy).await {
            self.outgoing().socket = None;
            return self.never_began(chain(&error));
        }
        // Not before QEMU has the order: until then its words are about an earlier stream.
        self.outgoing().stage = Stage::AsQemuSays;
        drop(order);
        loop {
            match self.execute("query-migrate", Value::Null).await {
                Ok(progress) if progress["status"] == json!("setup") => {}
                _ => break,
            }
            if tokio::time::Instant::now() >= until {
                self.outgoing().stage = Stage::GivenUp(too_long);
                let _ = self.execute("migrate_cancel", Value::Null).await;
                self.cut();
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.outgoing().socket = None;
    }

    async fn hand_over(&self, socket: OwnedFd, copy: &OwnedFd) -> Result<(), HypervisorError> {
        self.pass(STREAM, socket).await?;
        // QEMU makes every descriptor it is given blocking, and shakes hands in its main loop: a peer that says
        // nothing would halt its monitor, and the guest with it (seen with 10.0). The copy is the same open socket.
        rustix::io::ioctl_fionbio(copy, true)
            .map_err(|error| failed("preparing the stream's socket".into(), error.into()))?;
        self.execute("migrate", json!({"uri": format!("fd:{STREAM}")}))
            .await
            .map(drop)
    }

    /// Gives QEMU an open file, to be named `fd:<name>`.
    pub(super) async fn pass(&self, name: &str, file: OwnedFd) -> Result<(), HypervisorError> {
        let monitor = self.monitor().await?;
        let passed = monitor
            .execute_with_fd("getfd", json!({"fdname": name}), file, self.patience)
            .await;
        match passed {
            Ok(_) => Ok(()),
            Err(error) => Err(self.error(error).await),
        }
    }

    fn never_began(&self, error: String) {
        self.outgoing().stage = Stage::NeverBegan(MigrationStatus::Failed, Some(error));
        self.tell(InstanceHappening::Migration(MigrationStatus::Failed));
    }

    /// Ends a stream that QEMU may be stuck in.
    fn cut(&self) {
        if let Some(socket) = self.outgoing().socket.take() {
            // It may have been closed from the other side already.
            let _ = rustix::net::shutdown(&socket, Shutdown::Both);
        }
    }

    /// Progress of the outgoing migration.
    pub(super) async fn migration(&self) -> Result<MigrationProgress, HypervisorError> {
        match &self.outgoing().stage {
            Stage::Connecting => return Ok(unstarted(MigrationStatus::Setup, None)),
            Stage::NeverBegan(status, error) => return Ok(unstarted(*status, error.clone())),
            Stage::AsQemuSays | Stage::GivenUp(_) => {}
        }
        let said = self.execute("query-migrate", Value::Null).await?;
        let mut progress = progress(&said);
        // What an instance says of the stream it came by is not of an outgoing one: that has RAM figures.
        let incoming = said["ram"].is_null() && progress.status == MigrationStatus::Completed;
        if incoming || self.directory.awaiting().exists() {
            progress = unstarted(MigrationStatus::None, None);
        }
        if let Stage::GivenUp(why) = &self.outgoing().stage
            && matches!(
                progress.status,
                MigrationStatus::Cancelled | MigrationStatus::Failed
            )
        {
            progress.status = MigrationStatus::Failed;
            progress.error = Some(why.clone());
        }
        Ok(progress)
    }

    /// Gives the outgoing migration up and waits until QEMU has done so.
    pub(super) async fn cancel_migration(&self) -> Result<(), HypervisorError> {
        let _order = self.orders.lock().await;
        {
            let mut outgoing = self.outgoing();
            match outgoing.stage {
                Stage::Connecting => {
                    outgoing.stage = Stage::NeverBegan(MigrationStatus::Cancelled, None);
                    outgoing.abandon();
                    return Ok(());
                }
                Stage::NeverBegan(..) => return Ok(()),
                Stage::AsQemuSays | Stage::GivenUp(_) => {}
            }
        }
        let before = self.execute("query-migrate", Value::Null).await?;
        let status = migration_status(before["status"].as_str().unwrap_or("none"));
        if status == MigrationStatus::PostCopy {
            return Err(self.rejected(
                "migrate_cancel",
                "after the switch to post-copy neither side has the whole memory; only its end can be awaited",
            ));
        }
        if over(&before) {
            return Ok(());
        }
        self.execute("migrate_cancel", Value::Null).await?;
        self.cut();
        let ended = async {
            // After `cancelled` QEMU itself puts the guest back to what it was.
            while !over(&self.execute("query-migrate", Value::Null).await?)
                || self.execute("query-status", Value::Null).await?["status"]
                    == json!("finish-migrate")
            {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        };
        match tokio::time::timeout(self.patience, ended).await {
            Ok(result) => result,
            Err(_) => Err(self.silent("migrate_cancel")),
        }
    }
}

/// Whether QEMU has nothing under way any more.
pub(super) fn over(said: &Value) -> bool {
    matches!(
        said["status"].as_str(),
        None | Some("none" | "completed" | "failed" | "cancelled")
    )
}

/// An open connection to the destination, and a copy of it.
async fn connect(
    address: SocketAddr,
    parameters: &MigrationParameters,
) -> std::io::Result<(OwnedFd, OwnedFd)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    // In post-copy a cut must be waited out: the guest's memory is on both sides.
    if !parameters.post_copy {
        rustix::net::sockopt::set_tcp_user_timeout(&stream, PEER_TIMEOUT_MS)?;
    }
    let stream = stream.into_std()?;
    let copy = stream.try_clone()?;
    Ok((stream.into(), copy.into()))
}

fn chain(error: &HypervisorError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn unstarted(status: MigrationStatus, error: Option<String>) -> MigrationProgress {
    MigrationProgress {
        status,
        error,
        ..progress(&Value::Null)
    }
}

/// `MigrationInfo` of QEMU's qapi/migration.json.
pub(super) fn progress(said: &Value) -> MigrationProgress {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let ram = &said["ram"];
    MigrationProgress {
        status: migration_status(said["status"].as_str().unwrap_or("none")),
        sent_bytes: number(&ram["transferred"]),
        remaining_bytes: number(&ram["remaining"]),
        total_bytes: number(&ram["total"]),
        dirty_rate_bytes_per_s: number(&ram["dirty-pages-rate"])
            .saturating_mul(number(&ram["page-size"])),
        passes: number(&ram["dirty-sync-count"]),
        expected_downtime_ms: number(&said["expected-downtime"]),
        downtime_ms: said["downtime"].as_u64(),
        total_ms: number(&said["total-time"]),
        throttle_percent: u32::try_from(number(&said["cpu-throttle-percentage"]))
            .unwrap_or(u32::MAX),
        error: said["error-desc"].as_str().map(str::to_owned),
    }
}
