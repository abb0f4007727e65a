//! The seam: what every hypervisor can do, and the words it does it in.

use crate::image_files::{FileId, Grip};
use async_trait::async_trait;
use estive_model::{DomainName, Machine};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::broadcast;

/// What went wrong in a hypervisor.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// No instance of this domain exists here.
    #[error("{0} has no instance on this host")]
    NoInstance(DomainName),
    /// An instance of this domain exists already.
    #[error("{0} has an instance on this host already")]
    Exists(DomainName),
    /// The instance ended at start; `detail` holds what it printed last.
    #[error("QEMU of {domain} ended at start: {detail}")]
    DiedAtStart {
        /// The domain.
        domain: DomainName,
        /// Last lines of its standard error.
        detail: String,
    },
    /// The instance ended while it was being spoken to.
    #[error("QEMU of {0} ended")]
    Died(DomainName),
    /// The instance refused a command.
    #[error("QEMU of {domain} refused {command}: {detail}")]
    Rejected {
        /// The domain.
        domain: DomainName,
        /// The command.
        command: String,
        /// Its words.
        detail: String,
    },
    /// The instance did not answer in time.
    #[error("QEMU of {domain} did not answer {command} within {waited_ms} ms")]
    Silent {
        /// The domain.
        domain: DomainName,
        /// What was asked.
        command: String,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// A file or process could not be handled.
    #[error("{doing}")]
    Io {
        /// What was being done, with what.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// What an instance (one QEMU process) is doing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Made, processors never started, no stream awaited.
    Prelaunch,
    /// Processors run.
    Running,
    /// Processors halted on demand, or for the moment of the switch of an outgoing
    /// migration that is not complete yet.
    Paused,
    /// Waits for an incoming stream, or is receiving it.
    AwaitingStream,
    /// The whole incoming stream, or saved state, is loaded (in post-copy: all but the pages still to be fetched); processors have
    /// not run here.
    Loaded,
    /// The outgoing stream is complete, processors halted (QEMU: `postmigrate`).
    Sent,
    /// The guest powered off or panicked; the process may still stand.
    GuestStopped,
    /// The process is gone.
    Gone,
}

/// Where an outgoing stream goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamAddress {
    /// Address of the destination host.
    pub host: IpAddr,
    /// TCP port, one for each migration.
    pub port: u16,
    /// Name in the destination's certificate, when the stream goes over TLS.
    pub tls_name: Option<String>,
}

/// Parameters of a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationParameters {
    /// Most bytes sent a second (field notes: 1 GiB/s, QEMU's own 128 MiB/s is the whole 0.7 s).
    pub bandwidth_bytes_per_s: u64,
    /// Longest expected interruption at which the switch is made, in milliseconds.
    pub downtime_limit_ms: u64,
    /// The status `setup` may last this long, then the migration is given up.
    pub setup_deadline_ms: u64,
    /// Slow the guest's processors down when pre-copy does not converge.
    pub auto_converge: bool,
    /// Post-copy may be switched to (both sides must agree before the start).
    pub post_copy: bool,
}

impl Default for MigrationParameters {
    fn default() -> Self {
        Self {
            bandwidth_bytes_per_s: 1 << 30,
            downtime_limit_ms: 50,
            setup_deadline_ms: 5_000,
            auto_converge: true,
            post_copy: false,
        }
    }
}

/// Status of an outgoing migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationStatus {
    /// None was started.
    None,
    /// Connecting.
    Setup,
    /// Memory is being copied while the guest runs.
    Active,
    /// Processors halted, last pages and device state are being sent.
    Switching,
    /// Post-copy: the rest of memory follows the switch.
    PostCopy,
    /// Everything was sent and the other side has loaded it.
    Completed,
    /// It failed; the guest runs on here.
    Failed,
    /// It was cancelled; the guest runs on here.
    Cancelled,
}

/// Progress of an outgoing migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MigrationProgress {
    /// Where it stands.
    pub status: MigrationStatus,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes of memory still to send.
    pub remaining_bytes: u64,
    /// All memory, in bytes.
    pub total_bytes: u64,
    /// Rate at which the guest dirties memory, bytes a second.
    pub dirty_rate_bytes_per_s: u64,
    /// Passes over memory so far.
    pub passes: u64,
    /// QEMU's expected downtime if it switched now, in milliseconds.
    pub expected_downtime_ms: u64,
    /// QEMU's own measure of the interruption, in milliseconds, once complete.
    pub downtime_ms: Option<u64>,
    /// Whole duration so far or in all, in milliseconds.
    pub total_ms: u64,
    /// Percentage by which auto-converge slows the guest's processors, 0 when it does not.
    pub throttle_percent: u32,
    /// QEMU's words when it failed.
    pub error: Option<String>,
}

/// Something an instance did by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceEvent {
    /// The domain.
    pub domain: DomainName,
    /// What happened.
    pub what: InstanceHappening,
    /// QEMU's own time stamp, microseconds since the epoch; 0 when it gave none.
    pub time_us: u64,
}

/// Kinds of [`InstanceEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceHappening {
    /// Processors were halted.
    Halted,
    /// Processors were started.
    Resumed,
    /// The outgoing or incoming migration changed its status.
    Migration(MigrationStatus),
    /// The guest powered itself off.
    GuestPoweredOff,
    /// The guest's kernel panicked.
    GuestPanicked,
    /// The process ended.
    Gone,
}

