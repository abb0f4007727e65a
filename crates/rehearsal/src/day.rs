//! A day to be replayed: hosts of some kinds, guests with what each asks at each sample, and the rules of time.

use serde::{Deserialize, Serialize};

/// Hosts of one build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostKind {
    /// Cores.
    pub cores: u32,
    /// Speed of one core in MIPS: a guest of one core gets no more than that.
    pub core_mips: f64,
    /// Memory in MB.
    pub memory_mb: u32,
    /// The most guests that its network allows when all ask their full rate, as at the start.
    pub guests_at_start: u32,
    /// Watts at equal distances of load from 0 to 100 %.
    pub watts: Vec<f64>,
}

impl HostKind {
    /// All its cores together, in MIPS.
    pub fn mips(&self) -> f64 {
        self.core_mips * f64::from(self.cores)
    }

    /// Watts at a load of 0 to 1, straight between the points. At a load of 0 these are the first point: whether such a
    /// host counts as off is for the energy account to say. The order of the operations is that of CloudSim's SPECpower
    /// model: where two hosts are equally good in exact arithmetic, its rounding decides which of them a peer takes.
    pub fn watts_at(&self, load: f64) -> f64 {
        let steps = (self.watts.len() - 1) as f64;
        if load % (1.0 / steps) == 0.0 {
            return self.watts[((load * steps) as usize).min(self.watts.len() - 1)];
        }
        let below = (load * steps).floor();
        let above = ((load * steps).ceil() as usize).min(self.watts.len() - 1);
        let low = self.watts[(below as usize).min(self.watts.len() - 1)];
        let slope = (self.watts[above] - low) / 10.0;
        low + slope * (load - below / steps) * 10.0 * steps
    }
}

/// A guest and its day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guest {
    /// The name of its trace.
    pub name: String,
    /// Speed of its one virtual processor in MIPS.
    pub mips: f64,
    /// Memory in MB.
    pub memory_mb: u32,
    /// What it asks at each sample, as a share of its speed; straight between; the last one stands twice.
    pub load: Vec<f64>,
}

impl Guest {
    /// What it asks at a moment, as a share of its speed.
    pub fn load_at(&self, time_s: f64, sample_s: f64) -> f64 {
        if time_s % sample_s == 0.0 {
            return self.load[(time_s / sample_s) as usize];
        }
        let before = (time_s / sample_s).floor();
        let after = (time_s / sample_s).ceil();
        let (low, high) = (self.load[before as usize], self.load[after as usize]);
        let slope = (high - low) / ((after - before) * sample_s);
        low + slope * (time_s - before * sample_s)
    }
}

/// Everything that is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Day {
    /// Kinds of hosts.
    pub kinds: Vec<HostKind>,
    /// The kind of each host, as its place in `kinds`.
    pub hosts: Vec<usize>,
    /// Guests.
    pub guests: Vec<Guest>,
    /// Seconds between samples, and between the moments at which a policy is asked.
    pub sample_s: f64,
    /// The first moment at which a policy is asked comes `sample_s` after this.
    pub begin_s: f64,
    /// The end in seconds.
    pub end_s: f64,
    /// MB of memory moved in a second.
    pub move_mb_per_s: f64,
}

impl Day {
    /// The kind of a host.
    pub fn kind(&self, host: usize) -> &HostKind {
        &self.kinds[self.hosts[host]]
    }

    /// Seconds that a move of this guest takes.
    pub fn move_s(&self, guest: usize) -> f64 {
        f64::from(self.guests[guest].memory_mb) / self.move_mb_per_s
    }

    /// The moments at which a policy is asked. They are added up one by one, as CloudSim does: its test whether a moment
    /// is a sample's is exact, and fails where the sum was rounded.
    pub fn ticks_s(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        let mut time = self.begin_s + self.sample_s;
        while time < self.end_s {
            ticks.push(time);
            time += self.sample_s;
        }
        ticks
    }

    /// The data centre of CloudSim's PlanetLab examples: hosts of two kinds in turn, guests of four sizes in four equal
    /// parts, one sample in 300 s. `traces` have a name and whole percents.
    pub fn planetlab(traces: &[(String, Vec<u8>)], hosts: usize) -> Self {
        let kind = |core_mips, watts: [f64; 11]| HostKind {
            cores: 2,
            core_mips,
            memory_mb: 4096,
            guests_at_start: 10,
            watts: watts.to_vec(),
        };
        let kinds = vec![
            kind(
                1860.0,
                [
                    86.0, 89.4, 92.6, 96.0, 99.5, 102.0, 106.0, 108.0, 112.0, 114.0, 117.0,
                ],
            ),
            kind(
                2660.0,
                [
                    93.7, 97.0, 101.0, 105.0, 110.0, 116.0, 121.0, 125.0, 129.0, 133.0, 135.0,
                ],
            ),
        ];
        let sizes = [(2500.0, 870), (2000.0, 1740), (1000.0, 1740), (500.0, 613)];
        let quarter = traces.len().div_ceil(4).max(1);
        let guests = traces
            .iter()
            .enumerate()
            .map(|(place, (name, percents))| {
                let (mips, memory_mb) = sizes[place / quarter];
                let mut load: Vec<f64> = percents
                    .iter()
                    .map(|&percent| f64::from(percent) / 100.0)
                    .collect();
                load.extend(load.last().copied());
                Guest {
                    name: name.clone(),
                    mips,
                    memory_mb,
                    load,
                }
            })
            .collect();
        let samples = traces.iter().map(|(_, p)| p.len()).min().unwrap_or(0);
        Self {
            kinds,
            hosts: (0..hosts).map(|host| host % 2).collect(),
            guests,
            sample_s: 300.0,
            begin_s: 0.1,
            end_s: 300.0 * samples as f64,
            move_mb_per_s: 62.5,
        }
    }
}

/// Under which rules a day is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Variant {
    /// Memory is a constraint always, and a guest that asks nothing stays. Otherwise, as in CloudSim 3.0.3: memory counts
    /// only at the start, and a guest that asks exactly nothing is deleted for the rest of the day.
    pub kept: bool,
    /// A host that was off takes [`BOOT_S`] until a move to it can begin, and [`BOOT_KWH`]; otherwise it is there at once
    /// and for nothing.
    pub boots: bool,
}

/// Seconds that a host takes to boot, where it takes any.
pub const BOOT_S: f64 = 60.0;
/// Energy of a boot in kWh, where there is any.
pub const BOOT_KWH: f64 = 0.02;

impl Variant {
    /// As CloudSim 3.0.3.
    pub const STOCK: Self = Self {
        kept: false,
        boots: false,
    };
    /// Memory enforced, domains kept.
    pub const KEPT: Self = Self {
        kept: true,
        boots: false,
    };
    /// All four, in the order of the report.
    pub const ALL: [Self; 4] = [
        Self::STOCK,
        Self::KEPT,
        Self {
            kept: false,
            boots: true,
        },
        Self {
            kept: true,
            boots: true,
        },
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match (self.kept, self.boots) {
            (false, false) => "stock",
            (true, false) => "kept",
            (false, true) => "stock-boots",
            (true, true) => "kept-boots",
        }
    }
}
