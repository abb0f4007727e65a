//! The herd as a planner sees it. What the manager does not know is left out: loads, traffic, prices, power.

use std::collections::HashMap;

use estive_api::Problem;
use estive_api::wire::{HerdDomain, HostReport};
use estive_model::{DomainState, HostHealth};
use estive_world::{
    Deployment, Domain, DomainIx, DomainLife, Host, HostIx, HostPower, Indexed, Operation, Ratio,
    ReservedKind, Site, World,
};

use crate::manager::Manager;
use crate::placement::CPUS_MILLI;

impl Manager {
    /// The world of now.
    pub async fn snapshot(&self) -> Result<World, Problem> {
        let domains = self.herd().await?;
        let hosts = self.host_reports().await?;
        Ok(world(&hosts, &domains, self.clock.now_ms() / 1000))
    }
}

/// Joins what is known of hosts and domains. A domain that does not run keeps its memory, as [`Manager::spaces`] counts.
fn world(hosts: &[HostReport], domains: &[HerdDomain], at_s: u64) -> World {
    let mut world = World {
        at_s,
        sites: vec![Site::named("here")],
        ..World::default()
    };
    let Ratio([_, others @ ..]) = Ratio::default();
    let ratio = Ratio([CPUS_MILLI, others[0], others[1], others[2]]);
    world.rules.overbook.insert(String::new(), ratio);
    let mut host_places = HashMap::new();
    for report in hosts {
        host_places.insert(&report.name, HostIx::of(world.hosts.len()));
        let host = host(&world, report);
        world.hosts.push(host);
    }
    let mut deployments = HashMap::new();
    let mut promised_mib = vec![0u64; hosts.len()];
    let mut running_mib = vec![0u64; hosts.len()];
    for report in domains {
        let deployment = report.deployment.as_ref().map(|deployment| {
            *deployments.entry(deployment).or_insert_with(|| {
                world.deployments.push(Deployment {
                    name: deployment.to_string(),
                });
                (world.deployments.len() - 1) as u32
            })
        });
        let mut domain = Domain::named(report.name.as_str());
        domain.host = host_places.get(&report.host).copied();
        domain.deployment = deployment;
        domain.reserved[ReservedKind::Vcpus] = u64::from(report.cpus.max(1));
        domain.reserved[ReservedKind::MemoryMib] = report.memory_mib;
        // Only what runs moves live; of what cannot be told nothing is moved: nor which hosts see the images of a domain
        // of no deployment.
        (domain.life, domain.pinned) = match report.state {
            DomainState::Running => (DomainLife::Running, deployment.is_none()),
            DomainState::Paused
            | DomainState::Incoming
            | DomainState::Released
            | DomainState::Unknown => (DomainLife::Running, true),
            DomainState::Stopped | DomainState::Saved | DomainState::Crashed => {
                (DomainLife::Stopped, true)
            }
        };
        count(&mut promised_mib, &mut running_mib, &domain);
        if let Some(to) = (report.moving.as_ref())
            .and_then(|moving| host_places.get(&moving.destination))
            .filter(|to| domain.host.is_some_and(|from| from != **to))
        {
            world.operations.push(Operation {
                domain: DomainIx::of(world.domains.len()),
                to: *to,
            });
        }
        world.domains.push(domain);
    }
    for (at, (host, report)) in world.hosts.iter_mut().zip(hosts).enumerate() {
        // What an agent holds and the store does not know, and what is promised to domains that do not run.
        let taken_mib = promised_mib[at].max(report.used_memory_mib);
        host.system[ReservedKind::MemoryMib] = taken_mib.saturating_sub(running_mib[at]);
        if report.capacity.is_none() {
            host.capacity[ReservedKind::MemoryMib] = taken_mib;
            host.speed = host.usual_speed(&world.sites);
        }
    }
    world
}

fn host(world: &World, report: &HostReport) -> Host {
    let mut host = Host::named(report.name.as_str());
    // A host that has not answered yet has no room but for what it runs, which is added once that is known.
    host.capacity = estive_world::Reserved([1, 0, 0, 0]);
    if let Some(capacity) = report.capacity {
        host.capacity[ReservedKind::Vcpus] = u64::from(capacity.cores);
        host.capacity[ReservedKind::MemoryMib] = capacity.memory_mib;
    }
    host.speed = host.usual_speed(&world.sites);
    host.state = match report.health {
        HostHealth::Up => HostPower::On,
        HostHealth::Unknown => HostPower::Unknown,
    };
    host
}

fn count(promised_mib: &mut [u64], running_mib: &mut [u64], domain: &Domain) {
    let Some(host) = domain.host else {
        return;
    };
    let memory_mib = domain.reserved[ReservedKind::MemoryMib];
    promised_mib[host.at()] += memory_mib;
    if domain.life != DomainLife::Stopped {
        running_mib[host.at()] += memory_mib;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_api::wire::{BootTimes, MovingReport};
    use estive_model::{Capacity, DeploymentName, DomainName, Generation, HostName, OperationId};

    fn report(name: &str, health: HostHealth, used_memory_mib: u64) -> HostReport {
        HostReport {
            name: HostName::new(name).unwrap(),
            url: String::new(),
            health,
            note: None,
            capacity: (health == HostHealth::Up).then_some(Capacity {
                cores: 2,
                memory_mib: 2048,
            }),
            used_memory_mib,
            domains: 0,
            hypervisor: String::new(),
        }
    }

    fn domain(name: &str, host: &str, state: DomainState, to: Option<&str>) -> HerdDomain {
        HerdDomain {
            name: DomainName::new(name).unwrap(),
            deployment: Some(DeploymentName::new("first").unwrap()),
            host: HostName::new(host).unwrap(),
            generation: Generation(3),
            state,
            wanted: DomainState::Running,
            address: String::new(),
            memory_mib: 384,
            cpus: 1,
            groups: Vec::new(),
            reference: String::new(),
            older: Vec::new(),
            moving: to.map(|to| MovingReport {
                operation: OperationId::new("move-1").unwrap(),
                destination: HostName::new(to).unwrap(),
                generation: Generation(4),
                waiting_for: String::new(),
            }),
            note: None,
            boot: BootTimes::default(),
        }
    }

    #[test]
    fn a_snapshot_says_what_is_known_and_nothing_else() {
        let hosts = [
            report("host1", HostHealth::Up, 1000),
            report("host2", HostHealth::Up, 768),
            report("host3", HostHealth::Unknown, 0),
        ];
        let domains = [
            domain("clone01", "host1", DomainState::Running, None),
            domain("clone02", "host1", DomainState::Stopped, None),
            domain("clone03", "host2", DomainState::Running, Some("host1")),
            domain("clone04", "host3", DomainState::Unknown, None),
            HerdDomain {
                deployment: None,
                ..domain("shop", "host2", DomainState::Running, None)
            },
        ];
        let world = world(&hosts, &domains, 1_700_000_000);
        let text = "\
world at=1700000000s
overbook cpus=1000
site here
host host1 cpus=2c memory=2G disk=0M system-memory=616M
host host2 cpus=2c memory=2G disk=0M
host host3 unknown cpus=1c memory=384M disk=0M
deployment first
domain clone01 on=host1 memory=384M deployment=first
domain clone02 stopped pinned on=host1 memory=384M deployment=first
domain clone03 on=host2 memory=384M deployment=first
domain clone04 pinned on=host3 memory=384M deployment=first
domain shop pinned on=host2 memory=384M
moving clone03 to=host1
";
        assert_eq!(world.to_text(), text);
        assert_eq!(World::from_text(text), Ok(world));
    }
}