/// Paths on this host by which an instance is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channels {
    /// Unix socket of the serial console.
    pub console: PathBuf,
    /// File to which everything on the console is appended.
    pub console_log: PathBuf,
    /// File to which `estive-init` appends its report (JSON lines).
    pub report: PathBuf,
    /// Unix socket of the virtio-serial port on which the guest waits for its identity.
    pub identity: PathBuf,
    /// Unix socket of the QEMU guest agent.
    pub guest_agent: PathBuf,
}

/// An instance found at start-up of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The domain it belongs to.
    pub domain: DomainName,
    /// What it is doing; `None` when it stands but does not answer ([`Hypervisor::state`] then says why).
    pub state: Option<InstanceState>,
    /// Process id, 0 in simulation.
    pub pid: u32,
}

/// Starts, drives and watches instances of domains on one host. All methods may be called again after a crash of
/// the caller: instances live on without it.
#[async_trait]
pub trait Hypervisor: Send + Sync {
    /// Makes an instance, processors halted ([`InstanceState::Prelaunch`]). Fails with `Exists` if one stands.
    async fn create(&self, machine: &Machine) -> Result<(), HypervisorError>;

    /// Makes an instance that waits for a stream ([`InstanceState::AwaitingStream`]) on `port` of `listen`
    /// (own port for each migration). Processors stay halted when the stream is complete ([`InstanceState::Loaded`]).
    async fn create_incoming(
        &self,
        machine: &Machine,
        listen: IpAddr,
        port: u16,
        tls: bool,
        parameters: &MigrationParameters,
    ) -> Result<(), HypervisorError>;

    /// Makes an instance from a file written by [`Hypervisor::save`]; processors halted ([`InstanceState::Loaded`]).
    async fn restore(
        &self,
        machine: &Machine,
        from: &std::path::Path,
    ) -> Result<(), HypervisorError>;

    /// Writes the halted or running instance's state to a file (0600, on disk when it returns); the instance ends up
    /// halted ([`InstanceState::Sent`]). If it fails, the instance goes on as it was and the file is gone.
    async fn save(&self, domain: &DomainName, to: &std::path::Path) -> Result<(), HypervisorError>;

    /// Starts the processors. Refused while a stream is awaited. A `Sent` instance runs again: whether it may is the
    /// caller's knowledge.
    async fn resume(&self, domain: &DomainName) -> Result<(), HypervisorError>;

    /// Halts the processors.
    async fn pause(&self, domain: &DomainName) -> Result<(), HypervisorError>;

    /// Asks the guest to power itself off (ACPI). Returns at once.
    async fn power_button(&self, domain: &DomainName) -> Result<(), HypervisorError>;

    /// Ends the instance at once; idempotent: `Ok` when there is none. Returns when the process is gone.
    async fn kill(&self, domain: &DomainName) -> Result<(), HypervisorError>;

    /// Removes what the ended instances of a domain that is no longer held have left: logs, report, their directory.
    /// Does nothing while an instance stands.
    async fn erase(&self, _domain: &DomainName) -> Result<(), HypervisorError> {
        Ok(())
    }

    /// Domains of which anything lies on this host, also of those that have no instance.
    async fn remains(&self) -> Result<Vec<DomainName>, HypervisorError> {
        let found = self.adopt().await?;
        Ok(found.into_iter().map(|found| found.domain).collect())
    }

    /// What the instance is doing; `Gone` when there is none. An instance that does not answer is an error, not `Gone`.
    async fn state(&self, domain: &DomainName) -> Result<InstanceState, HypervisorError>;

    /// Starts sending the instance to another host. Returns when the order is accepted; from then on
    /// [`Hypervisor::migration`] tells, also of a connection that fails.
    async fn migrate(
        &self,
        domain: &DomainName,
        to: &StreamAddress,
        parameters: &MigrationParameters,
    ) -> Result<(), HypervisorError>;

    /// Progress of the outgoing migration.
    async fn migration(&self, domain: &DomainName) -> Result<MigrationProgress, HypervisorError>;

    /// Gives an outgoing migration up; the guest goes on here. `Ok` also when it had ended by itself.
    async fn cancel_migration(&self, domain: &DomainName) -> Result<(), HypervisorError>;

    /// Switches an active pre-copy to post-copy (allowed by both sides' parameters).
    async fn start_post_copy(&self, domain: &DomainName) -> Result<(), HypervisorError>;

    /// All instances that stand on this host, adopted without disturbing them. Called once at start-up of the agent,
    /// and any time after.
    async fn adopt(&self) -> Result<Vec<Found>, HypervisorError>;

    /// What the instance has of a file. Without an instance: [`Grip::None`].
    async fn grip(&self, domain: &DomainName, file: FileId) -> Result<Grip, HypervisorError>;

    /// Where the instance's channels are.
    fn channels(&self, domain: &DomainName) -> Channels;

    /// Events of all instances from now on. A slow reader loses the oldest.
    fn events(&self) -> broadcast::Receiver<InstanceEvent>;

    /// Longest time a command may take before it counts as `Silent`.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// One line that says what this is: `QEMU 10.0.2, tcg`.
    fn describe(&self) -> String;
}
