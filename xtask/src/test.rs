//! `./x test`: prepares what the suites need, then runs them one after another.
//!
//! Every suite runs, whatever the others said; each is bound, and killed with all its children when it is not done by
//! then. What cargo's test runner prints goes straight to standard output.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::binaries::{self, Profile, cargo};
use crate::failure::{Failure, Result};
use crate::machine;
use crate::progress::{Step, output};
use crate::setup::{self, Prepared};
use crate::suites::{self, Suite, What};

/// How a suite ended.
enum End {
    Passed,
    Failed(ExitStatus),
    TooLong(Duration),
}

struct Outcome {
    name: String,
    end: End,
    took: Duration,
}

pub fn test(wanted: &[String], list: bool) -> Result<()> {
    let mut suites = suites::all(&targets()?);
    if list {
        for suite in &suites {
            println!(
                "{:<24} {:>5} s at most{}",
                suite.name,
                suite.bound.as_secs(),
                if suite.guests { ", on guests" } else { "" }
            );
        }
        return Ok(());
    }
    let known: Vec<&str> = suites.iter().map(|suite| suite.name.as_str()).collect();
    if let Some(stranger) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(Failure::Unfit(format!(
            "no suite is called '{stranger}'; there are: {}",
            known.join(" ")
        )));
    }
    suites.retain(|suite| wanted.is_empty() || wanted.contains(&suite.name));

    let started = Instant::now();
    let environment = if suites.iter().any(|suite| suite.guests) {
        prepare()?
    } else {
        Vec::new()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::Spawn {
            doing: "starting the suites".into(),
            program: "a runtime".into(),
            source,
        })?;
    let built = runtime.block_on(run(
        "build",
        BUILD_BOUND,
        build_all(wanted.is_empty(), &suites),
        &[],
    ))?;
    let mut outcomes = vec![built];
    for suite in &suites {
        println!("\nsuite {}", suite.name);
        let outcome = runtime.block_on(run(
            &suite.name,
            suite.bound,
            cargo_test(suite),
            &environment,
        ))?;
        println!(
            "suite {} {} in {:.1} s",
            outcome.name,
            outcome.end.spelled(),
            outcome.took.as_secs_f64()
        );
        outcomes.push(outcome);
    }
    summary(&outcomes, started.elapsed())
}

/// From nothing, on two slow cores.
const BUILD_BOUND: Duration = Duration::from_secs(2400);

impl End {
    fn spelled(&self) -> String {
        match self {
            End::Passed => "passed".into(),
            End::Failed(status) => format!("FAILED ({status})"),
            End::TooLong(bound) => format!("FAILED (killed after {} s)", bound.as_secs()),
        }
    }
}

fn summary(outcomes: &[Outcome], took: Duration) -> Result<()> {
    println!("\nseconds  suite");
    for outcome in outcomes {
        println!(
            "{:>7.1}  {:<24} {}",
            outcome.took.as_secs_f64(),
            outcome.name,
            outcome.end.spelled()
        );
    }
    println!("{:>7.1}  all, with their preparation", took.as_secs_f64());
    let failed: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| !matches!(outcome.end, End::Passed))
        .map(|outcome| outcome.name.as_str())
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::Suites(failed.len(), failed.join(", ")))
    }
}

/// What the suites on guests are told.
fn prepare() -> Result<Vec<(&'static str, PathBuf)>> {
    let Prepared {
        kernel,
        reference_root,
        sealed,
        accel,
    } = setup::setup()?;
    let programs = binaries::guest_programs()?;
    let estive = binaries::estive(Profile::Dev)?;
    Ok(vec![
        ("ESTIVE_KERNEL_TREE", kernel.directory),
        ("ESTIVE_REFERENCE_ROOT", reference_root),
        ("ESTIVE_REFERENCE", sealed.path),
        ("ESTIVE_ACCEL", accel.as_str().into()),
        ("ESTIVE_INIT", programs.join("estive-init")),
        ("ESTIVE_GUEST_PROGRAMS", programs),
        ("ESTIVE_BIN", estive),
    ])
}

