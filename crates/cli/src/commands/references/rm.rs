//! `estive references rm`: an image with its manifest and its names.

use super::{Known, Users};
use crate::arguments::Global;
use crate::commands::seal::of_export;
use crate::failure::Failure;
use clap::Args;
use estive_exports::references;
use estive_model::ExitCode;

#[derive(Debug, Args)]
pub struct Rm {
    /// Name or digest (8 digits or more of it); several may be given.
    #[arg(required = true)]
    references: Vec<String>,
    #[command(flatten)]
    users: Users,
    /// Also what is in use: clones that run from it fail at the next read.
    #[arg(long)]
    force: bool,
}

impl Rm {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let Known {
            references: all,
            cannot_tell,
        } = self.users.known(global).await?;
        let mut chosen = Vec::new();
        for word in &self.references {
            let reference = references::find(&all, word).map_err(of_export)?;
            if !self.force && !reference.used_by.is_empty() {
                return Err(Failure::impossible(format!(
                    "{word} is in use by {}; nothing was removed",
                    reference.used_by.join(", ")
                ))
                .advice("stop what uses it, take it out of the configuration, or add --force"));
            }
            chosen.push(reference);
        }
        if let Some(why) = cannot_tell.filter(|_| !self.force) {
            return Err(Failure {
                code: ExitCode::Refused,
                ..Failure::failed(format!("{why}; nothing was removed"))
            }
            .advice("name the manager with --manager or ESTIVE_MANAGER, or add --force where no clone needs it"));
        }
        for reference in chosen {
            references::remove(&self.users.place.dir, reference).map_err(of_export)?;
        }
        Ok(0)
    }
}
