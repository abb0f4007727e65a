//! What a herd file says, worked out for each clone.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use estive_boot::SHARED_WORD;
use estive_model::{DeploymentName, DomainName, HostName};
use serde::{Deserialize, Serialize, Serializer};

use crate::frame::Frame;
use crate::joined;
use crate::yaml::Position;

/// A deployment: all its clones, in the order of their names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HerdPlan {
    /// The herd file's name, for messages.
    #[serde(skip)]
    pub file: String,
    pub deployment: DeploymentName,
    /// The clones' network, as `10.77.0.0/24`.
    pub network: String,
    pub clones: Vec<ClonePlan>,
}

impl HerdPlan {
    /// The address of each clone.
    pub fn addresses(&self) -> BTreeMap<String, Ipv4Addr> {
        let clones = self.clones.iter();
        clones
            .map(|clone| (clone.name.to_string(), clone.address))
            .collect()
    }

    pub fn clone_named(&self, name: &str) -> Option<&ClonePlan> {
        let by_name = |clone: &ClonePlan| clone.name.as_str().cmp(name);
        let number = self.clones.binary_search_by(by_name).ok()?;
        self.clones.get(number)
    }
}

/// One clone: every value after the cascade.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClonePlan {
    pub name: DomainName,
    /// The groups it stands in, outermost first.
    pub groups: Vec<String>,
    pub memory_mib: u64,
    pub cpus: u32,
    pub address: Ipv4Addr,
    /// Length of the network's prefix, in bits.
    pub prefix: u8,
    /// `52:54:xx:xx:xx:xx`
    pub mac: String,
    pub gateway: Option<Ipv4Addr>,
    /// Name of the reference whose root it shares.
    pub reference: String,
    /// Template sets, lowest first.
    pub sets: Vec<String>,
    /// Program to start in the root; `None`: the first usual one that exists.
    pub init: Option<String>,
    /// Of what its root is made, as `root=`; `None`: of the sealed root, its layer and memory.
    pub root: Option<String>,
    /// Size of its volume, in bytes: what it writes is kept there. `None`: it is stateless.
    pub volume_bytes: Option<u64>,
    /// Directories that it shares with others, in the order of their places.
    pub shared: Vec<SharedPlace>,
    /// Words of the kernel's command line besides.
    pub words: Vec<String>,
    /// The only host it may run on.
    pub host: Option<HostName>,
    pub ssh_authorized_keys: Arc<[String]>,
    pub post_copy_allowed: bool,
    /// What counts as answering. Empty: judge by what the reference has.
    pub up_checks: Vec<UpCheck>,
    /// Every value as it was written, from the globals down; see [`ClonePlan::variables`].
    #[serde(rename = "variables")]
    pub values: CloneValues,
}

/// A directory of a server, mounted in a clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SharedPlace {
    /// Absolute path in the clone.
    pub at: String,
    /// The server's, as a device of `root=`; `None`: the reference's, of the same path.
    pub from: Option<String>,
}

/// How a root line names the volume.
pub(crate) const VOLUME_DISK: &str = "serial=estive-volume";
/// Of what the root of a clone is made.
pub const SEALED_ROOT: &str = "erofs;estive;tmpfs";
/// Of what the root of a stateful clone is made: what it writes lies on its volume, over all else.
pub const STATEFUL_ROOT: &str = "erofs;estive;serial=estive-volume:fs=ext4";

impl ClonePlan {
    /// `10.77.0.101/24`
    pub fn address_with_prefix(&self) -> String {
        format!("{}/{}", self.address, self.prefix)
    }

    /// Of what its root is made, where that is not what every clone has.
    pub fn root_line(&self) -> Option<&str> {
        let kept = self.volume_bytes.map(|_| STATEFUL_ROOT);
        self.root.as_deref().or(kept)
    }

    /// Puts this at the bottom of its root in place of the sealed root, unless its own line says of what that is made.
    pub fn put_on(&mut self, bottom: &str) {
        if self.root.is_some() {
            return;
        }
        let sealed = self.volume_bytes.map_or(SEALED_ROOT, |_| STATEFUL_ROOT);
        let above = sealed.trim_start_matches("erofs");
        self.root = Some(format!("{bottom}{above}"));
    }

    /// What its kernel's command line has besides the words of every clone and `init`.
    pub fn kernel_words(&self) -> Vec<String> {
        let root = self.root_line().map(|root| format!("root={root}"));
        let shared = self.shared.iter().filter_map(|place| {
            let from = place.from.as_ref()?;
            Some(format!("{SHARED_WORD}={}={from}", place.at))
        });
        let words = self.words.iter().cloned();
        root.into_iter().chain(shared).chain(words).collect()
    }

    /// Every key of the herd file that is not reserved; keys sorted at each level. Defaults of sets
    /// are not in it: templates see [`ClonePlan::context_variables`].
    pub fn variables(&self) -> serde_json::Map<String, serde_json::Value> {
        self.values.variables()
    }
}

/// What the herd file says of a clone, shared with all clones that stand at the same level. Two
/// are equal when they say the same, wherever it is written; serialised they are the variables.
#[derive(Clone)]
pub struct CloneValues {
    pub(crate) frame: Arc<Frame>,
    /// Where the clone's key stands.
    pub(crate) at: Position,
}

impl CloneValues {
    fn variables(&self) -> serde_json::Map<String, serde_json::Value> {
        // What cannot be joined was said when the file was read.
        let joined = self.frame.variables(BTreeMap::new(), &mut |_, _| {});
        joined::to_json_map(&joined)
    }
}

impl PartialEq for CloneValues {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.frame, &other.frame) || self.variables() == other.variables()
    }
}

impl fmt::Debug for CloneValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.variables().fmt(f)
    }
}

impl Serialize for CloneValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.variables().serialize(serializer)
    }
}

/// What counts as answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpCheck {
    Ssh,
    Http,
    Ping,
}

impl UpCheck {
    pub const NAMES: [&str; 3] = ["ssh", "http", "ping"];
}

impl FromStr for UpCheck {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "ssh" => Ok(Self::Ssh),
            "http" => Ok(Self::Http),
            "ping" => Ok(Self::Ping),
            _ => Err(()),
        }
    }
}
