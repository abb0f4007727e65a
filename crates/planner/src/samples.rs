//! Small worlds for tests.

use std::collections::BTreeSet;

use estive_world::{
    Act, Domain, DomainIx, DomainLife, Figures, Host, HostIx, HostPower, Plan, PowerCurve, Reason,
    Report, Reserved, Site, SiteIx, Step, StepIx, Used, World,
};

/// A host that is on, of 1 Gbit/s, with a core for each of its processors.
pub fn host(name: &str, capacity: [u64; 4]) -> Host {
    Host {
        name: name.to_owned(),
        site: SiteIx(0),
        capacity: Reserved(capacity),
        system: Reserved::NONE,
        speed: Used([
            capacity[0].saturating_mul(1_000_000),
            capacity[1].saturating_mul(1024),
            1_000_000_000,
            125_000_000,
        ]),
        own_use: Used::NONE,
        core_speed_milli: 1000,
        cpu_model: String::new(),
        features: BTreeSet::new(),
        power: PowerCurve {
            watts: Vec::new(),
            off_watts: 0.0,
            boot_s: 60,
            boot_wh: 0.0,
            halt_s: 10,
        },
        state: HostPower::On,
        maintenance: false,
        owner: None,
        owner_present: false,
        price_micro_per_h: 0,
        until_s: None,
    }
}

/// A domain that runs and uses nothing.
pub fn domain(name: &str, host: Option<u32>, reserved: [u64; 4]) -> Domain {
    Domain {
        name: name.to_owned(),
        host: host.map(HostIx),
        life: DomainLife::Running,
        reserved: Reserved(reserved),
        used: Used::NONE,
        windows: Vec::new(),
        forecast: None,
        dirtied_bytes_per_s: 0,
        class: String::new(),
        deployment: None,
        user: None,
        priority: 0,
        home: None,
        pinned: false,
        needs: BTreeSet::new(),
        volumes: Vec::new(),
        replica: None,
        moved_s: None,
    }
}

/// A world of one site with the common rules.
pub fn world(hosts: Vec<Host>, domains: Vec<Domain>) -> World {
    World {
        sites: vec![Site {
            name: "here".to_owned(),
            rate_bytes_per_s: 125_000_000,
            latency_us: 100,
            energy: Vec::new(),
        }],
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
