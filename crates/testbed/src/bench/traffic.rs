//! `traffic`: the share of what domains say to each other that crosses hosts after placement, ours against METIS, whose
//! room is soft, and against the component-aware reference, whose room is hard; and from a present placement that is
//! somewhat out of order, how many moves bring how much.

use std::path::{Path, PathBuf};
use std::time::Instant;

use estive_planner::partition::{Effort, Graph, Problem, Sizes, partition};
use serde_json::{Value, json};

use super::npb::{Edges, Pattern};
use super::{Spread, conclude, metis, round};
use crate::Error;

const RUNS: u32 = 5;
const LANES: u32 = 8;
const ROOMS: [u32; 2] = [16, 8];
const COUNTS: [u32; 2] = [1024, 10_000];
/// Candidates that all lanes together look at, for each domain.
const WORK_PER_DOMAIN: u64 = 4000;
/// Everybody with everybody has 50 million edges at 10,000.
const MOST_OF_FT: u32 = 1024;

/// What the benchmark is told.
#[derive(Debug, Clone)]
pub struct TrafficConfig {
    /// Where the result is appended.
    pub results: PathBuf,
    pub runs: Option<u32>,
    /// Only these counts of domains; empty: those of the measures.
    pub counts: Vec<u32>,
}

/// Measures and appends the result.
pub fn run(config: &TrafficConfig) -> Result<(), Error> {
    let directory = tempfile::tempdir().map_err(Error::system("making a directory"))?;
    let runs = config.runs.unwrap_or(RUNS).max(1);
    let counts = match config.counts.as_slice() {
        [] => COUNTS.to_vec(),
        some => some.to_vec(),
    };
    println!(
        "graph           ours %  over     s | METIS kway  over | rb %  over     s | rb of 10  over | by components"
    );
    let mut cases = Vec::new();
    for &count in &counts {
        for pattern in Pattern::ALL {
            if pattern == Pattern::Ft && count > MOST_OF_FT {
                continue;
            }
            for room in ROOMS {
                let mut measured = Vec::new();
                for run in 0..runs {
                    let case = Case::new(pattern, count, room, run);
                    measured.push(case.measure(directory.path())?);
                }
                cases.push(Summary::of(pattern, count, room, &measured));
            }
        }
    }
    let worst = cases
        .iter()
        .max_by(|one, other| one.ratio.total_cmp(&other.ratio));
    let overfull = cases.iter().map(|case| case.overfull).sum::<usize>();
    let against_rb = cases.iter().map(|case| case.ratio_rb).fold(0.0, f64::max);
    let largest = counts.iter().copied().max().unwrap_or(0);
    let line = json!({
        "name": "traffic",
        "ours": worst.map_or(0.0, |case| round(case.ours.median)),
        "peer": worst.map_or(0.0, |case| round(case.reference)),
        "peer_is": "components packed, the larger ones cut by METIS",
        "unit": "% of traffic that crosses hosts, of the graph where we are worst against it",
        "ratio": if overfull == 0 { worst.map_or(1.0, |case| round(case.ratio)) } else { 99.0 },
        "spread": worst.map(|case| json!({ "ours": case.ours })),
        "runs": runs,
        "overfull": overfull,
        "against_metis_rb": round(against_rb),
        "cases": cases.iter().map(Summary::line).collect::<Vec<_>>(),
        "from_now": from_now(largest)?,
        "goal": 1.0,
    });
    conclude(&line, &config.results)
}

struct Case {
    edges: Edges,
    count: u32,
    room: u32,
    run: u32,
}

/// One run of one case, shares in percent.
struct Measured {
    ours: f64,
    overfull: usize,
    seconds: f64,
    kway: Option<Peer>,
    rb: Option<Peer>,
    rb_of_10: Option<Peer>,
    reference: f64,
}

#[derive(Clone, Copy)]
struct Peer {
    share: f64,
    overfull: usize,
    seconds: f64,
}

impl Case {
    /// The graph with its vertices in an order that says nothing.
    fn new(pattern: Pattern, count: u32, room: u32, run: u32) -> Self {
        let order = shuffled(count, u64::from(run) + 1);
        let edges = pattern
            .edges(count)
            .into_iter()
            .map(|((one, other), weight)| {
                let (one, other) = (order[one as usize], order[other as usize]);
                ((one.min(other), one.max(other)), weight)
            });
        Self {
            edges: edges.collect(),
            count,
            room,
            run,
        }
    }

