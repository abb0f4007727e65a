//! From a world and a question to a plan.

use std::sync::Arc;

use estive_world::{
    Act, DomainIx, Hindrance, HostIx, HostPower, Indexed, Plan, Reason, Report, Step, StepIx, World,
};

use crate::Question;
use crate::alternatives::alternatives;
use crate::broken;
use crate::ground::Ground;
use crate::ledger::{Ledger, wakes};
use crate::objectives::Value;
use crate::places::{Change, Spot, spots_of};
use crate::search::{Limits, Seeker, search, settle};
use crate::sequence::duration_s;
use crate::way::{self, Carried, Way};

/// A round of the search has this part of the budget.
const PART: u64 = 4;
/// A search goes on from its own result until a round finds nothing, which two or three mostly do, at most so often.
const ROUNDS: u64 = 16;
/// And so often after that without lanes, so that what is found at least cannot be bettered by one move or swap.
const SETTLINGS: u64 = 4;
/// Where something stood in the way of the target, what is best from where the way ends is looked for at most so often.
const GOINGS_ON: usize = 4;
/// Shares of each host that a search keeps free, in thousandths, one after the other: until what it finds leaves a place for
/// all that any one host would leave if it failed.
pub(crate) const FREE_MILLI: [u32; 4] = [0, 125, 250, 400];

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
    /// The share of each host that was kept free, in thousandths.
    pub free_milli: u32,
}

/// Looks for the best state within the question's limits.
///
/// The search is run again on its own result, as if that were the world, until it finds nothing: so that whoever asks
/// again after the plan was carried out is told that there is nothing to do.
///
/// # Errors
/// A question that cannot be answered, in words.
pub fn target(world: &World, question: &Question) -> Result<Target, String> {
    keeping_free(world, question, 0, &runs(world))
}

/// Where domains run.
fn runs(world: &World) -> Vec<Option<HostIx>> {
    world.domains.iter().map(|domain| domain.host).collect()
}

/// The same, where a share of each host is not filled, and domains began to run elsewhere than the world has them.
fn keeping_free(
    world: &World,
    question: &Question,
    free_milli: u32,
    runs: &[Option<HostIx>],
) -> Result<Target, String> {
    let now = self::runs(world);
    let mut origin = Ground::running(world, wakes(&question.objective), &now, runs);
    origin.rooms.keep_free(free_milli);
    let origin = Arc::new(origin);
    let first = Ledger::on(Arc::clone(&origin), &question.objective)?;
    let before = first.value();
    let limits = Limits {
        moves: question.moves_at_most.map_or(u64::MAX, u64::from),
        bytes: question.bytes_at_most.unwrap_or(u64::MAX),
        memory_bytes: question.memory_bytes_at_most.unwrap_or(u64::MAX),
    };
    let each = Question {
        budget: crate::Budget {
            work: question.budget.work / PART,
        },
        ..question.clone()
    };
    let mut seeker = Seeker::new(first, limits);
    search(&mut seeker, &each);
    let mut work = seeker.work();
    let mut found = (seeker.improved(), seeker.spots(), seeker.ledger().value());
    // Where a look at everything is much of a round, rounds end for want of work, not of gains: then twice the budget is
    // the bound.
    let look = (world.domains.len() * world.hosts.len().min(64)) as u64;
    let is_large = look > each.budget.work / 4;
    for round in 1..ROUNDS + SETTLINGS {
        if !found.0 || (is_large && work >= question.budget.work.saturating_mul(2)) {
            break;
        }
        let next = after(world, &found.1);
        let mut ground = Ground::running(&next, wakes(&question.objective), &now, runs);
        ground.rooms.keep_free(free_milli);
        let ledger = Ledger::on(Arc::new(ground), &question.objective)?;
        let mut seeker = Seeker::since(ledger, limits, &origin);
        if round < ROUNDS {
            search(&mut seeker, &each);
        } else {
            settle(&mut seeker, each.budget.work);
        }
        work += seeker.work();
        if !seeker.improved() {
            break;
        }
        found = (true, seeker.spots(), seeker.ledger().value());
    }
    let (_, spots, value) = found;
    Ok(Target {
        spots,
        before,
        after: value,
        work,
        free_milli,
    })
}

