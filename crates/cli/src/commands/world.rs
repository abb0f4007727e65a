//! `estive world`: worlds as text, checked and converted.

pub mod check;
pub mod convert;

use crate::arguments::Global;
use crate::failure::Failure;
use clap::{Args, Subcommand};

/// A world is a text of hosts, domains and rules that plans are made for.
#[derive(Debug, Args)]
pub struct WorldCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Reads a world and its questions, and says what is in it
    Check(check::Check),
    /// Writes a world, a Ganeti cluster or a day of PlanetLab in another form
    Convert(convert::Convert),
}

impl WorldCommand {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        match self.verb {
            Verb::Check(check) => check.run(global),
            Verb::Convert(convert) => convert.run(),
        }
    }
}
