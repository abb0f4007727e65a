//! `estive references rm`: an image with its manifest and its names.

use super::Users;
use crate::commands::seal::of_export;
use crate::failure::Failure;
use clap::Args;
use estive_exports::references;

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
    pub fn run(self) -> Result<u8, Failure> {
        let all = self.users.references()?;
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
        for reference in chosen {
            references::remove(&self.users.place.dir, reference).map_err(of_export)?;
        }
        Ok(0)
    }
}