/// A world with its domains on other spots, and nothing else changed: what they use of processors is as much work as it
/// was, on cores that may be faster or slower.
pub fn after(world: &World, spots: &[Spot]) -> World {
    let mut next = world.clone();
    let place = |host: HostIx| (host.at() < world.hosts.len()).then_some(host);
    for (domain, spot) in next.domains.iter_mut().zip(spots) {
        // What has no place is counted on common cores. Rounded down: what had room still has.
        let speed = |host: Option<HostIx>| {
            host.map_or(1000, |host| world.hosts[host].core_speed_milli.max(1))
        };
        let (from, to) = (speed(domain.host), speed(place(spot.host)));
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
        domain.host = place(spot.host);
        domain.replica = place(spot.replica);
    }
    next
}

/// A world in which a plan was carried out: as [`after`] its steps, with hosts on and off as it leaves them.
pub fn carried_out(world: &World, plan: &Plan) -> World {
    reached(world, &plan.steps)
}

fn reached(world: &World, steps: &[Step]) -> World {
    let mut spots = spots_of(world);
    let nowhere = HostIx::of(world.hosts.len());
    let mut hosts = world.hosts.clone();
    for step in steps {
        match step.act {
            Act::Move { domain, to, .. } => {
                let spot = &mut spots[domain.at()];
                if spot.replica != nowhere {
                    spot.replica = spot.host;
                }
                spot.host = to;
            }
            Act::Place { domain, to } => spots[domain.at()].host = to,
            Act::MoveReplica { domain, to, .. } => spots[domain.at()].replica = to,
            Act::SwitchOn { host } => hosts[host.at()].state = HostPower::On,
            Act::SwitchOff { host } => hosts[host.at()].state = HostPower::Off,
        }
    }
    let mut next = after(world, &spots);
    next.hosts = hosts;
    next
}

/// Answers a question.
///
/// Where the rules say that a host may fail and there are domains without a replica, the budget is shared by up to four searches:
/// each keeps more of every host free, and the first is taken whose end leaves a place for all that one host would leave.
///
/// # Errors
/// A question that cannot be answered, in words.
pub fn plan(world: &World, question: &Question) -> Result<Plan, String> {
    let ground = Arc::new(Ground::new(world, wakes(&question.objective)));
    let mut ledger = Ledger::on(Arc::clone(&ground), &question.objective)?;
    let Found {
        steps, left, work, ..
    } = until_nothing_more(world, question)?;
    let mut report = Report {
        before: ledger.value().ranks[0],
        broken: broken::words(&ledger),
        duration_s: duration_s(&steps),
        bytes: Carried::by(world, &steps).bytes,
        ..Report::default()
    };
    let parts = ledger.gauge().parts();
    let mut steps: Vec<Step> = steps
        .into_iter()
        .map(|step| follow(&mut ledger, step))
        .collect();
    make_room(&mut steps);
    report.after = ledger.value().ranks[0];
    report.parts = (parts.into_iter().zip(ledger.gauge().parts()))
        .map(|((name, before), (_, after))| (name, before, after))
        .collect();
    report.still_broken = broken::hindrances(&ledger);
    let start = Ledger::on(Arc::clone(&ground), &question.objective)?;
    report.alternatives = alternatives(start, ledger.books().places.spots());
    report.hindrances = left;
    let plan = Plan {
        world: world.digest(),
        objective: question.objective.to_text(world),
        seed: question.seed,
        work,
        steps,
        report,
    };
    Ok(with_nothing_because(&ground, question, plan))
}

fn with_nothing_because(ground: &Ground<'_>, question: &Question, mut plan: Plan) -> Plan {
    if plan.steps.is_empty() {
        plan.report.nothing_because = Some(nothing_because(ground, question, &plan));
    }
    plan
}

