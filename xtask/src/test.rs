//! `./x test`: prepares what the suites need, then runs them one after another.
//!
//! Every suite runs, whatever the others said; each is bound, and killed with all its children when it is not done by
//! then. What cargo's test runner prints goes straight to standard output.

use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};

use crate::binaries::{self, Profile, cargo};
use crate::built_tests::{self, BuiltTest, Workspace};
use crate::failure::{Failure, Result};
use crate::machine;
use crate::progress::Step;
use crate::setup::{self, Prepared, TestRoots, Wanted};
use crate::suites::{self, Suite, What};

/// How a suite ended.
enum End {
    Passed,
    Failed(ExitStatus),
    TooLong(Duration),
    NotBuilt,
}

struct Outcome {
    name: String,
    end: End,
    took: Duration,
}

/// From nothing, on two slow cores.
const BUILD_BOUND: Duration = Duration::from_secs(2400);

pub fn test(wanted: &[String], list: bool) -> Result<()> {
    let workspace = Workspace::read()?;
    let mut suites = suites::all(&workspace.test_targets());
    if list {
        for suite in &suites {
            let guests = if suite.guests { ", on guests" } else { "" };
            println!(
                "{:<24} {:>5} s at most{guests}",
                suite.name,
                suite.bound.as_secs()
            );
        }
        return Ok(());
    }
    let known: Vec<&str> = suites.iter().map(|suite| suite.name.as_str()).collect();
    if let Some(stranger) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        let known = known.join(" ");
        return Err(Failure::Unfit(format!(
            "no suite is called '{stranger}'; there are: {known}"
        )));
    }
    suites.retain(|suite| wanted.is_empty() || wanted.contains(&suite.name));

    let started = Instant::now();
    let on_guests = suites.iter().any(|suite| suite.guests);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::Spawn {
            doing: "starting the suites".into(),
            program: "a runtime".into(),
            source,
        })?;
    let mut outcomes = Vec::new();
    let mut environment = Vec::new();
    if on_guests {
        environment = prepare(Wanted {
            test_roots: suites.iter().any(|suite| suite.roots),
            generic_kernel: suites.iter().any(|suite| suite.generic_kernel),
            loaders_root: suites.iter().any(|suite| suite.loaders_root),
            work_root: false,
        })?;
        // Dev, as the tests are. One that does not compile fails the run, and yet keeps no other suite from running.
        let (building, path) = binaries::estive_command(Profile::Dev);
        println!("building estive");
        outcomes.push(runtime.block_on(run("estive", BUILD_BOUND, building))?);
        environment.push(("ESTIVE_BIN", path));
    }
    println!("building the tests");
    let (building, tests) = built_tests::build(&suites)?;
    outcomes.push(runtime.block_on(run("build", BUILD_BOUND, building))?);
    let tests = tests.read(&workspace)?;
    for suite in &suites {
        println!("\nsuite {}", suite.name);
        let command = match &suite.what {
            What::Unit => Some(unit()),
            What::Target { package, target } => tests
                .get(package, target)
                .map(|test| start(test, suite, &environment)),
        };
        let outcome = match command {
            Some(command) => runtime.block_on(run(&suite.name, suite.bound, command))?,
            None => Outcome {
                name: suite.name.clone(),
                end: End::NotBuilt,
                took: Duration::ZERO,
            },
        };
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

impl End {
    fn spelled(&self) -> String {
        match self {
            End::Passed => "passed".into(),
            End::Failed(status) => format!("FAILED ({status})"),
            End::NotBuilt => "FAILED (not built)".into(),
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
fn prepare(wanted: Wanted) -> Result<Vec<(&'static str, PathBuf)>> {
    let Prepared {
        kernel,
        reference_root,
        sealed,
        accel,
        for_tests,
        generic_kernel,
        loaders,
        virtiofsd,
        work: _,
    } = setup::setup(wanted)?;
    let programs = binaries::guest_programs()?;
    let mut environment = vec![
        ("ESTIVE_KERNEL_TREE", kernel.directory),
        ("ESTIVE_REFERENCE_ROOT", reference_root),
        ("ESTIVE_REFERENCE", sealed),
        ("ESTIVE_ACCEL", accel.as_str().into()),
        ("ESTIVE_INIT", programs.join("estive-init")),
        ("ESTIVE_GUEST_PROGRAMS", programs),
    ];
    if let Some(TestRoots { sets, openrc }) = for_tests {
        environment.extend([
            ("ESTIVE_SETS_ROOT", sets.root),
            ("ESTIVE_SETS_REFERENCE", sets.image),
            ("ESTIVE_OPENRC_REFERENCE", openrc.image),
        ]);
    }
    if let Some(kernel) = generic_kernel {
        environment.push(("ESTIVE_GENERIC_KERNEL_TREE", kernel.directory));
    }
    if let Some(loaders) = loaders {
        environment.extend([
            ("ESTIVE_LOADERS_ROOT", loaders.root),
            ("ESTIVE_LOADERS_REFERENCE", loaders.image),
        ]);
    }
    if let Some(virtiofsd) = virtiofsd {
        environment.push(("ESTIVE_VIRTIOFSD", virtiofsd));
    }
    Ok(environment)
}

/// The tests beside the code, with the features that they were built with.
fn unit() -> Command {
    let mut command = cargo("test");
    command.args(["--workspace", "--lib", "--bins", "--no-fail-fast"]);
    command
}

/// One file of tests. It is started without cargo, which would choose other features for one package alone and build
/// everything anew; and as root, since such tests make namespaces and guests.
fn start(test: &BuiltTest, suite: &Suite, environment: &[(&'static str, PathBuf)]) -> Command {
    let mut command = Command::new(if machine::is_root() { "env" } else { "sudo" });
    if !machine::is_root() {
        command.arg("env");
    }
    let kept = ["PATH", "HOME", "ESTIVE_SEALS"]
        .into_iter()
        .filter_map(|name| Some((name, PathBuf::from(std::env::var_os(name)?))));
    let own = ("CARGO_MANIFEST_DIR", test.package_directory.clone());
    for (name, value) in kept.chain([own]).chain(environment.iter().cloned()) {
        command.arg(format!("{name}={}", value.display()));
    }
    command
        .arg(&test.executable)
        .current_dir(&test.package_directory);
    if suite.guests {
        command.arg("--test-threads=1");
    }
    command
}

/// Runs one command in a process group of its own, to its end or its bound.
///
/// When we are told to stop, the group is killed and so are we: nothing is left to wait for.
async fn run(name: &str, bound: Duration, command: Command) -> Result<Outcome> {
    let spawn = |source| Failure::Spawn {
        doing: format!("suite {name}"),
        program: "a test".into(),
        source,
    };
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
    let mut command = Command::new("sudo");
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
