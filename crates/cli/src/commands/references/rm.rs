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
    /// Also while a process of this machine has it open, or while nobody can tell which clones need it: these fail at the
    /// next read. What the manager says is needed stays all the same.
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
            let (passable, needed): (Vec<_>, Vec<_>) = reference
                .used_by
                .iter()
                .cloned()
                .partition(|user| user.starts_with(references::PROCESS));
            if !needed.is_empty() || !passable.is_empty() && !self.force {
                let failure = Failure::impossible(format!(
                    "{word} is in use by {}; nothing was removed",
                    reference.used_by.join(", ")
                ));
                return Err(failure.advice(match needed.is_empty() {
                    true => "stop what uses it, or add --force",
                    false => {
                        "take it out of the configuration, or take what is made of it down: estive down, and \
                         estive volume rm for its volume"
                    }
                }));
            }
            if !passable.is_empty() {
                eprintln!(
                    "{word} is removed though {} has it open",
                    passable.join(", ")
                );
            }
            chosen.push(reference);
        }
        if let Some(why) = &cannot_tell
            && self.force
        {
            eprintln!("removed all the same: {why}");
        } else if let Some(why) = cannot_tell {
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
