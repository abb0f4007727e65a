//! What is broken, in words: who is where he must not be, who is not with or not apart from whom, which host has too much; and
//! what stands in the way of mending it.

use estive_world::{DomainIx, Hindrance, HostIx, Indexed, Scope};

use crate::ground::Bond;
use crate::ledger::Ledger;
use crate::obstacle::Obstacle;
use crate::place::counted;

/// Of so many domains that stay where they must not be it is told what stands in the way.
const TOLD: usize = 32;

/// How a domain breaks a rule where it is, if it does.
pub(crate) fn by_domain(ledger: &Ledger<'_>, domain: DomainIx) -> Option<String> {
    by_place(ledger, domain).or_else(|| by_company(ledger, domain, |_| true))
}

/// All that is broken. Of each pair that is not together or apart the second is told.
pub(crate) fn words(ledger: &Ledger<'_>) -> Vec<String> {
    told(ledger).into_iter().map(|(words, _)| words).collect()
}

/// All that is broken, with what stands in the way of each.
pub(crate) fn hindrances(ledger: &Ledger<'_>) -> Vec<Hindrance> {
    let mut left = TOLD;
    (told(ledger).into_iter())
        .map(|(what, domain)| {
            let against = domain.filter(|_| left > 0).and_then(|domain| {
                left -= 1;
                against(ledger, domain)
            });
            let what = match against {
                Some(against) => format!("{what}; in the way: {against}"),
                None => what,
            };
            Hindrance { what, count: 1 }
        })
        .collect()
}

/// What is broken, and by which domain if it is one.
fn told(ledger: &Ledger<'_>) -> Vec<(String, Option<DomainIx>)> {
    if ledger.value().broken == 0 {
        return Vec::new();
    }
    let world = ledger.ground().world;
    let domains = || (0..world.domains.len()).map(DomainIx::of);
    let places = domains().filter_map(|domain| Some((by_place(ledger, domain)?, Some(domain))));
    let hosts = (0..world.hosts.len()).map(HostIx::of);
    let rooms = hosts.filter_map(|host| Some((ledger.books().beyond(host)?, None)));
    let company = domains().filter_map(|domain| {
        let words = by_company(ledger, domain, |other| other < domain)?;
        Some((words, Some(domain)))
    });
    places.chain(rooms).chain(company).collect()
}

/// Where a domain, or the copy of its disks, must not be.
pub(crate) fn by_place(ledger: &Ledger<'_>, domain: DomainIx) -> Option<String> {
    let (ground, spot) = (ledger.ground(), ledger.spot(domain));
    let world = ground.world;
    let name = &world.domains[domain].name;
    if spot.host == ground.nowhere() {
        return Some(format!("{name} asks for a place"));
    }
    if let Some(obstacle) = ground.hinders_staying(domain, spot.host) {
        let host = &world.hosts[spot.host].name;
        return Some(format!("{name} is on {host}: {}", obstacle.words(world)));
    }
    let obstacle = ground.hinders_staying(domain, spot.replica)?;
    let host = &world.hosts[spot.replica].name;
    let words = obstacle.words(world);
    Some(format!("the replica of {name} is on {host}: {words}"))
}

/// With whom, of those that `counts` admits, a domain is and must not be, or is not and must be.
fn by_company(
    ledger: &Ledger<'_>,
    domain: DomainIx,
    counts: impl Fn(DomainIx) -> bool,
) -> Option<String> {
    let (ground, books) = (ledger.ground(), ledger.books());
    let at = ledger.spot(domain).host;
    if books.broken_bonds(domain, at) == 0 {
        return None;
    }
    let world = ground.world;
    let site = |host: HostIx| world.hosts[host].site;
    let other = |bond: &Bond, is_alike: bool| {
        (bond.members.iter().copied()).find(|&other| {
            let there = ledger.spot(other).host;
            let alike = |there: HostIx| match bond.scope {
                Scope::Host => there == at,
                Scope::Site => site(there) == site(at),
            };
            other != domain
                && there != ground.nowhere()
                && counts(other)
                && alike(there) == is_alike
        })
    };
    let name = |domain: DomainIx| &world.domains[domain].name;
    let place = |scope: Scope, host: HostIx| match scope {
        Scope::Host => format!("on {}", world.hosts[host].name),
        Scope::Site => format!("in {}", world.sites[site(host)].name),
    };
    for &bond in &ground.apart_of[domain.at()] {
        let bond = &ground.apart[bond as usize];
        if let Some(other) = other(bond, true) {
            return Some(format!(
                "{} must be apart from {}, and both are {}",
                name(domain),
                name(other),
                place(bond.scope, at)
            ));
        }
    }
    for &bond in &ground.together_of[domain.at()] {
        let bond = &ground.together[bond as usize];
        if let Some(other) = other(bond, false) {
            return Some(format!(
                "{} must be together with {}, which is {}",
                name(domain),
                name(other),
                place(bond.scope, ledger.spot(other).host)
            ));
        }
    }
    None
}

/// What stands in the way of a domain on any other host, with the number of hosts.
fn against(ledger: &Ledger<'_>, domain: DomainIx) -> Option<String> {
    let ground = ledger.ground();
    let world = ground.world;
    if let Some(still) = ground.still(domain) {
        return Some(still.words(world));
    }
    let now = ledger.spot(domain).host;
    let hosts = (0..world.hosts.len()).map(HostIx::of);
    let obstacles: Vec<Obstacle> = (hosts.filter(|&host| host != now))
        .filter_map(|host| ledger.may(domain, host).err())
        .collect();
    let words: Vec<String> = (counted(obstacles, world).into_iter())
        .map(|way| match way.count {
            1 => format!("{} (1 host)", way.what),
            count => format!("{} ({count} hosts)", way.what),
        })
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}
