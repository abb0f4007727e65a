//! `estive seal`: a root becomes the image that clones share.

use crate::arguments::Global;
use crate::failure::{Failure, failed};
use crate::output::{self, Output};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Seal {
    /// The root: a directory, or / for the running system.
    root: PathBuf,
    /// Directory for the image and its manifest, which names both.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Sign its manifest, without which no host takes it; else `estive authority sign` does.
    #[arg(long, value_name = "DIR")]
    authority: Option<PathBuf>,
}

impl Seal {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let authority = self
            .authority
            .map(estive_api::authority::Authority::open)
            .transpose()
            .map_err(failed)?;
        let (root, out) = (self.root, self.out);
        let into = out.clone();
        let sealed = tokio::task::spawn_blocking(move || estive_exports::seal::seal(&root, &into))
            .await
            .map_err(failed)?
            .map_err(failed)?;
        if let Some(authority) = authority {
            let manifest = estive_exports::seal::manifest_path(&sealed.path);
            super::authority::sign_manifest(&authority, &manifest, &out)?;
        }
        match global.output {
            Output::Json => output::json(&serde_json::json!({
                "digest": sealed.digest, "path": sealed.path, "size_bytes": sealed.size_bytes,
            }))?,
            Output::Table => output::print(&format!(
                "{}  {}\n{}\n",
                sealed.digest,
                output::mib(sealed.size_bytes),
                sealed.path.display()
            ))?,
        }
        Ok(0)
    }
}
