//! `estive apply`: a plan is carried out, move by move.

use crate::arguments::Global;
use crate::connection::{PATIENCE, manager};
use crate::failure::{Failure, chain};
use crate::output::{self, Output, mib, table};
use crate::plan_words::Names;
use crate::world_file::{live, read, unreadable};
use clap::Args;
use estive_api::Client;
use estive_api::wire::{HerdDomain, MigrateLine, MigrateOrder};
use estive_model::{DomainName, HostName};
use estive_planner::{Schedule, Stage, lint};
use estive_world::{Act, Indexed, Plan, PlanFile, Step, StepIx, World};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Each step begins once those that it comes after have ended, with no more moves at once than the plan's world allows.
///
/// It is refused, with exit code 3, when hosts or domains are not where they were as the plan was made. After a step that
/// fails nothing else begins; what was done stands, and a new plan starts from there.
#[derive(Debug, Args)]
pub struct Apply {
    /// The plan, as `estive plan --out FILE` writes it
    plan: PathBuf,
    /// Leave out the steps that switch hosts on or off: a person does those
    #[arg(long)]
    moves_only: bool,
}

/// What became of a step.
#[derive(Debug, Serialize)]
struct Row {
    /// Its number, from 1.
    step: usize,
    what: String,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    whole_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Done,
    LeftOut,
    Failed,
    NotBegun,
}

/// What a move took.
#[derive(Debug, Clone, Copy)]
struct Took {
    whole_ms: u64,
    sent_bytes: u64,
}

impl Apply {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let client = manager(global)?;
        let file = PlanFile::read(&read(&self.plan)?).map_err(|f| unreadable(&self.plan, &f))?;
        self.refuse_what_cannot_be_done(&file)?;
        let world = World::from_text(&live(&client).await?)
            .map_err(|fault| unreadable(Path::new("the manager"), &fault))?;
        if world.placement_digest() != file.placement {
            return Err(Failure::refused(format!(
                "the world has moved on since the plan was made: {}",
                file.differences(&world).join(", ")
            ))
            .advice("estive plan, for a plan from here"));
        }
        refuse_what_is_not_safe(&world, &file)?;
        let rows = self.carry_out(global, &client, &file).await?;
        match global.output {
            Output::Json => output::json(&rows)?,
            Output::Table => output::print(&render(&rows))?,
        }
        ended(&rows)
    }

    fn refuse_what_cannot_be_done(&self, file: &PlanFile) -> Result<(), Failure> {
        let names = Names(file);
        for (number, step) in file.plan.steps.iter().enumerate() {
            match step.act {
                Act::Move { .. } => {}
                Act::SwitchOn { .. } | Act::SwitchOff { .. } if self.moves_only => {}
                Act::SwitchOn { .. } | Act::SwitchOff { .. } => {
                    return Err(Failure::impossible(format!(
                        "step {}: the manager cannot {}",
                        number + 1,
                        names.act(step)
                    ))
                    .advice("--moves-only leaves such steps to you"));
                }
                Act::Place { .. } | Act::MoveReplica { .. } => {
                    return Err(Failure::impossible(format!(
                        "step {}: the manager cannot {}",
                        number + 1,
                        names.act(step)
                    ))
                    .advice("estive up places domains; a plan for a live herd only moves them"));
                }
            }
        }
        Ok(())
    }

    async fn carry_out(
        &self,
        global: &Global,
        client: &Client,
        file: &PlanFile,
    ) -> Result<Vec<Row>, Failure> {
        let names = Names(file);
        let mut rows: Vec<Row> = (file.plan.steps.iter().enumerate())
            .map(|(number, step)| Row {
                step: number + 1,
                what: names.act(step),
                outcome: Outcome::NotBegun,
                whole_ms: None,
                sent_bytes: None,
                problem: None,
            })
            .collect();
        let is_shown = global.output == Output::Table;
        let mut schedule = Schedule::new(file);
        let mut running = FuturesUnordered::new();
        let stopped = super::shutdown()?;
        let mut is_stopping = false;
        loop {
            while let Some(number) = schedule.begin() {
                let step = &file.plan.steps[number];
                if !matches!(step.act, Act::Move { .. }) {
                    rows[number].outcome = Outcome::LeftOut;
                    schedule.ended(number, true);
                    continue;
                }
                if is_shown {
                    let row = &rows[number];
                    eprintln!("{}: {} ({})", row.step, row.what, names.reason(step));
                }
                running.push(async move { (number, move_domain(client, file, step).await) });
            }
            let (number, ended) = tokio::select! {
                ended = running.next() => match ended {
                    Some(ended) => ended,
                    None => break,
                },
                () = stopped.cancelled(), if !is_stopping => {
                    eprintln!("asked to stop: what has begun is waited for, nothing else begins");
                    is_stopping = true;
                    schedule.stop();
                    continue;
                }
            };
            schedule.ended(number, ended.is_ok());
            let row = &mut rows[number];
            match ended {
                Ok(took) => {
                    row.outcome = Outcome::Done;
                    row.whole_ms = Some(took.whole_ms);
                    row.sent_bytes = Some(took.sent_bytes);
                }
                Err(problem) => {
                    row.outcome = Outcome::Failed;
                    row.problem = Some(problem);
                }
            }
        }
        debug_assert!(!schedule.stages().contains(&Stage::Runs));
        Ok(rows)
    }
}

/// The linter has the last word: whoever wrote the plan, no state of it may break what holds on these hosts.
fn refuse_what_is_not_safe(world: &World, file: &PlanFile) -> Result<(), Failure> {
    let Some(plan) = file.plan_of(world) else {
        return Err(Failure::refused(
            "the plan names hosts or domains that are not there",
        ));
    };
    match lint(world, &without_switching(plan)).first() {
        None => Ok(()),
        Some(fault) => Err(Failure::impossible(format!(
            "the plan is not safe: {}",
            fault.say(world)
        ))
        .advice("estive plan, for one that is")),
    }
}

