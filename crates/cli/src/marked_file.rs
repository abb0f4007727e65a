//! A file of this machine in which each deployment has a block of its own.

use crate::arguments::Global;
use crate::clones::Whose;
use crate::failure::{Failure, chain};
use crate::output::{self, Output};
use clap::Args;
use estive_files::{FilesError, change_file};
use estive_layers::{ListFormat, ListedClone, list_clones, put_block, remove_block};
use estive_model::ExitCode;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Options of the commands that change one.
#[derive(Debug, Args)]
pub struct Update {
    /// Take the block away.
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    whose: Whose,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Done {
    /// The real file, where links lead.
    file: PathBuf,
    /// Otherwise it was as wanted.
    written: bool,
    /// Deployments, and how many of their clones the file names now.
    blocks: BTreeMap<String, usize>,
}

impl Update {
    /// Puts the clones' lines into the file, a block for each deployment, and changes nothing else in it.
    pub async fn run(
        &self,
        file: &Path,
        format: ListFormat,
        global: &Global,
    ) -> Result<u8, Failure> {
        let mut blocks: BTreeMap<String, Vec<ListedClone>> = BTreeMap::new();
        match self.whose.name() {
            // It may be gone from everywhere else.
            Some(name) if self.remove => {
                blocks.insert(name.to_string(), Vec::new());
            }
            _ => {
                let keys = format == ListFormat::KnownHosts && !self.remove;
                for clone in self.whose.clones(keys, global).await? {
                    let block = blocks.entry(clone.deployment.clone());
                    block.or_default().push(clone);
                }
                if let (Some(name), true) = (self.whose.name(), blocks.is_empty()) {
                    return Err(Failure::impossible(format!(
                        "there are no clones of {name}; {} was not changed",
                        file.display()
                    ))
                    .advice(format!("estive list shows those there are; --remove --name {name} takes its block away")));
                }
            }
        }
        let changed = change_file(file, |text| {
            let mut text = text.to_vec();
            for (name, clones) in &blocks {
                text = if self.remove {
                    remove_block(&text, name)?
                } else {
                    put_block(&text, name, &list_clones(format, clones))?
                };
            }
            Ok::<_, estive_layers::BlockError>(text)
        });
        let changed = changed.map_err(unchanged)?.map_err(|error| {
            Failure::impossible(format!("{}: {error}; nothing was changed", file.display()))
                .advice("mend the lines that begin with '# estive', or take them away")
        })?;
        let count = |clones: Vec<ListedClone>| if self.remove { 0 } else { clones.len() };
        let done = Done {
            file: changed.path,
            written: changed.written,
            blocks: blocks
                .into_iter()
                .map(|(name, clones)| (name, count(clones)))
                .collect(),
        };
        match global.output {
            Output::Json => output::json(&done)?,
            Output::Table => output::print(&self.told(&done))?,
        }
        Ok(0)
    }

    fn told(&self, done: &Done) -> String {
        let file = done.file.display();
        let what = match (done.written, self.remove) {
            (false, _) => "is as wanted",
            (true, true) => "no longer names",
            (true, false) => "names",
        };
        let named: Vec<String> = done
            .blocks
            .iter()
            .map(|(name, count)| match (done.written, self.remove) {
                (true, true) => format!("the clones of {name}"),
                _ => format!("{count} clones of {name}"),
            })
            .collect();
        match (done.written, named.is_empty()) {
            (true, _) => format!("{file} {what} {}\n", named.join(", ")),
            (false, true) => format!("{file} {what}: there are no clones\n"),
            (false, false) => format!("{file} {what}\n"),
        }
    }
}

fn unchanged(error: FilesError) -> Failure {
    let failure = Failure::failed(format!("{}; nothing was changed", chain(&error)));
    match &error {
        FilesError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => Failure {
            code: ExitCode::Refused,
            ..failure
        }
        .advice("do it as root, or name a file of yours with --file"),
        FilesError::Refused { .. } => Failure {
            code: ExitCode::Impossible,
            ..failure
        },
        _ => failure,
    }
}
