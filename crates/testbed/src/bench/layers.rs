//! `layers`: differentiation layers generated in a second, by the command that a user gives: from
//! the herd's folder to archives on disk, synced. The paper's figure beside it is quoted: it ran on
//! another machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::{Spread, conclude, round};
use crate::Error;

/// The paper's time for one layer, in seconds.
const PAPER_S: f64 = 0.37;
const GOAL_PER_S: u32 = 500;
const RUNS: u32 = 7;
const HERDS: [u32; 2] = [1_000, 10_000];

/// What the benchmark is told.
#[derive(Debug, Clone)]
pub struct LayersConfig {
    /// The `estive` program.
    pub estive: PathBuf,
    /// Where the result is appended.
    pub results: PathBuf,
    pub runs: Option<u32>,
}

/// Measures and appends the result.
pub fn run(config: &LayersConfig) -> Result<(), Error> {
    let directory = tempfile::tempdir().map_err(Error::system("making a directory"))?;
    let runs = config.runs.unwrap_or(RUNS).max(1);
    let mut measured = Vec::new();
    for clones in HERDS {
        measured.push(Herd::write(directory.path(), clones)?.measure(&config.estive, runs)?);
    }
    let [thousand, ten_thousand] = measured.as_slice() else {
        return Err(Error::system("measuring")(std::io::Error::other(
            "not both herds were measured",
        )));
    };
    let peer = 1.0 / PAPER_S;
    let spread = |herd: &Measured| json!({ "ours": Spread::of(&herd.anew_per_s) });
    let ours = Spread::of(&thousand.anew_per_s).median;
    let line = json!({
        "name": "layers",
        "ours": round(ours),
        "peer": round(peer),
        "peer_is": "quoted",
        "unit": "layers/s",
        "ratio": round(ours / peer),
        "spread": spread(thousand),
        "runs": runs,
        "clones": HERDS[0],
        "at_10000": {
            "ours": round(Spread::of(&ten_thousand.anew_per_s).median),
            "spread": spread(ten_thousand),
            "one_changed_ms": round(Spread::of(&ten_thousand.one_changed_ms).median),
            "nothing_changed_ms": round(Spread::of(&ten_thousand.nothing_changed_ms).median),
            "stored_bytes": ten_thousand.stored_bytes,
            "archives_bytes": ten_thousand.archives_bytes,
        },
        "nothing_changed_ms": round(Spread::of(&thousand.nothing_changed_ms).median),
        "goal": GOAL_PER_S,
    });
    conclude(&line, &config.results)
}

struct Herd {
    folder: PathBuf,
    state: PathBuf,
    clones: u32,
}

struct Measured {
    anew_per_s: Vec<f64>,
    nothing_changed_ms: Vec<f64>,
    one_changed_ms: Vec<f64>,
    stored_bytes: u64,
    archives_bytes: u64,
}

impl Herd {
    fn write(directory: &Path, clones: u32) -> Result<Self, Error> {
        let herd = Self {
            folder: directory.join(format!("herd-{clones}")),
            state: directory.join(format!("state-{clones}")),
            clones,
        };
        std::fs::create_dir_all(&herd.folder).map_err(Error::system("making the herd"))?;
        herd.save(384)?;
        Ok(herd)
    }

    /// The first clone has a range of its own, so that one value changes one layer.
    fn save(&self, memory_mib: u32) -> Result<(), Error> {
        let text = format!(
            "name: bench\nnetwork: 10.64.0.0/16\nsets: [base-debian]\nhosts:\n  first: {{memory_mib: {memory_mib}}}\n  \
             \"clone[00002-{:05}]\":\n",
            self.clones
        );
        std::fs::write(self.folder.join("herd.yaml"), text)
            .map_err(Error::system("writing the herd"))
    }

    fn measure(&self, estive: &Path, runs: u32) -> Result<Measured, Error> {
        let mut measured = Measured {
            anew_per_s: Vec::new(),
            nothing_changed_ms: Vec::new(),
            one_changed_ms: Vec::new(),
            stored_bytes: 0,
            archives_bytes: 0,
        };
        for number in 0..runs {
            self.save(384)?;
            match std::fs::remove_dir_all(&self.state) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::system("clearing the state directory")(error));
                }
                _ => {}
            }
            let (anew_s, built) = self.build(estive)?;
            expect(&built, self.clones)?;
            let (nothing_s, built) = self.build(estive)?;
            expect(&built, 0)?;
            self.save(512)?;
            let (one_s, built) = self.build(estive)?;
            expect(&built, 1)?;
            let per_s = f64::from(self.clones) / anew_s;
            println!(
                "run {number:>2}: {} layers in {anew_s:.3} s, {per_s:.0} a second; nothing changed {:.0} ms, one {:.0} ms",
                self.clones,
                nothing_s * 1e3,
                one_s * 1e3
            );
            measured.anew_per_s.push(per_s);
            measured.nothing_changed_ms.push(nothing_s * 1e3);
            measured.one_changed_ms.push(one_s * 1e3);
            let sizes = built
                .iter()
                .filter_map(|layer| layer["size_bytes"].as_u64());
            measured.archives_bytes = sizes.sum();
        }
        measured.stored_bytes = stored_bytes(&self.state)?;
        Ok(measured)
    }

    /// Seconds from start to end of the command, and what it did.
    fn build(&self, estive: &Path) -> Result<(f64, Vec<Value>), Error> {
        let answer = self.state.with_extension("json");
        let out = std::fs::File::create(&answer).map_err(Error::system("making a file"))?;
        let mut command = Command::new(estive);
        command
            .args(["layers", "build", "--output", "json", "--herd"])
            .arg(&self.folder)
            .arg("--state")
            .arg(&self.state)
            .stdin(Stdio::null())
            .stdout(out);
        let before = Instant::now();
        let status = command
            .status()
            .map_err(Error::system("starting estive layers build"))?;
        let seconds = before.elapsed().as_secs_f64();
        if !status.success() {
            let error = std::io::Error::other(format!("it ended with {status}"));
            return Err(Error::system("estive layers build")(error));
        }
        let text = std::fs::read(&answer).map_err(Error::system("reading the answer"))?;
        let built = serde_json::from_slice(&text)
            .map_err(|error| Error::system("reading the answer")(error.into()))?;
        Ok((seconds, built))
    }
}

/// A benchmark that measures something else is worth nothing.
fn expect(built: &[Value], anew: u32) -> Result<(), Error> {
    let made = built.iter().filter(|layer| layer["built"] == true).count();
    if usize::try_from(anew) == Ok(made) {
        return Ok(());
    }
    let words = format!("{made} layers were made and {anew} should have been");
    Err(Error::system("estive layers build")(std::io::Error::other(
        words,
    )))
}

fn stored_bytes(state: &Path) -> Result<u64, Error> {
    let doing = || Error::system("looking at what is stored");
    let mut bytes = 0;
    for entry in std::fs::read_dir(state.join("layers/objects")).map_err(doing())? {
        bytes += entry
            .and_then(|entry| entry.metadata())
            .map_err(doing())?
            .len();
    }
    Ok(bytes)
}