    fn hosts(&self) -> u32 {
        self.count.div_ceil(self.room)
    }

    fn measure(&self, directory: &Path) -> Result<Measured, Error> {
        let problem = self.problem();
        let before = Instant::now();
        let effort = self.effort();
        let answer = partition(&problem, effort);
        let seconds = before.elapsed().as_secs_f64();
        let Some(answer) = answer else {
            let error = std::io::Error::other("no placement within the rooms was found");
            return Err(Error::system("partitioning")(error));
        };
        let metis = |options: &[&str]| -> Result<Option<Peer>, Error> {
            let seed = format!("-seed={}", self.run + 1);
            let options: Vec<&str> = options.iter().copied().chain([seed.as_str()]).collect();
            let parts =
                metis::partition(directory, &self.edges, self.count, self.hosts(), &options)?;
            Ok(parts.map(|parts| Peer {
                share: self.share(&parts.part),
                overfull: self.overfull(&parts.part),
                seconds: parts.seconds,
            }))
        };
        let kway = metis(&["-ufactor=1"])?;
        let rb = metis(&["-ufactor=1", "-ptype=rb"])?;
        let rb_of_10 = metis(&["-ufactor=1", "-ptype=rb", "-ncuts=10"])?;
        let reference = metis::by_components(directory, &self.edges, self.count, self.room)?;
        Ok(Measured {
            ours: self.share(&answer.host),
            overfull: self.overfull(&answer.host),
            seconds,
            kway,
            rb,
            rb_of_10,
            reference: self.share(&reference),
        })
    }

    fn problem(&self) -> Problem {
        let pairs = self
            .edges
            .iter()
            .map(|(&(one, other), &weight)| (one, other, weight));
        let graph = Graph::of_pairs(self.count as usize, &pairs.collect::<Vec<_>>());
        let sizes = Sizes::equal(self.count as usize, &[1]);
        let rooms = Sizes::equal(self.hosts() as usize, &[u64::from(self.room)]);
        Problem::new(graph, sizes, rooms)
    }

    fn effort(&self) -> Effort {
        Effort {
            seed: u64::from(self.run),
            lanes: LANES,
            work: u64::from(self.count) * WORK_PER_DOMAIN,
        }
    }

    /// Percent of all weight that is between different hosts.
    fn share(&self, host: &[u32]) -> f64 {
        let total: u64 = self.edges.values().sum();
        let crossing = self
            .edges
            .iter()
            .filter(|((one, other), _)| host[*one as usize] != host[*other as usize]);
        let crossing: u64 = crossing.map(|(_, weight)| weight).sum();
        if total == 0 {
            return 0.0;
        }
        100.0 * crossing as f64 / total as f64
    }

    fn overfull(&self, host: &[u32]) -> usize {
        let most = host.iter().max().map_or(0, |&last| last as usize + 1);
        let mut count = vec![0; most];
        for &host in host {
            count[host as usize] += 1;
        }
        count.into_iter().filter(|&count| count > self.room).count()
    }
}

/// All runs of one case.
struct Summary {
    name: String,
    ours: Spread,
    overfull: usize,
    seconds: f64,
    kway: Option<Peer>,
    rb: Option<Peer>,
    rb_of_10: Option<Peer>,
    reference: f64,
    ratio: f64,
    ratio_rb: f64,
}

impl Summary {
    fn of(pattern: Pattern, count: u32, room: u32, runs: &[Measured]) -> Self {
        let median = |of: &dyn Fn(&Measured) -> f64| {
            Spread::of(&runs.iter().map(of).collect::<Vec<_>>()).median
        };
        let peer = |of: &dyn Fn(&Measured) -> Option<Peer>| {
            let all: Option<Vec<Peer>> = runs.iter().map(of).collect();
            all.map(|all| Peer {
                share: Spread::of(&all.iter().map(|one| one.share).collect::<Vec<_>>()).median,
                overfull: all.iter().map(|one| one.overfull).max().unwrap_or(0),
                seconds: Spread::of(&all.iter().map(|one| one.seconds).collect::<Vec<_>>()).median,
            })
        };
        let ours = Spread::of(&runs.iter().map(|run| run.ours).collect::<Vec<_>>());
        let reference = median(&|run| run.reference);
        let rb = peer(&|run| run.rb);
        let summary = Self {
            name: format!("{}-{count} by {room}", pattern.name()),
            ours,
            overfull: runs.iter().map(|run| run.overfull).max().unwrap_or(0),
            seconds: median(&|run| run.seconds),
            kway: peer(&|run| run.kway),
            rb_of_10: peer(&|run| run.rb_of_10),
            ratio: ratio(ours.median, reference),
            ratio_rb: rb.map_or(1.0, |rb| ratio(ours.median, rb.share)),
            rb,
            reference,
        };
        summary.print();
        summary
    }

