//! `estive reseal`: a named reference is made anew, as it was made, and says what has changed.

use super::seal::{
    Place, apart, as_json, as_text, changes_in_text, open_authority, scan, sealed_apart, sign,
};
use crate::arguments::Global;
use crate::failure::{Failure, failed};
use crate::output::{self, Output};
use clap::Args;
use estive_exports::diff::{Change, diff};
use estive_exports::references;
use estive_exports::seal::{Stop, manifest_path, read_manifest};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Reseal {
    /// The reference, as `estive seal --name` named it.
    name: String,
    #[command(flatten)]
    place: Place,
    /// Sign its manifest, without which no host takes it; else `estive authority sign` does.
    #[arg(long, value_name = "DIR")]
    authority: Option<PathBuf>,
    /// Do not look for secrets in what was sealed.
    #[arg(long)]
    no_scan: bool,
}

impl Reseal {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let authority = open_authority(self.authority)?;
        let dir = self.place.dir;
        let (name, place) = (self.name, dir.clone());
        let stop = Stop::default();
        let asked = stop.clone();
        let (mut record, sealed) = sealed_apart(stop, move || {
            let record = references::read(&place, &name)?;
            let sealed = record.seal(&place, &asked)?;
            Ok((record, sealed))
        })
        .await?;
        sign(authority.as_ref(), &sealed, &dir)?;
        let manifest = manifest_path(&sealed.path);
        let signed = read_manifest(&manifest).map_err(failed)?;
        let signed = !signed.signature.is_empty();
        let mut changes = Some(Vec::new());
        if sealed.digest != record.digest {
            let old = dir.join(format!("{}.erofs", &record.digest["sha256:".len()..]));
            // Somebody may have removed it: then there is nothing to compare with.
            changes = None;
            if old.exists() {
                let new = sealed.path.clone();
                changes = Some(apart(move || diff(&old, &new)).await?);
            }
            let old = std::mem::replace(&mut record.digest, sealed.digest.clone());
            record.before = Some(old);
            references::write(&dir, &record).map_err(failed)?;
        }
        let scan = scan(&sealed, self.no_scan).await?;
        match global.output {
            Output::Json => {
                let mut value = as_json(&sealed, scan.as_ref())?;
                value["name"] = record.name.into();
                value["before"] = record.before.into();
                value["changes"] = serde_json::to_value(&changes).map_err(failed)?;
                output::json(&value)?;
            }
            Output::Table => {
                let mut told = told(changes.as_deref(), &record.name);
                if !signed {
                    told += &format!(
                        "nobody has signed it, and no host takes it: estive authority sign {}\n",
                        manifest.display()
                    );
                }
                output::print(&format!("{}{told}", as_text(&sealed, scan.as_ref())))?;
            }
        }
        Ok(0)
    }
}

fn told(changes: Option<&[Change]>, name: &str) -> String {
    match changes {
        None => "the image before it is gone: what changed is not known\n".to_owned(),
        Some([]) => "nothing has changed\n".to_owned(),
        Some(changes) => format!(
            "changed: {} names; clones whose reference has root: {{name: {name}, …}} in the manager's configuration take \
             the new root at their next start, those that run stay as they are\n{}",
            changes.len(),
            changes_in_text(changes, false)
        ),
    }
}
