//! `estive snapshot`: the herd as a planner sees it, as a text to keep, change and plan for.

use crate::arguments::Global;
use crate::connection::manager;
use crate::failure::{Failure, failed};
use crate::output::{self, Output};
use crate::world_file::{live, unreadable};
use clap::Args;
use estive_world::World;
use std::path::{Path, PathBuf};

/// Says hosts, domains, where each is and what moves. What the manager does not know is left out: loads, traffic, prices,
/// power. Add them to the file, and plan with `estive plan --world FILE`.
#[derive(Debug, Args)]
pub struct Snapshot {
    /// Write it to a file
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Snapshot {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let text = live(&manager(global)?).await?;
        let text = match global.output {
            Output::Table => text,
            Output::Json => {
                let world = World::from_text(&text)
                    .map_err(|fault| unreadable(Path::new("the manager"), &fault))?;
                serde_json::to_string_pretty(&world).map_err(failed)? + "\n"
            }
        };
        output::file_or_print(self.out.as_deref(), &text)?;
        Ok(0)
    }
}