fn build_all(everything: bool, suites: &[Suite]) -> std::process::Command {
    println!("building the tests");
    let mut command = cargo("test");
    command.arg("--no-run");
    if everything || suites.iter().any(|suite| suite.what == What::Unit) {
        command.arg("--workspace");
    } else {
        for suite in suites {
            if let What::Target { package, target } = &suite.what {
                command.args(["-p", package, "--test", target]);
            }
        }
    }
    command
}

fn cargo_test(suite: &Suite) -> std::process::Command {
    let mut command = cargo("test");
    match &suite.what {
        What::Unit => command.args(["--workspace", "--lib", "--bins", "--no-fail-fast"]),
        What::Target { package, target } => command.args(["-p", package, "--test", target]),
    };
    if suite.guests {
        command.args(["--", "--test-threads=1"]);
    }
    command
}

/// Runs one command in a process group of its own, to its end or its bound.
///
/// When we are told to stop, the group is killed and so are we: nothing is left to wait for.
async fn run(
    name: &str,
    bound: Duration,
    mut command: std::process::Command,
    environment: &[(&'static str, PathBuf)],
) -> Result<Outcome> {
    let spawn = |source| Failure::Spawn {
        doing: format!("suite {name}"),
        program: "cargo".into(),
        source,
    };
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    if !machine::is_root() && !environment.is_empty() {
        let names: Vec<&str> = environment.iter().map(|(name, _)| *name).collect();
        let runner = format!("sudo --preserve-env={}", names.join(","));
        command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    }
    let mut interrupted = signal(SignalKind::interrupt()).map_err(spawn)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(spawn)?;
    let started = Instant::now();
    let mut command = tokio::process::Command::from(command);
    let mut child = command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(spawn)?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let end = tokio::select! {
        status = child.wait() => match status.map_err(spawn)? {
            status if status.success() => End::Passed,
            status => End::Failed(status),
        },
        () = tokio::time::sleep(bound) => End::TooLong(bound),
        _ = interrupted.recv() => return Err(stopped(group, &mut child).await),
        _ = terminated.recv() => return Err(stopped(group, &mut child).await),
    };
    if matches!(end, End::TooLong(_)) {
        kill(group);
        child.wait().await.map_err(spawn)?;
    }
    Ok(Outcome {
        name: name.into(),
        end,
        took: started.elapsed(),
    })
}

async fn stopped(group: Option<Pid>, child: &mut tokio::process::Child) -> Failure {
    kill(group);
    // Killed for certain: this wait ends.
    let _ = child.wait().await;
    Failure::Unfit("stopped".into())
}

/// Kills a suite with its children. It has not been waited for, so that its number is still its own.
fn kill(group: Option<Pid>) {
    let Some(group) = group else { return };
    if kill_process_group(group, Signal::KILL).is_err() || machine::is_root() {
        return;
    }
    // Tests on guests run as root, which we are not: sudo may end them.
    let step = Step::begin("ending the suite");
    let mut command = std::process::Command::new("sudo");
    if step
        .run(command.args([
            "kill",
            "-KILL",
            "--",
            &format!("-{}", group.as_raw_nonzero()),
        ]))
        .is_ok()
    {
        step.done("");
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Every file of a `tests/` directory, as (package, target).
fn targets() -> Result<Vec<(String, String)>> {
    let text = output(
        "listing the suites",
        cargo("metadata").args(["--no-deps", "--format-version", "1"]),
    )?;
    let metadata: Metadata = serde_json::from_str(&text).map_err(|source| Failure::Json {
        what: "cargo metadata".into(),
        source,
    })?;
    let mut pairs = Vec::new();
    for package in metadata.packages {
        for target in package.targets {
            if target.kind.iter().any(|kind| kind == "test") {
                pairs.push((package.name.clone(), target.name));
            }
        }
    }
    Ok(pairs)
}
