//! `estive references`: the sealed roots of this machine.

pub mod ls;
pub mod rm;

use super::seal::Place;
use crate::arguments::Global;
use crate::connection::{self, PATIENCE};
use crate::failure::{Failure, failed};
use clap::{Args, Subcommand};
use estive_api::wire::RootsInUse;
use estive_exports::references::{self, Reference};
use estive_manager::ManagerConfig;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct References {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the sealed roots: name, size, when they were sealed, who uses them
    Ls(ls::Ls),
    /// Remove a sealed root that nobody uses
    Rm(rm::Rm),
}

impl References {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        match self.what {
            What::Ls(ls) => ls.run(global).await,
            What::Rm(rm) => rm.run(global).await,
        }
    }
}

/// Where it is looked who uses a root.
#[derive(Debug, Args)]
pub struct Users {
    #[command(flatten)]
    place: Place,
    /// The manager's configuration: what its references name is used.
    #[arg(long, value_name = "FILE", default_value = "/etc/estive/manager.yaml")]
    manager_config: PathBuf,
}

/// What is known of who uses roots.
struct Known {
    references: Vec<Reference>,
    /// Why there may be users besides.
    cannot_tell: Option<String>,
}

impl Users {
    /// The references with their users on this machine, and those that the manager knows, wherever they are.
    async fn known(&self, global: &Global) -> Result<Known, Failure> {
        let mut references = self.here()?;
        let asked = async {
            let client = connection::manager(global)?;
            let used: RootsInUse = client.get_json("/roots", PATIENCE).await?;
            Ok::<_, Failure>(used)
        };
        let used = match asked.await {
            Ok(used) => used,
            Err(failure) => {
                return Ok(Known {
                    references,
                    cannot_tell: Some(format!(
                        "the manager cannot be asked which clones need it: {}",
                        failure.message
                    )),
                });
            }
        };
        for reference in &mut references {
            let mut roots = used.roots.iter();
            let Some(root) = roots.find(|root| root.root == reference.digest) else {
                continue;
            };
            for user in &root.users {
                if !reference.used_by.contains(user) {
                    reference.used_by.push(user.clone());
                }
            }
        }
        let cannot_tell = (!used.unknown.is_empty()).then(|| {
            format!(
                "what these are made of was not recorded: {}",
                used.unknown.join(", ")
            )
        });
        Ok(Known {
            references,
            cannot_tell,
        })
    }

    fn here(&self) -> Result<Vec<Reference>, Failure> {
        let mut references = references::list(&self.place.dir).map_err(failed)?;
        if !self.manager_config.exists() {
            return Ok(references);
        }
        let config = ManagerConfig::load(&self.manager_config).map_err(failed)?;
        let text = std::fs::read_to_string(&self.manager_config).map_err(failed)?;
        for reference in &mut references {
            let image = std::fs::canonicalize(&reference.path).ok();
            for (name, configured) in &config.references {
                let tree = configured.tree.as_deref();
                if tree.is_some_and(|tree| same_file(tree, image.as_deref())) {
                    reference
                        .used_by
                        .push(format!("the manager's reference {name}"));
                }
            }
            // However its parts are named there: an image's name is nothing else's.
            let hex = &reference.digest["sha256:".len()..];
            let words = text
                .split(|character: char| character.is_whitespace() || ",{}\"'".contains(character));
            let named = words.into_iter().any(|word| {
                word.contains(hex)
                    || reference.names.iter().any(|name| {
                        ["erofs", "manifest"].iter().any(|ending| {
                            Path::new(word) == self.place.dir.join(format!("{name}.{ending}"))
                        })
                    })
            });
            if named
                && reference
                    .used_by
                    .iter()
                    .all(|user| user.starts_with("process"))
            {
                reference
                    .used_by
                    .push("the manager's configuration".to_owned());
            }
        }
        Ok(references)
    }
}

fn same_file(path: &Path, image: Option<&Path>) -> bool {
    image.is_some() && std::fs::canonicalize(path).ok().as_deref() == image
}
