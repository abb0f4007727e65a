//! Small worlds for tests.

use estive_world::{
    Act, Domain, DomainIx, Figures, Host, HostIx, Plan, PowerCurve, Reason, Report, Reserved, Site,
    Step, StepIx, Used, World,
};

/// A host that is on, of 1 Gbit/s, with a core for each of its processors.
pub fn host(name: &str, capacity: [u64; 4]) -> Host {
    Host {
        capacity: Reserved(capacity),
        speed: Used([
            capacity[0].saturating_mul(1_000_000),
            capacity[1].saturating_mul(1024),
            1_000_000_000,
            125_000_000,
        ]),
        power: PowerCurve {
            boot_s: 60,
            halt_s: 10,
            ..PowerCurve::default()
        },
        ..Host::named(name)
    }
}

/// A domain that runs and uses nothing.
pub fn domain(name: &str, host: Option<u32>, reserved: [u64; 4]) -> Domain {
    Domain {
        host: host.map(HostIx),
        reserved: Reserved(reserved),
        ..Domain::named(name)
    }
}

/// A world of one site with the common rules.
pub fn world(hosts: Vec<Host>, domains: Vec<Domain>) -> World {
    World {
        sites: vec![Site::named("here")],
        hosts,
        domains,
        ..World::default()
    }
}

/// A step without figures.
pub fn step(act: Act, after: impl IntoIterator<Item = u32>) -> Step {
    let mut after: Vec<StepIx> = after.into_iter().map(StepIx).collect();
    after.sort_unstable();
    after.dedup();
    Step {
        act,
        after,
        reason: Reason::Asked {
            what: String::new(),
        },
        figures: Figures::default(),
    }
}

/// A move.
pub fn moved(domain: u32, from: u32, to: u32, after: impl IntoIterator<Item = u32>) -> Step {
    let act = Act::Move {
        domain: DomainIx(domain),
        from: HostIx(from),
        to: HostIx(to),
        pivot: false,
    };
    step(act, after)
}

/// A plan of these steps.
pub fn plan(steps: Vec<Step>) -> Plan {
    Plan {
        world: String::new(),
        objective: String::new(),
        seed: 0,
        work: 0,
        steps,
        report: Report::default(),
    }
}
