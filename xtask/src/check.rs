//! `./x check`: format, clippy, tidy and licences. All of them run, whatever the first says.

use std::process::{Command, Stdio};

use crate::binaries::cargo;
use crate::failure::{Failure, Result};
use crate::licences;
use crate::machine;
use crate::progress::Step;
use crate::tidy;

pub const NAMES: [&str; 4] = ["format", "clippy", "tidy", "licences"];

/// Runs the checks named, or all.
pub fn check(only: &[String]) -> Result<()> {
    let mut failed = Vec::new();
    for name in NAMES
        .into_iter()
        .filter(|name| only.is_empty() || only.iter().any(|one| one == name))
    {
        let outcome = match name {
            "format" => watch(name, &mut format()),
            "clippy" => watch(name, &mut clippy()),
            "tidy" => tidy::tidy(),
            _ => check_licences(),
        };
        if let Err(failure) = outcome {
            eprintln!("x: {name}: {}", failure.chain());
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::Checks(failed.len(), failed.join(", ")))
}

fn format() -> Command {
    // `cargo fmt` knows no --locked.
    let mut command = Command::new("cargo");
    command
        .current_dir(machine::repository())
        .args(["fmt", "--all", "--check"]);
    command
}

fn clippy() -> Command {
    let mut command = cargo("clippy");
    command.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);
    command
}

/// Runs a check that prints for itself.
fn watch(name: &str, command: &mut Command) -> Result<()> {
    let step = Step::begin(name);
    step.pause();
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|source| Failure::Spawn {
            doing: name.into(),
            program: "cargo".into(),
            source,
        })?;
    if status.success() {
        step.done("");
        return Ok(());
    }
    let tail =
        "see above; where cargo does not know the command: rustup component add rustfmt clippy"
            .into();
    Err(Failure::Ended {
        doing: name.into(),
        command: format!("the check {name}"),
        status,
        tail,
    })
}

fn check_licences() -> Result<()> {
    if machine::program("cargo-deny").is_some() {
        let mut deny = Command::new("cargo-deny");
        deny.current_dir(machine::repository())
            .args(["--locked", "check", "licenses", "bans", "sources"]);
        return watch("licences", &mut deny);
    }
    let step = Step::begin("licences");
    let problems = licences::problems()?;
    for problem in &problems {
        println!("{problem}");
    }
    if problems.is_empty() {
        step.done("");
        return Ok(());
    }
    Err(Failure::Unfit(format!("{} problems", problems.len())))
}
