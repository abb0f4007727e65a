//! Answers as text, to be read by a person and compared by a machine.

use std::fmt::Write as _;

use estive_planner::{Capacity, Ledger, NoPlace, Overbooking, Placed};
use estive_world::{Act, Domain, DomainIx, Figures, HostIx, HostPower, Plan, Reason, World};

/// Lines, each with its end.
pub fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}

/// A plan; the ledger is at the world's state, and then at the plan's end.
pub fn plan(ledger: &mut Ledger<'_>, plan: &Plan) -> String {
    let world = ledger.ground().world;
    let report = &plan.report;
    let mut steps = Vec::new();
    let start = values(ledger);
    for (number, step) in plan.steps.iter().enumerate() {
        let before = values(ledger);
        if let Some(change) = super::change(ledger, &step.act) {
            ledger.apply(change);
        }
        let because = match &step.reason {
            Reason::Repairs { rule } => format!("mends: {rule}"),
            Reason::Gains { .. } => format!("{before} to {}", values(ledger)),
            Reason::MakesRoom { for_domain } => {
                format!("makes room for {}", world.domains[*for_domain].name)
            }
            Reason::Serves { what } | Reason::Asked { what } => what.clone(),
        };
        let after: Vec<String> = (step.after.iter())
            .map(|step| (step.0 + 1).to_string())
            .collect();
        let after = match &after[..] {
            [] => String::new(),
            all => format!(" after {}", all.join(", ")),
        };
        let number = number + 1;
        let (act, figures) = (act(world, &step.act), figures(&step.figures));
        steps.push(format!("{number}. {act}{after}: {because}{figures}"));
    }
    let mut text = format!("{}: {start} to {}\n", plan.objective, values(ledger));
    text.push_str(&lines(steps));
    if plan.steps.len() > 1 {
        let mib = report.bytes >> 20;
        writeln!(text, "in all {:.0} s, {mib} MiB", report.duration_s).unwrap();
    }
    let broken = report
        .broken
        .iter()
        .map(|what| format!("was broken: {what}"));
    text.push_str(&lines(broken));
    let still = (report.still_broken.iter()).map(|still| format!("stays broken: {}", still.what));
    text.push_str(&lines(still));
    let hindrances = (report.hindrances.iter()).map(|way| format!("in the way: {}", way.what));
    text.push_str(&lines(hindrances));
    let nothing = (report.nothing_because.iter()).map(|why| format!("nothing to do: {why}"));
    text.push_str(&lines(nothing));
    text
}

/// What each rank of the objective is now.
fn values(ledger: &Ledger<'_>) -> String {
    let ranks = &ledger.value().ranks[..ledger.gauge().count()];
    let ranks: Vec<String> = ranks.iter().map(|rank| format!("{rank:.4}")).collect();
    ranks.join(" | ")
}

fn figures(figures: &Figures) -> String {
    let Figures {
        duration_s,
        downtime_ms,
        bytes,
        ..
    } = figures;
    match (*duration_s > 0.0, *bytes > 0) {
        (false, _) => String::new(),
        (true, false) => format!(" ({duration_s:.0} s)"),
        (true, true) => {
            let mib = bytes >> 20;
            format!(" ({duration_s:.0} s, stands still {downtime_ms:.0} ms, {mib} MiB)")
        }
    }
}

fn act(world: &World, act: &Act) -> String {
    let domain = |domain: DomainIx| &world.domains[domain].name;
    let host = |host: HostIx| &world.hosts[host].name;
    match *act {
        Act::Move {
            domain: what,
            from,
            to,
            pivot,
        } => {
            let aside = if pivot { " aside" } else { "" };
            let (what, from, to) = (domain(what), host(from), host(to));
            format!("{what} from {from}{aside} to {to}")
        }
        Act::Place { domain: what, to } => format!("{} starts on {}", domain(what), host(to)),
        Act::MoveReplica {
            domain: what,
            from,
            to,
        } => {
            let (what, from, to) = (domain(what), host(from), host(to));
            format!("replica of {what} from {from} to {to}")
        }
        Act::SwitchOn { host: what } => format!("{} on", host(what)),
        Act::SwitchOff { host: what } => format!("{} off", host(what)),
    }
}

/// Places that are given before anything moves.
pub fn placed(world: &World, placed: &Result<Vec<Placed>, NoPlace>) -> String {
    match placed {
        Ok(placed) => {
            let mut placed = placed.clone();
            placed.sort_by_key(|placed| placed.domain);
            lines(placed.iter().map(|placed| {
                let (domain, host) = (&world.domains[placed.domain], &world.hosts[placed.host]);
                let Placed { by, .. } = placed;
                let woken = match host.state {
                    HostPower::Off => ", once that is switched on",
                    _ => "",
                };
                format!("{} on {}{woken}: {by:+.4}", domain.name, host.name)
            }))
        }
        Err(none) => {
            let name = &world.domains[none.domain].name;
            let all = (none.hindrances.iter()).map(|way| format!("{} × {}", way.count, way.what));
            let all: Vec<String> = all.collect();
            format!("no place for {name}, so for none: {}\n", all.join("; "))
        }
    }
}

/// How many more.
pub fn capacity(world: &World, shape: &Domain, capacity: &Capacity) -> String {
    let at_least = if capacity.exact { "" } else { "at least " };
    let mut text = format!("{at_least}{} more like {}", capacity.more, shape.name);
    if capacity.more_when_on > 0 {
        let more = capacity.more_when_on;
        write!(text, ", {more} more on hosts that are off").unwrap();
    }
    if capacity.stopped_by_quota {
        text.push_str(", by the user's quota");
    }
    let hosts = (capacity.hosts.iter()).map(|of| {
        let host = &world.hosts[of.host].name;
        format!("  {host}: {}, then: {}", of.more, of.because)
    });
    text + "\n" + &lines(hosts)
}

/// How many may be sold.
pub fn overbooking(shape: &Domain, overbooking: &Overbooking) -> String {
    let Overbooking {
        sold,
        idle,
        may_be_sold,
        active_at_most,
        exact,
        ..
    } = overbooking;
    let at_least = if *exact { "" } else { "at least " };
    format!(
        "{sold} sold, {idle} of them idle: {at_least}{may_be_sold} like {} may be sold, \
         {active_at_most} of them active at once\n",
        shape.name
    )
}
