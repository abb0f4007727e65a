//! `estive completion`: a script that completes this command line in a shell.

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::output;
use clap::{Args, CommandFactory};

#[derive(Debug, Args)]
pub struct Completion {
    /// bash, zsh, fish, elvish or powershell.
    shell: clap_complete::Shell,
}

impl Completion {
    pub fn run(self) -> Result<u8, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "estive", &mut script);
        output::print(&String::from_utf8_lossy(&script))?;
        Ok(0)
    }
}
