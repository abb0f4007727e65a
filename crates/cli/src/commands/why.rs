//! `estive why` and `estive why-not`: why a domain is where it is, and what speaks against another host.

use crate::arguments::Global;
use crate::failure::Failure;
use crate::foreseeing::Foreseeing;
use crate::output::{self, Output};
use crate::question::Asking;
use crate::world_file::{WorldFile, domain, host};
use clap::Args;
use estive_planner::{Choice, Ledger, choice, choices, why, why_not};
use estive_world::World;
use serde::Serialize;

/// Says what keeps a domain where it is: what it would gain elsewhere, and how many hosts are out for which reason.
#[derive(Debug, Args)]
pub struct Why {
    /// The domain
    domain: String,
    #[command(flatten)]
    from: WorldFile,
    #[command(flatten)]
    asking: Asking,
    #[command(flatten)]
    foreseeing: Foreseeing,
}

/// Says what stands in the way of a domain on a host, or what the move would gain and cost.
#[derive(Debug, Args)]
pub struct WhyNot {
    /// The domain
    domain: String,
    /// The host
    host: String,
    #[command(flatten)]
    from: WorldFile,
    #[command(flatten)]
    asking: Asking,
    #[command(flatten)]
    foreseeing: Foreseeing,
}

/// A host for a domain, for programs.
#[derive(Debug, Serialize)]
struct Answer<'w> {
    host: &'w str,
    #[serde(flatten)]
    choice: Choice,
}

impl Why {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let text = self.from.text(global).await?;
        let document = self.from.document(&text)?;
        let mut foreseen = document.world.clone();
        self.foreseeing.fill(&mut foreseen);
        let world = &foreseen;
        let question = self
            .asking
            .question(&document, self.from.world.as_deref())?;
        let domain = domain(world, &self.domain)?;
        let ledger = Ledger::new(world, &question.objective).map_err(Failure::impossible)?;
        match global.output {
            Output::Json => {
                let all: Vec<Answer<'_>> = (choices(&ledger, domain).into_iter())
                    .map(|choice| answer(world, choice))
                    .collect();
                output::json(&all)?;
            }
            Output::Table => lines(&why(&ledger, domain))?,
        }
        Ok(0)
    }
}

impl WhyNot {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let text = self.from.text(global).await?;
        let document = self.from.document(&text)?;
        let mut foreseen = document.world.clone();
        self.foreseeing.fill(&mut foreseen);
        let world = &foreseen;
        let question = self
            .asking
            .question(&document, self.from.world.as_deref())?;
        let (domain, host) = (domain(world, &self.domain)?, host(world, &self.host)?);
        let ledger = Ledger::new(world, &question.objective).map_err(Failure::impossible)?;
        match global.output {
            Output::Json => output::json(&answer(world, choice(&ledger, domain, host)))?,
            Output::Table => lines(&[why_not(&ledger, domain, host)])?,
        }
        Ok(0)
    }
}

fn answer(world: &World, choice: Choice) -> Answer<'_> {
    Answer {
        host: &world.hosts[choice.host].name,
        choice,
    }
}

fn lines(words: &[String]) -> Result<(), Failure> {
    let text: String = (words.iter())
        .map(|words| output::plain(words) + "\n")
        .collect();
    output::print(&text)
}
