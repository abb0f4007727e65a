//! How long a move takes, how long the domain stands still, and how many bytes it costs: the pre-copy model.
//!
//! Memory is sent in rounds. The first sends all of it, each later one what was written during the one before, until the rest
//! can be sent within the downtime that is allowed: then the domain stands still for it (Clark et al., NSDI 2005, section 3).
//! With memory V, a link of R and D bytes dirtied per second, round n sends V·(D/R)ⁿ bytes. Where D is not below R no round
//! is smaller than the one before: after [`ROUNDS_AT_MOST`] rounds all that is left is sent standing still. What this leaves
//! out: pages that are written again and again count once a round, which makes real moves of small hot sets shorter; rates
//! that change while a move runs.

use estive_world::{Domain, DomainLife, Figures, HostIx, ReservedKind, UsedKind, World};

/// Rounds after which a pre-copy that does not converge is ended (Xen's own bound).
pub const ROUNDS_AT_MOST: u32 = 30;

/// Milliseconds that the last round may take: the parameter that Estive's agents set.
pub const DOWNTIME_ALLOWED_MS: f64 = 50.0;

/// Milliseconds of standing still that no move goes below: devices' state and the switch itself, as `./x bench downtime`
/// measures them in QEMU.
pub const SWITCH_MS: f64 = 35.0;

/// Seconds before the first byte and after the last: a QEMU is started and asked whether it is ready.
pub const SETUP_S: f64 = 1.0;

/// Bytes per second where a site says nothing: 1 Gbit/s.
pub const COMMON_RATE_BYTES_PER_S: u64 = 125_000_000;

/// Bytes per second between two hosts with nothing beside: the least of their sites' and the link's.
pub fn rate_bytes_per_s(world: &World, from: HostIx, to: HostIx) -> u64 {
    let (from, to) = (world.hosts[from].site, world.hosts[to].site);
    let within = |site: estive_world::SiteIx| match world.sites.get(site.0 as usize) {
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

/// What a live move is expected to take.
pub fn pre_copy(memory_bytes: u64, dirtied_bytes_per_s: u64, rate_bytes_per_s: u64) -> Figures {
    let rate = rate_bytes_per_s.max(1) as f64;
    let dirtied = dirtied_bytes_per_s as f64;
    let memory = memory_bytes as f64;
    let small_enough = rate * DOWNTIME_ALLOWED_MS / 1000.0;
    let (mut left, mut sent) = (memory, 0.0);
    let mut rounds = 0;
    while left > small_enough && rounds < ROUNDS_AT_MOST {
        sent += left;
        // A domain writes no more in a round than it has.
        left = (left / rate * dirtied).min(memory);
        rounds += 1;
    }
    sent += left;
    Figures {
        duration_s: SETUP_S + sent / rate,
        downtime_ms: SWITCH_MS + left / rate * 1000.0,
        bytes: sent as u64,
        cost: 0.0,
    }
}

/// What a move of a domain is expected to take at a rate; one that is stopped has nothing to send.
pub fn of_move(domain: &Domain, rate_bytes_per_s: u64) -> Figures {
    if domain.life == DomainLife::Stopped {
        return Figures {
            duration_s: SETUP_S,
            ..Figures::default()
        };
    }
    pre_copy(
        memory_bytes(domain),
        domain.dirtied_bytes_per_s,
        rate_bytes_per_s,
    )
}

/// What a new second copy of a domain's disks is expected to take at a rate.
pub fn of_replica(domain: &Domain, rate_bytes_per_s: u64) -> Figures {
    let bytes = domain.reserved[ReservedKind::DiskMib].saturating_mul(1 << 20);
    Figures {
        duration_s: SETUP_S + bytes as f64 / rate_bytes_per_s.max(1) as f64,
        downtime_ms: 0.0,
        bytes,
        cost: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_that_writes_nothing_is_sent_once() {
        let figures = pre_copy(1 << 30, 0, 125_000_000);
        assert_eq!(figures.bytes, 1 << 30);
        assert_eq!(figures.downtime_ms, SWITCH_MS);
    }

    #[test]
    fn rounds_shrink_by_the_share_that_is_written_again() {
        // 1000 MB, 100 MB, 10 MB; 1 MB is left, which is less than the 5 MB that may be sent standing still.
        let figures = pre_copy(1_000_000_000, 10_000_000, 100_000_000);
        assert_eq!(figures.bytes, 1_111_000_000);
        assert!((figures.downtime_ms - SWITCH_MS - 10.0).abs() < 1e-6);
    }

    #[test]
    fn one_that_writes_faster_than_it_is_sent_stands_still_for_all_of_it() {
        let figures = pre_copy(1_000_000_000, 200_000_000, 100_000_000);
        assert_eq!(figures.downtime_ms, SWITCH_MS + 10_000.0);
        assert_eq!(figures.bytes, 31_000_000_000);
    }
}