/// Why there is nothing to do, in words: what is nearest to the reason.
fn nothing_because(ground: &Ground<'_>, question: &Question, plan: &Plan) -> String {
    let world = ground.world;
    if !plan.report.hindrances.is_empty() {
        return "there is no way to what would gain".to_owned();
    }
    let limits = [
        question.moves_at_most.map(u64::from),
        question.bytes_at_most,
        question.memory_bytes_at_most,
    ];
    if limits.contains(&Some(0)) {
        return "nothing may be moved by what was asked".to_owned();
    }
    let mut all = (0..world.domains.len()).map(DomainIx::of);
    if !world.domains.is_empty() && all.all(|domain| ground.still(domain).is_some()) {
        return "no domain may be moved now".to_owned();
    }
    let hysteresis = &world.rules.hysteresis;
    let worth = format!(
        "no change{} gains {} ppm of one host's part in {:.4} and its own time over {} s",
        if limits == [None; 3] {
            ""
        } else {
            " within the limits that were asked for"
        },
        hysteresis.gain_at_least_ppm,
        plan.report.before,
        hysteresis.pays_back_within_s
    );
    if plan.report.still_broken.is_empty() {
        worth
    } else {
        format!("nothing mends what is broken, and {worth}")
    }
}

/// Steps that were found, and what was not.
struct Found {
    steps: Vec<Step>,
    left: Vec<Hindrance>,
    work: u64,
    /// Whether they do not end where a search would have ended that found nothing more.
    is_short: bool,
}

/// Steps after which the same question has no answer any more: where the way falls short of its target, it is asked again from
/// where it ends, and those steps are put behind it.
fn until_nothing_more(world: &World, question: &Question) -> Result<Found, String> {
    let runs = runs(world);
    let mut found = once(world, question, &runs)?;
    for _ in 0..GOINGS_ON {
        if !found.is_short || found.steps.is_empty() {
            break;
        }
        let next = reached(world, &found.steps);
        let more = once(&next, &within(world, question, &found.steps), &runs)?;
        found.work += more.work;
        found.is_short = more.is_short;
        if more.steps.is_empty() {
            break;
        }
        found.left = more.left;
        follow_up(&mut found.steps, more.steps);
    }
    Ok(found)
}

fn once(world: &World, question: &Question, runs: &[Option<HostIx>]) -> Result<Found, String> {
    let ground = Ground::running(world, wakes(&question.objective), &self::runs(world), runs);
    let target = that_survives(&ground, question, runs)?;
    let Way { steps, left } = way::to(&ground, question, &target.spots);
    Ok(Found {
        is_short: !left.is_empty() || target.free_milli > 0,
        steps,
        left,
        work: target.work,
    })
}

/// A question with what some steps leave of its limits.
fn within(world: &World, question: &Question, steps: &[Step]) -> Question {
    let replicas = (steps.iter()).filter(|step| matches!(step.act, Act::MoveReplica { .. }));
    let carried = Carried::by(world, steps);
    let moves = u32::try_from(carried.moves + replicas.count() as u64).unwrap_or(u32::MAX);
    let less = |most: Option<u64>, by: u64| most.map(|most| most.saturating_sub(by));
    Question {
        moves_at_most: question
            .moves_at_most
            .map(|most| most.saturating_sub(moves)),
        bytes_at_most: less(question.bytes_at_most, carried.bytes),
        memory_bytes_at_most: less(question.memory_bytes_at_most, carried.memory_bytes),
        ..question.clone()
    }
}

/// Puts steps behind others: those that wait for nothing wait for all that nothing waits for yet.
fn follow_up(steps: &mut Vec<Step>, more: Vec<Step>) {
    let count = steps.len();
    let mut is_last = vec![true; count];
    for step in steps.iter() {
        for earlier in &step.after {
            is_last[earlier.at()] = false;
        }
    }
    let last: Vec<StepIx> = (0..count)
        .filter(|&at| is_last[at])
        .map(StepIx::of)
        .collect();
    for mut step in more {
        if step.after.is_empty() {
            step.after.clone_from(&last);
        } else {
            for earlier in &mut step.after {
                *earlier = StepIx::of(earlier.at() + count);
            }
        }
        steps.push(step);
    }
}

