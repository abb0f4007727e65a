//! Each domain's way through a plan: whether it is where each step takes it from, and what that brings and frees.

use estive_world::{Act, DomainIx, HostIx, Indexed, Step, StepIx, World};

use super::{Fault, Lint, named};
use crate::{Amounts, Rooms};

/// What a step brings somewhere as it begins, and frees somewhere as it ends.
#[derive(Debug, Clone)]
pub struct Passage {
    pub domain: DomainIx,
    /// What is freed there when it has ended; none: it came from nowhere.
    pub from: Option<HostIx>,
    pub to: HostIx,
    pub amounts: Amounts,
    /// Only the second copy of the disks.
    pub replica: bool,
}

/// All steps' passages, and where everything is at the end.
pub struct Passages {
    pub of_steps: Vec<Option<Passage>>,
    pub end: Vec<Whereabouts>,
}

/// Where a domain is, and the second copy of its disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whereabouts {
    pub host: Option<HostIx>,
    pub replica: Option<HostIx>,
}

/// Follows each domain through the steps by number. None if the form of the plan is broken: what comes after what is not
/// known then.
pub fn passages(world: &World, steps: &[Step], faults: &mut Vec<Fault>) -> Option<Passages> {
    let rooms = Rooms::new(world);
    let mut end: Vec<Whereabouts> = (world.domains.iter())
        .map(|domain| Whereabouts {
            host: domain.host,
            replica: domain.replica,
        })
        .collect();
    let mut under_way = vec![false; world.domains.len()];
    for operation in &world.operations {
        under_way[operation.domain.at()] = true;
    }
    let mut of_steps = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        let number = StepIx::of(at);
        let mut refuse = |what: &str| {
            faults.push(Fault::Form {
                step: number,
                what: what.to_owned(),
            });
        };
        if step.after.iter().any(|earlier| earlier.at() >= at) {
            refuse("comes after a step that is not before it");
        }
        if !known(world, &step.act) {
            refuse("names a host or a domain that there is not");
            of_steps.push(None);
            continue;
        }
        let passage = passage(&rooms, &mut end, step.act);
        if let Some(Ok(passage)) = &passage
            && under_way[passage.domain.at()]
        {
            refuse("touches a domain that something else moves just now");
        }
        of_steps.push(match passage {
            Some(Err(what)) => {
                refuse(what);
                None
            }
            Some(Ok(passage)) => Some(passage),
            None => None,
        });
    }
    faults.is_empty().then_some(Passages { of_steps, end })
}

fn known(world: &World, act: &Act) -> bool {
    let host = |host: HostIx| host.at() < world.hosts.len();
    let domain = |domain: DomainIx| domain.at() < world.domains.len();
    match *act {
        Act::Move {
            domain: it,
            from,
            to,
            ..
        }
        | Act::MoveReplica {
            domain: it,
            from,
            to,
        } => domain(it) && host(from) && host(to),
        Act::Place { domain: it, to } => domain(it) && host(to),
        Act::SwitchOn { host: it } | Act::SwitchOff { host: it } => host(it),
    }
}

fn passage(
    rooms: &Rooms,
    at: &mut [Whereabouts],
    act: Act,
) -> Option<Result<Passage, &'static str>> {
    Some(match act {
        Act::Move {
            domain, from, to, ..
        } => {
            let it = &mut at[domain.at()];
            if it.host != Some(from) {
                Err("moves a domain from where it is not")
            } else if from == to {
                Err("moves a domain to where it is")
            } else if it.replica.is_some_and(|replica| replica != to) {
                Err("moves a domain to where its disks are not: move its replica there first")
            } else {
                it.host = Some(to);
                let amounts = if it.replica.is_some() {
                    it.replica = Some(from);
                    *rooms.live(domain)
                } else {
                    rooms.takes(domain)
                };
                Ok(Passage {
                    domain,
                    from: Some(from),
                    to,
                    amounts,
                    replica: false,
                })
            }
        }
        Act::Place { domain, to } => {
            let it = &mut at[domain.at()];
            if it.host.is_some() {
                Err("places a domain that has a place")
            } else if it.replica == Some(to) {
                Err("places a domain on the host of its replica")
            } else {
                it.host = Some(to);
                Ok(Passage {
                    domain,
                    from: None,
                    to,
                    amounts: rooms.takes(domain),
                    replica: false,
                })
            }
        }
        Act::MoveReplica { domain, from, to } => {
            let it = &mut at[domain.at()];
            if it.replica != Some(from) {
                Err("moves a replica from where it is not")
            } else if from == to || it.host == Some(to) {
                Err("moves a replica to where the disks are already")
            } else {
                it.replica = Some(to);
                Ok(Passage {
                    domain,
                    from: Some(from),
                    to,
                    amounts: *rooms.kept(domain),
                    replica: true,
                })
            }
        }
        Act::SwitchOn { .. } | Act::SwitchOff { .. } => return None,
    })
}

/// The steps of one domain must come one after another, not only by number.
pub fn in_order(lint: &Lint, faults: &mut Vec<Fault>) {
    let mut of_domains: Vec<Vec<usize>> = vec![Vec::new(); lint.world.domains.len()];
    for (step, passage) in lint.passages.iter().enumerate() {
        if let Some(passage) = passage {
            of_domains[passage.domain.at()].push(step);
        }
    }
    let chains: Vec<Vec<usize>> = of_domains
        .into_iter()
        .filter(|steps| steps.len() > 1)
        .collect();
    for (chain, order) in chains.iter().zip(lint.ancestors(&chains)) {
        for later in 1..chain.len() {
            if !order.has(later, later - 1) {
                faults.push(Fault::TwoAtOnce {
                    domain: lint.passages[chain[later]]
                        .as_ref()
                        .expect("a passage")
                        .domain,
                    steps: named([chain[later - 1], chain[later]]),
                });
            }
        }
    }
}
