//! The demo and the benchmarks: each in an outer namespace of its own, taken down by the kernel whatever dies.
#![allow(
    clippy::disallowed_methods,
    reason = "shows and measures: nothing here is replayed in simulation"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use estive_testbed::bed::{BedConfig, BedReference};
use estive_testbed::bench::balance::{self, BalanceConfig};
use estive_testbed::bench::fleet_plan::{self, FleetPlanConfig};
use estive_testbed::bench::layers::{self, LayersConfig};
use estive_testbed::bench::plan_safety::{self, PlanSafetyConfig};
use estive_testbed::bench::power::{self, PowerConfig};
use estive_testbed::bench::read::{self, ReadConfig};
use estive_testbed::bench::seal::{self, SealConfig};
use estive_testbed::bench::traffic::{self, TrafficConfig};
use estive_testbed::bench::{self, BenchConfig, Mode};
use estive_testbed::demo::{self, DemoConfig};
use estive_testbed::outer::{self, INSIDE};
use estive_testbed::{Error, Kept, Outer};

#[derive(Parser)]
#[command(about = "The demo and the benchmarks, in an outer namespace")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A herd comes up, one clone is moved under load
    Demo(Demo),
    /// One benchmark of guests
    Bench(Bench),
    /// The benchmark of layers, which needs no guests
    BenchLayers(WithoutGuests),
    /// The benchmark of reading a root through a host's cache, which needs no guests either
    BenchRead(WithoutGuests),
    /// The benchmark of sealing a root, neither
    BenchSeal {
        #[command(flatten)]
        bench: WithoutGuests,
        /// The root to seal
        #[arg(long)]
        root: PathBuf,
    },
    /// The benchmark of policies that save energy: a replayed day
    BenchPower {
        #[command(flatten)]
        bench: WithoutGuests,
        /// The day's traces, a compressed archive
        #[arg(long)]
        data: PathBuf,
    },
    /// The benchmark of placing domains by who talks to whom, neither
    BenchTraffic {
        #[command(flatten)]
        bench: WithoutGuests,
        /// Only these counts of domains
        #[arg(long, value_delimiter = ',')]
        counts: Vec<u32>,
    },
    /// The benchmark of plans that are safe in every order, neither
    BenchPlanSafety(WithoutGuests),
    /// The benchmark of balancing clusters beside hbal, neither
    BenchBalance {
        #[command(flatten)]
        bench: WithoutGuests,
        /// The folder of clusters
        #[arg(long)]
        clusters: PathBuf,
    },
    /// The benchmark of planning for large fleets, neither
    BenchFleetPlan(WithoutGuests),
    /// Take a demo that was kept up down
    Down,
}

#[derive(Args)]
struct Parts {
    /// The `estive` program
    #[arg(long)]
    estive: PathBuf,
    /// Sealed root
    #[arg(long)]
    image: PathBuf,
    /// Kernel
    #[arg(long)]
    kernel: PathBuf,
    /// Initial RAM file system
    #[arg(long)]
    initramfs: PathBuf,
    /// Image of the kernel's modules
    #[arg(long)]
    modules: PathBuf,
    /// `tcg` or `kvm`
    #[arg(long, default_value = "tcg")]
    accel: String,
    /// Folder of the herd
    #[arg(long)]
    herd: PathBuf,
}

#[derive(Args)]
struct Demo {
    #[command(flatten)]
    parts: Parts,
    /// How many moves
    #[arg(long, default_value_t = 10)]
    moves: u32,
    /// Stay up at the end
    #[arg(long)]
    keep: bool,
    /// The root has no systemd, nginx or sshd: clones only come up, and answer ping
    #[arg(long)]
    plain: bool,
}

