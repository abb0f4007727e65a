//! What `./x` calls: prepares a machine, checks and tests the repository, shows the demo, runs the benchmarks.
//!
//! The wall clock is read here directly: nothing in this program is replayed in simulation.
#![allow(clippy::disallowed_methods)]

mod apt;
mod apt_sources;
mod binaries;
mod boot_parts;
mod built_tests;
mod cache;
mod check;
mod demo;
mod failure;
mod kernel;
mod kvm;
mod licences;
mod machine;
mod progress;
mod recipe;
mod reference;
mod setup;
mod suites;
mod test;
mod tidy;
mod tidy_text;
mod virtiofsd;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Result;
use setup::Wanted;

#[derive(Parser)]
#[command(
    name = "x",
    about = "The one door to Estive's repository",
    disable_version_flag = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing; make the kernel, the reference root and its sealed image
    Setup {
        /// Also the roots and the kernel that only tests boot
        #[arg(long)]
        tests: bool,
        /// Also the kernel that only tests boot
        #[arg(long, hide = true)]
        generic_kernel: bool,
        /// Also the root with programs for disks that only tests boot
        #[arg(long, hide = true)]
        loaders: bool,
        /// Also the root that the benchmark `work` works in
        #[arg(long, hide = true)]
        work: bool,
    },
    /// A herd of four clones on three hosts, and live migrations under load
    Demo {
        /// Another root than the one made here; `/` is the running system itself
        #[arg(long, value_name = "DIR")]
        reference: Option<PathBuf>,
        /// Leave everything up at the end and say what to try
        #[arg(long)]
        keep: bool,
        /// How many live migrations
        #[arg(long, value_name = "N", default_value_t = 10)]
        moves: u32,
        /// Take down what --keep left up
        #[arg(long, conflicts_with_all = ["reference", "keep"])]
        down: bool,
    },
    /// Format, clippy, tidy and licences
    Check {
        /// Only these: format, clippy, tidy, licences
        #[arg(value_parser = check::NAMES)]
        only: Vec<String>,
    },
    /// Every suite, or those named
    Test {
        /// Names of suites; none means all
        suites: Vec<String>,
        /// Only print the names of the suites
        #[arg(long)]
        list: bool,
    },
    /// One benchmark
    Bench {
        /// boot, migrate, downtime, lost, rootfs, work, balance, fleet-plan, layers, power, read, seal, plan-safety or traffic
        name: String,
        /// How many runs; each benchmark has its own default
        #[arg(long)]
        runs: Option<u32>,
        /// How the clones of rootfs and work have their root and keep what they write; several, with commas between,
        /// beside one peer. all: stateless, stateful and live
        #[arg(
            long,
            value_parser = ["stateless", "stateful", "live", "ganesha", "all"],
            value_delimiter = ',',
            default_value = "stateless"
        )]
        mode: Vec<String>,
    },
    /// Only the house rules
    Tidy,
    /// Forget what was cached
    Clean {
        /// Also what was built
        #[arg(long)]
        builds: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("x: {}", failure.chain());
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup {
            tests,
            generic_kernel,
            loaders,
            work,
        } => setup::setup(Wanted {
            test_roots: tests,
            generic_kernel: tests || generic_kernel,
            loaders_root: tests || loaders,
            work_root: work,
        })
        .map(|prepared| prepared.print()),
        Command::Demo {
            reference,
            keep,
            moves,
            down,
        } => demo::demo(&demo::Options {
            reference,
            keep,
            down,
            moves,
        }),
        Command::Bench { name, runs, mode } => demo::bench(&name, runs, &mode),
        Command::Check { only } => check::check(&only),
        Command::Test { suites, list } => test::test(&suites, list),
        Command::Tidy => tidy::tidy(),
        Command::Clean { builds } => cache::clean(builds),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_help_of_the_door_names_every_command() {
        let door = include_str!("../../x");
        for command in super::Arguments::command().get_subcommands() {
            let line = format!("\n  {}", command.get_name());
            assert!(
                door.contains(&line),
                "./x help lacks {}",
                command.get_name()
            );
        }
    }
}
