//! `./x bench NAME`: ratios measured in one run, ours against a peer or a limit on the same machine at the same time.
//!
//! Each ends with one line `RESULT {…}` and appends it to a file. Source of the definitions: the project's measures page.

pub mod balance;
mod bare;
mod boot;
pub mod fleet_plan;
mod ganesha;
mod guest_job;
pub mod layers;
mod metis;
mod migrate;
mod mode;
mod moves;
mod npb;
mod peer;
pub mod plan_safety;
pub mod power;
mod pre_copy;
pub mod read;
mod rootfs;
pub mod seal;
pub mod traffic;
mod work;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use crate::bed::{Bed, BedConfig};
use crate::{Error, error_chain};

pub use boot::bare_root;
pub use mode::Mode;

/// What a benchmark is told.
#[derive(Debug, Clone)]
pub struct BenchConfig {
    /// The bed.
    pub bed: BedConfig,
    /// Directory of the static guest programs.
    pub programs: PathBuf,
    /// A kernel with its modules.
    pub kernel_tree: PathBuf,
    /// The tree that the reference was sealed from.
    pub tree: PathBuf,
    /// Where the result is appended.
    pub results: PathBuf,
    /// How many runs; each benchmark has its own default.
    pub runs: Option<u32>,
    /// The ways in which the clones of those that work in them have their roots and keep what they write.
    pub modes: Vec<Mode>,
    /// A root with NFS-Ganesha in it, where that is one of the ways.
    pub ganesha_root: Option<PathBuf>,
}

/// Runs one benchmark; gives the exit code.
pub async fn run(name: &str, config: BenchConfig) -> Result<i32, Error> {
    if ![
        "boot", "migrate", "downtime", "lost", "pre-copy", "rootfs", "work",
    ]
    .contains(&name)
    {
        eprintln!(
            "there is no benchmark called {name:?}; there are: boot, migrate, downtime, lost, pre-copy, rootfs, work, balance, fleet-plan, layers, power, read, seal, plan-safety, traffic"
        );
        return Ok(2);
    }
    if name == "pre-copy" {
        // Two bare QEMUs: no agents, no manager.
        return pre_copy::run(&config).await;
    }
    let results = config.results.clone();
    let bed = Bed::start(config.bed.clone()).await?;
    let measured = match name {
        "boot" => boot::measure(&bed, &config).await,
        "migrate" => migrate::measure(&bed, &config).await,
        "downtime" => moves::downtime(&bed, &config).await,
        "rootfs" => rootfs::measure(&bed, &config).await,
        "work" => work::measure(&bed, &config).await,
        _ => moves::lost(&bed, &config).await,
    };
    let code = match measured {
        Ok(result) => conclude(&result, &results).map(|()| 0),
        Err(error) => {
            eprintln!("bench {name}: {}\n{}", error_chain(&error), bed.logs());
            Ok(1)
        }
    };
    bed.stop().await;
    code
}

/// Prints the last line and appends it to the file of results.
fn conclude(result: &Value, results: &Path) -> Result<(), Error> {
    println!("RESULT {result}");
    let doing = || Error::system(format!("appending to {}", results.display()));
    if let Some(folder) = results.parent() {
        std::fs::create_dir_all(folder).map_err(doing())?;
    }
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(results)
        .map_err(doing())?;
    writeln!(file, "{result}").map_err(doing())
}

/// Least, median and most of measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share| crate::statistics::percentile(&sorted, share).unwrap_or(f64::NAN);
        Self {
            least: at(0.0),
            median: at(0.5),
            most: at(1.0),
        }
    }
}

/// The line of a benchmark that compares two times, in ms, of the same number of alternating runs.
fn compared(name: &str, ours_ms: &[f64], peer_ms: &[f64], more: Value) -> Value {
    let (ours, peer) = (Spread::of(ours_ms), Spread::of(peer_ms));
    let ratios: Vec<f64> = ours_ms
        .iter()
        .zip(peer_ms)
        .map(|(ours, peer)| ours / peer)
        .collect();
    let mut line = json!({
        "name": name,
        "ours": ours.median,
        "peer": peer.median,
        "unit": "ms",
        "ratio": round(ours.median / peer.median),
        "spread": { "ours": ours, "peer": peer, "ratio": Spread::of(&ratios) },
        "runs": ours_ms.len(),
    });
    if let (Some(line), Some(more)) = (line.as_object_mut(), more.as_object()) {
        line.extend(more.clone());
    }
    line
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_medians() {
        let line = compared(
            "x",
            &[10.0, 30.0, 20.0],
            &[10.0, 10.0, 10.0],
            json!({ "goal": 1.2 }),
        );
        assert_eq!(line["ratio"], 2.0);
        assert_eq!(line["ours"], 20.0);
        assert_eq!(line["spread"]["ratio"]["most"], 3.0);
        assert_eq!(line["goal"], 1.2);
        assert_eq!(line["runs"], 3);
    }
}