/// The plan's moves alone; what waited for a switch waits for what that waited for.
fn without_switching(plan: Plan) -> Plan {
    let mut steps: Vec<Step> = Vec::new();
    let mut new_places: Vec<Option<StepIx>> = Vec::new();
    let mut waits: Vec<Vec<StepIx>> = Vec::new();
    for step in plan.steps {
        let mut after: Vec<StepIx> = (step.after.iter())
            .flat_map(|other| match new_places[other.at()] {
                Some(place) => vec![place],
                None => waits[other.at()].clone(),
            })
            .collect();
        after.sort();
        after.dedup();
        waits.push(after.clone());
        if matches!(step.act, Act::SwitchOn { .. } | Act::SwitchOff { .. }) {
            new_places.push(None);
        } else {
            new_places.push(Some(StepIx::of(steps.len())));
            steps.push(Step { after, ..step });
        }
    }
    Plan { steps, ..plan }
}

/// Moves a domain, if it is where the plan says.
async fn move_domain(client: &Client, file: &PlanFile, step: &Step) -> Result<Took, String> {
    let Act::Move {
        domain, from, to, ..
    } = step.act
    else {
        return Err("it is no move".to_owned());
    };
    let names = Names(file);
    let name = DomainName::new(names.domain(domain)).map_err(|error| chain(&error))?;
    let to = HostName::new(names.host(to)).map_err(|error| chain(&error))?;
    let now: HerdDomain = client
        .get_json(&format!("/domain/{name}"), PATIENCE)
        .await
        .map_err(|error| chain(&error))?;
    if now.host.as_str() != names.host(from) {
        return Err(format!(
            "{name} is on {}, and the plan moves it from {}: somebody else has moved it",
            now.host,
            names.host(from)
        ));
    }
    let order = MigrateOrder {
        to: Some(to),
        reason: Some(format!(
            "a plan for {}: {}",
            file.plan.objective,
            names.reason(step)
        )),
    };
    let body = serde_json::to_vec(&order).map_err(|error| chain(&error))?;
    let mut lines = client
        .stream_lines_of::<MigrateLine>(
            http::Method::POST,
            &format!("/domain/{name}/migrate"),
            "application/json",
            body,
            PATIENCE,
        )
        .await
        .map_err(|error| Failure::from(error).message)?;
    while let Some(line) = lines.next().await {
        match line.map_err(|error| chain(&error))? {
            MigrateLine::Ordered { .. } | MigrateLine::Progress { .. } => {}
            MigrateLine::Done { report, whole_ms } => {
                return Ok(Took {
                    whole_ms,
                    sent_bytes: report.sent_bytes,
                });
            }
            MigrateLine::Failed { problem } => return Err(problem.error),
        }
    }
    Err(format!(
        "the manager ended its answer before the move was over; estive show {name} says where it is"
    ))
}

fn render(rows: &[Row]) -> String {
    let cells: Vec<Vec<String>> = (rows.iter())
        .map(|row| {
            let outcome = match row.outcome {
                Outcome::Done => "done",
                Outcome::LeftOut => "left out",
                Outcome::Failed => "failed",
                Outcome::NotBegun => "not begun",
            };
            vec![
                row.step.to_string(),
                row.what.clone(),
                outcome.to_owned(),
                row.whole_ms
                    .map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
                row.sent_bytes.map_or_else(|| "-".to_owned(), mib),
            ]
        })
        .collect();
    table(&["step", "what", "outcome", "time", "sent"], &cells)
}

/// Done, or what failed and what stands.
fn ended(rows: &[Row]) -> Result<u8, Failure> {
    let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count();
    let (done, not_begun) = (count(Outcome::Done), count(Outcome::NotBegun));
    let stands = format!("{done} of {} steps done, {not_begun} not begun", rows.len());
    let failed: Vec<String> = (rows.iter())
        .filter_map(|row| Some(format!("step {}: {}", row.step, row.problem.as_ref()?)))
        .collect();
    if failed.is_empty() && not_begun == 0 {
        return Ok(0);
    }
    let what = if failed.is_empty() {
        "it was stopped".to_owned()
    } else {
        failed.join("; ")
    };
    Err(Failure::failed(format!("{what} ({stands})"))
        .advice("what was done stands; estive plan makes a plan from here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: usize, outcome: Outcome, problem: Option<&str>) -> Row {
        Row {
            step,
            what: format!("move c{step} from a to b"),
            outcome,
            whole_ms: (outcome == Outcome::Done).then_some(700),
            sent_bytes: (outcome == Outcome::Done).then_some(3 << 20),
            problem: problem.map(str::to_owned),
        }
    }

    #[test]
    fn what_failed_and_what_stands_is_said() {
        let rows = [
            row(1, Outcome::Done, None),
            row(2, Outcome::Failed, Some("cable cut")),
            row(3, Outcome::NotBegun, None),
        ];
        assert_eq!(
            render(&rows),
            "STEP  WHAT                 OUTCOME    TIME    SENT\n\
             1     move c1 from a to b  done       700 ms  3.0 MiB\n\
             2     move c2 from a to b  failed     -       -\n\
             3     move c3 from a to b  not begun  -       -\n"
        );
        let failure = ended(&rows).unwrap_err();
        assert_eq!(
            failure.message,
            "step 2: cable cut (1 of 3 steps done, 1 not begun)"
        );
        assert_eq!(ended(&rows[..1]).unwrap(), 0);
        let left = [row(1, Outcome::Done, None), row(2, Outcome::LeftOut, None)];
        assert_eq!(ended(&left).unwrap(), 0);
    }
}
