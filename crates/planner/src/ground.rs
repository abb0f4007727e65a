//! What stays as it is while a plan is sought: room, who may go where, what a move costs.

use std::collections::BTreeMap;

use estive_world::{
    Domain, DomainIx, DomainLife, Host, HostIx, HostPower, Indexed, Relation, Reserved, Scope,
    UserIx, World,
};

use crate::Rooms;
use crate::host_set::HostSet;
use crate::obstacle::Obstacle;
use crate::places::{Places, Spot};
use crate::room::held;
use crate::toll::Toll;

/// A relation between domains that moves can keep or break.
#[derive(Debug, Clone)]
pub(crate) struct Bond {
    pub scope: Scope,
    pub members: Vec<DomainIx>,
}

/// The unchanging part of a search.
#[derive(Debug)]
pub struct Ground<'w> {
    /// What is planned for.
    pub world: &'w World,
    /// Room and what is taken of it.
    pub rooms: Rooms,
    /// Where everything is at the start.
    pub start: Vec<Spot>,
    /// What each move costs.
    pub toll: Toll,
    pub(crate) apart: Vec<Bond>,
    pub(crate) together: Vec<Bond>,
    /// For each domain, its bonds of each sort.
    pub(crate) apart_of: Vec<Vec<u32>>,
    pub(crate) together_of: Vec<Vec<u32>>,
    /// Kind of each domain: those of one kind may come to the same hosts, and stay on the same.
    kinds: Vec<u32>,
    may_come: Vec<HostSet>,
    may_stay: Vec<HostSet>,
    come_list: Vec<Vec<HostIx>>,
    still: Vec<Option<Obstacle>>,
    fences: Vec<Vec<u32>>,
    wakes: bool,
    /// Where each domain runs, wherever a search has it: links are looked for from there.
    from: Vec<Option<HostIx>>,
    /// Where it ran before any step: its processor was known by that one's features.
    began: Vec<Option<HostIx>>,
}

/// What makes the same hosts possible.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'w> {
    needs: &'w std::collections::BTreeSet<String>,
    volumes: &'w [estive_world::VolumeIx],
    fences: &'w [u32],
    /// Site, and processor if it runs.
    from: Option<(u32, Option<u32>)>,
}

impl<'w> Ground<'w> {
    /// Looks at a world. `wakes`: hosts that are off may be switched on.
    pub fn new(world: &'w World, wakes: bool) -> Self {
        let from: Vec<Option<HostIx>> = world.domains.iter().map(|domain| domain.host).collect();
        Self::running(world, wakes, &from, &from)
    }

    /// The same for a world in which domains were only thought elsewhere: they come `from` where they run, and `began` where
    /// they ran before the plan.
    pub fn running(
        world: &'w World,
        wakes: bool,
        from: &[Option<HostIx>],
        began: &[Option<HostIx>],
    ) -> Self {
        let count = world.domains.len();
        let mut fences = vec![Vec::new(); count];
        let (mut apart, mut together) = (Vec::new(), Vec::new());
        let (mut apart_of, mut together_of) = (vec![Vec::new(); count], vec![Vec::new(); count]);
        for (number, relation) in world.rules.relations.iter().enumerate() {
            match relation {
                Relation::Apart(scope, members) => {
                    bind(&mut apart, &mut apart_of, *scope, members);
                }
                Relation::Together(scope, members) => {
                    bind(&mut together, &mut together_of, *scope, members);
                }
                Relation::Only(members, _) | Relation::Never(members, _) => {
                    for member in members {
                        fences[member.at()].push(number as u32);
                    }
                }
            }
        }
        let mut ground = Self {
            world,
            rooms: Rooms::new(world),
            start: Places::new(world).spots().to_vec(),
            toll: Toll::new(world),
            apart,
            together,
            apart_of,
            together_of,
            kinds: Vec::with_capacity(count),
            may_come: Vec::new(),
            may_stay: Vec::new(),
            come_list: Vec::new(),
            still: still(world),
            fences,
            wakes,
            from: from.to_vec(),
            began: began.to_vec(),
        };
        ground.sort_into_kinds();
        for number in 0..count {
            let domain = DomainIx::of(number);
            // Rest is against running to and fro: it holds nobody where he must not be.
            if matches!(ground.still[number], Some(Obstacle::Cooldown { .. }))
                && (world.domains[domain].host)
                    .is_some_and(|host| ground.hinders_staying(domain, host).is_some())
            {
                ground.still[number] = None;
            }
        }
        ground
    }

