//! Named situations (`situations/NAME.world` at the root): each is asked its questions, and what comes out is held against
//! what came out when a person last looked. `INSTA_UPDATE=always` writes the answers anew, to be read before they are kept.

use std::fmt::Write as _;
use std::path::PathBuf;

use estive_planner::{asked, lint, plan};
use estive_world::text;
use estive_world::{Act, DomainIx, HostIx, Plan, Reason, World};

#[test]
fn situations_have_their_answers() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../situations");
    let mut names: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "world"))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(&folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let _bound = settings.bind_to_scope();
    for path in names {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let source = std::fs::read_to_string(&path).unwrap();
        let document = text::read(&source).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let mut answers = String::new();
        for asked in asked(&document).unwrap() {
            let plan = plan(&document.world, &asked.question).unwrap();
            let faults = lint(&document.world, &plan);
            assert!(faults.is_empty(), "{name}: {faults:?}");
            tell(&mut answers, &document.world, &plan);
        }
        insta::assert_snapshot!(name, answers);
    }
}

fn tell(text: &mut String, world: &World, plan: &Plan) {
    let report = &plan.report;
    writeln!(
        text,
        "{}: {:.4} to {:.4}",
        plan.objective, report.before, report.after
    )
    .unwrap();
    for (number, step) in plan.steps.iter().enumerate() {
        let after: Vec<String> = step
            .after
            .iter()
            .map(|step| (step.0 + 1).to_string())
            .collect();
        let after = if after.is_empty() {
            String::new()
        } else {
            format!(" after {}", after.join(", "))
        };
        writeln!(
            text,
            "{}. {}{after}: {}",
            number + 1,
            act(world, &step.act),
            because(&step.reason)
        )
        .unwrap();
    }
    for broken in &report.broken {
        writeln!(text, "was broken: {broken}").unwrap();
    }
    for still in &report.still_broken {
        writeln!(text, "stays broken: {}", still.what).unwrap();
    }
    if report.nothing_because.is_some() {
        writeln!(text, "nothing to do").unwrap();
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
            format!(
                "{} from {}{aside} to {}",
                domain(what),
                host(from),
                host(to)
            )
        }
        Act::Place { domain: what, to } => format!("{} starts on {}", domain(what), host(to)),
        Act::MoveReplica {
            domain: what,
            from,
            to,
        } => {
            format!(
                "replica of {} from {} to {}",
                domain(what),
                host(from),
                host(to)
            )
        }
        Act::SwitchOn { host: what } => format!("{} on", host(what)),
        Act::SwitchOff { host: what } => format!("{} off", host(what)),
    }
}

fn because(reason: &Reason) -> String {
    match reason {
        Reason::Repairs { rule } => format!("mends: {rule}"),
        Reason::Gains { before, after, .. } => format!("{before:.4} to {after:.4}"),
        Reason::MakesRoom { .. } => "makes room".to_owned(),
        Reason::Serves { what } | Reason::Asked { what } => what.clone(),
    }
}
