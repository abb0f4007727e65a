//! `estive update-hosts`: the clones' names and addresses in /etc/hosts.

use crate::arguments::Global;
use crate::failure::Failure;
use crate::marked_file::Update;
use clap::Args;
use estive_layers::ListFormat;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct UpdateHosts {
    /// The file; a link is followed to its real file.
    #[arg(long, value_name = "FILE", default_value = "/etc/hosts")]
    file: PathBuf,
    #[command(flatten)]
    update: Update,
}

impl UpdateHosts {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let format = ListFormat::Hosts;
        self.update.run(&self.file, format, global).await
    }
}
