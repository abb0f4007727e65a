//! `./x demo` and `./x bench`: prepare this machine, build a release, and hand over to the testbed's program.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binaries::{self, Profile};
use crate::boot_parts;
use crate::cache;
use crate::failure::{Failure, Result};
use crate::machine;
use crate::setup::{self, Wanted};

pub struct Options {
    /// Another root than the one in the cache.
    pub reference: Option<PathBuf>,
    /// Leave everything up at the end.
    pub keep: bool,
    /// Only take down what was kept up.
    pub down: bool,
    /// How many live migrations.
    pub moves: u32,
}

pub fn demo(options: &Options) -> Result<()> {
    if options.down {
        let mut command = testbed_program(&binaries::estive(Profile::Release)?)?;
        command.arg("down");
        return hand_over(command);
    }
    let from = match &options.reference {
        Some(root) => Root::Other(root.canonicalize().map_err(|source| Failure::File {
            doing: "no reference at",
            path: root.clone(),
            source,
        })?),
        None => Root::Reference,
    };
    let (mut command, root, _) = prepared(&from, "demo", None)?;
    command.arg(format!("--moves={}", options.moves));
    if options.keep {
        command.arg("--keep");
    }
    if matches!(from, Root::Other(_)) && !is_full(&root) {
        println!(
            "plain      no systemd, nginx and sshd in it: its clones count as up when they answer ping"
        );
        command.arg("--plain");
    }
    hand_over(command)
}

pub fn bench(name: &str, runs: Option<u32>, modes: &[String]) -> Result<()> {
    let mut command = match name {
        "balance" => {
            let data = shared("balance/h20.data")?;
            setup::install_for_balance()?;
            let mut command = without_guests("bench-balance")?;
            command
                .arg("--clusters")
                .arg(data.parent().unwrap_or(&data));
            command
        }
        "fleet-plan" => without_guests("bench-fleet-plan")?,
        "layers" => without_guests("bench-layers")?,
        "power" => {
            let data = shared("power/planetlab-20110303.tar.gz")?;
            let mut command = without_guests("bench-power")?;
            command.arg("--data").arg(data);
            command
        }
        "read" => without_guests("bench-read")?,
        "plan-safety" => without_guests("bench-plan-safety")?,
        "seal" => {
            let root = setup::setup(Wanted::default())?.reference_root;
            let mut command = without_guests("bench-seal")?;
            command.arg("--root").arg(root);
            command
        }
        "traffic" => {
            setup::install_for_traffic()?;
            without_guests("bench-traffic")?
        }
        _ => guests_command(name, modes)?,
    };
    command
        .arg("--results")
        .arg(machine::repository().join("bench/results.jsonl"));
    if let Some(runs) = runs {
        command.arg(format!("--runs={runs}"));
    }
    hand_over(command)
}

/// Data of a benchmark that is kept beside the repository, not in it.
fn shared(name: &str) -> Result<PathBuf> {
    let path = machine::repository().join("../shared/bench").join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::Unfit(format!(
        "this benchmark needs {}, which is not here: put it there, or run another",
        path.display()
    )))
}

/// One that needs no guest, and nothing but the release.
fn without_guests(name: &str) -> Result<Command> {
    let estive = binaries::estive(Profile::Release)?;
    let mut command = testbed_program(&estive)?;
    command.arg(name).arg("--estive").arg(&estive);
    Ok(command)
}

