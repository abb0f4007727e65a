//! A host: what it has, what it costs, whose it is.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Indexed, Reserved, Site, SiteIx, Used};

/// A machine that runs domains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub site: SiteIx,
    /// What it has to promise, before overbooking.
    pub capacity: Reserved,
    /// What its own system keeps of that.
    pub system: Reserved,
    /// What it can do: microcores, KiB, bytes per second.
    pub speed: Used,
    /// What its own system, or its owner, uses of that now.
    pub own_use: Used,
    /// Speed of one core against that of a common one, in thousandths: 1000 is as fast.
    pub core_speed_milli: u32,
    /// Model of its processor, for migration: a running domain only moves where the model is the same, or where every
    /// feature that it was started with is there.
    pub cpu_model: String,
    /// What it is able to do or allowed to hold: processor features, licences, devices; compared as words.
    pub features: BTreeSet<String>,
    /// What it draws.
    pub power: PowerCurve,
    /// On, off, or between.
    pub state: HostPower,
    /// Nothing is brought here, and what is here should leave.
    pub maintenance: bool,
    /// Hours in which its owner has it for himself; none: it is ours.
    pub owner: Option<OwnerHours>,
    /// Whether its owner sits at it now.
    pub owner_present: bool,
    /// What an hour of it costs while it is on, beside its energy, in millionths of the currency.
    pub price_micro_per_h: u64,
    /// Until when it may be had, in seconds of the world's clock; none: for good.
    pub until_s: Option<u64>,
}

impl Host {
    /// A machine of 16 cores and 64 GiB in the first site, that is on and ours: what a line that says no more than a name
    /// means. What it can do is not known yet: see [`Host::usual_speed`].
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            site: SiteIx(0),
            capacity: Reserved([16, 64 << 10, 1 << 20, 0]),
            system: Reserved::NONE,
            speed: Used::NONE,
            own_use: Used::NONE,
            core_speed_milli: 1000,
            cpu_model: String::new(),
            features: BTreeSet::new(),
            power: PowerCurve::default(),
            state: HostPower::On,
            maintenance: false,
            owner: None,
            owner_present: false,
            price_micro_per_h: 0,
            until_s: None,
        }
    }

    /// What it can do when nothing is said: all its cores and memory, the rate of its site, no figure for disks.
    ///
    /// # Panics
    /// If it stands in none of `sites`.
    pub fn usual_speed(&self, sites: &[Site]) -> Used {
        Used([
            self.capacity.0[0].saturating_mul(1_000_000),
            self.capacity.0[1].saturating_mul(1024),
            0,
            sites[self.site.at()].rate_bytes_per_s,
        ])
    }
}

/// Whether a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPower {
    /// It runs.
    On,
    /// It is off, proven.
    Off,
    /// It does not answer: what runs there cannot be told, nothing is brought there or taken from there.
    Unknown,
}

/// What a host draws by its load, and what its switching costs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PowerCurve {
    /// Watts at equal distances of load from 0 to 100 %, straight between; empty: not known, 0 in all sums of energy.
    pub watts: Vec<f64>,
    /// Watts while off.
    pub off_watts: f64,
    /// Seconds from switching it on to its first domain.
    pub boot_s: u32,
    /// Energy of a boot in watt hours.
    pub boot_wh: f64,
    /// Seconds until it is off.
    pub halt_s: u32,
}

impl PowerCurve {
    /// Whether it is known what the host draws.
    pub fn is_measured(&self) -> bool {
        !self.watts.is_empty()
    }

    /// Watts at a load of 0 to 1, straight between the points (SPECpower's form, as in CloudSim).
    pub fn watts_at(&self, load: f64) -> f64 {
        let Some(last) = self.watts.len().checked_sub(1) else {
            return 0.0;
        };
        let place = load.clamp(0.0, 1.0) * last as f64;
        let below = (place.floor() as usize).min(last);
        let above = (below + 1).min(last);
        let part = place - below as f64;
        self.watts[below] + (self.watts[above] - self.watts[below]) * part
    }
}

/// Hours of a week in which a host is its owner's, each from 0 (Monday, 0:00 UTC) to 167.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnerHours {
    /// The hours.
    pub hours: BTreeSet<u8>,
}
