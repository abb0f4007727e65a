//! How long a move takes, how long the domain stands still, and how many bytes it costs: the pre-copy model. The one place
//! that says so: the price of a move ([`crate::Toll`]), the steps of a plan and the rehearsal all ask here.
//!
//! Memory is sent in rounds. The first sends all of it, each later one what was written during the one before, until the rest
//! can be sent within the downtime that is allowed: then the domain stands still for it (Clark et al., NSDI 2005, section 3).
//! Round by round as QEMU does it, with the parameters that our agents set:
//!
//! - What is written again and again (the *hot* part) counts once a round: no round after the first sends more than that.
//! - A round is not sent to its end: when what is left of it is little enough, QEMU looks what was written since. On average
//!   half of what a switch may send is still unsent then.
//! - Where a period of a second or more writes more than half of what was sent in it, for the second time, the domain's
//!   processors are slowed: by a fifth, then by a tenth more each time (auto-converge; QEMU's `migration/ram.c`,
//!   `migration_trigger_throttle`). That only takes from a domain what it does not leave idle: one that is busy for a tenth of
//!   the time writes as fast as before until nine tenths are gone.
//! - What the kernel has taken and not yet sent when the domain stops must still arrive.
//!
//! What this leaves out: the network's headers, a twentieth of a link's rate, which only matter where a domain writes nearly as
//! fast; pages of zeros, which cost 9 bytes; hosts that cannot fill a link; rates that change while a move runs; pages that are
//! written before their turn in the first round. `./x bench pre-copy` holds it against real migrations, and a table of what that
//! measured is held against it by a test.

use estive_world::{Domain, DomainLife, Figures, HostIx, ReservedKind, SiteIx, UsedKind, World};

/// Rounds after which a move is taken to be one that does not end by itself: QEMU has no bound, a computation needs one.
pub const ROUNDS_AT_MOST: u32 = 400;

/// Milliseconds that the last round may take: the parameter that Estive's agents set.
pub const DOWNTIME_ALLOWED_MS: f64 = 50.0;

/// Milliseconds of standing still for devices' state and the switch itself. `./x bench downtime` measures some 34 ms in QEMU over
/// a link without a bound; of these 25 are what is left of the last round, whatever the link.
pub const SWITCH_MS: f64 = 10.0;

/// Bytes that the kernels of both hosts hold of a stream at the most: the domain stands still until they have arrived.
pub const UNDERWAY_BYTES: u64 = 2 << 20;

/// Seconds before the first byte and after the last: a QEMU is started and asked whether it is ready.
pub const SETUP_S: f64 = 1.0;

/// Bytes per second where a site says nothing: 1 Gbit/s.
pub const COMMON_RATE_BYTES_PER_S: u64 = 125_000_000;

/// The share of what is sent that may be written in the same time, until a domain is slowed (QEMU's
/// `throttle-trigger-threshold`). From here on a move is a risk.
pub const SLOWED_FROM: f64 = 0.5;
/// The first slowing, each further one, and the most, as shares of the processors' time (QEMU's `cpu-throttle-*`).
const SLOWED_FIRST: f64 = 0.2;
const SLOWED_MORE: f64 = 0.1;
const SLOWED_AT_MOST: f64 = 0.99;
/// Seconds between two looks at how much was written.
const LOOK_S: f64 = 1.0;

/// The largest risk: nine of ten such moves are given up, or harm more than they are to gain.
pub const RISK_AT_MOST: f64 = 0.9;

/// What of a domain decides how long a move takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// What the first round sends.
    pub memory_bytes: u64,
    /// What is written of it in a second.
    pub dirtied_bytes_per_s: u64,
    /// The part that is written to again and again; 0: all of it.
    pub hot_bytes: u64,
    /// The share of its processors' time that it uses, from 0 to 1; not known: 1.
    pub busy: f64,
}

/// What a move is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Transfer {
    /// Bytes over the network.
    pub bytes: u64,
    /// Seconds from the order to the end.
    pub duration_s: f64,
    /// Milliseconds in which the domain stands still.
    pub downtime_ms: f64,
    /// Seconds of its processors' time that a domain does not get, because it is slowed until the rounds become smaller.
    pub slowed_s: f64,
    /// How likely it is not to converge, from 0 to [`RISK_AT_MOST`]: 0 up to where a domain is slowed ([`SLOWED_FROM`] of the
    /// link), the most where it writes as fast as the link carries, straight between. 0 where what it writes to again and
    /// again can be sent standing still.
    pub risk: f64,
    /// Whether the rounds become small enough by themselves, slowed or not. If not, the domain stands still for the last one,
    /// or somebody gives the move up.
    pub converges: bool,
}

impl From<Transfer> for Figures {
    fn from(transfer: Transfer) -> Self {
        Self {
            duration_s: transfer.duration_s,
            downtime_ms: transfer.downtime_ms,
            bytes: transfer.bytes,
            cost: 0.0,
        }
    }
}

/// Bytes per second between two hosts with nothing beside: the least of their sites' and the link's.
pub fn rate_bytes_per_s(world: &World, from: HostIx, to: HostIx) -> u64 {
    rate_between(world, world.hosts[from].site, world.hosts[to].site)
}