fn guests_command(name: &str, modes: &[String]) -> Result<Command> {
    let from = match name {
        "work" => Root::Work,
        _ => Root::Reference,
    };
    let modes: Vec<&str> = modes
        .iter()
        .map(|mode| match mode.as_str() {
            "all" => "stateless,stateful,live",
            one => one,
        })
        .collect();
    let modes = modes.join(",");
    let ganesha = match modes.contains("ganesha") {
        true => {
            let wanted = Wanted {
                loaders_root: true,
                ..Wanted::default()
            };
            setup::setup(wanted)?.loaders
        }
        false => None,
    };
    let (mut command, root, kernel_tree) = prepared(&from, "bench", Some(name))?;
    if let Some(ganesha) = ganesha {
        command.arg("--ganesha-root").arg(ganesha.root);
    }
    command.arg("--programs").arg(binaries::guest_programs()?);
    command.arg("--kernel-tree").arg(kernel_tree);
    command.arg("--tree").arg(root);
    command.arg(format!("--mode={modes}"));
    Ok(command)
}

/// What the clones share.
enum Root {
    /// The reference made here.
    Reference,
    /// What is there already.
    Other(PathBuf),
    /// The one that the benchmark `work` works in.
    Work,
}

/// Setup, release, sealed root: the testbed program's command, up to its own options; the root, the kernel's tree.
fn prepared(from: &Root, what: &str, name: Option<&str>) -> Result<(Command, PathBuf, PathBuf)> {
    let prepared = setup::setup(Wanted {
        work_root: matches!(from, Root::Work),
        ..Wanted::default()
    })?;
    let programs = binaries::guest_programs()?;
    let estive = binaries::estive(Profile::Release)?;
    let (root, image) = match (from, prepared.work) {
        (Root::Other(root), _) => (root.clone(), seal(root)?),
        (Root::Work, Some(work)) => (work.root, work.image),
        (Root::Reference | Root::Work, _) => (prepared.reference_root, prepared.sealed),
    };
    let kernel_tree = prepared.kernel.directory;
    let parts = boot_parts::prepare(&root, &kernel_tree, &programs.join("estive-init"))?;
    println!("reference  {}", root.display());
    println!("sealed     {}", image.display());
    println!("kernel     {} ({})", parts.kernel.display(), parts.whose);
    println!("guests     run on {}", prepared.accel.as_str());
    let mut command = testbed_program(&estive)?;
    command.arg(what).args(name);
    for (option, path) in [
        ("--estive", estive.as_path()),
        ("--image", &image),
        ("--kernel", &parts.kernel),
        ("--initramfs", &parts.initramfs),
        ("--modules", &parts.modules),
        ("--herd", &machine::repository().join("examples/first-herd")),
    ] {
        command.arg(option).arg(path);
    }
    command.arg(format!("--accel={}", prepared.accel.as_str()));
    Ok((command, root, kernel_tree))
}

/// Seals another root into the cache: the same tree gives the same file, so a second run finds it by its digest.
fn seal(root: &Path) -> Result<PathBuf> {
    let out = cache::directory()?.join("sealed-others");
    let step = crate::progress::Step::begin(format!("sealing {}", root.display()));
    let options = estive_exports::seal::SealOptions {
        leave_out: vec![cache::directory()?, machine::target_directory()],
        ..Default::default()
    };
    let sealed =
        estive_exports::seal::seal_with(root, &out, &options).map_err(|error| Failure::Seal {
            root: root.to_owned(),
            source: Box::new(error),
        })?;
    step.done("");
    Ok(sealed.path)
}

/// Can its clones be asked by HTTP and SSH?
fn is_full(root: &Path) -> bool {
    let has = |places: &[&str]| {
        places
            .iter()
            .any(|place| root.join(place).symlink_metadata().is_ok())
    };
    has(&["usr/lib/systemd/systemd", "lib/systemd/systemd"])
        && has(&["usr/sbin/nginx"])
        && has(&["usr/sbin/sshd"])
}

fn testbed_program(estive: &Path) -> Result<Command> {
    let program = estive.with_file_name("estive-demo");
    if machine::is_root() {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    Ok(command)
}

/// Becomes the program: whoever kills `./x demo` kills the demo.
fn hand_over(mut command: Command) -> Result<()> {
    let program = format!("{command:?}");
    let source = command.exec();
    Err(Failure::Spawn {
        doing: "showing it".into(),
        program,
        source,
    })
}
