//! A question about a world, from a file's line `ask` and from options.

use crate::failure::Failure;
use crate::world_file::unreadable;
use clap::Args;
use estive_planner::{About, Budget, Objective, Question, asked_or};
use estive_world::text::{Document, KIB, Measure, Value};
use estive_world::{World, WorldError};
use std::path::Path;

/// What is asked. Options go over what a line `ask` of the world's file says.
#[derive(Debug, Args)]
pub struct Asking {
    /// The line `ask` of that name in the world's file; without it, the first that asks for a plan
    #[arg(long, value_name = "NAME")]
    ask: Option<String>,
    /// What is better: terms with + between, weights with *, ranks with `then`: balance, consolidate(spare=10%), locality, cost, time, guests-out(HOST,…), fair
    #[arg(long, value_name = "TERMS")]
    objective: Option<String>,
    /// The most moves
    #[arg(long, value_name = "N")]
    moves: Option<u32>,
    /// The most that its moves may carry: 512M, 20G
    #[arg(long, value_name = "SIZE")]
    bytes: Option<String>,
    /// How many candidates may be looked at; without it 2,000,000 for a plan, or 400 for each domain if that is more; 100,000 for each plan of a rehearsal
    #[arg(long, value_name = "N")]
    budget: Option<u64>,
    /// For choices between equals
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// Candidates for a plan that a person waits for, at the least: less than half a processor second.
const OF_A_PLAN: u64 = 2_000_000;
/// And for each domain: a large world is not even looked at once with less. 1,000 hosts with 10,000 domains take one to two
/// processor seconds, ten times as many some twenty.
const OF_A_DOMAIN: u64 = 400;

impl Asking {
    /// The question that a plan answers; `path` is where the world comes from.
    pub fn question(
        &self,
        document: &Document<'_>,
        path: Option<&Path>,
    ) -> Result<Question, Failure> {
        let domains = document.world.domains.len() as u64;
        let budget = Budget {
            work: OF_A_PLAN.max(OF_A_DOMAIN * domains),
        };
        let common = Question::default();
        self.question_or(document, path, Question { budget, ..common })
    }

    /// The question that is asked again and again, with less to look at each time.
    pub fn question_of_a_rehearsal(
        &self,
        document: &Document<'_>,
        path: Option<&Path>,
    ) -> Result<Question, Failure> {
        self.question_or(document, path, Question::default())
    }

    fn question_or(
        &self,
        document: &Document<'_>,
        path: Option<&Path>,
        common: Question,
    ) -> Result<Question, Failure> {
        let path = path.unwrap_or(Path::new("the manager"));
        let all = asked_or(document, &common).map_err(|fault| unreadable(path, &fault))?;
        let mut question = match &self.ask {
            Some(name) => {
                let found = all.into_iter().find(|asked| asked.name == *name);
                found.map(|asked| asked.question).ok_or_else(|| {
                    Failure::impossible(format!("{}: no line `ask {name}`", path.display()))
                })?
            }
            None => (all.into_iter())
                .find(|asked| asked.about == About::Plan)
                .map_or(common, |asked| asked.question),
        };
        if let Some(text) = &self.objective {
            question.objective = objective(text, &document.world)?;
        }
        if let Some(moves) = self.moves {
            question.moves_at_most = Some(moves);
        }
        if let Some(size) = &self.bytes {
            question.bytes_at_most = Some(amount("--bytes", &KIB, size)?.saturating_mul(1024));
        }
        if let Some(work) = self.budget {
            question.budget.work = work;
        }
        if let Some(seed) = self.seed {
            question.seed = seed;
        }
        Ok(question)
    }
}

fn objective(text: &str, world: &World) -> Result<Objective, Failure> {
    Objective::from_text(text, world).map_err(|fault| match fault {
        WorldError::Text {
            column,
            what,
            advice,
            ..
        } => Failure::impossible(format!("--objective, character {column}: {what}")).advice(advice),
        other => Failure::impossible(other.to_string()),
    })
}

/// An amount of an option, with its unit.
pub fn amount(option: &str, measure: &Measure, given: &str) -> Result<u64, Failure> {
    let value = Value {
        raw: given,
        line: 1,
        column: 1,
    };
    measure.read(&value).map_err(|fault| match fault {
        WorldError::Text { what, advice, .. } => {
            Failure::impossible(format!("{option}: {what}")).advice(advice)
        }
        other => Failure::impossible(format!("{option}: {other}")),
    })
}
