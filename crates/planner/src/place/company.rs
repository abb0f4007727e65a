//! Those that a domain without a place must be together with: who waits with it, and where the others are.

use estive_world::{DomainIx, HostIx, Indexed, Scope};

use crate::books::Books;
use crate::ground::{Bond, Ground};
use crate::host_set::HostSet;
use crate::room::Amounts;

/// Where a domain must go since others that it must be together with are there already.
pub(super) struct Near {
    /// Hosts, in order.
    pub hosts: Vec<HostIx>,
    /// One of the others.
    pub fellow: DomainIx,
}

fn bonds<'b>(ground: &'b Ground<'_>, domain: DomainIx) -> impl Iterator<Item = &'b Bond> {
    (ground.together_of[domain.at()].iter()).map(|&bond| &ground.together[bond as usize])
}

/// Hosts in the places of those that a domain must be together with; none: none of them has a place.
pub(super) fn near(books: &Books<'_>, domain: DomainIx) -> Option<Near> {
    let (ground, nowhere) = (&*books.ground, books.nowhere());
    let mut near: Option<Near> = None;
    for bond in bonds(ground, domain) {
        let fellows = (bond.members.iter().copied())
            .filter(|&fellow| fellow != domain)
            .map(|fellow| (fellow, books.places.spot(fellow).host))
            .filter(|&(_, host)| host != nowhere);
        let mut there = HostSet::none(nowhere.at() + 1);
        let mut fellow = None;
        for (other, host) in fellows {
            fellow = fellow.or(Some(other));
            there.add(host);
        }
        let Some(fellow) = fellow else { continue };
        if bond.scope == Scope::Site {
            widen(ground, &mut there);
        }
        match &mut near {
            Some(near) => near.hosts.retain(|&host| there.has(host)),
            None => {
                let hosts = (0..nowhere.at()).map(HostIx::of);
                near = Some(Near {
                    hosts: hosts.filter(|&host| there.has(host)).collect(),
                    fellow,
                });
            }
        }
    }
    near
}

/// All hosts of the sites of some.
fn widen(ground: &Ground<'_>, hosts: &mut HostSet) {
    let world = ground.world;
    let mut sites = vec![false; world.sites.len()];
    let all = || (0..world.hosts.len()).map(HostIx::of);
    for host in all().filter(|&host| hosts.has(host)) {
        sites[world.hosts[host].site.at()] = true;
    }
    for host in all().filter(|&host| sites[world.hosts[host].site.at()]) {
        hosts.add(host);
    }
}

/// A domain and those that wait with it, as each must be together with one of the others; in order.
pub(super) fn waiting_with(books: &Books<'_>, domain: DomainIx) -> Vec<DomainIx> {
    let ground = &*books.ground;
    if ground.together_of[domain.at()].is_empty() {
        return vec![domain];
    }
    let nowhere = books.nowhere();
    reached(ground, domain, None, |other| {
        books.places.spot(other).host == nowhere
    })
}

/// Domains in groups: those that must be together and all have no place yet are in one.
pub(super) fn groups(books: &Books<'_>, domains: &[DomainIx]) -> Vec<Vec<DomainIx>> {
    let ground = &*books.ground;
    let nowhere = books.nowhere();
    let mut left = vec![false; ground.world.domains.len()];
    for &domain in domains {
        left[domain.at()] = true;
    }
    let mut groups = Vec::with_capacity(domains.len());
    for &domain in domains {
        if !left[domain.at()] {
            continue;
        }
        let group = reached(ground, domain, None, |other| {
            left[other.at()] && books.places.spot(other).host == nowhere
        });
        for member in &group {
            left[member.at()] = false;
        }
        groups.push(group);
    }
    groups
}

/// What must be free on the host to which one of a group goes: for it, and for those that must be on its host and have no
/// place yet. `group` is in order.
pub(super) fn needs(books: &Books<'_>, domain: DomainIx, group: &[DomainIx]) -> Amounts {
    let nowhere = books.nowhere();
    let with = reached(&books.ground, domain, Some(Scope::Host), |other| {
        group.binary_search(&other).is_ok() && books.places.spot(other).host == nowhere
    });
    let mut needs = Amounts::NONE;
    for member in with {
        needs.add(&books.ground.rooms.takes(member));
    }
    needs
}

/// All that bonds lead to from one, by way of such as pass.
fn reached(
    ground: &Ground<'_>,
    from: DomainIx,
    scope: Option<Scope>,
    passes: impl Fn(DomainIx) -> bool,
) -> Vec<DomainIx> {
    let mut found = vec![from];
    let mut looked_at = 0;
    let mut seen: Vec<u32> = Vec::new();
    while let Some(&domain) = found.get(looked_at) {
        looked_at += 1;
        for &number in &ground.together_of[domain.at()] {
            let bond = &ground.together[number as usize];
            if seen.contains(&number) || scope.is_some_and(|scope| scope != bond.scope) {
                continue;
            }
            seen.push(number);
            let new = bond.members.iter().filter(|&&other| passes(other));
            found.extend(new.filter(|&&other| other != from));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Adds the hosts where a group need not begin again: one, or all of its site where some must be in one site.
pub(super) fn shun(ground: &Ground<'_>, group: &[DomainIx], tried: HostIx, into: &mut HostSet) {
    into.add(tried);
    let by_site = (group.iter())
        .flat_map(|&domain| bonds(ground, domain))
        .any(|bond| bond.scope == Scope::Site);
    if by_site {
        let mut site = HostSet::none(ground.world.hosts.len() + 1);
        site.add(tried);
        widen(ground, &mut site);
        for host in (0..ground.world.hosts.len()).map(HostIx::of) {
            if site.has(host) {
                into.add(host);
            }
        }
    }
}
