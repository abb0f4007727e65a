//! `pre-copy`: what the planner expects of a live migration, held against real ones.
//!
//! A guest writes its memory at a known pace (`estive-dirty`) and is sent from one host's namespace to another's over a link
//! that is held to a rate, by two QEMUs with the command line, capabilities and parameters that agents give them. QEMU's own
//! statistics stand beside what `estive_planner::transfer` expects of the same memory, pace and link.

use std::path::{Path, PathBuf};
use std::time::Duration;

use estive_archive::{Kind, Member, Writer};
use estive_boot::KernelTree;
use estive_hypervisor::{Accel, MigrationParameters, QemuConfig, arguments};
use estive_model::{BlockSource, Checksummed, DomainName, DomainSpec, LAYER_DISK_BYTES};
use estive_planner::transfer::{self, Load, Transfer};
use serde::Serialize;
use serde_json::{Value, json};

use super::bare::{Bare, appears, problem};
use super::{BenchConfig, Spread, conclude, round};
use crate::instant::now_us;
use crate::topology::{Topology, host_address};
use crate::{Error, error_chain, outer};

const RUNS: u32 = 3;
const MEMORY_MIB: u64 = 256;
const TOUCHED_MIB: u64 = 112;
const FIRST_PORT: u16 = 51_000;
/// A migration that has not ended by then does not.
const MOST_S: u64 = 60;

/// One guest and one link.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    /// Of the link, line rate.
    link_bytes_per_s: u64,
    /// What the guest writes, KiB a second.
    pace_kib_per_s: u64,
    /// Over how much of its memory, in KiB.
    hot_kib: u64,
    /// Whether it needs its whole processor for that.
    is_busy: bool,
}

const fn busy(name: &'static str, link_mbit: u64, pace_mib: u64, hot_mib: u64) -> Case {
    Case {
        is_busy: true,
        ..case(name, link_mbit, pace_mib, hot_mib)
    }
}

const fn case(name: &'static str, link_mbit: u64, pace_mib: u64, hot_mib: u64) -> Case {
    Case {
        name,
        link_bytes_per_s: link_mbit * 125_000,
        pace_kib_per_s: pace_mib << 10,
        hot_kib: hot_mib << 10,
        is_busy: false,
    }
}

const CASES: &[Case] = &[
    case("idle", 400, 0, 0),
    case("a tenth of the link", 400, 5, 96),
    case("half of the link", 400, 24, 96),
    busy("half, busy", 400, 24, 96),
    busy("nine tenths, busy", 400, 43, 96),
    busy("twice the link, busy", 400, 96, 96),
    case("nine tenths, at leisure", 400, 43, 96),
    case("a hot part that fits a switch", 400, 200, 1),
    busy("a hot part that does not, busy", 400, 150, 12),
    case("a link four times as fast", 1600, 24, 96),
];

/// What one migration took.
#[derive(Debug, Clone, Serialize)]
struct Measured {
    touched_bytes: u64,
    /// What the guest said that it wrote in the first seconds of the move, or before it where that was over sooner.
    pace_bytes_per_s: f64,
    /// Of its processor's time: all of it by its nature, or as measured before.
    busy: f64,
    converged: bool,
    duration_s: f64,
    downtime_ms: f64,
    bytes: f64,
    passes: u64,
    throttled_percent: u64,
    /// Between the start of the target's QEMU and the order to send, and from the stream's end to the guest running.
    around_s: f64,
    qemu_dirty_bytes_per_s: u64,
}

/// Runs all cases; gives the exit code.
pub(super) async fn run(config: &BenchConfig) -> Result<i32, Error> {
    let topology = Topology::make(2).await?;
    let stage = Stage::make(config, topology)?;
    let runs = config.runs.unwrap_or(RUNS);
    let mut rows = Vec::new();
    let mut number = 0;
    for case in CASES {
        let mut measured = Vec::new();
        for _ in 0..runs {
            number += 1;
            let one = stage.migrate(case, number).await?;
            println!("{}: {one:?}", case.name);
            measured.push(one);
        }
        rows.push(row(case, &measured));
    }
    let worst = |key: &str| {
        (rows.iter())
            .filter_map(|row| row["ratio"][key]["median"].as_f64())
            .map(|ratio: f64| ratio.max(1.0 / ratio))
            .fold(1.0, f64::max)
    };
    let result = json!({
        "name": "pre-copy",
        "runs": runs,
        "ours": "the planner's model",
        "peer": "QEMU's own statistics",
        "ratio": round(worst("duration")),
        "worst": { "duration": round(worst("duration")), "bytes": round(worst("bytes")) },
        "cases": rows,
    });
    conclude(&result, &config.results).map(|()| 0)
}

