//! `estive down`: a deployment's clones are stopped and removed.

use crate::arguments::Global;
use crate::connection::{PATIENCE, manager};
use crate::failure::Failure;
use crate::output::{self, Output};
use clap::Args;
use estive_api::Client;
use estive_api::wire::{DownLine, VolumeReport};
use estive_model::DeploymentName;

/// An up of it that is under way is ended first.
#[derive(Debug, Args)]
pub struct Down {
    /// The deployment.
    deployment: DeploymentName,
    /// Removes the volumes of its stateful clones too: what they have written is lost.
    #[arg(long)]
    volumes: bool,
}

impl Down {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let client = manager(global)?;
        let path = format!("/deployment/{}", self.deployment);
        let mut lines = client
            .stream_lines_of::<DownLine>(
                http::Method::DELETE,
                &path,
                "application/json",
                Vec::new(),
                PATIENCE,
            )
            .await?;
        let mut gone = Vec::new();
        while let Some(line) = lines.next().await {
            match line? {
                DownLine::Gone { domain } => {
                    if global.output == Output::Table {
                        output::print(&format!("{domain} is gone\n"))?;
                    }
                    gone.push(domain);
                }
                DownLine::Done => {
                    if self.volumes {
                        self.remove_volumes(&client).await?;
                    }
                    if global.output == Output::Json {
                        output::json(&gone)?;
                    }
                    return Ok(0);
                }
                DownLine::Failed { problem } => return Err(problem.into()),
            }
        }
        Err(
            Failure::failed("the manager ended its answer before the deployment was down")
                .advice("estive ls, to see what is left; estive down again"),
        )
    }

    async fn remove_volumes(&self, client: &Client) -> Result<(), Failure> {
        let all: Vec<VolumeReport> = client.get_json("/volumes", PATIENCE).await?;
        for volume in all.iter().filter(|volume| volume.owner == self.deployment) {
            let path = format!("/volume/{}", volume.name);
            let _: () = client.delete_json(&path, PATIENCE).await?;
        }
        Ok(())
    }
}
