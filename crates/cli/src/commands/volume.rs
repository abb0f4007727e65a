//! `estive volume`: the volumes that stateful clones keep their state in.

use crate::arguments::Global;
use crate::connection::{PATIENCE, manager};
use crate::failure::Failure;
use crate::output::{self, Output, table};
use clap::{Args, Subcommand};
use estive_api::wire::{ResizeOrder, RestoreOrder, SnapshotName, VolumeReport};
use estive_model::DomainName;
use std::time::Duration;

/// A restore copies tables of an image, and may wait for a busy disk.
const ORDER: Duration = Duration::from_secs(180);

/// A volume has the name of its clone and outlives it: `estive up` finds it again.
#[derive(Debug, Args)]
pub struct Volume {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists them.
    Ls,
    /// Shows one.
    Show {
        /// The volume.
        name: DomainName,
    },
    /// Makes one larger; its clone must be stopped, and sees it at its next start.
    Resize {
        /// The volume.
        name: DomainName,
        /// The new size: 512M, 8G, 1T.
        #[arg(value_parser = size)]
        size: u64,
    },
    /// Keeps its content of now, also while its clone runs: what a crash at this moment would leave. One of that name
    /// that is there stays as it is.
    Snapshot {
        /// The volume.
        name: DomainName,
        /// The snapshot's name.
        snapshot: SnapshotName,
        /// Drops that snapshot instead.
        #[arg(long)]
        drop: bool,
    },
    /// Gives it the content of a snapshot; its clone must be stopped. What was written since is lost.
    Restore {
        /// The volume.
        name: DomainName,
        /// The snapshot.
        snapshot: SnapshotName,
    },
    /// Removes it with all snapshots; its clone must be gone.
    Rm {
        /// The volume.
        name: DomainName,
    },
}

impl Volume {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let client = manager(global)?;
        let shown = match self.verb {
            Verb::Ls => {
                let all: Vec<VolumeReport> = client.get_json("/volumes", PATIENCE).await?;
                match global.output {
                    Output::Json => output::json(&all)?,
                    Output::Table => output::print(&list(&all))?,
                }
                return Ok(0);
            }
            Verb::Show { name } => {
                client
                    .get_json(&format!("/volume/{name}"), PATIENCE)
                    .await?
            }
            Verb::Resize { name, size } => {
                let order = ResizeOrder { size_bytes: size };
                client
                    .put_json(&format!("/volume/{name}/size"), &order, ORDER)
                    .await?
            }
            Verb::Snapshot {
                name,
                snapshot,
                drop,
            } => {
                let path = format!("/volume/{name}/snapshots/{snapshot}");
                match drop {
                    true => client.delete_json(&path, ORDER).await?,
                    false => client.put_json(&path, &(), ORDER).await?,
                }
            }
            Verb::Restore { name, snapshot } => {
                let order = RestoreOrder { snapshot };
                client
                    .post_json(&format!("/volume/{name}/restore"), &order, ORDER)
                    .await?
            }
            Verb::Rm { name } => {
                let _: () = client
                    .delete_json(&format!("/volume/{name}"), ORDER)
                    .await?;
                return Ok(0);
            }
        };
        match global.output {
            Output::Json => output::json(&shown)?,
            Output::Table => output::print(&one(&shown))?,
        }
        Ok(0)
    }
}

fn list(all: &[VolumeReport]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|volume| {
            let last = volume.exports.last();
            vec![
                volume.name.to_string(),
                volume.owner.to_string(),
                mib(volume.size_bytes),
                mib(volume.used_bytes),
                last.map_or_else(
                    || "-".to_owned(),
                    |export| format!("{}@{} on {}", volume.name, export.generation, export.client),
                ),
                volume.snapshots.len().to_string(),
                volume.note.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(
        &[
            "volume",
            "deployment",
            "size",
            "used",
            "open",
            "snapshots",
            "note",
        ],
        &rows,
    )
}

fn one(volume: &VolumeReport) -> String {
    let mut text = list(std::slice::from_ref(volume));
    text.push_str(&format!(
        "no generation below {} is let in\n",
        volume.fenced
    ));
    for snapshot in &volume.snapshots {
        text.push_str(&format!("snapshot {snapshot}\n"));
    }
    text
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn size(text: &str) -> Result<u64, String> {
    let unit = match text.chars().last() {
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        _ => return Err("write a size with its unit: 512M, 8G, 1T".to_owned()),
    };
    let number: u64 = text[..text.len() - 1]
        .parse()
        .map_err(|_| "write a whole number and a unit: 512M, 8G, 1T".to_owned())?;
    number
        .checked_mul(1 << unit)
        .ok_or_else(|| "that is too much".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_api::wire::VolumeExport;
    use estive_model::{DeploymentName, Generation};

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("8G"), Ok(8 << 30));
        for wrong in [
            "8",
            "G",
            "-1G",
            "8GB",
            "99999999999999999999T",
            "16777216000000T",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_has_it_open_is_told() {
        let volume = VolumeReport {
            name: DomainName::new("clone03").unwrap(),
            owner: DeploymentName::new("web").unwrap(),
            size_bytes: 4 << 30,
            used_bytes: 12 << 20,
            fenced: Generation(7),
            granted: Vec::new(),
            exports: vec![VolumeExport {
                generation: Generation(7),
                client: "host1".into(),
            }],
            snapshots: vec![SnapshotName::new("before").unwrap()],
            note: None,
        };
        assert_eq!(
            one(&volume),
            "VOLUME   DEPLOYMENT  SIZE      USED    OPEN                SNAPSHOTS  NOTE\n\
             clone03  web         4096 MiB  12 MiB  clone03@7 on host1  1\n\
             no generation below 7 is let in\n\
             snapshot before\n"
        );
    }
}