/// What the model makes of one run's memory, pace and link.
fn model(case: &Case, one: &Measured) -> Transfer {
    let load = Load {
        memory_bytes: one.touched_bytes,
        dirtied_bytes_per_s: one.pace_bytes_per_s as u64,
        hot_bytes: case.hot_kib << 10,
        busy: one.busy,
    };
    transfer::pre_copy(load, case.link_bytes_per_s)
}

/// A case's line. Ratios are those of the single runs: a guest that shares its processors does not keep the same pace in each.
fn row(case: &Case, measured: &[Measured]) -> Value {
    let of =
        |value: fn(&Measured) -> f64| Spread::of(&measured.iter().map(value).collect::<Vec<f64>>());
    let models: Vec<Transfer> = measured.iter().map(|one| model(case, one)).collect();
    let expected =
        |value: fn(&Transfer) -> f64| Spread::of(&models.iter().map(value).collect::<Vec<f64>>());
    let ratios = |value: fn(&Transfer) -> f64, of: fn(&Measured) -> f64| {
        let both = models.iter().zip(measured);
        let each = both.map(|(model, one)| round(value(model) / of(one)));
        Spread::of(&each.collect::<Vec<f64>>())
    };
    let converged = measured.iter().filter(|one| one.converged).count();
    let foreseen = models.iter().filter(|model| model.converges).count();
    // What was given up after a minute has no end to compare.
    let ratio = match converged.min(foreseen) == measured.len() {
        true => json!({
            "duration": ratios(stream_s, |one| one.duration_s),
            "bytes": ratios(|model| model.bytes as f64, |one| one.bytes),
            "downtime": ratios(|model| model.downtime_ms, |one| one.downtime_ms),
        }),
        false => Value::Null,
    };
    println!(
        "{}: {:.2} s (model {:.2}), {:.1} MB ({:.1}), standing still {:.0} ms ({:.0}), slowed {} %, risk {:.2}, \
         converged {converged} ({foreseen}) of {}: {ratio}",
        case.name,
        of(|one| one.duration_s).median,
        expected(stream_s).median,
        of(|one| one.bytes).median / 1e6,
        expected(|model| model.bytes as f64).median / 1e6,
        of(|one| one.downtime_ms).median,
        expected(|model| model.downtime_ms).median,
        of(|one| one.throttled_percent as f64).median,
        expected(|model| model.risk).median,
        measured.len(),
    );
    json!({
        "case": case.name,
        "link_bytes_per_s": case.link_bytes_per_s,
        "hot_bytes": case.hot_kib << 10,
        "runs": measured,
        "converged": converged,
        "model": {
            "duration_s": expected(stream_s),
            "bytes": expected(|model| model.bytes as f64),
            "downtime_ms": expected(|model| model.downtime_ms),
            "risk": expected(|model| model.risk),
            "converged": foreseen,
        },
        "ratio": ratio,
    })
}

/// The model counts the time before and after the stream too, QEMU does not.
fn stream_s(model: &Transfer) -> f64 {
    model.duration_s - transfer::SETUP_S
}

/// What all migrations share.
struct Stage {
    topology: Topology,
    directory: PathBuf,
    kernel: PathBuf,
    initramfs: PathBuf,
    /// Stands for the disks that a clone has and this guest does not read.
    disk: PathBuf,
    accel: Accel,
}

/// A QEMU and where its files are.
struct Machine {
    bare: Bare,
    directory: PathBuf,
}

