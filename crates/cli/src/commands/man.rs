//! `estive man`: the manual, one page a command.

use crate::arguments::Arguments;
use crate::failure::{Failure, failed};
use clap::{Args, CommandFactory};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Man {
    /// Directory to write to.
    #[arg(default_value = ".")]
    directory: PathBuf,
}

impl Man {
    pub fn run(self) -> Result<u8, Failure> {
        std::fs::create_dir_all(&self.directory).map_err(failed)?;
        clap_mangen::generate_to(Arguments::command(), &self.directory).map_err(failed)?;
        Ok(0)
    }
}
