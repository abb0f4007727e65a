//! `balance`: Ganeti's `hbal` and our plan on the same clusters under the same limits, judged by hbal's own score.
//!
//! hbal runs first; our plan may then move no more domains and carry no more memory than it did. hbal reads the state
//! that ours leads to and says what it is worth.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use estive_planner::{Budget, Question, Toll, after, spots_of, target};
use estive_world::ganeti::Ganeti;
use estive_world::{DomainIx, Indexed, ReservedKind, World};
use serde_json::{Value, json};

use super::{Spread, conclude, round};
use crate::Error;

/// What the benchmark is told.
#[derive(Debug, Clone)]
pub struct BalanceConfig {
    /// The folder of clusters.
    pub clusters: PathBuf,
    /// Where the result is appended.
    pub results: PathBuf,
    /// How many runs of each.
    pub runs: Option<u32>,
}

const RUNS: u32 = 5;
/// Units of work for clusters of up to so many hosts, and for larger ones: with more of it the first gain a little still, the
/// others next to nothing.
const WORK: (usize, u64, u64) = (50, 40_000_000, 8_000_000);
/// Clusters with the number of moves that hbal may make; those of the last row take it minutes, and are run once.
const CASES: [(&str, Option<u32>); 5] = [
    ("h20", None),
    ("h20", Some(10)),
    ("d20", None),
    ("h100", Some(10)),
    ("h100", Some(60)),
];

/// Measures and appends the result.
pub fn run(config: &BalanceConfig) -> Result<(), Error> {
    let directory = tempfile::tempdir().map_err(Error::system("making a directory"))?;
    let mut rows = Vec::new();
    for (name, moves) in CASES {
        let case = Case::read(&config.clusters, directory.path(), name, moves)?;
        let runs = if moves == Some(60) {
            1
        } else {
            config.runs.unwrap_or(RUNS).max(1)
        };
        rows.push(case.measure(runs)?);
    }
    let hundred = rows
        .iter()
        .find(|row| row["cluster"] == "h100")
        .cloned()
        .unwrap_or_default();
    let line = json!({
        "name": "balance",
        "ours": hundred["ours_cpu_s"],
        "peer": hundred["peer_cpu_s"],
        "unit": "CPU s",
        "ratio": hundred["ratio"],
        "spread": hundred["spread"],
        "runs": hundred["runs"],
        "goal": 100,
        "cases": rows,
    });
    conclude(&line, &config.results)
}

struct Case {
    name: &'static str,
    moves: Option<u32>,
    base: PathBuf,
    directory: PathBuf,
    data: String,
    loads: String,
    cluster: Ganeti,
}

/// What a state is worth and what it took.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    score: f64,
    moves: u32,
    /// Memory of the domains that are on another host.
    mib: u64,
    /// That, and the disks of replicas that are made anew.
    bytes: u64,
}

impl Case {
    fn read(
        folder: &Path,
        directory: &Path,
        name: &'static str,
        moves: Option<u32>,
    ) -> Result<Self, Error> {
        let base = folder.join(name);
        let text = |kind| {
            let path = base.with_extension(kind);
            std::fs::read_to_string(&path)
                .map_err(Error::system(format!("reading {}", path.display())))
        };
        let (data, loads) = (text("data")?, text("util")?);
        let cluster = Ganeti::read(&data, Some(&loads)).map_err(other)?;
        Ok(Self {
            name,
            moves,
            base,
            directory: directory.to_owned(),
            data,
            loads,
            cluster,
        })
    }