/// The target after which a host may fail, if the rules say so and one is found; else the last that was.
fn that_survives(
    ground: &Ground<'_>,
    question: &Question,
    runs: &[Option<HostIx>],
) -> Result<Target, String> {
    let world = ground.world;
    if !way::must_survive(world) {
        return keeping_free(world, question, 0, runs);
    }
    let each = Question {
        budget: crate::Budget {
            work: question.budget.work / FREE_MILLI.len() as u64,
        },
        ..question.clone()
    };
    let mut work = 0;
    let mut found = None;
    for free_milli in FREE_MILLI {
        let mut target = keeping_free(world, &each, free_milli, runs)?;
        work += target.work;
        target.work = work;
        let survives = way::survives(ground, &target.spots);
        found = Some(target);
        if survives {
            break;
        }
    }
    found.ok_or_else(|| "nothing was looked for".to_owned())
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
    let broken = broken::by_domain(ledger, domain);
    let misplaced = broken::by_place(ledger, domain).is_some();
    let from = ledger.spot(domain).host;
    let room = ledger.books().beyond(from);
    ledger.apply(Change { domain, to });
    let now = ledger.value();
    if !matches!(step.reason, Reason::Asked { .. } | Reason::Gains { .. }) {
        return step;
    }
    // Who leaves where he must not be ahead of those that he must be with mends that, though they are apart meanwhile.
    let leaves = misplaced && broken::by_place(ledger, domain).is_none();
    step.reason = if now.broken < before.broken || leaves {
        let beside = room.filter(|_| ledger.books().beyond(from).is_none() || broken.is_none());
        let rules: Vec<String> = broken.into_iter().chain(beside).collect();
        let rule = match &rules[..] {
            [] => format!(
                "{} is in others' way",
                ledger.ground().world.domains[domain].name
            ),
            all => all.join("; "),
        };
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

/// A move that gains nothing itself, but leaves room that a later step waits for, is made for that.
fn make_room(steps: &mut [Step]) {
    for number in 0..steps.len() {
        let step = &steps[number];
        let Act::Move { from, .. } = step.act else {
            continue;
        };
        let gains_nothing =
            matches!(step.reason, Reason::Gains { before, after, .. } if after >= before);
        let comes = |later: &Step| match later.act {
            Act::Move { domain, to, .. } | Act::Place { domain, to }
                if to == from && later.after.iter().any(|step| step.at() == number) =>
            {
                Some(domain)
            }
            _ => None,
        };
        if gains_nothing && let Some(for_domain) = steps[number + 1..].iter().find_map(comes) {
            steps[number].reason = Reason::MakesRoom { for_domain };
        }
    }
}

fn biggest_part(ledger: &Ledger<'_>, before: f64, after: f64) -> String {
    let part = (ledger.gauge().parts().into_iter())
        .max_by(|one, other| one.1.total_cmp(&other.1))
        .map_or(String::new(), |(name, value)| {
            format!("; most of what is left is {name}: {value:.4}")
        });
    format!("{before:.6} to {after:.6}{part}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn what_has_no_place_is_as_much_work_where_it_comes_to() {
        let mut fast = samples::host("fast", [8, 8192, 0, 0]);
        fast.core_speed_milli = 1600;
        let mut asks = samples::domain("asks", None, [1, 1024, 0, 0]);
        asks.used.0[0] = 800_000;
        let world = samples::world(vec![fast], vec![asks]);
        let here = Spot {
            host: HostIx(0),
            replica: HostIx(1),
        };
        let there = after(&world, &[here]);
        assert_eq!(there.domains[0].used.0[0], 500_000);
        let back = after(&there, &spots_of(&world));
        assert_eq!(back.domains[0].used, world.domains[0].used);
    }
}
