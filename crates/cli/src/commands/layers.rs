//! `estive layers`: the layers of a herd's clones, built and looked at on this machine, pushed to those that are up.

pub mod build;
pub mod diff;
pub mod export;
pub mod push;

use crate::arguments::Global;
use crate::failure::Failure;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct Layers {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Build the layers of which an input changed, and say which input
    Build(build::Build),
    /// Hold a clone's layer against a root: what it adds, changes and hides
    Diff(diff::Diff),
    /// Write each clone's layer as a directory tree
    Export(export::Export),
    /// Have clones that are up take their changed layers, running or not
    Push(push::Push),
}

impl Layers {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        match self.what {
            What::Build(build) => build.run(global),
            What::Diff(diff) => diff.run(global),
            What::Export(export) => export.run(global),
            What::Push(push) => push.run(global).await,
        }
    }
}
