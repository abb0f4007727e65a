//! What the linter finds.

use estive_world::{DomainIx, HostIx, HostPower, Indexed, Scope, SiteIx, StepIx, World};
use serde::Serialize;

use crate::Kind;

/// A fault of a plan, with a state in which it shows: these steps have begun, and of those that leave, these have ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "fault")]
pub enum Fault {
    /// A step does not make sense where it stands.
    Form {
        /// Which.
        step: StepIx,
        /// Why, as the end of a sentence.
        what: String,
    },
    /// Two steps move one domain, and neither waits for the other.
    TwoAtOnce {
        /// Which domain.
        domain: DomainIx,
        /// The two.
        steps: Vec<StepIx>,
    },
    /// A domain may never be where a step brings it.
    Place {
        /// Which step.
        step: StepIx,
        /// Which domain.
        domain: DomainIx,
        /// Where.
        host: HostIx,
        /// Why not.
        what: String,
    },
    /// A step that switches a host, and one that touches it, and neither waits for the other.
    BesideSwitch {
        /// Which host.
        host: HostIx,
        /// The two.
        steps: Vec<StepIx>,
    },
    /// A step needs a host on, or off, and it is not.
    Power {
        /// Which host.
        host: HostIx,
        /// Which step.
        step: StepIx,
        /// How it is then.
        state: HostPower,
    },
    /// A host is switched off with something on it.
    NotEmpty {
        /// Which host.
        host: HostIx,
        /// Which step.
        step: StepIx,
        /// How many domains and replicas are left there.
        left: u64,
    },
    /// There may be more on a host than it has room for.
    Room {
        /// Which host.
        host: HostIx,
        /// Of what: a place of [`crate::Amounts`].
        kind: usize,
        /// How much there may be, in the kind's unit, divided by overbooking's ratios.
        taken: f64,
        /// How much there is room for.
        room: f64,
        /// Steps that have brought something.
        begun: Vec<StepIx>,
        /// Steps that have taken something away.
        ended: Vec<StepIx>,
    },
    /// More moves may touch a host at once than it bears.
    TooManyMoves {
        /// Which host.
        host: HostIx,
        /// How many, with what is under way before the plan.
        count: u64,
        /// How many may.
        at_most: u32,
        /// Those of the plan.
        running: Vec<StepIx>,
    },
    /// More moves may cross a link at once than it bears.
    TooManyOverLink {
        /// The sites at its ends.
        ends: (SiteIx, SiteIx),
        /// How many, with what is under way before the plan.
        count: u64,
        /// How many may.
        at_most: u32,
        /// Those of the plan.
        running: Vec<StepIx>,
    },
    /// Two that are to be apart may meet.
    NotApart {
        /// On a host or in a site.
        scope: Scope,
        /// Its number.
        place: usize,
        /// Steps that have brought one.
        begun: Vec<StepIx>,
        /// Steps that have taken one away.
        ended: Vec<StepIx>,
    },
    /// A host may not be able to take over what another would leave if it failed.
    NoSpare {
        /// The host that has the replicas.
        host: HostIx,
        /// The one that fails.
        failing: HostIx,
        /// MiB that would be taken then.
        needs: f64,
        /// MiB that there are.
        room: f64,
        /// Steps that have brought something.
        begun: Vec<StepIx>,
        /// Steps that have taken something away.
        ended: Vec<StepIx>,
    },
    /// At the end no place is found for what a host would leave if it failed, and before there was one.
    NoPlaceLeft {
        /// The one that fails.
        failing: HostIx,
        /// The first domain for which none is found.
        domain: DomainIx,
    },
    /// Those that are to be together are in more places than before.
    NotTogether {
        /// On a host or in a site.
        scope: Scope,
        /// Which.
        domains: Vec<DomainIx>,
        /// In how many places they are at the end.
        places: usize,
    },
}