impl Stage {
    fn make(config: &BenchConfig, topology: Topology) -> Result<Self, Error> {
        let directory = Path::new(outer::WORK_DIRECTORY).join("pre-copy");
        std::fs::create_dir_all(&directory)
            .map_err(Error::system(format!("making {}", directory.display())))?;
        let tree =
            KernelTree::find(&config.kernel_tree).map_err(|error| problem(&error_chain(&error)))?;
        let (initramfs, disk) = (directory.join("initramfs"), directory.join("disk"));
        let program = std::fs::read(config.programs.join("estive-dirty"))
            .map_err(Error::system("reading estive-dirty"))?;
        let archive = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
            let mut writer = Writer::new(Vec::new());
            writer.add(&Member::directory("dev", 0o755))?;
            let console = Kind::CharacterDevice { major: 5, minor: 1 };
            writer.add(&Member::new("dev/console", 0o600, console))?;
            writer.add(&Member::file("init", 0o755, &program))?;
            Ok(writer.finish()?)
        };
        let archive = archive().map_err(|error| problem(&error.to_string()))?;
        std::fs::write(&initramfs, archive)
            .map_err(Error::system(format!("writing {}", initramfs.display())))?;
        std::fs::File::create(&disk)
            .and_then(|file| file.set_len(LAYER_DISK_BYTES))
            .map_err(Error::system(format!("making {}", disk.display())))?;
        let accel = match config.bed.accel.as_str() {
            "kvm" => Accel::Kvm,
            _ => Accel::Tcg,
        };
        Ok(Self {
            topology,
            directory,
            kernel: tree.vmlinuz,
            initramfs,
            disk,
            accel,
        })
    }

    fn spec(&self, case: &Case) -> Result<DomainSpec, Error> {
        let file = |path: &Path| Checksummed {
            path: path.to_owned(),
            digest: None,
        };
        Ok(DomainSpec {
            name: DomainName::new("dirty").map_err(|error| problem(&error.to_string()))?,
            uuid: "00000000-0000-4000-8000-00000000d127".to_owned(),
            memory_mib: MEMORY_MIB,
            cpus: 1,
            kernel: file(&self.kernel),
            initramfs: file(&self.initramfs),
            command_line: format!(
                "console=ttyS0 quiet dirty_touched_mib={TOUCHED_MIB} dirty_hot_kib={} dirty_kib_per_s={} dirty_busy={}",
                case.hot_kib,
                case.pace_kib_per_s,
                u8::from(case.is_busy)
            ),
            layer: self.disk.clone(),
            root: BlockSource::File(self.disk.clone()),
            modules: BlockSource::File(self.disk.clone()),
            volume: None,
            interface: None,
            identity: None,
        })
    }

    /// Holds what host 1 sends to a rate.
    async fn hold(&self, case: &Case) -> Result<(), Error> {
        let rate = format!("{}bit", case.link_bytes_per_s * 8);
        let line = [
            "tc", "qdisc", "replace", "dev", "upl", "root", "tbf", "rate", &rate, "burst", "256kb",
            "latency", "50ms",
        ];
        self.topology.hosts[0]
            .run_in(&line)
            .await
            .map(drop)
            .map_err(Error::network("holding the link to a rate by tc"))
    }

    async fn start(&self, case: &Case, number: u32, host: usize) -> Result<Machine, Error> {
        let spec = self.spec(case)?;
        let runtime = self.directory.join(format!("{number}-{host}"));
        let directory = runtime.join(spec.name.as_str());
        std::fs::create_dir_all(&directory)
            .map_err(Error::system(format!("making {}", directory.display())))?;
        let mut config = QemuConfig::new(&runtime);
        config.accel = self.accel;
        let mut argv = vec![config.emulator.display().to_string()];
        argv.extend(arguments(&spec, &config, host > 0));
        let mut bare = Bare::start(&argv, &self.topology.hosts[host], &directory)?;
        bare.connect().await?;
        Ok(Machine { bare, directory })
    }

    async fn migrate(&self, case: &Case, number: u32) -> Result<Measured, Error> {
        self.hold(case).await?;
        let source = self.start(case, number, 0).await?;
        source.bare.execute("cont", json!({})).await?;
        let console = source.directory.join("console.log");
        appears(&console, "estive-dirty: ready").await?;
        let (used_s, began_us) = (source.bare.processor_s()?, now_us());
        if case.pace_kib_per_s > 0 {
            // It keeps its pace by then: it has said so thrice.
            appears_times(&console, " KiB in ", 3).await?;
        }
        let busy = (source.bare.processor_s()? - used_s) / seconds_since(began_us);
        let before = std::fs::read_to_string(&console).unwrap_or_default();
        let touched_bytes = source.bare.resident_bytes(MEMORY_MIB << 20)?;
        let began_us = now_us();
        let target = self.start(case, number, 1).await?;
        let uri = json!({ "uri": format!("tcp:{}:{}", host_address(2), FIRST_PORT) });
        for (bare, incoming) in [(&target.bare, true), (&source.bare, false)] {
            bare.execute("migrate-set-capabilities", capabilities())
                .await?;
            if incoming {
                bare.execute("migrate-incoming", uri.clone()).await?;
            } else {
                bare.execute("migrate-set-parameters", parameters()).await?;
            }
        }
        let before_s = seconds_since(began_us);
        source.bare.execute("migrate", uri).await?;
        let (said, throttled_percent, dirty) = follow(&source.bare).await?;
        let converged = said["status"] == "completed";
        let after = std::fs::read_to_string(&console).unwrap_or_default();
        let during = pace(after.get(before.len()..).unwrap_or_default());
        let pace_bytes_per_s = during.or_else(|| pace(&before)).unwrap_or(0.0);
        let ended_us = now_us();
        while converged && target.bare.status().await? == "inmigrate" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if converged {
            target.bare.execute("cont", json!({})).await?;
        }
        let around_s = before_s + seconds_since(ended_us);
        let number_of = |path: &str| said.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        #[allow(clippy::cast_precision_loss, reason = "figures of one migration")]
        let measured = Measured {
            touched_bytes,
            pace_bytes_per_s,
            busy: if case.is_busy {
                1.0
            } else {
                busy.clamp(0.0, 1.0)
            },
            converged,
            duration_s: number_of("/total-time") as f64 / 1000.0,
            downtime_ms: number_of("/downtime") as f64,
            bytes: number_of("/ram/transferred") as f64,
            passes: number_of("/ram/dirty-sync-count"),
            throttled_percent,
            around_s,
            qemu_dirty_bytes_per_s: dirty,
        };
        source.bare.end().await;
        target.bare.end().await;
        Ok(measured)
    }
}

