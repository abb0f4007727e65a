//! `estive agent`: the daemon of a host.

use crate::failure::{Failure, failed};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Agent {
    /// Its configuration (YAML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Agent {
    pub async fn run(self) -> Result<u8, Failure> {
        super::speak();
        let config = estive_agent::AgentConfig::load(&self.config).map_err(failed)?;
        estive_agent::run(config, super::shutdown()?)
            .await
            .map_err(failed)?;
        Ok(0)
    }
}
