//! Never twice: each process is killed at each named step of start, stop, migrate, save and restore, on a real guest; and
//! at each step of who may open a volume, on one that keeps its state.
//!
//! A witness at the switch's ports hears the guest's numbered beats all the time. Nobody but the test restarts anything.
//! After each case the domain runs once or not at all, `estive show` says so, and the next `estive migrate` works.
//! Which cases there are stands in `cases`, how one is played in `field`, what must hold in `truth`.
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
mod common;

mod cases;
mod field;
mod kept;
mod truth;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use field::Field;

#[test]
fn whatever_is_killed_a_domain_never_runs_twice() {
    common::on_guests("inside_kills");
}

/// What steps are of.
const ORDERS: [&str; 8] = [
    "start", "stop", "up", "move", "command", "save", "restore", "volume",
];

/// The names of steps in the text of a crate.
fn steps_in(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            steps_in(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let is_step = |word: &&str| {
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            word.split_once('.')
                .is_some_and(|(order, step)| ORDERS.contains(&order) && step.chars().all(plain))
        };
        found.extend(text.split('"').filter(is_step).map(str::to_owned));
    }
}

#[test]
fn no_step_is_forgotten() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut steps = BTreeSet::new();
    for name in ["agent", "manager", "cli", "volumes"] {
        steps_in(&crates.join(name).join("src"), &mut steps);
    }
    let killed_at: BTreeSet<String> = cases::steps().map(str::to_owned).collect();
    assert_eq!(steps, killed_at);
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_kills() {
    // A part of them, when one is looked into.
    let wanted = std::env::var("ESTIVE_KILLS").unwrap_or_default();
    let all = cases::all();
    let chosen: Vec<_> = all
        .iter()
        .filter(|case| case.to_string().contains(&wanted))
        .collect();
    let mut field = Field::start().await;
    let mut failed = Vec::new();
    for (index, case) in chosen.iter().enumerate() {
        let began = Instant::now();
        let verdict = field.play(case).await;
        let said = match &verdict {
            Ok(()) => format!("so it is: {}", case.ends),
            Err(why) => format!("NOT SO: {why}"),
        };
        println!(
            "case {:>2} of {}, {:>4.1} s: {case}; {said}",
            index + 1,
            chosen.len(),
            began.elapsed().as_secs_f64()
        );
        if let Err(why) = verdict {
            failed.push(format!("{case}: {why}"));
            if let Err(why) = field.recover().await {
                failed.push(format!(
                    "the cases after that were not played, since it could not be put right: {why}"
                ));
                break;
            }
        }
    }
    if failed.is_empty() && wanted.is_empty() {
        field.assert_seen();
    }
    assert!(
        failed.is_empty(),
        "{} cases failed:\n  {}",
        failed.len(),
        failed.join("\n  ")
    );
    field.notices_what_runs_twice().await.unwrap();
    field.stop().await;
}
