//! `estive authority`: certificates for agents, managers, users and storage places, which of them count no more, and the
//! signature of sealed roots.

mod revoke;

use crate::arguments::Global;
use crate::failure::{Failure, failed};
use clap::{Args, Subcommand};
use estive_api::Role;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use revoke::{Ls, Revoke};

#[derive(Debug, Args)]
pub struct Authority {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a key and a certificate (and the authority itself, the first time)
    Issue(Issue),
    /// Sign the manifests of sealed roots: hosts take no other root
    Sign(Sign),
    /// Make certificates count no more: sign the list of all that do not
    Revoke(Revoke),
    /// Certificates that were issued, and which of them are revoked
    Ls(Ls),
}

#[derive(Debug, Args)]
struct Sign {
    /// Directory of the authority.
    #[arg(long, value_name = "DIR")]
    authority: PathBuf,
    /// Directory for the signed manifests; without it each is signed where it lies.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Manifests, as `estive seal` wrote them.
    #[arg(required = true, value_name = "MANIFEST")]
    manifests: Vec<PathBuf>,
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
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        match self.what {
            What::Issue(issue) => issue.run(),
            What::Sign(sign) => sign.run(),
            What::Revoke(revoke) => revoke.run(global),
            What::Ls(ls) => ls.run(global),
        }
    }
}

impl Issue {
    fn run(self) -> Result<u8, Failure> {
        estive_api::authority::Authority::open_or_create(&self.authority)
            .and_then(|authority| {
                authority.issue(self.role, &self.name, &self.addresses, self.lifetime)
            })
            .and_then(|issued| issued.write_to(&self.out))
            .map_err(failed)?;
        Ok(0)
    }
}

impl Sign {
    fn run(self) -> Result<u8, Failure> {
        let authority = estive_api::authority::Authority::open(&self.authority).map_err(failed)?;
        for path in &self.manifests {
            let out = match (&self.out, path.parent()) {
                (Some(out), _) => out,
                (None, Some(parent)) => parent,
                (None, None) => Path::new("."),
            };
            sign_manifest(&authority, path, out)?;
        }
        Ok(0)
    }
}

/// Signs the manifest at `path` and puts it into `out`, whole, under its root's name.
pub fn sign_manifest(
    authority: &estive_api::authority::Authority,
    path: &Path,
    out: &Path,
) -> Result<(), Failure> {
    let unsigned = estive_exports::seal::read_manifest(path).map_err(failed)?;
    let signed = authority.sign_root(unsigned.manifest).map_err(failed)?;
    estive_exports::seal::put_manifest(out, &signed).map_err(failed)
}
