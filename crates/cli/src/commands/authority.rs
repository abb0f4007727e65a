//! `estive authority`: certificates for agents, managers, users and storage places.

use crate::failure::{Failure, failed};
use clap::{Args, Subcommand};
use estive_api::Role;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub struct Authority {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a key and a certificate (and the authority itself, the first time)
    Issue(Issue),
}

#[derive(Debug, Args)]
struct Issue {
    /// Directory of the authority; made at first use. Who can read it can make certificates.
    #[arg(long, value_name = "DIR")]
    authority: PathBuf,
    /// manager, agent, user or storage.
    #[arg(long)]
    role: Role,
    /// Name of the holder: a host's or a person's.
    #[arg(long)]
    name: String,
    /// An address at which the holder serves; may be repeated.
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<IpAddr>,
    /// How long it holds.
    #[arg(long, default_value = "365days", value_parser = humantime::parse_duration)]
    lifetime: Duration,
    /// Directory to write it to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Authority {
    pub fn run(self) -> Result<u8, Failure> {
        let What::Issue(issue) = self.what;
        let authority =
            estive_api::authority::Authority::open_or_create(&issue.authority).map_err(failed)?;
        authority
            .issue(issue.role, &issue.name, &issue.addresses, issue.lifetime)
            .and_then(|issued| issued.write_to(&issue.out))
            .map_err(failed)?;
        Ok(0)
    }
}
