//! `estive diff`: what changed from one root to another, sealed ones or directories.

use super::seal::{Place, apart, changes_in_text, sealed_apart};
use crate::arguments::Global;
use crate::failure::{Failure, failed};
use crate::output::{self, Output};
use clap::Args;
use estive_exports::ExportError;
use estive_exports::references;
use estive_exports::seal::{SealOptions, seal_with};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct Diff {
    /// A sealed image: its file, a reference's name or digest; or a directory, which is sealed for this.
    old: String,
    /// Likewise.
    new: String,
    #[command(flatten)]
    place: Place,
    /// Where directories are sealed for the comparison; needs room for them.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    scratch: PathBuf,
    /// Exit code 1 when something differs.
    #[arg(long)]
    exit_code: bool,
}

impl Diff {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let scratch = tempfile::Builder::new()
            .prefix("estive-diff-")
            .tempdir_in(&self.scratch)
            .map_err(failed)?;
        let (place, into) = (self.place.dir.clone(), scratch.path().to_owned());
        let (old, new) = (self.old, self.new);
        let options = SealOptions::default();
        let (old, new) = sealed_apart(options.stop.clone(), move || {
            let image = |word: &str| image_of(word, &place, &into, &options);
            Ok((image(&old)?, image(&new)?))
        })
        .await?;
        let changes = apart(move || estive_exports::diff::diff(&old, &new)).await?;
        match global.output {
            Output::Json => output::json(&changes)?,
            Output::Table => output::print(&changes_in_text(&changes, true))?,
        }
        Ok(u8::from(self.exit_code && !changes.is_empty()))
    }
}

/// The image that a word means.
fn image_of(
    word: &str,
    place: &Path,
    scratch: &Path,
    options: &SealOptions,
) -> Result<PathBuf, ExportError> {
    let path = Path::new(word);
    if path.is_dir() {
        return seal_with(path, scratch, options).map(|sealed| sealed.path);
    }
    if path.is_file() {
        return Ok(path.to_owned());
    }
    let references = references::list(place)?;
    references::find(&references, word).map(|reference| reference.path.clone())
}
