//! From a world and a question to a plan.

use std::sync::Arc;

use estive_world::{Act, DomainIx, Hindrance, HostIx, Indexed, Plan, Reason, Report, Step, World};

use crate::Question;
use crate::ground::Ground;
use crate::ledger::{Ledger, wakes};
use crate::objectives::Value;
use crate::places::{Change, Spot};
use crate::power;
use crate::search::{Limits, Seeker, search, settle};
use crate::sequence::{Goal, duration_s, sequence};

/// A search goes on from its own result at most so often: until that gives nothing more.
const ROUNDS: u64 = 4;
/// And so often after that without lanes, so that what is found at least cannot be bettered by one move or swap.
const SETTLINGS: u64 = 4;

/// Where everything should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// By domain.
    pub spots: Vec<Spot>,
    /// The value at the start.
    pub before: Value,
    /// And there.
    pub after: Value,
    /// Candidates looked at.
    pub work: u64,
}

/// Looks for the best state within the question's limits.
///
/// The search is run again on its own result, as if that were the world, until it finds nothing: so that whoever asks
/// again after the plan was carried out is told that there is nothing to do.
///
/// # Errors
/// A question that cannot be answered, in words.
pub fn target(world: &World, question: &Question) -> Result<Target, String> {
    let origin = Arc::new(Ground::new(world, wakes(&question.objective)));
    let first = Ledger::on(Arc::clone(&origin), &question.objective)?;
    let before = first.value();
    let limits = Limits {
        moves: question.moves_at_most.map_or(u64::MAX, u64::from),
        bytes: question.bytes_at_most.unwrap_or(u64::MAX),
    };
    let each = Question {
        budget: crate::Budget {
            work: question.budget.work / ROUNDS,
        },
        ..question.clone()
    };
    let mut seeker = Seeker::new(first, limits);
    search(&mut seeker, &each);
    let mut work = seeker.work();
    let mut found = (seeker.improved(), seeker.spots(), seeker.ledger().value());
    for round in 1..ROUNDS + SETTLINGS {
        if !found.0 {
            break;
        }
        let next = after(world, &found.1);
        let ground = Arc::new(Ground::new(&next, wakes(&question.objective)));
        let ledger = Ledger::on(ground, &question.objective)?;
        let mut seeker = Seeker::since(ledger, limits, &origin);
        if round < ROUNDS {
            search(&mut seeker, &each);
        } else {
            settle(&mut seeker, each.budget.work);
        }
        work += seeker.work();
        found = (seeker.improved(), seeker.spots(), seeker.ledger().value());
    }
    let (_, spots, value) = found;
    Ok(Target {
        spots,
        before,
        after: value,
        work,
    })
}

/// A world with its domains on other spots, and nothing else changed: what they use of processors is as much work as it
/// was, on cores that may be faster or slower.
pub fn after(world: &World, spots: &[Spot]) -> World {
    let mut next = world.clone();
    let place = |host: HostIx| (host.at() < world.hosts.len()).then_some(host);
    for (domain, spot) in next.domains.iter_mut().zip(spots) {
        if let (Some(old), Some(new)) = (domain.host, place(spot.host)) {
            let speed = |host: HostIx| u64::from(world.hosts[host].core_speed_milli.max(1));
            let (from, to) = (speed(old), speed(new));
            let scaled = |micro: u64| {
                let micro = u128::from(micro) * u128::from(from) / u128::from(to);
                u64::try_from(micro).unwrap_or(u64::MAX)
            };
            if from != to {
                domain.used.0[0] = scaled(domain.used.0[0]);
                if let Some(forecast) = &mut domain.forecast {
                    forecast.0[0] = scaled(forecast.0[0]);
                }
            }
        }
        domain.host = place(spot.host);
        domain.replica = place(spot.replica);
    }
    next
}

/// Answers a question.
///
/// # Errors
/// A question that cannot be answered, in words.
pub fn plan(world: &World, question: &Question) -> Result<Plan, String> {
    let target = target(world, question)?;
    let ground = Arc::new(Ground::new(world, wakes(&question.objective)));
    let mut ledger = Ledger::on(Arc::clone(&ground), &question.objective)?;
    let goal = goal(&ground, question, &target.spots);
    let (steps, left) = match sequence(world, &goal) {
        Ok(steps) => (steps, Vec::new()),
        Err(stuck) => (stuck.steps, stuck.left),
    };
    let mut report = Report {
        before: target.before.ranks[0],
        broken: broken_words(&ledger),
        duration_s: duration_s(&steps),
        bytes: steps.iter().map(|step| step.figures.bytes).sum(),
        ..Report::default()
    };
    let parts = ledger.gauge().parts();
    let steps = steps
        .into_iter()
        .map(|step| follow(&mut ledger, step))
        .collect();
    report.after = ledger.value().ranks[0];
    report.parts = (parts.into_iter().zip(ledger.gauge().parts()))
        .map(|((name, before), (_, after))| (name, before, after))
        .collect();
    report.still_broken = still_broken(&ledger);
    report.hindrances = (left.into_iter())
        .map(|left| Hindrance {
            what: left.because,
            count: 1,
        })
        .collect();
    let plan = Plan {
        world: world.digest(),
        objective: question.objective.to_text(world),
        seed: question.seed,
        work: target.work,
        steps,
        report,
    };
    Ok(with_nothing_because(world, plan))
}