    fn sort_into_kinds(&mut self) {
        let world = self.world;
        let processors = processors(world);
        let mut firsts: Vec<DomainIx> = Vec::new();
        let mut kinds = Vec::with_capacity(world.domains.len());
        {
            let mut known: BTreeMap<Key<'_>, u32> = BTreeMap::new();
            for (number, domain) in world.domains.iter().enumerate() {
                let key = Key {
                    needs: &domain.needs,
                    volumes: &domain.volumes,
                    fences: &self.fences[number],
                    from: self.from[number].map(|host| {
                        let runs = domain.life != DomainLife::Stopped;
                        let began = self.began[number].unwrap_or(host);
                        (
                            world.hosts[host].site.0,
                            runs.then(|| processors[began.at()]),
                        )
                    }),
                };
                kinds.push(*known.entry(key).or_insert_with(|| {
                    firsts.push(DomainIx::of(number));
                    firsts.len() as u32 - 1
                }));
            }
        }
        self.kinds = kinds;
        let hosts = world.hosts.len();
        for first in firsts {
            let (mut come, mut stay) = (HostSet::none(hosts + 1), HostSet::none(hosts + 1));
            let mut list = Vec::new();
            for host in (0..hosts).map(HostIx::of) {
                if self.hinders_staying(first, host).is_none() {
                    stay.add(host);
                }
                if self.hinders_coming(first, host).is_none() {
                    come.add(host);
                    list.push(host);
                }
            }
            self.may_come.push(come);
            self.may_stay.push(stay);
            self.come_list.push(list);
        }
    }

    /// Whether hosts that are off may be switched on.
    pub fn wakes(&self) -> bool {
        self.wakes
    }

    /// The place of what has no place.
    pub fn nowhere(&self) -> HostIx {
        HostIx::of(self.world.hosts.len())
    }

    /// Hosts that a domain may come to as far as fixed rules go.
    pub fn come_list(&self, domain: DomainIx) -> &[HostIx] {
        &self.come_list[self.kinds[domain.at()] as usize]
    }

    /// Whether it may come there, as far as fixed rules go.
    pub fn may_come(&self, domain: DomainIx, host: HostIx) -> bool {
        self.may_come[self.kinds[domain.at()] as usize].has(host)
    }

    /// Whether it may stay there, as far as fixed rules go.
    pub fn may_stay(&self, domain: DomainIx, host: HostIx) -> bool {
        self.may_stay[self.kinds[domain.at()] as usize].has(host)
    }

    /// The kind of a domain.
    pub(crate) fn kind_of(&self, domain: DomainIx) -> u32 {
        self.kinds[domain.at()]
    }

    /// How many kinds of domains there are.
    pub(crate) fn kinds(&self) -> usize {
        self.may_come.len()
    }

    /// Whether domains of a kind may come to a host, as far as fixed rules go.
    pub(crate) fn kind_may_come(&self, kind: usize, host: HostIx) -> bool {
        self.may_come[kind].has(host)
    }

    /// Why it is not moved at all, if so.
    pub fn still(&self, domain: DomainIx) -> Option<&Obstacle> {
        self.still[domain.at()].as_ref()
    }

    /// What of the fixed rules speaks against a domain being on a host, wherever it came from.
    pub fn hinders_staying(&self, domain: DomainIx, at: HostIx) -> Option<Obstacle> {
        let world = self.world;
        let host = world.hosts.get(at.at())?;
        let what = &world.domains[domain];
        if host.maintenance {
            return Some(Obstacle::Maintenance(at));
        }
        if owners(world, host) {
            return Some(Obstacle::Owners(at));
        }
        if let Some(until_s) = host.until_s.filter(|&until_s| until_s <= world.at_s) {
            return Some(Obstacle::Ends(at, until_s));
        }
        if let Some(word) = what
            .needs
            .iter()
            .find(|word| !host.features.contains(*word))
        {
            return Some(Obstacle::Needs(word.clone()));
        }
        if let Some(volume) = what
            .volumes
            .iter()
            .find(|&&volume| !world.reaches(at, volume))
        {
            return Some(Obstacle::Volume(*volume));
        }
        let fence = self.fences[domain.at()].iter().find(|&&number| {
            match &world.rules.relations[number as usize] {
                Relation::Only(_, hosts) => !hosts.contains(&at),
                Relation::Never(_, hosts) => hosts.contains(&at),
                _ => false,
            }
        })?;
        Some(Obstacle::Relation(*fence as usize))
    }

