//! Hosts: what they declare and what is known of them.

use serde::{Deserialize, Serialize};

/// What a host offers to domains, declared in its agent's configuration (not probed: the owner decides).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Cores that domains may use.
    pub cores: u32,
    /// Memory that domains may use, in MiB.
    pub memory_mib: u64,
}

/// What the manager knows of a host. A silent host is unknown, not dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostHealth {
    /// Its agent answered the last question.
    Up,
    /// Its agent does not answer: its domains may well run on. Nothing of it is started elsewhere.
    Unknown,
}
