//! `estive down`: a deployment's clones are stopped and removed.

use crate::arguments::Global;
use crate::connection::{PATIENCE, manager};
use crate::failure::Failure;
use crate::output::{self, Output};
use clap::Args;
use estive_api::wire::DownLine;
use estive_model::DeploymentName;

/// An up of it that is under way is ended first.
#[derive(Debug, Args)]
pub struct Down {
    /// The deployment.
    deployment: DeploymentName,
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
}
