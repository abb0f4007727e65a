//! `estive plan`: what would move, why, and what it gains. Nothing happens.

use crate::arguments::Global;
use crate::failure::{Failure, failed};
use crate::foreseeing::Foreseeing;
use crate::output::{self, Output, mib, table};
use crate::plan_words::Names;
use crate::question::Asking;
use crate::world_file::WorldFile;
use clap::Args;
use estive_planner::lint;
use estive_world::{PlanFile, Report};
use std::fmt::Write;
use std::path::PathBuf;

/// Looks for a better place for each domain, within the rules, and for a safe order of moves. The same world, question and
/// seed give the same plan.
///
/// Exit code 2: the question cannot be answered, or rules stay broken that no move mends; what can be done is shown.
#[derive(Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    from: WorldFile,
    #[command(flatten)]
    asking: Asking,
    #[command(flatten)]
    foreseeing: Foreseeing,
    /// Write the plan to a file, for `estive apply`
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Plan {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let text = self.from.text(global).await?;
        let document = self.from.document(&text)?;
        let question = self
            .asking
            .question(&document, self.from.world.as_deref())?;
        let mut foreseen = document.world.clone();
        let forecasts = self.foreseeing.fill(&mut foreseen);
        let world = &foreseen;
        let mut plan = estive_planner::plan(world, &question).map_err(Failure::impossible)?;
        if let Some(fault) = lint(world, &plan).first() {
            return Err(Failure::failed(format!(
                "the planner made a plan that its linter refuses: {}",
                fault.say(world)
            ))
            .advice("another --seed; and tell the authors, with the world"));
        }
        // What was foreseen here is no part of the world that was given.
        plan.world = document.world.digest();
        plan.report.forecasts = forecasts.used();
        plan.objective = question.objective.to_text(world);
        let file = PlanFile::new(world, plan);
        if let Some(path) = &self.out {
            let json = serde_json::to_string(&file).map_err(failed)?;
            output::file_or_print(Some(path), &(json + "\n"))?;
        }
        match global.output {
            Output::Json => output::json(&file)?,
            Output::Table => output::print(&(render(&file) + &forecasts.table(&file)))?,
        }
        let is_broken = !file.plan.report.still_broken.is_empty();
        Ok(if is_broken { 2 } else { 0 })
    }
}

fn render(file: &PlanFile) -> String {
    let names = Names(file);
    let rows: Vec<Vec<String>> = (file.plan.steps.iter().enumerate())
        .map(|(number, step)| {
            vec![
                (number + 1).to_string(),
                names.act(step),
                match names.after(step) {
                    after if after.is_empty() => "-".to_owned(),
                    after => after,
                },
                format!("{:.1} s", step.figures.duration_s),
                mib(step.figures.bytes),
                names.reason(step),
            ]
        })
        .collect();
    let mut text = String::new();
    if !rows.is_empty() {
        text = table(&["step", "what", "after", "time", "bytes", "why"], &rows);
        text.push('\n');
    }
    report(&mut text, file, &file.plan.report);
    text
}

/// What was gained and what stood in the way.
fn report(text: &mut String, file: &PlanFile, report: &Report) {
    let line = |text: &mut String, words: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{}", output::plain(&words.to_string()));
    };
    let plan = &file.plan;
    line(
        text,
        format_args!(
            "{}: {:.6} before, {:.6} after",
            plan.objective, report.before, report.after
        ),
    );
    for (name, before, after) in &report.parts {
        line(text, format_args!("  {name}: {before:.4} → {after:.4}"));
    }
    if !plan.steps.is_empty() {
        line(
            text,
            format_args!(
                "{} steps, {} over the network, about {:.0} s",
                plan.steps.len(),
                mib(report.bytes),
                report.duration_s
            ),
        );
    }
    if let Some(because) = &report.nothing_because {
        line(text, format_args!("nothing to do: {because}"));
    }
    for broken in &report.broken {
        line(text, format_args!("was broken: {broken}"));
    }
    for still in &report.still_broken {
        line(
            text,
            format_args!("stays broken: {} ({})", still.what, still.count),
        );
    }
    for hindrance in &report.hindrances {
        line(
            text,
            format_args!("in the way: {} ({})", hindrance.what, hindrance.count),
        );
    }
    for other in &report.alternatives {
        line(
            text,
            format_args!(
                "not taken: {}, {} over the network: {:.6}; {}",
                other.what,
                mib(other.bytes),
                other.value,
                other.because
            ),
        );
    }
}
