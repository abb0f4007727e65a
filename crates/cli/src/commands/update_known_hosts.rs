//! `estive update-known-hosts`: the clones' SSH host keys in the known hosts of this machine.

use crate::arguments::Global;
use crate::failure::Failure;
use crate::marked_file::Update;
use clap::Args;
use estive_layers::ListFormat;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct UpdateKnownHosts {
    /// The file; a link is followed to its real file.
    #[arg(long, value_name = "FILE", default_value = "/etc/ssh/ssh_known_hosts")]
    file: PathBuf,
    #[command(flatten)]
    update: Update,
}

impl UpdateKnownHosts {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let format = ListFormat::KnownHosts;
        self.update.run(&self.file, format, global).await
    }
}
