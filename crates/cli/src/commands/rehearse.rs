//! `estive rehearse`: what would happen to a world over a day, under one policy or several. Nothing real happens.

use crate::arguments::Global;
use crate::failure::{Failure, failed};
use crate::foreseeing::Foreseeing;
use crate::output::{self, Output};
use crate::question::Asking;
use crate::traces;
use crate::world_file::WorldFile;
use clap::{Args, ValueEnum};
use estive_planner::Question;
use estive_rehearsal::course::{
    Course, Faults, Mind, Nothing, Plans, Relieves, Setting, Trace, report, run,
};
use estive_rehearsal::{Day, Frugal, Policy, Variant, floor_kwh, peers, replay, table, timeline};
use estive_world::World;
use std::path::{Path, PathBuf};

/// A world's hosts, moves, power, faults, prices and owners run their course by a seed; the planner is asked every period.
///
/// With --cloudsim the directory of traces is a day of PlanetLab, replayed in the data centre of CloudSim's examples, and the
/// policies are its own (NPA, DVFS, THR-MMT-0.8, IQR-MMT-1.5, MAD-MMT-2.5, LR-MMT-1.2) and ours (frugal).
#[derive(Debug, Args)]
pub struct Rehearse {
    #[command(flatten)]
    from: WorldFile,
    #[command(flatten)]
    asking: Asking,
    /// A directory of loads: a file a domain, a whole percentage of its processors a line
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,
    /// Seconds between two lines of a trace
    #[arg(long, value_name = "S", default_value_t = 300)]
    trace_step: u32,
    /// Who decides: plan, relieve, nothing; with --cloudsim its policies. Without it plan and nothing, or all of CloudSim's
    #[arg(long, value_name = "POLICY", value_delimiter = ',')]
    policy: Vec<String>,
    /// How long, in seconds
    #[arg(long, value_name = "S", default_value_t = 86_400)]
    length: u32,
    /// Seconds between the moments at which the planner is asked
    #[arg(long, value_name = "S", default_value_t = 300)]
    period: u32,
    #[command(flatten)]
    foreseeing: Foreseeing,
    /// Failures of a host in 1,000 hours
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    host_fails: f64,
    /// Moves that end where they began, in thousandths
    #[arg(long, value_name = "N", default_value_t = 0)]
    move_fails: u32,
    /// Replay the traces as CloudSim does
    #[arg(long, requires = "trace", conflicts_with = "world")]
    cloudsim: bool,
    /// CloudSim's rules: memory counts only at the start; memory enforced and domains kept; each with boots that cost
    #[arg(
        long,
        value_enum,
        default_value = "kept",
        requires = "cloudsim",
        value_name = "RULES"
    )]
    variant: Rules,
    /// Hosts of CloudSim's data centre
    #[arg(long, value_name = "N", default_value_t = 800, requires = "cloudsim")]
    hosts: u32,
    /// Draw the last policy's course to a file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// A policy of a replay, with its name.
type Named = (String, Box<dyn Policy>);

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rules {
    Stock,
    Kept,
    StockBoots,
    KeptBoots,
}

impl From<Rules> for Variant {
    fn from(rules: Rules) -> Self {
        let (kept, boots) = match rules {
            Rules::Stock => (false, false),
            Rules::Kept => (true, false),
            Rules::StockBoots => (false, true),
            Rules::KeptBoots => (true, true),
        };
        Self { kept, boots }
    }
}