    fn print(&self) {
        let peer = |peer: Option<Peer>| match peer {
            Some(peer) => format!("{:6.2} {:4}", peer.share, peer.overfull),
            None => "     -    -".to_owned(),
        };
        println!(
            "{:<16}{:6.2} {:4} {:7.2} | {} | {} {:6.3} | {} | {:6.2}",
            self.name,
            self.ours.median,
            self.overfull,
            self.seconds,
            peer(self.kway),
            peer(self.rb),
            self.rb.map_or(0.0, |rb| rb.seconds),
            peer(self.rb_of_10),
            self.reference
        );
    }

    fn line(&self) -> Value {
        let peer = |peer: Option<Peer>| {
            peer.map(|peer| {
                json!({
                    "share": round(peer.share),
                    "overfull": peer.overfull,
                    "s": peer.seconds,
                })
            })
        };
        json!({
            "graph": self.name,
            "share": self.ours,
            "overfull": self.overfull,
            "s": round(self.seconds),
            "kway": peer(self.kway),
            "rb": peer(self.rb),
            "rb_of_10": peer(self.rb_of_10),
            "by_components": round(self.reference),
        })
    }
}

/// As good as each other where both are nothing.
fn ratio(ours: f64, peer: f64) -> f64 {
    match (ours > 0.0, peer > 0.0) {
        (false, _) => {
            if peer > 0.0 {
                0.0
            } else {
                1.0
            }
        }
        (true, true) => ours / peer,
        (true, false) => 99.0,
    }
}

/// A good placement of mixed jobs in which a tenth of all domains have changed places by chance, at several prices of a
/// move: how much crosses hosts then, and how many moves that took.
fn from_now(count: u32) -> Result<Value, Error> {
    let case = Case::new(Pattern::Mix, count, 16, 0);
    let mut problem = case.problem();
    let nothing = || Error::system("partitioning")(std::io::Error::other("no placement was found"));
    let good = partition(&problem, case.effort()).ok_or_else(nothing)?.host;
    let mut now = good.clone();
    let order = shuffled(count, 77);
    for pair in order[..count as usize / 10].chunks_exact(2) {
        now.swap(pair[0] as usize, pair[1] as usize);
    }
    let total: u64 = case.edges.values().sum();
    let mean = (total / u64::from(count)) as i64;
    let mut rows = Vec::new();
    for (price, words) in [
        (1, "1"),
        (mean / 10, "a tenth"),
        (mean, "the mean traffic of a domain"),
    ] {
        problem.start.clone_from(&now);
        problem.price = vec![price.max(1); count as usize];
        let answer = partition(&problem, case.effort()).ok_or_else(nothing)?;
        let moves = answer
            .host
            .iter()
            .zip(&now)
            .filter(|(then, now)| then != now)
            .count();
        println!(
            "from now, {count} mixed, a move at {words}: {:.2} % -> {:.2} % by {moves} moves, {} overfull",
            case.share(&now),
            case.share(&answer.host),
            case.overfull(&answer.host)
        );
        rows.push(json!({
            "price": price,
            "before": round(case.share(&now)),
            "after": round(case.share(&answer.host)),
            "from_nothing": round(case.share(&good)),
            "moves": moves,
            "overfull": case.overfull(&answer.host),
        }));
    }
    Ok(Value::from(rows))
}

/// The numbers below `count` in an order drawn from a seed.
fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    let mut state = seed;
    for last in (1..order.len()).rev() {
        // SplitMix64 (Steele, Lea and Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        order.swap(last, (mixed % (last as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_ratios_are_of_what_crosses() {
        let case = Case {
            edges: Edges::from([((0, 1), 30), ((1, 2), 10)]),
            count: 3,
            room: 2,
            run: 0,
        };
        assert_eq!(case.share(&[0, 0, 1]), 25.0);
        assert_eq!(case.overfull(&[0, 0, 0]), 1);
        assert_eq!(case.hosts(), 2);
        assert_eq!(ratio(0.0, 0.0), 1.0);
        assert_eq!(ratio(1.0, 0.0), 99.0);
    }

    #[test]
    fn an_order_holds_each_once() {
        let mut order = shuffled(100, 3);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
