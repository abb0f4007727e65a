//! Which hosts may be off when everything is where it should be.

use std::cmp::Reverse;

use estive_world::{HostIx, HostPower, Indexed, World};

use crate::objectives::{may_be_off, processor_power, processor_use};
use crate::places::Spot;
use crate::{Objective, Term};

/// Hosts without guests that are on, may be off, save something then, and whose power is not part of the spare that is
/// asked for: those that draw most while they idle first. None where no term counts energy or hosts.
pub(crate) fn not_needed(world: &World, objective: &Objective, spots: &[Spot]) -> Vec<HostIx> {
    let terms = || {
        objective
            .ranks
            .iter()
            .flatten()
            .map(|weighted| &weighted.term)
    };
    if !terms().any(|term| matches!(term, Term::Consolidate { .. } | Term::Cost)) {
        return Vec::new();
    }
    let spare_milli = terms().filter_map(|term| match term {
        Term::Consolidate { spare_milli } => Some(*spare_milli),
        _ => None,
    });
    let spare_milli = spare_milli.max();
    let is_about_hosts = spare_milli.is_some();
    let spare_milli = u128::from(spare_milli.unwrap_or(0));
    let mut is_used = vec![false; world.hosts.len() + 1];
    for spot in spots {
        is_used[spot.host.at()] = true;
        is_used[spot.replica.at()] = true;
    }
    for operation in &world.operations {
        is_used[operation.to.at()] = true;
    }
    let domains = (0..spots.len()).map(Indexed::of);
    let used: u128 = domains
        .map(|domain| u128::from(processor_use(world, domain)))
        .sum();
    let needed = if spare_milli == 0 {
        0
    } else {
        used * (1000 + spare_milli) / 1000
    };
    // What is off now is switched on for those that leave it, as for those that come.
    let mut is_left = vec![false; world.hosts.len()];
    for (domain, spot) in world.domains.iter().zip(spots) {
        for (old, new) in [(domain.host, spot.host), (domain.replica, spot.replica)] {
            if let Some(old) = old.filter(|&old| old != new) {
                is_left[old.at()] = true;
            }
        }
    }
    let is_on = |host: HostIx| {
        world.hosts[host].state == HostPower::On || is_used[host.at()] || is_left[host.at()]
    };
    let all = || (0..world.hosts.len()).map(HostIx::of);
    let mut power: u128 = all()
        .filter(|&host| is_on(host))
        .map(|host| u128::from(processor_power(world, host)))
        .sum();
    // Where it is known that an idle host takes nothing, there is nothing to be saved.
    let saves = |host: HostIx| {
        let host = &world.hosts[host];
        let watts = host.power.watts_at(0.0) - host.power.off_watts;
        watts > 0.0 || host.price_micro_per_h > 0 || !host.power.is_measured() && is_about_hosts
    };
    let mut empty: Vec<HostIx> = all()
        .filter(|&host| {
            is_on(host) && !is_used[host.at()] && may_be_off(world, host) && saves(host)
        })
        .collect();
    // Milliwatts, so that they have an order.
    let idle = |host: HostIx| (world.hosts[host].power.watts_at(0.0) * 1000.0) as u64;
    empty.sort_by_key(|&host| (Reverse(idle(host)), host));
    empty.retain(|&host| {
        let own = u128::from(processor_power(world, host));
        let enough = power.saturating_sub(own) >= needed;
        if enough {
            power -= own;
        }
        enough
    });
    empty.sort_unstable();
    empty
}