#[derive(Args)]
struct Bench {
    /// boot, migrate, downtime, lost, pre-copy, rootfs, work
    name: String,
    #[command(flatten)]
    parts: Parts,
    /// Directory of the static guest programs
    #[arg(long)]
    programs: PathBuf,
    /// A kernel with its modules
    #[arg(long)]
    kernel_tree: PathBuf,
    /// The tree that the reference was sealed from
    #[arg(long)]
    tree: PathBuf,
    /// File to which the result is appended
    #[arg(long)]
    results: PathBuf,
    /// How many runs; each benchmark has its own default
    #[arg(long)]
    runs: Option<u32>,
    /// How clones have their root and keep what they write; several beside one peer
    #[arg(long, value_enum, value_delimiter = ',', default_value = "stateless")]
    mode: Vec<Mode>,
    /// A root with NFS-Ganesha in it, for the mode of that name
    #[arg(long)]
    ganesha_root: Option<PathBuf>,
}

#[derive(Args)]
struct WithoutGuests {
    /// The `estive` program
    #[arg(long)]
    estive: PathBuf,
    /// File to which the result is appended
    #[arg(long)]
    results: PathBuf,
    /// How many runs
    #[arg(long)]
    runs: Option<u32>,
}

fn main() -> ExitCode {
    outer::enter_if_asked();
    let ended = match Arguments::parse().command {
        Command::Demo(demo) if outer::is_inside() => inside(demo_inside(demo)),
        Command::Bench(bench) if outer::is_inside() => inside(bench_inside(bench)),
        Command::Demo(Demo {
            keep: true, parts, ..
        }) => keep(&parts),
        Command::Demo(_) | Command::Bench(_) => again().run(),
        Command::BenchLayers(bench) => layers::run(&LayersConfig {
            estive: bench.estive,
            results: bench.results,
            runs: bench.runs,
        })
        .map(|()| 0),
        Command::BenchRead(bench) => read::run(&ReadConfig {
            estive: bench.estive,
            results: bench.results,
            runs: bench.runs,
        })
        .map(|()| 0),
        Command::BenchSeal { bench, root } => seal::run(&SealConfig {
            estive: bench.estive,
            root,
            results: bench.results,
            runs: bench.runs,
        })
        .map(|()| 0),
        Command::BenchPower { bench, data } => power::run(&PowerConfig {
            data,
            results: bench.results,
            runs: bench.runs,
        })
        .map(|()| 0),
        Command::BenchTraffic { bench, counts } => traffic::run(&TrafficConfig {
            results: bench.results,
            runs: bench.runs,
            counts,
        })
        .map(|()| 0),
        Command::BenchPlanSafety(bench) => plan_safety::run(&PlanSafetyConfig {
            results: bench.results,
            runs: bench.runs,
        })
        .map(|()| 0),
        Command::BenchBalance { bench, clusters } => balance::run(&BalanceConfig {
            clusters,
            results: bench.results,
            runs: bench.runs,
        })
        .map(|()| 0),
        Command::BenchFleetPlan(bench) => fleet_plan::run(&FleetPlanConfig {
            results: bench.results,
            runs: bench.runs,
        })
        .map(|()| 0),
        Command::Down => down(),
    };
    match ended {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("{}", estive_testbed::error_chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// This same command, inside an outer namespace.
fn again() -> Outer {
    Outer::new(std::iter::once("/proc/self/exe".into()).chain(std::env::args_os().skip(1)))
}

fn inside(work: impl Future<Output = Result<i32, Error>>) -> Result<i32, Error> {
    debug_assert!(std::env::var_os(INSIDE).is_some());
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::system("making a runtime"))?
        .block_on(async {
            // Asked to end: what stands is dropped in order, and the kernel takes the rest.
            let mut terminate =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                    .map_err(Error::system("listening for signals"))?;
            tokio::select! {
                ended = work => ended,
                _ = terminate.recv() => Ok(130),
            }
        })
}

fn bed(parts: &Parts, plain: bool) -> Result<BedConfig, Error> {
    let tool = parts.estive.with_file_name("estive-bed");
    let sets = if plain {
        vec![]
    } else {
        vec!["base-debian".to_owned(), "web".to_owned()]
    };
    let reference = BedReference {
        image: parts.image.clone(),
        kernel: parts.kernel.clone(),
        initramfs: parts.initramfs.clone(),
        modules: parts.modules.clone(),
        sets,
        early: None,
    };
    let mut config = BedConfig::new(parts.estive.clone(), tool, reference);
    config.accel.clone_from(&parts.accel);
    Ok(config)
}

async fn demo_inside(demo: Demo) -> Result<i32, Error> {
    demo::run(DemoConfig {
        bed: bed(&demo.parts, demo.plain)?,
        herd: demo.parts.herd,
        moves: demo.moves,
        keep: demo.keep,
        full: !demo.plain,
    })
    .await
}

async fn bench_inside(bench: Bench) -> Result<i32, Error> {
    let mut bed = bed(&bench.parts, false)?;
    if bench.name == "boot" {
        // A root made by hand, sealed, for the clones whose boot is compared with that of the same root on ext4.
        let directory = std::path::Path::new(outer::WORK_DIRECTORY);
        let root = directory.join("bare-root");
        bench::bare_root(&bench.programs, &root)?;
        let sealed =
            estive_exports::seal::seal(&root, &directory.join("bare-sealed")).map_err(|error| {
                Error::system("sealing the root of the benchmark")(std::io::Error::other(error))
            })?;
        let mut reference = bed.references["default"].clone();
        reference.image = sealed.path;
        reference.sets = vec![];
        bed.references.insert("bare".to_owned(), reference);
    }
    if bench.mode.contains(&Mode::Stateful) {
        bed.volumes = Some(std::path::Path::new(outer::WORK_DIRECTORY).join("volumes"));
    }
    if ["rootfs", "work"].contains(&bench.name.as_str()) {
        // A clone of each mode is defined at a time, and one runs; root lines of their own need modules of their own.
        bed.capacity.memory_mib = 16 << 10;
        for reference in bed.references.values_mut() {
            reference.early = Some((
                bench.programs.join("estive-init"),
                bench.kernel_tree.clone(),
            ));
        }
    }
    if bench.mode.contains(&Mode::Live) {
        let name = Mode::LIVE_REFERENCE.to_owned();
        let reference = bed.references["default"].clone();
        bed.references.insert(name.clone(), reference);
        bed.live.insert(name, bench.tree.clone());
    }
    let config = BenchConfig {
        bed,
        programs: bench.programs,
        kernel_tree: bench.kernel_tree,
        tree: bench.tree,
        results: bench.results,
        runs: bench.runs,
        modes: bench.mode,
        ganesha_root: bench.ganesha_root,
    };
    bench::run(&bench.name, config).await
}

fn keep(parts: &Parts) -> Result<i32, Error> {
    match again().run_to_keep()? {
        Ok(mut kept) => {
            let socket = std::path::Path::new("/run/estive/manager.sock");
            kept.link(socket)?;
            let key =
                kept.outside_path(&std::path::Path::new(outer::WORK_DIRECTORY).join("ssh-key"));
            let estive = parts.estive.display();
            println!("== it stays up; try");
            println!("   {estive} ls");
            println!("   {estive} show clone03");
            println!("   {estive} boot clone03");
            println!("   {estive} migrate clone03 --to host2");
            println!("   {estive} console clone03");
            println!("   {estive} ssh clone03 -i {}", key.display());
            println!("   {estive} events");
            println!("   {estive} down first-herd");
            println!("   ./x demo --down          takes hosts, manager and all down");
            Ok(0)
        }
        Err(code) => Ok(code),
    }
}

fn down() -> Result<i32, Error> {
    match Kept::find()? {
        Some(kept) => kept.down().map(|()| 0),
        None => {
            println!("no demo is kept up");
            Ok(0)
        }
    }
}
