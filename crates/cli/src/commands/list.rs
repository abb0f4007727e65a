//! `estive list`: the clones as other programs read them.

use crate::arguments::Global;
use crate::clones::Whose;
use crate::failure::Failure;
use crate::output::{self, Output};
use clap::{Args, ValueEnum};
use estive_layers::{ListFormat, list_clones};

#[derive(Debug, Args)]
pub struct List {
    /// For which program.
    #[arg(long, value_enum, default_value = "plain")]
    format: Format,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One name a line.
    Plain,
    /// All that is known of each.
    Json,
    /// Lines of /etc/hosts.
    Hosts,
    /// OpenMPI's: mpirun --hostfile <(estive list --format mpi-hostfile)
    MpiHostfile,
    /// An inventory: ansible -i FILE
    Ansible,
    /// ssh -F FILE
    SshConfig,
    /// Lines of known_hosts.
    KnownHosts,
}

impl List {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let format = match self.format {
            Format::Plain => ListFormat::Plain,
            Format::Json => {
                let clones = self.whose.clones(false, global).await?;
                output::json(&clones)?;
                return Ok(0);
            }
            Format::Hosts => ListFormat::Hosts,
            Format::MpiHostfile => ListFormat::MpiHostfile,
            Format::Ansible => ListFormat::Ansible,
            Format::SshConfig => ListFormat::SshConfig,
            Format::KnownHosts => ListFormat::KnownHosts,
        };
        let keys = format == ListFormat::KnownHosts;
        let clones = self.whose.clones(keys, global).await?;
        match global.output {
            Output::Json => output::json(&clones)?,
            Output::Table => output::print(&list_clones(format, &clones))?,
        }
        Ok(0)
    }
}
