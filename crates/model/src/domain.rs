//! Domains: what one is made of, and the states it can be in.

use crate::{Digest, DomainName};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Capacity of every clone's layer disk, in bytes. Fixed, so that all clones have the same devices
/// (architecture, decision 3b).
pub const LAYER_DISK_BYTES: u64 = 16 * 1024 * 1024;

/// A file on this host, with the digest of its content where it is shared and named by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksummed {
    /// Where it lies on this host.
    pub path: PathBuf,
    /// Digest of the content, if it is named by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// An export of a network block device server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NbdSource {
    /// Address of the server (IPv4, IPv6 or name).
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name of the export.
    pub export: String,
    /// Whether the connection uses mutual TLS with the agent's credentials.
    pub tls: bool,
}

/// Where a read-only block device's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockSource {
    /// A file on this host.
    File(PathBuf),
    /// A network block device.
    Nbd(NbdSource),
    /// An NBD server on a unix socket of this host: its cache of roots.
    LocalNbd {
        /// The socket.
        socket: PathBuf,
        /// Name of the export.
        export: String,
    },
}

/// A network interface of a domain: always virtio, always on a bridge of its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// MAC address, `aa:bb:cc:dd:ee:ff`, lower case.
    pub mac: String,
    /// Name of the host's bridge.
    pub bridge: String,
    /// Name of the tap, at most 15 characters, made by the agent before the hypervisor starts.
    pub tap: String,
}

/// What a hypervisor needs to know to run a domain: the typed view of its `config.xml` with every file
/// resolved on this host. The same for a start, a restore and an incoming migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSpec {
    /// The domain's name.
    pub name: DomainName,
    /// Its UUID, in the usual 8-4-4-4-12 form.
    pub uuid: String,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Kernel.
    pub kernel: Checksummed,
    /// Initial RAM file system.
    pub initramfs: Checksummed,
    /// Kernel command line.
    pub command_line: String,
    /// Layer disk: a raw file of [`LAYER_DISK_BYTES`], read-only.
    pub layer: PathBuf,
    /// Root disk, read-only.
    pub root: BlockSource,
    /// Modules disk, read-only.
    pub modules: BlockSource,
    /// Its volume, which it writes to, if it has one: the export of its generation.
    pub volume: Option<NbdSource>,
    /// Network interface, if it has one.
    pub interface: Option<Interface>,
    /// Identity given by fw_cfg (JSON, at most 4096 bytes); `None` leaves fw_cfg empty, and the guest waits for the
    /// identity on its virtio-serial port.
    pub identity: Option<String>,
}

/// What a domain does, as its host's agent sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DomainState {
    /// Its processors run.
    Running,
    /// QEMU stands, its processors are halted on demand.
    Paused,
    /// Defined; no QEMU.
    Stopped,
    /// Its memory is on disk; no QEMU.
    Saved,
    /// It was asked to run and its QEMU is gone: it ended by itself, or was killed.
    Crashed,
    /// A destination that waits for, or has, the whole stream; its processors have not run here.
    Incoming,
    /// A source that has given the domain up; its processors never run here again.
    Released,
    /// Cannot be told (the host or its QEMU does not answer).
    Unknown,
}

impl DomainState {
    /// The word used in XML, JSON and tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Saved => "saved",
            Self::Crashed => "crashed",
            Self::Incoming => "incoming",
            Self::Released => "released",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for DomainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A word that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a state a domain can be asked for; use running, paused or stopped")]
pub struct ParseStateError(pub String);

impl FromStr for DomainState {
    type Err = ParseStateError;
    fn from_str(word: &str) -> Result<Self, ParseStateError> {
        [
            Self::Running,
            Self::Paused,
            Self::Stopped,
            Self::Crashed,
            Self::Incoming,
            Self::Released,
            Self::Unknown,
        ]
        .into_iter()
        .find(|state| state.word() == word)
        .ok_or_else(|| ParseStateError(word.chars().take(40).collect()))
    }
}
