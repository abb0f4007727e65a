//! `estive root`: what `root=` may be made of.

mod check;
mod show;

use crate::arguments::Global;
use crate::failure::Failure;
use crate::output::{self, Output, table};
use clap::{Args, Subcommand};
use estive_boot::loaders::LOADERS;
use serde_json::json;

#[derive(Debug, Args)]
pub struct Root {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show one loader: how it is written, and its options
    Show(show::Show),
    /// Read a line and say what it means and needs, or point at what is wrong
    Check(check::Check),
}

impl Root {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        match self.what {
            Some(What::Show(show)) => return show.run(global),
            Some(What::Check(check)) => return check.run(global),
            None => {}
        }
        match global.output {
            Output::Json => {
                let rows = LOADERS.iter().map(|loader| {
                    json!({
                        "name": loader.name,
                        "written": loader.usage(),
                        "help": loader.help,
                        "example": loader.example,
                    })
                });
                output::json(&rows.collect::<Vec<_>>())?;
            }
            Output::Table => {
                let rows: Vec<Vec<String>> = LOADERS
                    .iter()
                    .map(|loader| [loader.name, first_sentence(loader.help), loader.example])
                    .map(|row| row.map(str::to_owned).to_vec())
                    .collect();
                output::print(&table(&["loader", "help", "example"], &rows))?;
            }
        }
        Ok(0)
    }
}

fn first_sentence(text: &str) -> &str {
    match text.find(". ") {
        Some(end) => &text[..=end],
        None => text,
    }
}
