//! Which hosts may be off when everything is where it should be, and which have to be on.

use std::cmp::Reverse;

use estive_world::{HostIx, HostPower, Indexed, World};

use crate::objectives::{may_be_off, processor_power, processor_use};
use crate::places::Spot;
use crate::{Objective, Term};

/// Hosts to be switched when domains are on their spots.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Switching {
    /// Hosts without guests that are on, may be off, save something then, and whose power is not part of the spare that is
    /// asked for; those that draw most while they idle come first.
    pub off: Vec<HostIx>,
    /// Hosts that are off, for the spare that is asked for: those that draw least for their power.
    pub on: Vec<HostIx>,
}

/// Which to switch. None where no term counts energy or hosts. A host under maintenance is left as it is.
pub(crate) fn switching(world: &World, objective: &Objective, spots: &[Spot]) -> Switching {
    let terms = || (objective.ranks.iter().flatten()).map(|weighted| &weighted.term);
    if !terms().any(|term| matches!(term, Term::Consolidate { .. } | Term::Cost)) {
        return Switching::default();
    }
    let spare_milli = terms().filter_map(|term| match term {
        Term::Consolidate { spare_milli } => Some(*spare_milli),
        _ => None,
    });
    let spare_milli = spare_milli.max();
    let is_about_hosts = spare_milli.is_some();
    let needed = needed(world, spare_milli.unwrap_or(0));
    let (is_used, is_on) = (used(world, spots), on(world, spots));
    let all = || (0..world.hosts.len()).map(HostIx::of);
    let own = |host: HostIx| u128::from(processor_power(world, host));
    let mut power: u128 = all().filter(|host| is_on[host.at()]).map(own).sum();
    // Milliwatts, so that they have an order.
    let idle = |host: HostIx| (world.hosts[host].power.watts_at(0.0) * 1000.0) as u64;

    // Where it is known that an idle host takes nothing, there is nothing to be saved.
    let saves = |host: HostIx| {
        let host = &world.hosts[host];
        let watts = host.power.watts_at(0.0) - host.power.off_watts;
        watts > 0.0 || host.price_micro_per_h > 0 || !host.power.is_measured() && is_about_hosts
    };
    let is_idle = |host: &HostIx| is_on[host.at()] && !is_used[host.at()];
    let may = |host: HostIx| {
        let what = &world.hosts[host];
        may_be_off(world, host) && !(what.maintenance && what.state == HostPower::On)
    };
    let mut off: Vec<HostIx> = all()
        .filter(|host| is_idle(host) && may(*host) && saves(*host))
        .collect();
    off.sort_by_key(|&host| (Reverse(idle(host)), host));
    off.retain(|&host| {
        let enough = power.saturating_sub(own(host)) >= needed;
        if enough {
            power -= own(host);
        }
        enough
    });

    let mut on: Vec<HostIx> = all()
        .filter(|&host| !is_on[host.at()] && may_wake(world, host) && own(host) > 0)
        .collect();
    on.sort_by_key(|&host| (u128::from(idle(host)) * 1000 / own(host), host));
    on.retain(|&host| {
        let is_short = power < needed;
        if is_short {
            power += own(host);
        }
        is_short
    });
    on.sort_unstable();
    Switching { off, on }
}

/// Processor power that has to be on: what is used, and the spare; 0 where none is asked for.
fn needed(world: &World, spare_milli: u32) -> u128 {
    if spare_milli == 0 {
        return 0;
    }
    let domains = (0..world.domains.len()).map(Indexed::of);
    let used: u128 = domains
        .map(|domain| u128::from(processor_use(world, domain)))
        .sum();
    used * (1000 + u128::from(spare_milli)) / 1000
}

/// By host: whether anybody is there, or on the way.
fn used(world: &World, spots: &[Spot]) -> Vec<bool> {
    let mut is_used = vec![false; world.hosts.len() + 1];
    for spot in spots {
        is_used[spot.host.at()] = true;
        is_used[spot.replica.at()] = true;
    }
    for operation in &world.operations {
        is_used[operation.to.at()] = true;
    }
    is_used.truncate(world.hosts.len());
    is_used
}

/// By host: whether it is on at the end if nothing more is switched. What is off now is switched on for those that leave it,
/// as for those that come.
fn on(world: &World, spots: &[Spot]) -> Vec<bool> {
    let mut is_on = used(world, spots);
    for (is_on, host) in is_on.iter_mut().zip(&world.hosts) {
        *is_on |= host.state == HostPower::On;
    }
    for (domain, spot) in world.domains.iter().zip(spots) {
        for (old, new) in [(domain.host, spot.host), (domain.replica, spot.replica)] {
            if let Some(old) = old.filter(|&old| old != new) {
                is_on[old.at()] = true;
            }
        }
    }
    is_on
}

/// Whether a host that is off may be switched on to stand by.
fn may_wake(world: &World, host: HostIx) -> bool {
    let what = &world.hosts[host];
    let soon_s = world.at_s + u64::from(world.rules.hysteresis.pays_back_within_s);
    what.state == HostPower::Off
        && !what.maintenance
        && may_be_off(world, host)
        && what.until_s.is_none_or(|until_s| until_s > soon_s)
}
