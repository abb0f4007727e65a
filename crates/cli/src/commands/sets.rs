//! `estive sets`: the template sets there are, those of a herd and those that ship.

pub mod show;

use crate::arguments::Global;
use crate::failure::Failure;
use crate::local::unfit;
use crate::output::{self, Output, table};
use clap::{Args, Subcommand};
use estive_layers::{HerdFolder, OwnSets, TemplateSet};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Sets {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show one set: what it is for, what it reads, what it makes
    Show(show::Show),
}

/// Where sets are looked for besides those that ship.
#[derive(Debug, Args)]
pub struct Place {
    /// The herd's folder: sets of its own lie under sets/.
    #[arg(long, env = "ESTIVE_HERD", value_name = "DIR", default_value = ".")]
    herd: PathBuf,
}

impl Place {
    /// The herd's own sets; none when it has no sets/.
    fn own(&self) -> Result<OwnSets, Failure> {
        let directory = self.herd.join("sets");
        if !directory.is_dir() {
            return Ok(OwnSets::new());
        }
        HerdFolder::read_sets(&directory).map_err(unfit)
    }

    fn of(&self, set: &str, own: &OwnSets) -> String {
        if !own.contains_key(set) {
            return "ships with estive".to_owned();
        }
        let path = self.herd.join("sets").join(set);
        path.strip_prefix(".")
            .unwrap_or(&path)
            .display()
            .to_string()
    }
}

/// A row of the list.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    help: String,
    from: String,
}

impl Sets {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        if let Some(What::Show(show)) = self.what {
            return show.run(global);
        }
        let own = self.place.own()?;
        let shipped = TemplateSet::shipped().map(str::to_owned);
        let names: BTreeSet<String> = shipped.chain(own.keys().cloned()).collect();
        let names = Vec::from_iter(names);
        let sets = TemplateSet::find_all(&names, &own).map_err(unfit)?;
        let rows: Vec<Row> = sets
            .iter()
            .map(|set| Row {
                name: set.name().to_owned(),
                help: set.help().to_owned(),
                from: self.place.of(set.name(), &own),
            })
            .collect();
        match global.output {
            Output::Json => output::json(&rows)?,
            Output::Table => {
                let rows: Vec<Vec<String>> = rows
                    .into_iter()
                    .map(|row| vec![row.name, row.help, row.from])
                    .collect();
                output::print(&table(&["set", "help", "from"], &rows))?;
            }
        }
        Ok(0)
    }
}
