//! Wire types of a storage host's volumes.

use estive_model::{DeploymentName, DomainName, Generation, HostName, NameError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Sizes are whole numbers of this, in bytes.
pub const VOLUME_STEP_BYTES: u64 = 1 << 20;
/// The smallest volume, in bytes: a file system with a journal fits.
pub const VOLUME_BYTES_MIN: u64 = 32 << 20;
/// The largest volume, in bytes.
pub const VOLUME_BYTES_MAX: u64 = 16 << 40;

/// Name of a snapshot of a volume: RFC 1123 label that begins with a letter (a name of digits could be taken for a
/// number by the tools under it).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotName(String);

impl SnapshotName {
    /// Checks `given`.
    pub fn new(given: impl AsRef<str>) -> Result<Self, NameError> {
        let given = given.as_ref();
        let label =
            DomainName::new(given).is_ok() && given.starts_with(|c: char| c.is_ascii_lowercase());
        match label {
            true => Ok(Self(given.to_owned())),
            false => Err(NameError {
                what: "snapshot name",
                given: given.chars().take(80).collect(),
                problem: "is not fit: use 1 to 63 of a-z, 0-9 and '-', a letter first, no '-' at the end",
            }),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for SnapshotName {
    type Err = NameError;
    fn from_str(given: &str) -> Result<Self, NameError> {
        Self::new(given)
    }
}

impl TryFrom<String> for SnapshotName {
    type Error = NameError;
    fn try_from(given: String) -> Result<Self, NameError> {
        Self::new(given)
    }
}

impl From<SnapshotName> for String {
    fn from(name: SnapshotName) -> String {
        name.0
    }
}

/// What a volume should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeWish {
    /// Whose state it holds: nobody else's clone of the same name gets it.
    pub owner: DeploymentName,
    /// Its size, which is its quota.
    pub size_bytes: u64,
}

/// One open door to a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeExport {
    /// The domain's generation that may use it.
    pub generation: Generation,
    /// The host whose agent asked for it, or may; with TLS nobody else may connect.
    pub client: String,
}

/// What a storage host says of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeReport {
    /// Its name: that of its domain.
    pub name: DomainName,
    /// Whose state it holds.
    pub owner: DeploymentName,
    /// Its size, which is its quota.
    pub size_bytes: u64,
    /// What it takes on the storage host, snapshots included.
    pub used_bytes: u64,
    /// No generation below this one is ever let in again.
    pub fenced: Generation,
    /// Who may open it, by the manager's word.
    #[serde(default)]
    pub granted: Vec<VolumeExport>,
    /// Who may use it now.
    pub exports: Vec<VolumeExport>,
    /// Its snapshots, the oldest first.
    pub snapshots: Vec<SnapshotName>,
    /// Anything a person should know: why it is not served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Lets a host open one generation: the manager's word, without which no agent opens anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeGrant {
    /// The host, as its certificate names it.
    pub client: HostName,
}

/// Where an export is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportPlace {
    /// Address of the server.
    pub host: String,
    /// TCP port, the same as long as the volume is there.
    pub port: u16,
    /// `VOLUME@GENERATION`.
    pub export: String,
    /// Whether it is by mutual TLS.
    pub tls: bool,
}

/// Names an export.
pub fn export_name(volume: &DomainName, generation: Generation) -> String {
    format!("{volume}@{}", generation.0)
}

/// Cut all exports below this generation, for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FenceOrder {
    /// The lowest that stays.
    pub generation: Generation,
    /// If it is there: only if the fence stands at one of these, of none at all nowhere. Whoever goes on from what was
    /// saved must be sure that nobody has had the volume meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_at: Option<Vec<Generation>>,
}

/// A new size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResizeOrder {
    /// In bytes; not below what it is.
    pub size_bytes: u64,
}

/// Go back to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreOrder {
    /// Which.
    pub snapshot: SnapshotName,
}
