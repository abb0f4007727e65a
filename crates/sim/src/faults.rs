//! The fault table: every named step of start, stop and move, before it and after it, with each process killed there.

use crate::explore::Bounds;
use crate::rest::{Kill, Order, Run, StepName, When};
use crate::world::{Host, Life, Rules, Violation, World};
use std::fmt;

/// A process that can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Process {
    /// The command line. It is not started again: it has only ordered.
    Command,
    /// The manager.
    Manager,
    /// The storage host's keeper of volumes.
    Storage,
    /// The agent of a host.
    Agent(Host),
    /// The domain's QEMU on a host. It is not started again: that is for people to order.
    Instance(Host),
}

impl Process {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Command,
        Self::Manager,
        Self::Storage,
        Self::Agent(Host::A),
        Self::Agent(Host::B),
        Self::Instance(Host::A),
        Self::Instance(Host::B),
    ];
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command => f.write_str("command"),
            Self::Manager => f.write_str("manager"),
            Self::Storage => f.write_str("storage"),
            Self::Agent(host) => write!(f, "agent {host}"),
            Self::Instance(host) => write!(f, "qemu {host}"),
        }
    }
}

/// What is being done when the kill comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scenario {
    /// A start.
    Start,
    /// A stopped one is made anew and started.
    Anew,
    /// A stop.
    Stop,
    /// A move by pre-copy.
    Move,
    /// A move that is given up while memory is being sent.
    Aborted,
    /// A move that switches to post-copy.
    PostCopy,
    /// Its memory is saved.
    Save,
    /// It is saved, and goes on from there.
    Restore,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Start,
        Self::Anew,
        Self::Stop,
        Self::Move,
        Self::Aborted,
        Self::PostCopy,
        Self::Save,
        Self::Restore,
    ];

    fn run(self, rules: &Rules) -> Run {
        let bounds = Bounds {
            deaths: 0,
            ..Bounds::default()
        };
        let mut run = Run::new(
            World::new(!matches!(self, Self::Start | Self::Anew), &bounds),
            *rules,
        );
        run.converges = self != Self::PostCopy;
        let post_copy = self == Self::PostCopy;
        match self {
            Self::Start => run.orders.push_back(Order::Start),
            Self::Anew => run.orders.extend([Order::Define, Order::Start]),
            Self::Stop => run.orders.push_back(Order::Stop),
            Self::Save => run.orders.push_back(Order::Save),
            Self::Restore => run.orders.extend([Order::Save, Order::Restore]),
            Self::Move | Self::PostCopy => run.orders.push_back(Order::Move { post_copy }),
            Self::Aborted => run
                .orders
                .extend([Order::Move { post_copy }, Order::GiveUp]),
        }
        run
    }

    /// The named steps of every process, in the order in which they are taken when nothing fails.
    pub fn steps(self, rules: &Rules) -> Result<Vec<StepName>, Violation> {
        let mut run = self.run(rules);
        run.names = Some(Vec::new());
        run.settle()?;
        run.at_rest()?;
        Ok(run.names.unwrap_or_default())
    }
}

/// One or two kills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What was being done.
    pub scenario: Scenario,
    kills: Vec<Kill>,
    /// Started again only when all others had come to rest, else at once.
    pub late: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.scenario)?;
        for kill in &self.kills {
            write!(
                f,
                ", {} killed {:?} step {}",
                kill.process, kill.when, kill.step
            )?;
        }
        f.write_str(if self.late {
            ", started again when all others rested"
        } else {
            ", started again at once"
        })
    }
}

/// How a case ended, all of them allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// It runs on this host.
    Runs(Host),
    /// It is stopped.
    Stopped,
    /// It is saved.
    Saved,
    /// It is owned by this host and shown as crashed.
    Crashed(Host),
}

/// How many cases ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CaseCount {
    /// All.
    pub cases: usize,
    /// It runs where it was.
    pub stayed: usize,
    /// It runs on the other host.
    pub moved: usize,
    /// It is stopped.
    pub stopped: usize,
    /// It is saved.
    pub saved: usize,
    /// It is shown as crashed.
    pub crashed: usize,
}

/// What a table found.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// For each scenario and process killed first: how its cases ended.
    pub rows: Vec<(Scenario, Process, CaseCount)>,
    /// What went wrong, each with its case.
    pub failures: Vec<String>,
}

