//! Domains that must be together leave together: a whole group for another host, or for another site.
//!
//! Any of them alone would part from the others, which no change may. The rules are looked at when all have come, by what
//! is broken then; hosts without room for all of them are passed over before.

use std::cmp::Reverse;

use estive_world::{DomainIx, HostIx, Indexed, Scope, SiteIx};

use super::seeker::Seeker;
use crate::ground::{Bond, Ground};
use crate::objectives::Value;
use crate::places::Change;
use crate::room::Amounts;

/// A group with more members than this stays where it is.
const MEMBERS: usize = 256;
/// So many hosts of a site that have room are looked at.
const HOSTS: usize = 192;

/// Who must be where others are.
#[derive(Debug)]
pub(super) struct Groups {
    /// By domain: its group on one host, or none.
    of: Vec<Option<u32>>,
    on_hosts: Vec<Vec<DomainIx>>,
    in_sites: Vec<Vec<DomainIx>>,
}

impl Groups {
    pub(super) fn new(ground: &Ground<'_>) -> Self {
        let count = ground.start.len();
        let mut of = vec![None; count];
        let on_hosts = joined(count, &ground.together, &[Scope::Host]);
        for (group, members) in on_hosts.iter().enumerate() {
            for member in members {
                of[member.at()] = Some(group as u32);
            }
        }
        // Who shares a host shares its site.
        let sites = (ground.together.iter()).any(|bond| bond.scope == Scope::Site);
        let in_sites = if sites {
            joined(count, &ground.together, &[Scope::Host, Scope::Site])
        } else {
            Vec::new()
        };
        Self {
            of,
            on_hosts,
            in_sites,
        }
    }

    /// All that must share a domain's host, itself among them; empty if it may go alone.
    pub(super) fn with(&self, domain: DomainIx) -> &[DomainIx] {
        self.of[domain.at()].map_or(&[], |group| &self.on_hosts[group as usize])
    }
}

/// Groups of those that bonds of some scopes join, each with its members in order.
fn joined(count: usize, bonds: &[Bond], scopes: &[Scope]) -> Vec<Vec<DomainIx>> {
    let mut first: Vec<u32> = (0..count as u32).collect();
    let root = |first: &mut Vec<u32>, mut of: u32| {
        while first[of as usize] != of {
            first[of as usize] = first[first[of as usize] as usize];
            of = first[of as usize];
        }
        of
    };
    for bond in bonds.iter().filter(|bond| scopes.contains(&bond.scope)) {
        for pair in bond.members.windows(2) {
            let (one, other) = (root(&mut first, pair[0].0), root(&mut first, pair[1].0));
            first[one.max(other) as usize] = one.min(other);
        }
    }
    let mut groups = std::collections::BTreeMap::<u32, Vec<DomainIx>>::new();
    for domain in 0..count as u32 {
        let root = root(&mut first, domain);
        groups.entry(root).or_default().push(DomainIx(domain));
    }
    let groups = groups.into_values();
    groups.filter(|members| members.len() > 1).collect()
}

/// Moves whole groups until none gains or so much work is done; says whether any did.
pub(super) fn groups(seeker: &mut Seeker<'_>, until: u64) -> bool {
    let groups = seeker.groups();
    let mut any = false;
    loop {
        let mut again = false;
        for members in &groups.on_hosts {
            if seeker.work() >= until {
                return any;
            }
            let better = best_host(seeker, members, None)
                .filter(|(total, _)| seeker.less(total, &seeker.total()));
            again |= better.is_some_and(|(_, host)| gather(seeker, members, host));
        }
        for members in &groups.in_sites {
            if seeker.work() >= until {
                return any;
            }
            again |= best_site(seeker, &groups, members);
        }
        any |= again;
        if !again {
            return any;
        }
    }
}

/// Puts a group on a host, if it may be there.
pub(super) fn gather(seeker: &mut Seeker<'_>, members: &[DomainIx], host: HostIx) -> bool {
    let changes = members.iter().map(|&domain| Change {
        domain,
        to: seeker.spot_to(domain, host),
    });
    let changes: Vec<Change> = changes.collect();
    seeker.apply_all(&changes)
}

