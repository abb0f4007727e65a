//! `power`: a day of PlanetLab replayed under CloudSim's policies and ours, in all variants. No guests, no machine: the figures
//! are the model's, and the same everywhere.
//!
//! The peers are replayed here in the same run; beside them stand the figures that CloudSim 3.0.3 itself gave, *quoted*, and
//! how far the replay is from them.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use estive_rehearsal::{Day, Frugal, Outcome, Policy, Variant, floor_kwh, peers, replay, table};
use serde_json::{Map, Value, json};

use super::{Spread, conclude, round};
use crate::Error;

/// Shuffled orders of the traces beside the sorted one.
const SHUFFLES: u32 = 5;
const HOSTS: usize = 800;
const TRACES_AT_MOST: usize = 10_000;
const TRACE_BYTES_AT_MOST: u64 = 64 * 1024;

/// CloudSim 3.0.3's own rows on the sorted mapping: name, kWh, moves, SLATAH and PDM in percent. *Quoted*.
const QUOTED_STOCK: [(&str, f64, f64, f64, f64); 6] = [
    ("NPA", 2410.80, 0.0, 0.0, 0.0),
    ("DVFS", 802.75, 0.0, 0.0, 0.0),
    ("THR-MMT-0.8", 192.62, 26711.0, 4.913, 0.0646),
    ("IQR-MMT-1.5", 189.98, 26282.0, 4.823, 0.0624),
    ("MAD-MMT-2.5", 185.79, 26556.0, 5.049, 0.0662),
    ("LR-MMT-1.2", 163.48, 27859.0, 5.858, 0.0793),
];
/// The same with memory enforced and domains kept; the last two columns are quoted to one digit only.
const QUOTED_KEPT: [(&str, f64, f64, f64, f64); 3] = [
    ("DVFS", 927.99, 0.0, 0.0, 0.0),
    ("THR-MMT-0.8", 879.89, 563.0, 0.029, 0.0005),
    ("LR-MMT-1.2", 879.89, 563.0, 0.029, 0.0005),
];

/// What the benchmark is told.
#[derive(Debug, Clone)]
pub struct PowerConfig {
    /// The traces: a compressed archive with one file for each guest, a whole percent on each line.
    pub data: PathBuf,
    /// Where the result is appended.
    pub results: PathBuf,
    /// Shuffled orders beside the sorted one.
    pub runs: Option<u32>,
}

/// Replays and appends the result.
pub fn run(config: &PowerConfig) -> Result<(), Error> {
    let mut traces = read_traces(&config.data)?;
    traces.sort();
    let begin = Instant::now();
    let sorted = replay_all(&Day::planetlab(&traces, HOSTS))?;
    for rows in &sorted {
        println!(
            "\n{} (floor {:.2} kWh)",
            rows.variant.name(),
            rows.floor_kwh
        );
        print!("{}", table::of_outcomes(&rows.outcomes));
    }
    let shuffles = config.runs.unwrap_or(SHUFFLES);
    let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); sorted.len()];
    for seed in 0..shuffles {
        shuffle(&mut traces, u64::from(seed) + 1);
        for (rows, ratios) in replay_all(&Day::planetlab(&traces, HOSTS))?
            .iter()
            .zip(&mut ratios)
        {
            ratios.push(rows.ratio());
        }
    }
    let mut variants = Map::new();
    for (rows, shuffled) in sorted.iter().zip(&ratios) {
        let mut line = rows.line();
        if let Some(line) = line.as_object_mut().filter(|_| !shuffled.is_empty()) {
            line.insert("shuffled".into(), json!(Spread::of(shuffled)));
        }
        variants.insert(rows.variant.name().into(), line);
    }
    let worst = sorted
        .iter()
        .max_by(|one, other| one.ratio().total_cmp(&other.ratio()));
    let line = json!({
        "name": "power",
        "ours": worst.map(|rows| rows.ours().esv()),
        "peer": worst.and_then(|rows| rows.best_peer()).map(|(_, outcome)| outcome.esv()),
        "unit": "kWh x SLATAH x PDM",
        "ratio": worst.map(|rows| exact(rows.ratio())),
        "runs": 1 + shuffles,
        "spread": { "worst_of_shuffles": ratios.iter().flatten().copied().fold(0.0, f64::max) },
        "variants": variants,
        "largest_deviation_from_quoted": deviations(&sorted),
        "seconds": round(begin.elapsed().as_secs_f64()),
        "goal": 1.0,
    });
    conclude(&line, &config.results)
}

/// One variant's rows.
struct Rows {
    variant: Variant,
    floor_kwh: f64,
    outcomes: Vec<(String, Outcome)>,
}

const OURS: &str = "estive";

impl Rows {
    fn named(&self, name: &str) -> Outcome {
        let found = self.outcomes.iter().find(|(known, _)| known == name);
        found.map(|(_, outcome)| *outcome).unwrap_or_default()
    }

    fn ours(&self) -> Outcome {
        self.named(OURS)
    }