    fn measure(&self, runs: u32) -> Result<Value, Error> {
        let (mut ours_s, mut peer_s, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let mut last = None;
        for _ in 0..runs {
            let (peer, cpu_s) = self.hbal()?;
            let (ours, own_s) = self.ours(&peer)?;
            let fair = ours.score <= peer.score
                && ours.moves <= peer.moves
                && ours.bytes <= peer.bytes
                && ours.mib <= peer.mib;
            println!(
                "{:>5} {:>4}: hbal {:.4} with {} moves, {} GiB in {cpu_s:.2} s; ours {:.4} with {}, {} GiB in {own_s:.3} s",
                self.name,
                self.moves
                    .map_or("all".to_owned(), |moves| moves.to_string()),
                peer.score,
                peer.moves,
                peer.mib / 1024,
                ours.score,
                ours.moves,
                ours.mib / 1024,
            );
            peer_s.push(cpu_s);
            ours_s.push(own_s);
            ratios.push(if fair { cpu_s / own_s } else { 0.0 });
            last = Some((peer, ours));
        }
        let Some((peer, ours)) = last else {
            return Err(other("no run"));
        };
        let shown = |outcome: Outcome| json!({ "score": outcome.score, "moves": outcome.moves, "gib": outcome.mib / 1024, "with_disks_gib": outcome.bytes >> 30 });
        Ok(json!({
            "cluster": self.name,
            "moves_at_most": self.moves,
            "ratio": round(Spread::of(&ratios).median),
            "ours_cpu_s": round(Spread::of(&ours_s).median),
            "peer_cpu_s": round(Spread::of(&peer_s).median),
            "spread": { "ours": Spread::of(&ours_s), "peer": Spread::of(&peer_s), "ratio": Spread::of(&ratios) },
            "runs": runs,
            "hbal": shown(peer),
            "estive": shown(ours),
        }))
    }

    /// hbal's answer and its processor seconds.
    fn hbal(&self) -> Result<(Outcome, f64), Error> {
        let state = self.directory.join("hbal");
        let mut command = Command::new("hbal");
        command.arg("-t").arg(self.base.with_extension("data"));
        command.arg("-U").arg(self.base.with_extension("util"));
        command.arg("-S").arg(&state);
        if let Some(moves) = self.moves {
            command.arg(format!("-l{moves}"));
        }
        let (said, cpu_s) = timed(&mut command)?;
        let mut balanced = state.into_os_string();
        balanced.push(".balanced");
        let text =
            std::fs::read_to_string(&balanced).map_err(Error::system("reading what hbal wrote"))?;
        // hbal writes where everything is, and leaves what is free as it was: we count that anew.
        let world = Ganeti::read(&text, Some(&self.loads)).map_err(other)?.world;
        let solution = said.lines().filter(|line| is_move(line)).count() as u32;
        let outcome = Outcome {
            score: self.judge(&self.written("hbal.data", &world)?)?,
            moves: solution.min(changed(&self.cluster.world, &world)).max(1),
            mib: carried_mib(&self.cluster.world, &world),
            bytes: carried_bytes(&self.cluster.world, &world),
        };
        Ok((outcome, cpu_s))
    }

    /// Our answer within what the peer used, and processor seconds from text to text.
    fn ours(&self, peer: &Outcome) -> Result<(Outcome, f64), Error> {
        let before_s = own_cpu_s();
        let cluster = Ganeti::read(&self.data, Some(&self.loads)).map_err(other)?;
        let mut world = cluster.world.clone();
        // hbal takes whatever gains anything: so do we, but what lasts counts within ten hours.
        world.rules.hysteresis.gain_at_least_ppm = 0;
        world.rules.hysteresis.pays_back_within_s = 36_000;
        let (small, much, some) = WORK;
        let work = if world.hosts.len() <= small {
            much
        } else {
            some
        };
        let question = Question {
            moves_at_most: Some(peer.moves),
            bytes_at_most: Some(peer.bytes),
            memory_bytes_at_most: Some(peer.mib << 20),
            budget: Budget { work },
            ..Question::default()
        };
        let found = target(&world, &question).map_err(other)?;
        let there = after(&cluster.world, &found.spots);
        let path = self.written("ours.data", &there)?;
        let cpu_s = own_cpu_s() - before_s;
        let outcome = Outcome {
            score: self.judge(&path)?,
            moves: changed(&cluster.world, &there),
            mib: carried_mib(&cluster.world, &there),
            bytes: carried_bytes(&cluster.world, &there),
        };
        Ok((outcome, cpu_s))
    }

    /// A file with this cluster's domains where a world has them.
    fn written(&self, name: &str, world: &World) -> Result<PathBuf, Error> {
        let text = self.cluster.data(world).map_err(other)?;
        let path = self.directory.join(name);
        std::fs::write(&path, text).map_err(Error::system("writing a state"))?;
        Ok(path)
    }

    /// What hbal says that a state is worth.
    fn judge(&self, state: &Path) -> Result<f64, Error> {
        let mut command = Command::new("hbal");
        command.args(["-l0", "-v", "-v", "-t"]).arg(state);
        command.arg("-U").arg(self.base.with_extension("util"));
        let (said, _) = timed(&mut command)?;
        (said
            .lines()
            .find_map(|line| line.strip_prefix("Initial coefficients: overall ")))
        .and_then(|score| score.trim().parse().ok())
        .ok_or_else(|| {
            other(format!(
                "hbal told no score of {}:\n{said}",
                state.display()
            ))
        })
    }
}

/// Domains that are elsewhere, or have their replica elsewhere.
fn changed(before: &World, after: &World) -> u32 {
    let pairs = before.domains.iter().zip(&after.domains);
    pairs
        .filter(|(was, is)| was.host != is.host || was.replica != is.replica)
        .count() as u32
}

fn carried_mib(before: &World, after: &World) -> u64 {
    (before.domains.iter().zip(&after.domains))
        .filter(|(was, is)| was.host != is.host)
        .map(|(was, _)| was.reserved[ReservedKind::MemoryMib])
        .sum()
}

fn carried_bytes(before: &World, after: &World) -> u64 {
    let toll = Toll::new(before);
    let spots = spots_of(before).into_iter().zip(spots_of(after));
    let costs = (spots.enumerate())
        .map(|(domain, (was, is))| toll.cost(DomainIx::of(domain), was, is).bytes);
    costs.sum()
}

/// A line of hbal's solution begins with its number.
fn is_move(line: &str) -> bool {
    let number = line
        .trim_start()
        .split_once(". ")
        .map_or("", |(number, _)| number);
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// What a program says, and its processor seconds.
fn timed(command: &mut Command) -> Result<(String, f64), Error> {
    let before_s = used_cpu_s(libc::RUSAGE_CHILDREN);
    let output = (command.stdin(Stdio::null()).output())
        .map_err(Error::system("starting hbal (package ganeti-htools)"))?;
    let cpu_s = used_cpu_s(libc::RUSAGE_CHILDREN) - before_s;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(other(format!("hbal ended with {}: {said}", output.status)));
    }
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), cpu_s))
}

fn used_cpu_s(who: i32) -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a rusage, which the call fills; one of zeros is valid too.
    let usage = unsafe {
        libc::getrusage(who, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Processor seconds of this process until now.
pub(super) fn own_cpu_s() -> f64 {
    used_cpu_s(libc::RUSAGE_SELF)
}

pub(super) fn other(what: impl ToString) -> Error {
    Error::system("balancing")(std::io::Error::other(what.to_string()))
}