fn with_nothing_because(world: &World, mut plan: Plan) -> Plan {
    if plan.steps.is_empty() {
        let hysteresis = &world.rules.hysteresis;
        plan.report.nothing_because = Some(format!(
            "no change gains {} ppm of one host's part in {:.4} and its own time over {} s",
            hysteresis.gain_at_least_ppm, plan.report.before, hysteresis.pays_back_within_s
        ));
    }
    plan
}

/// What is to be reached: domains on their spots, and hosts off that nobody needs.
fn goal(ground: &Ground<'_>, question: &Question, spots: &[Spot]) -> Goal {
    let place = |host: HostIx| (host != ground.nowhere()).then_some(host);
    let mut goal = Goal::of(
        ground.world,
        spots.iter().map(|spot| place(spot.host)).collect(),
    );
    goal.replicas = spots.iter().map(|spot| place(spot.replica)).collect();
    goal.off = power::not_needed(ground.world, &question.objective, spots);
    goal
}

/// Makes a step's change, and says of a step that nothing else asked for what it gains.
fn follow(ledger: &mut Ledger<'_>, mut step: Step) -> Step {
    let (domain, to) = match step.act {
        Act::Move { domain, to, .. } => {
            let now = ledger.spot(domain);
            let replica = if now.replica == to {
                now.host
            } else {
                now.replica
            };
            (domain, Spot { host: to, replica })
        }
        Act::Place { domain, to } => (
            domain,
            Spot {
                host: to,
                ..ledger.spot(domain)
            },
        ),
        Act::MoveReplica { domain, to, .. } => (
            domain,
            Spot {
                replica: to,
                ..ledger.spot(domain)
            },
        ),
        Act::SwitchOn { .. } | Act::SwitchOff { .. } => return step,
    };
    let before = ledger.value();
    let broken = broken_by_domain(ledger, domain);
    let from = ledger.spot(domain).host;
    let room = ledger.books().beyond(from);
    ledger.apply(Change { domain, to });
    let now = ledger.value();
    if !matches!(step.reason, Reason::Asked { .. } | Reason::Gains { .. }) {
        return step;
    }
    step.reason = if now.broken < before.broken {
        let rule = broken.or(room).unwrap_or_else(|| {
            format!(
                "{} is not with, or not apart from, others",
                ledger.ground().world.domains[domain].name
            )
        });
        Reason::Repairs { rule }
    } else {
        Reason::Gains {
            before: before.ranks[0],
            after: now.ranks[0],
            what: biggest_part(ledger, before.ranks[0], now.ranks[0]),
        }
    };
    step
}

fn biggest_part(ledger: &Ledger<'_>, before: f64, after: f64) -> String {
    let part = (ledger.gauge().parts().into_iter())
        .max_by(|one, other| one.1.total_cmp(&other.1))
        .map_or(String::new(), |(name, value)| {
            format!("; most of what is left is {name}: {value:.4}")
        });
    format!("{before:.6} to {after:.6}{part}")
}

/// What stays broken, and what stands in the way of each.
fn still_broken(ledger: &Ledger<'_>) -> Vec<Hindrance> {
    (broken_words(ledger).into_iter())
        .map(|what| Hindrance { what, count: 1 })
        .collect()
}

/// How a domain breaks a rule where it is, in words.
fn broken_by_domain(ledger: &Ledger<'_>, domain: DomainIx) -> Option<String> {
    let (ground, spot) = (ledger.ground(), ledger.spot(domain));
    let name = &ground.world.domains[domain].name;
    if spot.host == ground.nowhere() {
        return Some(format!("{name} asks for a place"));
    }
    let obstacle = ground.hinders_staying(domain, spot.host)?;
    let host = &ground.world.hosts[spot.host].name;
    Some(format!(
        "{name} is on {host}: {}",
        obstacle.words(ground.world)
    ))
}

/// What is broken, in words.
fn broken_words(ledger: &Ledger<'_>) -> Vec<String> {
    let (ground, books) = (ledger.ground(), ledger.books());
    if ledger.value().broken == 0 {
        return Vec::new();
    }
    let world = ground.world;
    let mut words: Vec<String> = (0..world.domains.len())
        .filter_map(|domain| broken_by_domain(ledger, DomainIx::of(domain)))
        .collect();
    for host in (0..world.hosts.len()).map(HostIx::of) {
        words.extend(books.beyond(host));
    }
    for domain in (0..world.domains.len()).map(DomainIx::of) {
        if books.broken_bonds(domain, books.places.spot(domain).host) > 0 {
            words.push(format!(
                "{} is not apart from, or not together with, all that it should be",
                world.domains[domain].name
            ));
        }
    }
    words
}