impl Rehearse {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        match &self.trace {
            Some(directory) if self.cloudsim => self.replayed(global, directory),
            _ => self.course(global).await,
        }
    }

    async fn course(&self, global: &Global) -> Result<u8, Failure> {
        let text = self.from.text(global).await?;
        let document = self.from.document(&text)?;
        let question = self
            .asking
            .question_of_a_rehearsal(&document, self.from.world.as_deref())?;
        let world = &document.world;
        let trace = (self.trace.as_ref())
            .map(|directory| self.loads(directory, world))
            .transpose()?;
        let setting = Setting {
            length_s: self.length,
            period_s: self.period,
            horizon_s: self.foreseeing.horizon_s(world),
            seed: question.seed,
            faults: Faults {
                host_fails_per_1000_h: self.host_fails.clamp(0.0, 1e9),
                move_fails_milli: self.move_fails.min(1000),
                ..Faults::default()
            },
        };
        let mut courses: Vec<Course> = Vec::new();
        for mut mind in self.minds(&question)? {
            courses.push(run(world, trace.as_ref(), &setting, &mut *mind).map_err(failed)?);
        }
        if let (Some(path), Some(course)) = (&self.svg, courses.last()) {
            let title = format!("{}, {} s", course.policy, self.length);
            output::file_or_print(Some(path), &report::drawing(&title, course))?;
        }
        match global.output {
            Output::Json => output::json(&courses)?,
            Output::Table => output::print(&report::table(&courses))?,
        }
        Ok(0)
    }

    fn minds(&self, question: &Question) -> Result<Vec<Box<dyn Mind>>, Failure> {
        let all = ["nothing".to_owned(), "plan".to_owned()];
        let names = if self.policy.is_empty() {
            &all[..]
        } else {
            &self.policy
        };
        (names.iter())
            .map(|name| -> Result<Box<dyn Mind>, Failure> {
                match name.as_str() {
                    "nothing" => Ok(Box::new(Nothing)),
                    "relieve" => Ok(Box::<Relieves>::default()),
                    "plan" => Ok(Box::new(Plans {
                        question: question.clone(),
                    })),
                    other => Err(
                        Failure::impossible(format!("no policy {other} for a world"))
                            .advice("plan, relieve or nothing; others with --cloudsim"),
                    ),
                }
            })
            .collect()
    }

    /// Loads by the names of domains; who has no file uses what the world says, all the time.
    fn loads(&self, directory: &Path, world: &World) -> Result<Trace, Failure> {
        let day = traces::read(directory)?;
        let rows = day
            .rows
            .iter()
            .map(|row| row.percent.len())
            .max()
            .unwrap_or(0);
        let by_name: std::collections::HashMap<&str, &[u8]> = (day.rows.iter())
            .map(|row| (&*row.name, &*row.percent))
            .collect();
        let used = |at: usize| {
            (world.domains.iter())
                .map(|domain| {
                    let mut used = domain.used;
                    if let Some(percent) = by_name.get(&*domain.name) {
                        let percent = u64::from(percent[at % percent.len()]);
                        used.0[0] = domain.reserved.0[0] * percent * 10_000;
                    }
                    used
                })
                .collect()
        };
        Ok(Trace {
            step_s: self.trace_step,
            rows: (0..rows).map(used).collect(),
        })
    }

    fn replayed(&self, global: &Global, directory: &Path) -> Result<u8, Failure> {
        let rows = traces::read(directory)?.rows;
        let files: Vec<(String, Vec<u8>)> = rows
            .into_iter()
            .map(|row| (row.name, row.percent))
            .collect();
        let hosts = usize::try_from(self.hosts.clamp(1, 100_000)).unwrap_or(800);
        let day = Day::planetlab(&files, hosts);
        let variant = Variant::from(self.variant);
        let mut outcomes = Vec::new();
        let mut last = None;
        for (name, mut policy) in self.policies()? {
            let replayed = replay(&day, variant, &mut *policy).map_err(failed)?;
            outcomes.push((name.clone(), replayed.outcome));
            last = Some((name, replayed));
        }
        if let (Some(path), Some((name, replayed))) = (&self.svg, &last) {
            let title = format!("{name}, {}", variant.name());
            output::file_or_print(Some(path), &timeline::of_replay(&title, replayed))?;
        }
        match global.output {
            Output::Json => {
                let rows: Vec<serde_json::Value> = (outcomes.iter())
                    .map(|(name, outcome)| {
                        serde_json::json!({
                            "policy": name,
                            "variant": variant.name(),
                            "outcome": outcome,
                            "esv": outcome.esv(),
                        })
                    })
                    .collect();
                output::json(&rows)?;
            }
            Output::Table => {
                let text = table::of_outcomes(&outcomes);
                let floor = floor_kwh(&day, variant);
                output::print(&format!("{text}\nno policy comes below {floor:.2} kWh\n"))?;
            }
        }
        Ok(0)
    }

    fn policies(&self) -> Result<Vec<Named>, Failure> {
        let mut known: Vec<Named> = (peers::peers().into_iter())
            .map(|(name, policy)| (name.to_owned(), policy))
            .collect();
        known.push(("frugal".to_owned(), Box::new(Frugal::default())));
        if self.policy.is_empty() {
            return Ok(known);
        }
        let mut chosen = Vec::new();
        for name in &self.policy {
            let Some(at) = known.iter().position(|(other, _)| other == name) else {
                let names: Vec<&str> = known.iter().map(|(name, _)| &**name).collect();
                return Err(Failure::impossible(format!("no policy {name} is left"))
                    .advice(format!("each once, of {}", names.join(" "))));
            };
            chosen.push(known.swap_remove(at));
        }
        Ok(chosen)
    }
}
