//! What a move costs before it has gained anything: its time on the link, and the least that it must gain.

use estive_world::{Domain, DomainIx, DomainLife, HostIx, Indexed, ReservedKind, World};

use crate::places::Spot;

/// Bytes per second where a site says nothing: 1 Gbit/s.
const COMMON_RATE_BYTES_PER_S: u64 = 125_000_000;
/// Rounds over the whole memory after which a pre-copy that does not converge is given up or slowed.
const MOST_ROUNDS: f64 = 30.0;

/// What moves cost, for every domain.
#[derive(Debug, Clone)]
pub struct Toll {
    moves: Vec<Cost>,
    copies: Vec<Cost>,
    least: f64,
    pays_back_s: f64,
    nowhere: HostIx,
}

/// One move.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Bytes that it carries.
    pub bytes: u64,
    /// Seconds that it lasts within its site.
    pub duration_s: f64,
}

impl Toll {
    /// Computes it for every domain.
    pub fn new(world: &World) -> Self {
        let rate = |domain: &Domain| {
            let site = domain
                .host
                .or(domain.replica)
                .map(|host| world.hosts[host].site);
            site.and_then(|site| world.sites.get(site.at()))
                .map(|site| site.rate_bytes_per_s)
                .filter(|&rate| rate > 0)
                .unwrap_or(COMMON_RATE_BYTES_PER_S) as f64
        };
        let hysteresis = &world.rules.hysteresis;
        Self {
            moves: (world.domains.iter())
                .map(|domain| move_of(domain, rate(domain)))
                .collect(),
            copies: (world.domains.iter())
                .map(|domain| {
                    let bytes = domain.reserved[ReservedKind::DiskMib].saturating_mul(1 << 20);
                    Cost {
                        bytes,
                        duration_s: bytes as f64 / rate(domain),
                    }
                })
                .collect(),
            least: f64::from(hysteresis.gain_at_least_ppm) / 1e6,
            pays_back_s: f64::from(hysteresis.pays_back_within_s),
            nowhere: HostIx::of(world.hosts.len()),
        }
    }

    /// Bytes and time from one spot to another.
    pub fn cost(&self, domain: DomainIx, from: Spot, to: Spot) -> Cost {
        let (moves, copies) = steps(from, to, self.nowhere);
        let (one, copy) = (self.moves[domain.at()], self.copies[domain.at()]);
        Cost {
            bytes: one.bytes * moves + copy.bytes * copies,
            duration_s: one.duration_s * moves as f64 + copy.duration_s * copies as f64,
        }
    }

    /// The share of one host's part in an objective that going from one spot to another must gain: the least gain of
    /// the rules, and its duration over the time within which it must have paid for itself. 0 if it stays.
    pub fn share(&self, domain: DomainIx, from: Spot, to: Spot) -> f64 {
        if from == to {
            return 0.0;
        }
        let duration_s = self.cost(domain, from, to).duration_s;
        let paid = if self.pays_back_s > 0.0 {
            duration_s / self.pays_back_s
        } else {
            0.0
        };
        self.least + paid
    }
}

/// How often a domain moves and how often a replica is made, to come from one spot to another.
pub(crate) fn steps(from: Spot, to: Spot, nowhere: HostIx) -> (u64, u64) {
    if from == to || from.host == nowhere {
        (0, 0)
    } else if from.replica == nowhere {
        (1, 0)
    } else if from.host == to.host {
        (0, 1)
    } else if from.host == to.replica && from.replica == to.host {
        (1, 0)
    } else if from.replica == to.host || from.host == to.replica {
        // To the replica, whose other half is made anew; or a new replica first, which is moved to.
        (1, 1)
    } else if from.replica == to.replica {
        // Over the replica, a new one there, and on to it.
        (2, 1)
    } else {
        (1, 2)
    }
}

fn move_of(domain: &Domain, rate: f64) -> Cost {
    if domain.life == DomainLife::Stopped || domain.host.is_none() {
        return Cost::default();
    }
    let bytes = domain.reserved[ReservedKind::MemoryMib].saturating_mul(1 << 20);
    let dirtied = domain.dirtied_bytes_per_s as f64;
    let once_s = bytes as f64 / rate;
    // Pre-copy: each round sends what was written during the one before (Clark et al., NSDI 2005); a geometric sum.
    let rounds = if dirtied < rate {
        (1.0 / (1.0 - dirtied / rate)).min(MOST_ROUNDS)
    } else {
        MOST_ROUNDS
    };
    Cost {
        bytes: (bytes as f64 * rounds) as u64,
        duration_s: once_s * rounds,
    }
}