impl Tally {
    /// All cases.
    pub fn cases(&self) -> usize {
        self.rows.iter().map(|(_, _, count)| count.cases).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:10} {:10} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
            "scenario", "killed", "cases", "stayed", "moved", "stopped", "saved", "crashed"
        )?;
        for (scenario, process, count) in &self.rows {
            writeln!(
                f,
                "{:10} {:10} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
                format!("{scenario:?}"),
                process.to_string(),
                count.cases,
                count.stayed,
                count.moved,
                count.stopped,
                count.saved,
                count.crashed
            )?;
        }
        Ok(())
    }
}

/// Runs one case to its rest, checks it, and lets the next move succeed.
fn ends(case: &Case, rules: &Rules) -> Result<Ended, Violation> {
    let mut run = case.scenario.run(rules);
    run.kills.clone_from(&case.kills);
    run.restarts = !case.late;
    run.settle()?;
    run.at_rest()?;
    let record = &run.world.manager.record;
    let owner = record.host;
    let ended = match run.world.at(owner).life {
        Life::Running => Ended::Runs(owner),
        _ if run.world.at(owner).entry.holding == estive_moves::Holding::Stopped => Ended::Stopped,
        _ if run.world.at(owner).entry.holding == estive_moves::Holding::Saved => Ended::Saved,
        _ => Ended::Crashed(owner),
    };
    // Only the death of an instance may end a domain that ran; a start that was cut off shows as crashed too.
    let instance_killed = case
        .kills
        .iter()
        .any(|kill| matches!(kill.process, Process::Instance(_)));
    let moving = !matches!(
        case.scenario,
        Scenario::Start | Scenario::Anew | Scenario::Stop
    );
    if moving && !instance_killed && !matches!(ended, Ended::Runs(_) | Ended::Saved) {
        return Err(Violation {
            broken: crate::Broken::LostByRules,
            words: format!("no instance was killed, and it ended as {ended:?}"),
        });
    }
    run.next_move()?;
    Ok(ended)
}

fn kills(steps: usize) -> impl Iterator<Item = Kill> {
    (0..steps).flat_map(|step| {
        [When::Before, When::After]
            .into_iter()
            .flat_map(move |when| {
                Process::ALL.into_iter().map(move |process| Kill {
                    step,
                    when,
                    process,
                })
            })
    })
}

fn tally(
    rules: &Rules,
    scenarios: &[Scenario],
    cases: impl Fn(usize) -> Vec<Vec<Kill>>,
) -> Result<Tally, Violation> {
    let mut tally = Tally::default();
    for scenario in scenarios {
        let steps = scenario.steps(rules)?.len();
        let mut counts = [CaseCount::default(); Process::ALL.len()];
        for kills in cases(steps) {
            let Some(row) = kills.first().and_then(|kill| {
                Process::ALL
                    .iter()
                    .position(|process| *process == kill.process)
            }) else {
                continue;
            };
            let count = &mut counts[row];
            for late in [false, true] {
                let case = Case {
                    scenario: *scenario,
                    kills: kills.clone(),
                    late,
                };
                count.cases += 1;
                match ends(&case, rules) {
                    Ok(Ended::Runs(Host::A)) => count.stayed += 1,
                    Ok(Ended::Runs(Host::B)) => count.moved += 1,
                    Ok(Ended::Stopped) => count.stopped += 1,
                    Ok(Ended::Saved) => count.saved += 1,
                    Ok(Ended::Crashed(_)) => count.crashed += 1,
                    Err(violation) => tally.failures.push(format!(
                        "{case}: {:?}: {}",
                        violation.broken, violation.words
                    )),
                }
            }
        }
        for (process, count) in Process::ALL.into_iter().zip(counts) {
            tally.rows.push((*scenario, process, count));
        }
    }
    Ok(tally)
}

/// Every named step of every scenario × {before, after} × each process × {started again at once, when all others rest}.
pub fn table(rules: &Rules) -> Result<Tally, Violation> {
    tally(rules, &Scenario::ALL, |steps| {
        kills(steps).map(|kill| vec![kill]).collect()
    })
}

/// Every pair of such kills. The second one's step is counted in what really happens after the first.
pub fn pairs(rules: &Rules, scenario: Scenario) -> Result<Tally, Violation> {
    tally(rules, &[scenario], |steps| {
        // What happens after a kill may take more steps than the undisturbed run.
        let all: Vec<Kill> = kills(steps + steps / 2).collect();
        let mut pairs = Vec::new();
        for first in &all {
            for second in all.iter().filter(|second| second.step > first.step) {
                pairs.push(vec![*first, *second]);
            }
        }
        pairs
    })
}