impl Fault {
    /// In words, with names; steps are counted from 1, as in a plan's table.
    pub fn say(&self, world: &World) -> String {
        let host = |host: &HostIx| world.hosts[*host].name.as_str();
        let domain = |domain: &DomainIx| world.domains[*domain].name.as_str();
        match self {
            Self::Form { step, what } => format!("step {} {what}", step.0 + 1),
            Self::TwoAtOnce { domain: it, steps } => format!(
                "{} is moved by steps {}, and neither waits for the other",
                domain(it),
                numbers(steps)
            ),
            Self::Place {
                step,
                domain: it,
                host: on,
                what,
            } => format!(
                "step {} brings {} to {}: {what}",
                step.0 + 1,
                domain(it),
                host(on)
            ),
            Self::BesideSwitch { host: it, steps } => format!(
                "{} is switched by one of steps {}, and neither waits for the other",
                host(it),
                numbers(steps)
            ),
            Self::Power {
                host: it,
                step,
                state,
            } => {
                let state = match state {
                    HostPower::On => "on",
                    HostPower::Off => "off",
                    HostPower::Unknown => "silent",
                };
                format!("step {} comes while {} is {state}", step.0 + 1, host(it))
            }
            Self::NotEmpty {
                host: it,
                step,
                left,
            } => format!(
                "step {} switches {} off with {left} on it",
                step.0 + 1,
                host(it)
            ),
            Self::Room {
                host: it,
                kind,
                taken,
                room,
                begun,
                ended,
            } => {
                let kind = Kind::of(*kind);
                format!(
                    "{} may get {taken} {} of {} where there is room for {room}, once steps {} have begun{}",
                    host(it),
                    kind.unit(),
                    kind.name(),
                    numbers(begun),
                    when_ended(ended)
                )
            }
            Self::TooManyMoves {
                host: it,
                count,
                at_most,
                running,
            } => format!(
                "{count} moves may touch {} at once, {at_most} are allowed: steps {}",
                host(it),
                numbers(running)
            ),
            Self::TooManyOverLink {
                ends,
                count,
                at_most,
                running,
            } => format!(
                "{count} moves may run between {} and {} at once, {at_most} are allowed: steps {}",
                world.sites[ends.0].name,
                world.sites[ends.1].name,
                numbers(running)
            ),
            Self::NotApart {
                scope,
                place,
                begun,
                ended,
            } => {
                let place = match scope {
                    Scope::Host => &world.hosts[HostIx::of(*place)].name,
                    Scope::Site => &world.sites[SiteIx::of(*place)].name,
                };
                format!(
                    "two that are to be apart may meet in {place}, once steps {} have begun{}",
                    numbers(begun),
                    when_ended(ended)
                )
            }
            Self::NoSpare {
                host: keeps,
                failing,
                needs,
                room,
                begun,
                ended,
            } => format!(
                "{} may have to take {needs} MiB where it has room for {room} if {} fails, once steps {} have begun{}",
                host(keeps),
                host(failing),
                numbers(begun),
                when_ended(ended)
            ),
            Self::NoPlaceLeft {
                failing,
                domain: it,
            } => format!(
                "no place is found at the end for {} if {} fails, and before there was one",
                domain(it),
                host(failing)
            ),
            Self::NotTogether {
                scope,
                domains,
                places,
            } => {
                let names: Vec<&str> = domains.iter().map(domain).collect();
                let scope = match scope {
                    Scope::Host => "hosts",
                    Scope::Site => "sites",
                };
                format!(
                    "{} are to be together and end on {places} {scope}",
                    names.join(", ")
                )
            }
        }
    }
}

fn numbers(steps: &[StepIx]) -> String {
    let numbers: Vec<String> = steps.iter().map(|step| (step.0 + 1).to_string()).collect();
    numbers.join(", ")
}

fn when_ended(ended: &[StepIx]) -> String {
    if ended.is_empty() {
        " before any has left".to_owned()
    } else {
        format!(" and only steps {} have ended", numbers(ended))
    }
}
