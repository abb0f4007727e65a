//! Hosts that are switched: whatever touches one comes while it is on, and one that is switched off is empty.

use estive_world::{Act, HostIx, HostPower, Indexed, StepIx};

use super::{Fault, Lint, capacity, named};

/// Checks every host that is not simply on all the time.
pub fn check(lint: &Lint, faults: &mut Vec<Fault>) {
    let world = lint.world;
    let mut touching = capacity::by_host(lint);
    let mut switched = vec![false; world.hosts.len()];
    for (step, it) in lint.steps.iter().enumerate() {
        if let Act::SwitchOn { host } | Act::SwitchOff { host } = it.act {
            let touching = &mut touching[host.at()];
            touching.steps.push(step);
            touching.comes.push(false);
            switched[host.at()] = true;
        }
    }
    let hosts: Vec<usize> = (0..world.hosts.len())
        .filter(|&host| {
            let off = world.hosts[host].state != HostPower::On;
            switched[host] || (off && !touching[host].steps.is_empty())
        })
        .collect();
    // In the order of their numbers, which is one of the orders that may happen.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for &host in &hosts {
        let mut steps = touching[host].steps.clone();
        steps.sort_unstable();
        groups.push(steps);
    }
    let mut inhabitants = inhabitants(lint, &hosts);
    for ((&host, group), order) in hosts.iter().zip(&groups).zip(lint.ancestors(&groups)) {
        let number = HostIx::of(host);
        let mut state = world.hosts[host].state;
        let mut there = inhabitants.remove(0);
        for (at, &step) in group.iter().enumerate() {
            let switch = lint.passages[step].is_none();
            let beside = (0..at).find(|&earlier| {
                let switches = switch || lint.passages[group[earlier]].is_none();
                switches && !order.has(at, earlier)
            });
            if let Some(beside) = beside {
                faults.push(Fault::BesideSwitch {
                    host: number,
                    steps: named([group[beside], step]),
                });
                continue;
            }
            let wanted = match lint.steps[step].act {
                Act::SwitchOn { .. } => HostPower::Off,
                _ => HostPower::On,
            };
            if state != wanted {
                faults.push(Fault::Power {
                    host: number,
                    step: StepIx::of(step),
                    state,
                });
            }
            match (&lint.passages[step], lint.steps[step].act) {
                (Some(passage), _) if passage.from == Some(number) => there -= change(lint, step),
                (Some(_), _) => there += change(lint, step),
                (None, Act::SwitchOff { .. }) => {
                    if there != 0 {
                        faults.push(Fault::NotEmpty {
                            host: number,
                            step: StepIx::of(step),
                            left: there.unsigned_abs(),
                        });
                    }
                    state = HostPower::Off;
                }
                (None, _) => state = HostPower::On,
            }
        }
    }
}

/// How many domains and replicas are on each of these hosts at the start, or on their way there.
fn inhabitants(lint: &Lint, hosts: &[usize]) -> Vec<i64> {
    let mut there = vec![0; lint.world.hosts.len()];
    for domain in &lint.world.domains {
        for host in [domain.host, domain.replica].into_iter().flatten() {
            there[host.at()] += 1;
        }
    }
    for operation in &lint.world.operations {
        there[operation.to.at()] += 1;
    }
    hosts.iter().map(|&host| there[host]).collect()
}

/// How many more are on a host that a step comes to, or fewer on one that it leaves. A domain that goes to its replica
/// leaves a replica behind: nothing changes.
fn change(lint: &Lint, step: usize) -> i64 {
    i64::from(!swaps(lint, step))
}

/// Whether a step is a move of a domain to its replica.
fn swaps(lint: &Lint, step: usize) -> bool {
    let passage = lint.passages[step].as_ref().expect("a passage");
    !passage.replica
        && passage.from.is_some()
        && lint.world.domains[passage.domain].replica.is_some()
}
