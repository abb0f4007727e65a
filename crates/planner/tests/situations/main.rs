//! Named situations (`situations/NAME.world` at the root): each is asked its questions, and what comes out is held against
//! what came out when a person last looked. `INSTA_UPDATE=always` writes the answers anew, to be read before they are kept.

mod tell;

use std::path::PathBuf;

use estive_planner::{
    About, Asked, Change, Ledger, Placer, Question, Spot, Value, after, asked, capacity, lint,
    overbook, plan, why, why_not,
};
use estive_world::text::{self, Document};
use estive_world::{Act, HostPower, Indexed, Plan, World};

/// Name and text of each.
fn situations() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "world"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    all.sort();
    all
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../situations")
}

fn read<'a>(name: &str, source: &'a str) -> (Document<'a>, Vec<Asked>) {
    let document = text::read(source).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    let asks = asked(&document).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    assert!(!asks.is_empty(), "{name} asks nothing");
    (document, asks)
}

#[test]
fn situations_have_their_answers() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let _bound = settings.bind_to_scope();
    let all = situations();
    assert!(all.len() >= 60, "{} situations", all.len());
    let mut refused = Vec::new();
    for (name, source) in all {
        let (document, asks) = read(&name, &source);
        let answers: Vec<String> = (asks.iter())
            .map(|asked| {
                let title = match &asked.name[..] {
                    "" => String::new(),
                    title => format!("{title}:\n"),
                };
                title + &answer(&name, &document.world, asked, &mut refused)
            })
            .collect();
        insta::assert_snapshot!(name, answers.join("\n"));
    }
    assert!(
        refused.is_empty(),
        "refused by the linter: {}",
        refused.join("; ")
    );
}

fn answer(name: &str, world: &World, asked: &Asked, refused: &mut Vec<String>) -> String {
    let objective = &asked.question.objective;
    let ledger = || Ledger::new(world, objective).unwrap();
    match &asked.about {
        About::Plan => {
            let plan = plan(world, &asked.question).unwrap();
            let faults = lint(world, &plan);
            refused.extend(
                faults
                    .iter()
                    .map(|fault| format!("{name}: {}", fault.say(world))),
            );
            tell::plan(&mut ledger(), &plan)
        }
        About::Why(domain) => tell::lines(why(&ledger(), *domain)),
        About::WhyNot(domain, host) => tell::lines([why_not(&ledger(), *domain, *host)]),
        About::Place(domains) => {
            let mut placer = Placer::new(world, objective).unwrap();
            tell::placed(world, &placer.place_all(domains))
        }
        About::Capacity(domain) => {
            let shape = &world.domains[*domain];
            tell::capacity(world, shape, &capacity(world, shape, None))
        }
        About::Overbook(domain) => {
            let shape = &world.domains[*domain];
            let overbooking = overbook(world, shape);
            assert!(overbooking.check(), "{name}: {overbooking:?}");
            tell::overbooking(shape, &overbooking)
        }
    }
}

#[test]
fn what_was_carried_out_is_asked_for_no_more() {
    for (name, source) in situations() {
        let (document, asks) = read(&name, &source);
        for Asked { question, .. } in asks.iter().filter(|asked| asked.about == About::Plan) {
            let is_limited = question.moves_at_most.is_some() || question.bytes_at_most.is_some();
            let first = plan(&document.world, question).unwrap();
            let (before, end) = ends(&document.world, question, &first);
            let count = end.gauge().count();
            assert!(is_no_worse(&before, &end.value(), count), "{name}");
            // What found no way is sought again; what was cut off by a limit goes on.
            if is_limited || !first.report.hindrances.is_empty() {
                continue;
            }
            let next = carried_out(&document.world, &end, &first);
            let second = plan(&next, question).unwrap();
            assert!(second.steps.is_empty(), "{name}: {:#?}", second.steps);
        }
    }
}

/// The value before a plan, and where it ends.
fn ends<'w>(world: &'w World, question: &Question, plan: &Plan) -> (Value, Ledger<'w>) {
    let mut ledger = Ledger::new(world, &question.objective).unwrap();
    let before = ledger.value();
    for step in &plan.steps {
        if let Some(change) = change(&ledger, &step.act) {
            ledger.apply(change);
        }
    }
    (before, ledger)
}

/// Fewer rules are broken, or as many and the first rank that differs is lower.
fn is_no_worse(before: &Value, after: &Value, ranks: usize) -> bool {
    if before.broken != after.broken {
        return after.broken < before.broken;
    }
    let pairs = before.ranks.iter().zip(&after.ranks).take(ranks);
    pairs
        .map(|(before, after)| (before - after, before.abs() * 1e-9))
        .find(|(by, nothing)| by.abs() > *nothing)
        .is_none_or(|(by, _)| by > 0.0)
}

/// The world once a plan was carried out, with nothing else changed.
fn carried_out(world: &World, end: &Ledger<'_>, plan: &Plan) -> World {
    let spots: Vec<Spot> = (0..world.domains.len())
        .map(|domain| end.spot(Indexed::of(domain)))
        .collect();
    let mut next = after(world, &spots);
    for step in &plan.steps {
        match step.act {
            Act::SwitchOn { host } => next.hosts[host].state = HostPower::On,
            Act::SwitchOff { host } => next.hosts[host].state = HostPower::Off,
            _ => {}
        }
    }
    next
}

/// What a step makes of where a domain is.
fn change(ledger: &Ledger<'_>, act: &Act) -> Option<Change> {
    let (domain, to) = match *act {
        Act::Move { domain, to, .. } => {
            let now = ledger.spot(domain);
            let replica = if now.replica == to {
                now.host
            } else {
                now.replica
            };
            (domain, Spot { host: to, replica })
        }
        Act::Place { domain, to } => {
            let now = ledger.spot(domain);
            (domain, Spot { host: to, ..now })
        }
        Act::MoveReplica { domain, to, .. } => {
            let now = ledger.spot(domain);
            (domain, Spot { replica: to, ..now })
        }
        Act::SwitchOn { .. } | Act::SwitchOff { .. } => return None,
    };
    Some(Change { domain, to })
}
