//! What an agent and the cache process of its host say to each other: small files in the cache's directory, each
//! written whole, so that either may be killed and started at any time without the other.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use estive_model::{Digest, DomainName};
use serde::{Deserialize, Serialize};

use crate::Endpoint;

/// Origins that a root may name.
pub const MAX_ORIGINS: usize = 16;
/// The longest file that either reads of the other.
pub const MAX_NOTE_BYTES: u64 = 64 << 10;

/// The directory of a host's cache.
///
/// `roots/HEX.json` ([`RootNote`], by the agent) and `roots/HEX.manifest` (by the cache); `live/DOMAIN.json`
/// ([`LiveNote`](super::LiveNote), by the agent); `troubles/ID.json` ([`Trouble`], by the cache, taken away by the agent); `chunks/` (the cache's own); `cache.sock` (NBD); `control.sock` (HTTP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheDirectory(pub PathBuf);

impl CacheDirectory {
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where QEMU reads: NBD, a root's export is named by its 64 hex digits.
    pub fn socket(&self) -> PathBuf {
        self.0.join("cache.sock")
    }

    /// Where `GET /about` gives [`CacheAbout`] and `GET /roots/HEX` [`RootReady`].
    pub fn control(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    pub fn roots(&self) -> PathBuf {
        self.0.join("roots")
    }

    pub fn root_note(&self, root: &Digest) -> PathBuf {
        self.roots().join(format!("{}.json", root.hex()))
    }

    /// Clones that read live references ([`LiveNote`](super::LiveNote), by the agent): `DOMAIN.json`.
    pub fn live(&self) -> PathBuf {
        self.0.join("live")
    }

    pub fn live_note(&self, domain: &DomainName) -> PathBuf {
        self.live().join(format!("{domain}.json"))
    }

    pub fn troubles(&self) -> PathBuf {
        self.0.join("troubles")
    }

    pub fn chunks(&self) -> PathBuf {
        self.0.join("chunks")
    }
}

/// A root that this host may read, and where from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootNote {
    /// Asked in this order: the reference, other hosts' caches.
    pub origins: Vec<Endpoint>,
}

/// Something that the cache refused to pass on, or could not get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trouble {
    /// One sentence with what, where and what became of it.
    pub reason: String,
}

/// A root that can be read: its manifest is here and is good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootReady {
    pub size_bytes: u64,
}

/// What a cache did since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheAbout {
    pub version: String,
    pub pid: u32,
    /// Bytes of chunks and manifests that came from origins.
    pub fetched_bytes: u64,
    /// Bytes of chunks that went to other hosts.
    pub given_bytes: u64,
    /// Bytes that QEMUs read.
    pub read_bytes: u64,
    /// Reads that were refused.
    pub refused_reads: u64,
    /// Chunks on disk.
    pub kept_chunks: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// The most that may lie on disk.
    pub limit_bytes: u64,
    /// Connections of QEMUs.
    pub clients: u64,
    /// Where clones of live references are to be let in; `None`: nobody told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doors: Option<Vec<DoorAbout>>,
}

/// An address that clones mount live references from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorAbout {
    pub listen: SocketAddr,
    /// Why nobody listens there; `None`: clones are let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
}

/// Begins the name of a note that is not whole yet; what a kill leaves of it is its writer's to remove.
pub const NOTE_ASIDE: &str = ".new-";

/// Writes a file whole: aside, then renamed. Whoever reads it finds the old one or the new one.
pub fn write_note(path: &Path, note: &impl Serialize) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(NOTE_ASIDE)
        .tempfile_in(parent)?;
    serde_json::to_writer(&mut file, note)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(parent)?.sync_all()
}