/// The same between hosts of two sites.
pub fn rate_between(world: &World, from: SiteIx, to: SiteIx) -> u64 {
    let within = |site: SiteIx| match world.sites.get(site.0 as usize) {
        Some(site) if site.rate_bytes_per_s > 0 => site.rate_bytes_per_s,
        _ => COMMON_RATE_BYTES_PER_S,
    };
    let rate = within(from).min(within(to));
    if from == to {
        return rate;
    }
    match world.link(from, to).map(|link| link.rate_bytes_per_s) {
        Some(link) if link > 0 => rate.min(link),
        _ => rate,
    }
}

/// Bytes of memory that a move sends in its first round: what was touched where that is known, else all.
pub fn memory_bytes(domain: &Domain) -> u64 {
    let promised = domain.reserved[ReservedKind::MemoryMib].saturating_mul(1 << 20);
    let touched = domain.used[UsedKind::MemoryKib].saturating_mul(1 << 10);
    match (domain.life, touched) {
        (DomainLife::Stopped, _) => 0,
        (_, 0) => promised,
        (_, touched) if promised == 0 => touched,
        (_, touched) => touched.min(promised),
    }
}

/// What a live move is expected to take at a rate.
pub fn pre_copy(load: Load, rate_bytes_per_s: u64) -> Transfer {
    let rate = rate_bytes_per_s.max(1) as f64;
    let pace = load.dirtied_bytes_per_s as f64;
    let memory = load.memory_bytes as f64;
    let hot = match load.hot_bytes {
        0 => memory,
        hot => (hot as f64).min(memory),
    };
    let small_enough = rate * DOWNTIME_ALLOWED_MS / 1000.0;
    let (mut left, mut sent, mut slowed_s) = (memory, 0.0, 0.0);
    let mut converge = Converge::default();
    let mut rounds = 0;
    while left > small_enough && rounds < ROUNDS_AT_MOST {
        let goes = left - small_enough / 2.0;
        let took_s = goes / rate;
        // Within a round a page counts once, however often it is written.
        let gets = ((1.0 - converge.slowed) / load.busy.clamp(0.001, 1.0)).min(1.0);
        let written = (pace * gets * took_s).min(hot);
        sent += goes;
        slowed_s += (1.0 - gets) * took_s;
        left = (left - goes + written).min(memory);
        converge.look(took_s, goes, written);
        rounds += 1;
    }
    sent += left;
    let underway = (UNDERWAY_BYTES as f64).min(sent);
    Transfer {
        bytes: sent as u64,
        duration_s: SETUP_S + sent / rate,
        downtime_ms: SWITCH_MS + (left + underway) / rate * 1000.0,
        slowed_s,
        risk: if hot <= small_enough / 2.0 {
            0.0
        } else {
            let beyond = (pace / rate - SLOWED_FROM) / (1.0 - SLOWED_FROM);
            beyond.clamp(0.0, 1.0) * RISK_AT_MOST
        },
        converges: left <= small_enough,
    }
}

/// Auto-converge: how much a domain is slowed, and what was seen since the last look.
#[derive(Debug, Default)]
struct Converge {
    slowed: f64,
    since_s: f64,
    sent: f64,
    written: f64,
    is_second: bool,
}

impl Converge {
    /// After a round.
    fn look(&mut self, took_s: f64, sent: f64, written: f64) {
        self.since_s += took_s;
        self.sent += sent;
        self.written += written;
        if self.since_s <= LOOK_S {
            return;
        }
        if self.written > self.sent * SLOWED_FROM {
            if self.is_second {
                self.slowed = match self.slowed {
                    0.0 => SLOWED_FIRST,
                    slowed => (slowed + SLOWED_MORE).min(SLOWED_AT_MOST),
                };
            }
            self.is_second = !self.is_second;
        }
        (self.since_s, self.sent, self.written) = (0.0, 0.0, 0.0);
    }
}

/// What a move of a domain is expected to take at a rate; one that is stopped has nothing to send.
pub fn expected(domain: &Domain, rate_bytes_per_s: u64) -> Transfer {
    if domain.life == DomainLife::Stopped {
        return Transfer {
            duration_s: SETUP_S,
            converges: true,
            ..Transfer::default()
        };
    }
    let used = domain.used[UsedKind::CpuMicrocores];
    let has = domain.reserved[ReservedKind::Vcpus].saturating_mul(1_000_000);
    let load = Load {
        memory_bytes: memory_bytes(domain),
        dirtied_bytes_per_s: domain.dirtied_bytes_per_s,
        hot_bytes: domain.hot_kib.saturating_mul(1 << 10),
        busy: match (used, has) {
            (0, _) | (_, 0) => 1.0,
            (used, has) => used as f64 / has as f64,
        },
    };
    pre_copy(load, rate_bytes_per_s)
}

/// [`expected`], as a step's figures.
pub fn of_move(domain: &Domain, rate_bytes_per_s: u64) -> Figures {
    expected(domain, rate_bytes_per_s).into()
}

/// What a new second copy of a domain's disks is expected to take at a rate: they are read as they stand, and nothing of the
/// domain stands still.
pub fn copied(domain: &Domain, rate_bytes_per_s: u64) -> Transfer {
    let bytes = domain.reserved[ReservedKind::DiskMib].saturating_mul(1 << 20);
    Transfer {
        bytes,
        duration_s: SETUP_S + bytes as f64 / rate_bytes_per_s.max(1) as f64,
        converges: true,
        ..Transfer::default()
    }
}

/// [`copied`], as a step's figures.
pub fn of_replica(domain: &Domain, rate_bytes_per_s: u64) -> Figures {
    copied(domain, rate_bytes_per_s).into()
}

#[cfg(test)]
mod tests;