/// The best host for a group but one, and what would be gained since the base then; none if it can go nowhere else.
pub(super) fn best_host(
    seeker: &mut Seeker<'_>,
    members: &[DomainIx],
    but: Option<HostIx>,
) -> Option<(Value, HostIx)> {
    let ground = std::sync::Arc::clone(seeker.ledger().ground());
    let still = |&member: &DomainIx| ground.still(member).is_some();
    if members.len() > MEMBERS || members.iter().any(still) {
        return None;
    }
    let mut takes = Amounts::NONE;
    for &member in members {
        takes.add(&ground.rooms.takes(member));
    }
    let mut targets = seeker.targets_of(members[0]);
    // They may have been parted: then each other's hosts are where they may meet.
    targets.extend(
        members
            .iter()
            .map(|&member| seeker.ledger().spot(member).host),
    );
    targets.sort_unstable();
    targets.dedup();
    let mut best: Option<(Value, HostIx)> = None;
    for host in targets {
        if Some(host) == but || host == ground.nowhere() {
            continue;
        }
        seeker.looked_at(1);
        let books = seeker.ledger().books();
        let mut more = takes;
        let mut there = 0;
        for &member in members {
            if books.places.spot(member).host == host {
                more.take(&ground.rooms.takes(member));
                there += 1;
            }
        }
        let full = books.has_room(host, &more, &Amounts::NONE).is_err();
        if full || there == members.len() {
            continue;
        }
        let mark = seeker.mark();
        if !gather(seeker, members, host) {
            continue;
        }
        let total = seeker.total();
        seeker.back_to(mark);
        if best
            .as_ref()
            .is_none_or(|(least, _)| seeker.less(&total, least))
        {
            best = Some((total, host));
        }
    }
    best
}

/// Moves all who must be in one site to another, each where it is best there, if that gains.
fn best_site(seeker: &mut Seeker<'_>, groups: &Groups, members: &[DomainIx]) -> bool {
    let ground = std::sync::Arc::clone(seeker.ledger().ground());
    let still = |&member: &DomainIx| ground.still(member).is_some();
    if members.len() > MEMBERS || members.iter().any(still) {
        return false;
    }
    let mut order = members.to_vec();
    order.sort_by_key(|&member| (Reverse(ground.rooms.takes(member).0), member));
    let (mark, before) = (seeker.mark(), seeker.total());
    let mut best: Option<(Value, Vec<Change>)> = None;
    for site in (0..ground.world.sites.len()).map(SiteIx::of) {
        if fill(seeker, groups, &order, site) && seeker.is_sound_since(mark) {
            let total = seeker.total();
            let least = best.as_ref().map_or(&before, |(least, _)| least);
            if seeker.less(&total, least) {
                let now = |&domain: &DomainIx| Change {
                    domain,
                    to: seeker.ledger().spot(domain),
                };
                best = Some((total, members.iter().map(now).collect()));
            }
        }
        seeker.back_to(mark);
    }
    best.is_some_and(|(_, changes)| seeker.apply_all(&changes))
}

/// Puts all of a group on hosts of a site, one by one; whether all found room.
fn fill(seeker: &mut Seeker<'_>, groups: &Groups, order: &[DomainIx], site: SiteIx) -> bool {
    let ground = std::sync::Arc::clone(seeker.ledger().ground());
    let is_there =
        |host: HostIx| (ground.world.hosts.get(host.at())).is_some_and(|host| host.site == site);
    for &domain in order {
        let now = seeker.ledger().spot(domain).host;
        if is_there(now) {
            continue;
        }
        let alone = [domain];
        let fellows = match groups.with(domain) {
            [] => &alone[..],
            fellows => fellows,
        };
        let mut takes = Amounts::NONE;
        for &fellow in fellows {
            takes.add(&ground.rooms.takes(fellow));
        }
        let books = seeker.ledger().books();
        let come = ground.come_list(domain).iter().copied();
        let roomy = come
            .filter(|&host| is_there(host) && books.has_room(host, &takes, &Amounts::NONE).is_ok());
        let roomy: Vec<HostIx> = roomy.take(HOSTS).collect();
        let Some(&(_, host)) = seeker.ranked(domain, &roomy).first() else {
            return false;
        };
        for &fellow in fellows {
            let to = seeker.spot_to(fellow, host);
            if seeker.ledger().spot(fellow) != to && !seeker.force(Change { domain: fellow, to }) {
                return false;
            }
        }
    }
    true
}