    /// What of the fixed rules speaks against bringing a domain to a host from where it runs.
    pub fn hinders_coming(&self, domain: DomainIx, to: HostIx) -> Option<Obstacle> {
        let world = self.world;
        let host = world.hosts.get(to.at())?;
        let what = &world.domains[domain];
        match host.state {
            HostPower::On => {}
            HostPower::Off if self.wakes => {}
            HostPower::Off | HostPower::Unknown => return Some(Obstacle::NotOn(to)),
        }
        if let Some(obstacle) = self.hinders_staying(domain, to) {
            return Some(obstacle);
        }
        let soon_s = world.at_s + u64::from(world.rules.hysteresis.pays_back_within_s);
        if let Some(until_s) = host.until_s.filter(|&until_s| until_s <= soon_s) {
            return Some(Obstacle::Ends(to, until_s));
        }
        if owners_by(world, host, soon_s) {
            return Some(Obstacle::OwnersSoon(to));
        }
        let from = self.from[domain.at()]?;
        let began = &world.hosts[self.began[domain.at()].unwrap_or(from)];
        let from = &world.hosts[from];
        if from.site != host.site && world.link(from.site, host.site).is_none() {
            return Some(Obstacle::NoLink(from.site, host.site));
        }
        let alike = began.cpu_model == host.cpu_model || host.features.is_superset(&began.features);
        (what.life != DomainLife::Stopped && !alike).then_some(Obstacle::Processor(to))
    }
}

fn bind(bonds: &mut Vec<Bond>, of: &mut [Vec<u32>], scope: Scope, members: &[DomainIx]) {
    let mut members = members.to_vec();
    members.sort_unstable();
    members.dedup();
    if members.len() < 2 {
        return;
    }
    for member in &members {
        of[member.at()].push(bonds.len() as u32);
    }
    bonds.push(Bond { scope, members });
}

/// A number for each host: the same for those with the same model and features of the processor.
fn processors(world: &World) -> Vec<u32> {
    let mut known = BTreeMap::new();
    (world.hosts.iter())
        .map(|host| {
            let next = known.len() as u32;
            *known
                .entry((&host.cpu_model, &host.features))
                .or_insert(next)
        })
        .collect()
}

/// Whether a host is its owner's at the world's moment.
fn owners(world: &World, host: &Host) -> bool {
    host.owner_present || owners_by(world, host, world.at_s + 1)
}

/// Whether an hour of a host's owner begins before a moment, or one is now. The week's hours begin on Monday; the clock
/// began on a Thursday.
fn owners_by(world: &World, host: &Host, by_s: u64) -> bool {
    let Some(owner) = &host.owner else {
        return false;
    };
    let first = world.at_s / 3600;
    let last = by_s.saturating_sub(1).max(world.at_s) / 3600;
    (first..=last.min(first + 167))
        .any(|hour| owner.hours.contains(&(((hour + 3 * 24) % 168) as u8)))
}

/// Whether a host is gone, or its owner's, within the time in which a move must have paid for itself.
pub(crate) fn is_soon_gone(world: &World, host: &Host) -> bool {
    let soon_s = world.at_s + u64::from(world.rules.hysteresis.pays_back_within_s);
    host.until_s.is_some_and(|until_s| until_s <= soon_s) || owners_by(world, host, soon_s)
}

/// For how many seconds more a domain stays since it moved a short while ago.
pub(crate) fn cooling_s(world: &World, domain: &Domain) -> Option<u64> {
    let free_s = domain.moved_s? + u64::from(world.rules.hysteresis.cooldown_s);
    (free_s > world.at_s).then(|| free_s - world.at_s)
}

fn still(world: &World) -> Vec<Option<Obstacle>> {
    let mut still: Vec<Option<Obstacle>> = (world.domains.iter())
        .map(|domain| {
            let host = domain.host?;
            if domain.pinned {
                return Some(Obstacle::Pinned);
            }
            if world.hosts[host].state == HostPower::Unknown {
                return Some(Obstacle::SourceUnknown(host));
            }
            cooling_s(world, domain).map(|left_s| Obstacle::Cooldown { left_s })
        })
        .collect();
    for operation in &world.operations {
        still[operation.domain.at()] = Some(Obstacle::UnderWay);
    }
    for (domain, user) in beyond_quotas(world) {
        still[domain.at()] = Some(Obstacle::Quota(user));
    }
    still
}

/// Those that ask for a place and would be more than their users may have, in their order: the first come first.
fn beyond_quotas(world: &World) -> Vec<(DomainIx, UserIx)> {
    let mut had = vec![Reserved::NONE; world.users.len()];
    let mut beyond = Vec::new();
    for asks in [false, true] {
        let all = world.domains.iter().enumerate();
        for (number, domain) in all.filter(|(_, domain)| domain.host.is_none() == asks) {
            let Some(user) = domain.user else { continue };
            let wants = had[user.at()] + held(domain);
            if asks && !wants.fits(&world.users[user].quota) {
                beyond.push((DomainIx::of(number), user));
            } else {
                had[user.at()] = wants;
            }
        }
    }
    beyond
}
