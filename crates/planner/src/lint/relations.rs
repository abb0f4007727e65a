//! Relations between domains: those of one group apart in every state, those of another together at the end.

use std::collections::{BTreeMap, BTreeSet};

use estive_world::{DomainIx, HostIx, Indexed, Relation, Scope, World};

use super::chains::Whereabouts;
use super::closure::Closure;
use super::{Fault, Lint, named};

/// A host or a site, as a number.
pub(crate) fn place(world: &World, scope: Scope, host: HostIx) -> usize {
    match scope {
        Scope::Host => host.at(),
        Scope::Site => world.hosts[host].site.at(),
    }
}

/// Checks all relations but those between domains and hosts.
pub fn check(lint: &Lint, end: &[Whereabouts], faults: &mut Vec<Fault>) {
    for relation in &lint.world.rules.relations {
        match relation {
            Relation::Apart(scope, domains) => apart(lint, *scope, domains, faults),
            Relation::Together(scope, domains) => together(lint, *scope, domains, end, faults),
            Relation::Only(..) | Relation::Never(..) => {}
        }
    }
}

/// What comes to a place and leaves it, of one group.
#[derive(Default)]
struct Visits {
    start: u64,
    /// Steps, and whether each comes.
    steps: Vec<(usize, bool)>,
}

fn apart(lint: &Lint, scope: Scope, domains: &[DomainIx], faults: &mut Vec<Fault>) {
    let world = lint.world;
    let members: BTreeSet<DomainIx> = domains.iter().copied().collect();
    let mut visits: BTreeMap<usize, Visits> = BTreeMap::new();
    for &member in &members {
        if let Some(host) = world.domains[member].host {
            visits.entry(place(world, scope, host)).or_default().start += 1;
        }
    }
    for operation in world
        .operations
        .iter()
        .filter(|it| members.contains(&it.domain))
    {
        let to = place(world, scope, operation.to);
        let from = world.domains[operation.domain].host;
        if from.map(|host| place(world, scope, host)) != Some(to) {
            visits.entry(to).or_default().start += 1;
        }
    }
    for (step, passage) in lint.passages.iter().enumerate() {
        let Some(passage) = passage
            .as_ref()
            .filter(|it| !it.replica && members.contains(&it.domain))
        else {
            continue;
        };
        let to = place(world, scope, passage.to);
        let from = passage.from.map(|from| place(world, scope, from));
        // Within a site it stays one of the site.
        if from != Some(to) {
            visits.entry(to).or_default().steps.push((step, true));
            if let Some(from) = from {
                visits.entry(from).or_default().steps.push((step, false));
            }
        }
    }
    visits.retain(|_, visits| {
        let come = visits.steps.iter().filter(|(_, comes)| *comes).count() as u64;
        come > 0 && visits.start + come > 1
    });
    let groups: Vec<Vec<usize>> = (visits.values())
        .map(|visits| visits.steps.iter().map(|(step, _)| *step).collect())
        .collect();
    for ((&place, visits), order) in visits.iter().zip(lint.ancestors(&groups)) {
        let of = |wanted: bool| -> Vec<usize> {
            (0..visits.steps.len())
                .filter(|&at| visits.steps[at].1 == wanted)
                .collect()
        };
        let (come, leave) = (of(true), of(false));
        let closure = Closure::new(vec![1; come.len()], vec![1; leave.len()], |gain, loss| {
            order.has(come[gain], leave[loss])
        });
        // Where more than one is there before, no more may come.
        let worst = closure.above(visits.start.max(1) - visits.start);
        if let Some(worst) = worst {
            faults.push(Fault::NotApart {
                scope,
                place,
                begun: named(worst.gains.iter().map(|&gain| visits.steps[come[gain]].0)),
                ended: named(worst.losses.iter().map(|&loss| visits.steps[leave[loss]].0)),
            });
        }
    }
}

/// A group can only walk one by one, so it is held against the end: in no more places than before, and than one if it was
/// in one.
fn together(
    lint: &Lint,
    scope: Scope,
    domains: &[DomainIx],
    end: &[Whereabouts],
    faults: &mut Vec<Fault>,
) {
    let world = lint.world;
    let places = |at: &dyn Fn(DomainIx) -> Option<HostIx>| -> BTreeSet<usize> {
        (domains.iter())
            .filter_map(|&domain| at(domain))
            .map(|host| place(world, scope, host))
            .collect()
    };
    let before = places(&|domain| world.domains[domain].host);
    let after = places(&|domain| end[domain.at()].host);
    if after.len() > before.len().max(1) {
        faults.push(Fault::NotTogether {
            scope,
            domains: domains.to_vec(),
            places: after.len(),
        });
    }
}
