//! Building what runs: the `estive` command, and the static programs that run inside guests.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::failure::{Failure, Result};
use crate::machine;
use crate::progress::Step;

/// The one target that guests run; named even where it is the host's own, so that flags stay off build scripts.
pub const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// How the command is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

/// Builds `estive`, and beside it the testbed's programs; returns where it is.
pub fn estive(profile: Profile) -> Result<PathBuf> {
    let (mut command, path) = estive_command(profile);
    build("building estive", &mut command)?;
    Ok(path)
}

/// The command that builds `estive`, and where that will be.
pub fn estive_command(profile: Profile) -> (Command, PathBuf) {
    let target = machine::target_directory();
    let mut command = cargo("build");
    command
        .args([
            "-p",
            "estive-cli",
            "-p",
            "estive-testbed",
            "--bins",
            "--target-dir",
        ])
        .arg(&target);
    let directory = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    (command, target.join(directory).join("estive"))
}

/// Builds `estive-init` and `estive-beat`, each one static file; returns their directory.
pub fn guest_programs() -> Result<PathBuf> {
    // A target directory of their own: other flags would make cargo build everything anew each time.
    let target = machine::target_directory().join("init");
    let mut command = cargo("build");
    command
        .args([
            "-p",
            "estive-init",
            "-p",
            "estive-beat",
            "--bins",
            "--profile",
            "init",
            "--target",
            GUEST_TARGET,
            "--target-dir",
        ])
        .arg(&target);
    // Neither dynamic linker nor libraries are there when PID 1 starts.
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.env(
        "RUSTFLAGS",
        "-C target-feature=+crt-static -C relocation-model=static",
    );
    build("building the guests' programs", &mut command)?;
    Ok(target.join(GUEST_TARGET).join("init"))
}

/// `cargo SUBCOMMAND --locked` in the repository.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(machine::repository())
        .args([subcommand, "--locked"])
        .stdin(Stdio::null());
    command
}

/// Runs a build with cargo's own progress shown: it is the best there is.
fn build(doing: &str, command: &mut Command) -> Result<()> {
    let step = Step::begin(doing);
    step.pause();
    let status = command.status().map_err(|source| Failure::Spawn {
        doing: doing.into(),
        program: "cargo".into(),
        source,
    })?;
    if status.success() {
        step.done("");
        return Ok(());
    }
    let tail = "see the compiler's messages above".into();
    Err(Failure::Ended {
        doing: doing.into(),
        command: "cargo build".into(),
        status,
        tail,
    })
}