/// Waits for the end of an outgoing migration; what it said then, the most that the guest was slowed, and the highest rate
/// at which QEMU saw pages written.
async fn follow(source: &Bare) -> Result<(Value, u64, u64), Error> {
    let began_us = now_us();
    let (mut throttled, mut dirty) = (0, 0);
    loop {
        let said = source.execute("query-migrate", json!({})).await?;
        let number = |path: &str| said.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        throttled = throttled.max(number("/cpu-throttle-percentage"));
        dirty = dirty.max(number("/ram/dirty-pages-rate") * number("/ram/page-size"));
        match said["status"].as_str() {
            Some("completed") => return Ok((said, throttled, dirty)),
            Some("failed" | "cancelled") => return Err(problem(&said.to_string())),
            _ if seconds_since(began_us) > MOST_S as f64 => return Ok((said, throttled, dirty)),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// As agents set them (`crates/hypervisor/src/qemu/outgoing.rs`).
fn capabilities() -> Value {
    let auto_converge = MigrationParameters::default().auto_converge;
    let states = [
        ("events", true),
        ("return-path", true),
        ("auto-converge", auto_converge),
    ];
    json!({ "capabilities": states.map(|(name, state)| json!({"capability": name, "state": state})) })
}

fn parameters() -> Value {
    let parameters = MigrationParameters::default();
    json!({
        "max-bandwidth": parameters.bandwidth_bytes_per_s,
        "downtime-limit": parameters.downtime_limit_ms,
    })
}

#[allow(clippy::cast_precision_loss, reason = "seconds of one migration")]
fn seconds_since(before_us: u64) -> f64 {
    now_us().saturating_sub(before_us) as f64 / 1e6
}

/// The median of the first seconds in which the guest says what it wrote, in bytes a second; none if it says nothing.
fn pace(console: &str) -> Option<f64> {
    let said: Vec<f64> = (console.lines())
        .filter_map(|line| line.trim().strip_prefix("estive-dirty: "))
        .filter_map(|line| line.strip_suffix(" ms")?.split_once(" KiB in "))
        .filter_map(|(kib, ms)| Some((kib.parse::<f64>().ok()?, ms.parse::<f64>().ok()?)))
        .map(|(kib, ms)| kib * 1024.0 * 1000.0 / ms)
        .take(3)
        .collect();
    (!said.is_empty()).then(|| Spread::of(&said).median)
}

/// Waits until `file` holds `text` so often.
async fn appears_times(file: &Path, text: &str, times: usize) -> Result<(), Error> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        let found = std::fs::read(file).unwrap_or_default();
        if String::from_utf8_lossy(&found).matches(text).count() >= times {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(problem(&format!("{text:?} was not said {times} times")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_pace_is_what_the_guest_says() {
        let console = "estive-dirty: ready\r\nestive-dirty: 1000 KiB in 1000 ms\r\nestive-dirty: 3000 KiB in 1000 ms\r\n\
                       estive-dirty: 2000 KiB in 1000 ms\r\nestive-dirty: 9";
        assert_eq!(super::pace(console), Some(2_048_000.0));
        assert_eq!(super::pace("estive-dirty: ready"), None);
    }
}
