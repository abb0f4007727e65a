//! From a world and a question to a plan.

use std::sync::Arc;

use estive_world::{
    Act, DomainIx, Figures, Hindrance, HostIx, Indexed, Plan, Reason, Report, Step, StepIx, World,
};

use crate::Question;
use crate::ground::Ground;
use crate::ledger::{Ledger, wakes};
use crate::objectives::Value;
use crate::places::{Change, Spot};
use crate::room::Amounts;
use crate::search::{Limits, Seeker, search, settle};
use crate::toll::steps;

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
    let broken = broken_words(&ledger);
    let parts = ledger.gauge().parts();
    let (ordered, left) = order(&ledger, &target.spots);
    let mut plan = Plan {
        world: world.digest(),
        objective: question.objective.to_text(world),
        seed: question.seed,
        work: target.work,
        steps: Vec::new(),
        report: Report {
            before: target.before.ranks[0],
            broken,
            ..Report::default()
        },
    };
    for change in ordered {
        follow(&mut ledger, change, &mut plan);
    }
    let report = &mut plan.report;
    report.after = ledger.value().ranks[0];
    report.parts = (parts.into_iter().zip(ledger.gauge().parts()))
        .map(|((name, before), (_, after))| (name, before, after))
        .collect();
    report.still_broken = (broken_words(&ledger).into_iter())
        .map(|what| Hindrance { what, count: 1 })
        .collect();
    if left > 0 {
        report.hindrances.push(Hindrance {
            what: "moves that find no order in which each has room".to_owned(),
            count: left,
        });
    }
    if plan.steps.is_empty() {
        report.nothing_because = Some(nothing_because(world, report));
    }
    Ok(plan)
}

fn nothing_because(world: &World, report: &Report) -> String {
    let hysteresis = &world.rules.hysteresis;
    format!(
        "no change gains {} ppm of one host's part in {:.4} and its own time over {} s",
        hysteresis.gain_at_least_ppm, report.before, hysteresis.pays_back_within_s
    )
}

/// Appends the steps of one change, with what they gain.
fn follow(ledger: &mut Ledger<'_>, change: Change, plan: &mut Plan) {
    let ground = Arc::clone(ledger.ground());
    let domain = change.domain;
    let old = ledger.spot(domain);
    let before = ledger.value();
    let broken = broken_by_domain(ledger, domain);
    ledger.apply(change);
    let now = ledger.value();
    let reason = if now.broken < before.broken {
        Reason::Repairs {
            rule: broken.unwrap_or_else(|| "a host is beyond its room".to_owned()),
        }
    } else {
        Reason::Gains {
            before: before.ranks[0],
            after: now.ranks[0],
            what: format!(
                "the objective goes from {:.6} to {:.6}",
                before.ranks[0], now.ranks[0]
            ),
        }
    };
    for (from, to, act) in acts(domain, old, change.to, ground.nowhere()) {
        let cost = ground.toll.cost(domain, from, to);
        let after = plan.steps.len().checked_sub(1).map(StepIx::of);
        plan.steps.push(Step {
            act,
            after: after.into_iter().collect(),
            reason: reason.clone(),
            figures: Figures {
                duration_s: cost.duration_s,
                bytes: cost.bytes,
                ..Figures::default()
            },
        });
        plan.report.bytes += cost.bytes;
        plan.report.duration_s += cost.duration_s;
    }
}

/// The single steps from one spot to another, each with the spots before and after it.
fn acts(domain: DomainIx, from: Spot, to: Spot, nowhere: HostIx) -> Vec<(Spot, Spot, Act)> {
    let mut acts = Vec::new();
    if from.host == nowhere {
        acts.push((
            from,
            to,
            Act::Place {
                domain,
                to: to.host,
            },
        ));
        return acts;
    }
    let mut now = from;
    let (moves, _) = steps(from, to, nowhere);
    if from.replica == nowhere {
        if moves > 0 {
            go(&mut acts, domain, &mut now, to.host, nowhere);
        }
        return acts;
    }
    if moves == 2 || (moves == 1 && to.host == from.replica) {
        go(&mut acts, domain, &mut now, from.replica, nowhere);
    }
    if now.host != to.host && now.replica != to.host {
        copy(&mut acts, domain, &mut now, to.host);
    }
    if now.host != to.host {
        go(&mut acts, domain, &mut now, to.host, nowhere);
    }
    if now.replica != to.replica {
        copy(&mut acts, domain, &mut now, to.replica);
    }
    acts
}

/// A domain with a replica moves to it and leaves one behind.
fn go(
    acts: &mut Vec<(Spot, Spot, Act)>,
    domain: DomainIx,
    now: &mut Spot,
    to: HostIx,
    nowhere: HostIx,
) {
    let replica = if now.replica == nowhere {
        nowhere
    } else {
        now.host
    };
    let next = Spot { host: to, replica };
    let (from, pivot) = (now.host, false);
    acts.push((
        *now,
        next,
        Act::Move {
            domain,
            from,
            to,
            pivot,
        },
    ));
    *now = next;
}

fn copy(acts: &mut Vec<(Spot, Spot, Act)>, domain: DomainIx, now: &mut Spot, to: HostIx) {
    let next = Spot {
        host: now.host,
        replica: to,
    };
    let from = now.replica;
    acts.push((*now, next, Act::MoveReplica { domain, from, to }));
    *now = next;
}

/// Changes in an order in which each finds room while it is still counted where it leaves; and how many found none.
fn order(ledger: &Ledger<'_>, spots: &[Spot]) -> (Vec<Change>, u64) {
    let mut books = ledger.books().clone();
    let mut pending: Vec<Change> = (spots.iter().enumerate())
        .map(|(number, &to)| Change {
            domain: DomainIx::of(number),
            to,
        })
        .filter(|change| books.places.spot(change.domain) != change.to)
        .collect();
    let mut ordered = Vec::with_capacity(pending.len());
    loop {
        let before = ordered.len();
        pending.retain(|&change| {
            let now = books.places.spot(change.domain);
            let takes = if change.to.host == now.replica {
                *books.ground.rooms.live(change.domain)
            } else {
                books.ground.rooms.takes(change.domain)
            };
            let fits = change.to.host == now.host
                || books
                    .has_room(change.to.host, &takes, &Amounts::NONE)
                    .is_ok();
            if fits {
                books.apply(change);
                ordered.push(change);
            }
            !fits
        });
        if pending.is_empty() || ordered.len() == before {
            return (ordered, pending.len() as u64);
        }
    }
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
        if books.broken_host(host, books.taken(host), books.spare_due(host).0) > 0 {
            words.push(books.beyond_words(host));
        }
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
