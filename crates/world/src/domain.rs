//! A domain: what it was promised, what it uses, where it is and may be.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{HostIx, Reserved, Used, UserIx, VolumeIx};

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Where it is; none: it asks for a place.
    pub host: Option<HostIx>,
    /// Its life.
    pub life: DomainLife,
    /// What it was promised.
    pub reserved: Reserved,
    /// What it uses now: the mean of its last window.
    pub used: Used,
    /// What it used before: windows of equal length, the oldest first. Empty: not known.
    pub windows: Vec<Window>,
    /// What it is expected to use at the most within the horizon; none: as now.
    pub forecast: Option<Used>,
    /// Bytes of its memory written per second, for the expected length of a move.
    pub dirtied_bytes_per_s: u64,
    /// The part of its memory that it writes to again and again, in KiB; 0: not known, counted as all of it.
    #[serde(default)]
    pub hot_kib: u64,
    /// Its class, for overbooking; empty: the common one.
    pub class: String,
    /// Its group (`World::deployments`); none: alone.
    pub deployment: Option<u32>,
    /// Who pays for it.
    pub user: Option<UserIx>,
    /// The more, the rather it is kept where it runs well. 0 is common.
    pub priority: i32,
    /// Where it belongs when nothing speaks against it.
    pub home: Option<HostIx>,
    /// It is not moved.
    pub pinned: bool,
    /// Words that a host must have among its features.
    pub needs: BTreeSet<String>,
    /// What it reads and writes over the network, which must be reached.
    pub volumes: Vec<VolumeIx>,
    /// The host that holds the second copy of its disks (Ganeti's secondary); none: its disks are shared or none.
    pub replica: Option<HostIx>,
    /// When it last moved, in seconds of the world's clock.
    pub moved_s: Option<u64>,
}

impl Domain {
    /// A domain of one core and 1 GiB that runs, has no place, and uses nothing that is known: what a line that says no more
    /// than a name means.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            host: None,
            life: DomainLife::Running,
            reserved: Reserved([1, 1024, 0, 0]),
            used: Used::NONE,
            windows: Vec::new(),
            forecast: None,
            dirtied_bytes_per_s: 0,
            hot_kib: 0,
            class: String::new(),
            deployment: None,
            user: None,
            priority: 0,
            home: None,
            pinned: false,
            needs: BTreeSet::new(),
            volumes: Vec::new(),
            replica: None,
            moved_s: None,
        }
    }
}

/// What a domain does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DomainLife {
    /// It runs: it uses, and moves live.
    Running,
    /// It runs and has nothing to do: one of the m that may be put close together.
    Idle,
    /// It is stopped: it uses nothing, what it was promised of disk is kept.
    Stopped,
}

/// What was used in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Mean over it.
    pub used: Used,
}
