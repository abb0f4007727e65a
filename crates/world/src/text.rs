//! A world as text, a noun a line: `host node1 cpus=16c memory=64G`. Read with limits, written so that it is read back.
//!
//! The form is described in `docs/world.md`. What is left out has its common value; what is written is canonical: the same
//! world is the same bytes. Lines that begin with `ask` are questions: they are handed on to who understands them.

mod fields;
mod hours;
mod lexer;
pub(crate) mod limits;
mod names;
mod read;
#[cfg(test)]
mod tests;
pub(crate) mod units;
mod write;

pub use common::{domain, host, site, speed_of};
pub use fields::Fields;
pub use lexer::{Line, Value, quoted};
pub use read::Document;
pub use units::{CORES, COUNT, KIB, MIB, Measure, SHARE, read_real};

use crate::{World, WorldError};

/// The word of lines that ask something.
pub const ASK: &str = "ask";

/// Reads a text: a world, and what is asked about it.
///
/// # Errors
/// With the place of the first thing that is wrong, and what to do.
pub fn read(text: &str) -> Result<Document<'_>, WorldError> {
    read::document(text)
}

impl World {
    /// Reads a world; what is asked about it is passed over.
    ///
    /// # Errors
    /// As [`read`].
    pub fn from_text(text: &str) -> Result<Self, WorldError> {
        read(text).map(|document| document.world)
    }

    /// Its text. A world that was read, or keeps the same limits, is read back as the same value.
    pub fn to_text(&self) -> String {
        write::world(self)
    }
}

/// Keys of what is reserved, in the order of [`crate::RESERVED`].
const RESERVED_KEYS: [&str; 4] = ["cpus", "memory", "disk", "spindles"];
/// Keys of what a host's own system keeps.
const SYSTEM_KEYS: [&str; 4] = [
    "system-cpus",
    "system-memory",
    "system-disk",
    "system-spindles",
];
/// Keys of what a host can do.
const SPEED_KEYS: [&str; 4] = ["speed-cpu", "speed-memory", "speed-disk", "speed-net"];
/// Keys of what a host uses itself.
const OWN_KEYS: [&str; 4] = ["own-cpu", "own-memory", "own-disk", "own-net"];
/// Keys of what a domain uses.
const USES_KEYS: [&str; 4] = ["uses-cpu", "uses-memory", "uses-disk", "uses-net"];
/// Keys of what a domain is expected to use.
const FORECAST_KEYS: [&str; 4] = [
    "forecast-cpu",
    "forecast-memory",
    "forecast-disk",
    "forecast-net",
];
/// Keys of what a domain used before.
const WINDOWS_KEYS: [&str; 4] = [
    "windows-cpu",
    "windows-memory",
    "windows-disk",
    "windows-net",
];
/// Keys of the most that may be used.
const USE_AT_MOST_KEYS: [&str; 4] = ["use-cpu", "use-memory", "use-disk", "use-net"];
/// How each kind of what is reserved is measured.
const RESERVED_MEASURES: [&Measure; 4] = [&units::CORES, &units::MIB, &units::MIB, &units::COUNT];
/// How each kind of what is used is measured.
const USED_MEASURES: [&Measure; 4] = [&units::MICROCORES, &units::KIB, &units::RATE, &units::RATE];

/// What a noun has where its line says nothing of it.
pub(crate) mod common {
    use crate::{
        Domain, DomainLife, Host, HostPower, Indexed, PowerCurve, Reserved, Site, SiteIx, Used,
    };

    /// The site of a world that names none.
    pub fn site(name: &str) -> Site {
        Site {
            name: name.to_owned(),
            rate_bytes_per_s: 125_000_000,
            latency_us: 100,
            energy: Vec::new(),
        }
    }

    /// A machine of 16 cores and 64 GiB in the first site.
    pub fn host(name: &str) -> Host {
        Host {
            name: name.to_owned(),
            site: SiteIx(0),
            capacity: Reserved([16, 64 << 10, 1 << 20, 0]),
            system: Reserved::NONE,
            speed: Used::default(),
            own_use: Used::default(),
            core_speed_milli: 1000,
            cpu_model: String::new(),
            features: std::collections::BTreeSet::new(),
            power: PowerCurve {
                watts: Vec::new(),
                off_watts: 0.0,
                boot_s: 0,
                boot_wh: 0.0,
                halt_s: 0,
            },
            state: HostPower::On,
            maintenance: false,
            owner: None,
            owner_present: false,
            price_micro_per_h: 0,
            until_s: None,
        }
    }

    /// What a host can do when nothing is said: all its cores and memory, the rate of its site, no figure for disks.
    pub fn speed_of(sites: &[Site], host: &Host) -> Used {
        Used([
            host.capacity.0[0].saturating_mul(1_000_000),
            host.capacity.0[1].saturating_mul(1024),
            0,
            sites[host.site.at()].rate_bytes_per_s,
        ])
    }

    /// A domain of one core and 1 GiB that runs and uses nothing that is known.
    pub fn domain(name: &str) -> Domain {
        Domain {
            name: name.to_owned(),
            host: None,
            life: DomainLife::Running,
            reserved: Reserved([1, 1024, 0, 0]),
            used: Used::default(),
            windows: Vec::new(),
            forecast: None,
            dirtied_bytes_per_s: 0,
            class: String::new(),
            deployment: None,
            user: None,
            priority: 0,
            home: None,
            pinned: false,
            needs: std::collections::BTreeSet::new(),
            volumes: Vec::new(),
            replica: None,
            moved_s: None,
        }
    }
}
