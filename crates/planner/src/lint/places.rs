//! Where a domain may be at all: what does not depend on what else is there.

use estive_world::{
    Domain, DomainIx, DomainLife, Host, HostIx, HostPower, Indexed, Relation, StepIx, World,
};

use super::{Fault, Lint};

/// For each domain the relations that close hosts to it.
pub(crate) struct Fences<'a>(Vec<Vec<&'a Relation>>);

impl<'a> Fences<'a> {
    pub(crate) fn new(world: &'a World) -> Self {
        let mut of_domains = vec![Vec::new(); world.domains.len()];
        for relation in &world.rules.relations {
            if let Relation::Only(domains, _) | Relation::Never(domains, _) = relation {
                for domain in domains {
                    of_domains[domain.at()].push(relation);
                }
            }
        }
        Self(of_domains)
    }

    /// What speaks against bringing a domain to a host, from another or from nowhere; none: nothing does. Whether the host
    /// is on, and what else is on it, is not looked at.
    pub(crate) fn against(
        &self,
        world: &World,
        domain: DomainIx,
        from: Option<HostIx>,
        to: HostIx,
    ) -> Option<String> {
        let what = &world.domains[domain];
        if what.pinned && from.is_some() {
            return Some("the domain is pinned".to_owned());
        }
        if let Some(against) = cannot_come(world, from, &world.hosts[to]) {
            return Some(against);
        }
        if let Some(against) = lacks(world, what, to) {
            return Some(against);
        }
        // Features are held against those of the host where it is before the plan: there it was started, as far as is known.
        if let Some(from) = what.host.filter(|_| from.is_some())
            && let Some(against) = cannot_go_on(what, &world.hosts[from], &world.hosts[to])
        {
            return Some(against);
        }
        self.fenced(domain, to)
    }

    /// What relations speak against a domain being on a host.
    pub(crate) fn fenced(&self, domain: DomainIx, at: HostIx) -> Option<String> {
        self.0[domain.at()]
            .iter()
            .find_map(|relation| match relation {
                Relation::Only(_, hosts) if !hosts.contains(&at) => {
                    Some("a rule keeps it on other hosts".to_owned())
                }
                Relation::Never(_, hosts) if hosts.contains(&at) => {
                    Some("a rule keeps it off this host".to_owned())
                }
                _ => None,
            })
    }
}

/// What a host lacks that a domain needs, whether that is of the world or not.
pub(crate) fn lacks(world: &World, domain: &Domain, at: HostIx) -> Option<String> {
    let host = &world.hosts[at];
    if let Some(word) = domain
        .needs
        .iter()
        .find(|word| !host.features.contains(*word))
    {
        return Some(format!("the host has no {word}"));
    }
    let volume = domain
        .volumes
        .iter()
        .find(|&&volume| !world.reaches(at, volume))?;
    Some(format!(
        "the host does not reach volume {}",
        world.volumes[*volume].name
    ))
}

/// Checks each step by itself.
pub(super) fn check(lint: &Lint, faults: &mut Vec<Fault>) {
    let fences = Fences::new(lint.world);
    for (step, passage) in lint.passages.iter().enumerate() {
        let Some(passage) = passage else { continue };
        let against = if passage.replica {
            // A replica is disks: it needs a host that is reached, no more.
            cannot_come(lint.world, passage.from, &lint.world.hosts[passage.to])
        } else {
            fences.against(lint.world, passage.domain, passage.from, passage.to)
        };
        if let Some(what) = against {
            faults.push(Fault::Place {
                step: StepIx::of(step),
                domain: passage.domain,
                host: passage.to,
                what,
            });
        }
    }
}

/// Why nothing is brought to a host, or taken from where it is.
pub(crate) fn cannot_come(world: &World, from: Option<HostIx>, to: &Host) -> Option<String> {
    if to.state == HostPower::Unknown {
        return Some("the host does not answer".to_owned());
    }
    if to.maintenance {
        return Some("the host is in maintenance".to_owned());
    }
    if to.owner_present || in_owners_hours(world, to) {
        return Some("the host is its owner's now".to_owned());
    }
    if to.until_s.is_some_and(|until_s| until_s <= world.at_s) {
        return Some("the host may not be had any more".to_owned());
    }
    let source = &world.hosts[from?];
    if source.state == HostPower::Unknown {
        return Some(format!(
            "{} does not answer, so nothing is taken from there",
            source.name
        ));
    }
    (source.site != to.site && world.link(source.site, to.site).is_none())
        .then(|| "no link goes to its site".to_owned())
}

/// Hours of the week begin on Monday, the world's clock began on a Thursday.
fn in_owners_hours(world: &World, host: &Host) -> bool {
    let hour = (world.at_s / 3600 + 3 * 24) % (7 * 24);
    (host.owner.as_ref()).is_some_and(|owner| owner.hours.iter().any(|&his| u64::from(his) == hour))
}

/// Why a domain that runs on one host cannot go on on another, if so: another model of processor that has not every
/// feature of the first.
fn cannot_go_on(domain: &Domain, from: &Host, to: &Host) -> Option<String> {
    if domain.life == DomainLife::Stopped || from.cpu_model == to.cpu_model {
        return None;
    }
    let missing = from
        .features
        .iter()
        .find(|word| !to.features.contains(*word))?;
    Some(format!(
        "its processor is another model ({} for {}) and lacks {missing}",
        to.cpu_model, from.cpu_model
    ))
}
