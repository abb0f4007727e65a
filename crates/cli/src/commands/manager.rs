//! `estive manager`: the manager of a herd.

use crate::failure::{Failure, failed};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Manager {
    /// Its configuration (YAML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Manager {
    pub async fn run(self) -> Result<u8, Failure> {
        super::speak();
        let config = estive_manager::ManagerConfig::load(&self.config).map_err(failed)?;
        estive_manager::run(config, super::shutdown()?)
            .await
            .map_err(failed)?;
        Ok(0)
    }
}
