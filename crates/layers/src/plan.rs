//! What a herd file says, worked out for each clone.

use std::net::Ipv4Addr;
use std::str::FromStr;

use estive_model::{DeploymentName, DomainName, HostName};
use serde::{Deserialize, Serialize};

/// A deployment: all its clones, in the order of their names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HerdPlan {
    pub deployment: DeploymentName,
    /// The clones' network, as `10.77.0.0/24`.
    pub network: String,
    pub clones: Vec<ClonePlan>,
}

impl HerdPlan {
    pub fn clone_named(&self, name: &str) -> Option<&ClonePlan> {
        self.clones.iter().find(|clone| clone.name.as_str() == name)
    }
}

/// One clone: every value after the cascade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// The only host it may run on.
    pub host: Option<HostName>,
    pub ssh_authorized_keys: Vec<String>,
    pub post_copy_allowed: bool,
    /// What counts as answering. Empty: judge by what the reference has.
    pub up_checks: Vec<UpCheck>,
    /// Every key that is not reserved; keys sorted at each level.
    pub variables: serde_json::Map<String, serde_json::Value>,
}

impl ClonePlan {
    /// `10.77.0.101/24`
    pub fn address_with_prefix(&self) -> String {
        format!("{}/{}", self.address, self.prefix)
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
