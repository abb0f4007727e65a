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
    /// Directory for the image, which is named by its digest.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Seal {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let (root, out) = (self.root, self.out);
        let sealed = tokio::task::spawn_blocking(move || estive_exports::seal::seal(&root, &out))
            .await
            .map_err(failed)?
            .map_err(failed)?;
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