    /// The least ESV of a peer that moves anything.
    fn best_peer(&self) -> Option<&(String, Outcome)> {
        let moves = |row: &&(String, Outcome)| row.0 != OURS && row.1.moves > 0;
        self.outcomes
            .iter()
            .filter(moves)
            .min_by(|one, other| one.1.esv().total_cmp(&other.1.esv()))
    }

    /// Our ESV by the best peer's, at no more energy than LR's; else 99.
    fn ratio(&self) -> f64 {
        match self.best_peer() {
            Some((_, best)) if self.ours().kwh <= self.named("LR-MMT-1.2").kwh => {
                self.ours().esv() / best.esv()
            }
            _ => 99.0,
        }
    }

    fn line(&self) -> Value {
        let ours = self.ours();
        let lr = self.named("LR-MMT-1.2");
        json!({
            "ratio": exact(self.ratio()),
            "ours": ours,
            "esv": ours.esv(),
            "best_peer": self.best_peer().map(|(name, outcome)| json!({ "name": name, "esv": outcome.esv() })),
            "kwh_by_lr": round(ours.kwh / lr.kwh),
            "floor_kwh": round(self.floor_kwh),
            "kwh_by_floor": round(ours.kwh / self.floor_kwh),
        })
    }
}

fn exact(ratio: f64) -> f64 {
    (ratio * 1e6).round() / 1e6
}

fn replay_all(day: &Day) -> Result<Vec<Rows>, Error> {
    Variant::ALL
        .into_iter()
        .map(|variant| {
            let mut outcomes = Vec::new();
            let ours: Box<dyn Policy> = Box::new(Frugal::default());
            for (name, mut policy) in peers::peers().into_iter().chain([(OURS, ours)]) {
                let replayed =
                    replay(day, variant, policy.as_mut()).map_err(|problem| Error::Gauge {
                        what: format!("replaying {name}"),
                        problem: problem.to_string(),
                    })?;
                outcomes.push((name.to_owned(), replayed.outcome));
            }
            Ok(Rows {
                variant,
                floor_kwh: floor_kwh(day, variant),
                outcomes,
            })
        })
        .collect()
}

/// The largest relative distance of the replayed peers from the quoted figures.
fn deviations(all: &[Rows]) -> Value {
    let mut largest = [0.0_f64; 4];
    for rows in all {
        let quoted: &[_] = match rows.variant {
            Variant::STOCK => &QUOTED_STOCK,
            Variant::KEPT => &QUOTED_KEPT,
            _ => continue,
        };
        for &(name, kwh, moves, slatah, pdm) in quoted {
            let found = rows.named(name);
            let pairs = [
                (found.kwh, kwh),
                (found.moves as f64, moves),
                (found.slatah * 100.0, slatah),
                (found.pdm * 100.0, pdm),
            ];
            // What is quoted to one digit only says nothing of its later ones.
            let columns = if rows.variant.kept { 2 } else { 4 };
            for (place, (found, quoted)) in pairs.into_iter().enumerate().take(columns) {
                if quoted > 0.0 {
                    largest[place] = largest[place].max((found / quoted - 1.0).abs());
                }
            }
        }
    }
    let [kwh, moves, slatah, pdm] = largest.map(|part| (part * 1e4).round() / 1e4);
    json!({ "kwh": kwh, "moves": moves, "slatah": slatah, "pdm": pdm })
}

/// Names and whole percents from a compressed archive.
fn read_traces(path: &Path) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let doing = || format!("reading the traces from {}", path.display());
    let bad = |problem: String| Error::Gauge {
        what: doing(),
        problem,
    };
    let file = std::fs::File::open(path).map_err(Error::system(doing()))?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut traces = Vec::new();
    for entry in archive.entries().map_err(Error::system(doing()))? {
        let mut entry = entry.map_err(Error::system(doing()))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let entry_path = entry.path().map_err(Error::system(doing()))?.into_owned();
        let name = entry_path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if entry.size() > TRACE_BYTES_AT_MOST || traces.len() >= TRACES_AT_MOST {
            return Err(bad(format!("{name}: more than the benchmark takes")));
        }
        let mut text = String::new();
        entry
            .read_to_string(&mut text)
            .map_err(Error::system(doing()))?;
        let loads: Option<Vec<u8>> = text
            .split_whitespace()
            .map(|word| word.parse().ok().filter(|&percent: &u8| percent <= 100))
            .collect();
        let loads = loads.ok_or_else(|| bad(format!("{name}: a line is no whole percent")))?;
        traces.push((name, loads));
    }
    let samples = traces.first().map_or(0, |(_, loads)| loads.len());
    if samples < 2 || traces.iter().any(|(_, loads)| loads.len() != samples) {
        return Err(bad(
            "its files have not all as many lines, two or more".into()
        ));
    }
    Ok(traces)
}

/// Another order, the same for the same seed.
fn shuffle(traces: &mut [(String, Vec<u8>)], seed: u64) {
    traces.sort();
    // The keys of a good hash are an order that has nothing to do with the names.
    let key = |name: &str| {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in name.bytes() {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            state ^= state >> 29;
        }
        state
    };
    traces.sort_by_key(|(name, _)| key(name));
}
