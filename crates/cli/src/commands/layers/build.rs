//! `estive layers build`: makes anew only what changed, and says why.

use crate::arguments::Global;
use crate::failure::Failure;
use crate::local::Local;
use crate::output::{self, Output, kib, table};
use clap::Args;
use estive_files::BuiltLayer;
use std::path::PathBuf;

/// Hex digits of a digest in the table.
const SHOWN_DIGITS: usize = 12;

#[derive(Debug, Args)]
pub struct Build {
    /// The herd's folder; it wins over --herd.
    #[arg(value_name = "HERD")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    local: Local,
    /// The root that scripts of sets see: a directory, or a sealed image.
    #[arg(long, value_name = "DIR|IMAGE")]
    root: Option<PathBuf>,
    /// Make all layers anew, whether or not an input changed.
    #[arg(long)]
    all: bool,
}

impl Build {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        let local = match self.folder {
            Some(folder) => self.local.with_herd(folder),
            None => self.local,
        };
        let built = local.build(self.root.as_deref(), self.all)?.built;
        match global.output {
            Output::Json => output::json(&built)?,
            Output::Table => output::print(&render(&built))?,
        }
        Ok(0)
    }
}

fn render(layers: &[BuiltLayer]) -> String {
    let rows: Vec<Vec<String>> = layers
        .iter()
        .map(|layer| {
            let digits = layer.layer.as_str().rsplit(':').next().unwrap_or_default();
            vec![
                layer.clone.to_string(),
                digits.chars().take(SHOWN_DIGITS).collect(),
                kib(layer.size_bytes),
                if layer.built { "built" } else { "kept" }.to_owned(),
                layer.why.join("; "),
            ]
        })
        .collect();
    table(&["clone", "layer", "size", "", "why"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_model::{Digest, DomainName};

    #[test]
    fn the_table_says_what_was_done_and_why() {
        let layer = |clone: &str, why: &[&str]| BuiltLayer {
            clone: DomainName::new(clone).unwrap(),
            layer: Digest::new(format!("sha256:{}", "a1".repeat(32))).unwrap(),
            size_bytes: 21_000,
            built: !why.is_empty(),
            why: why.iter().map(|why| (*why).to_owned()).collect(),
        };
        let layers = [
            layer("a", &[]),
            layer("b", &["variable greeting", "set web added"]),
        ];
        assert_eq!(
            render(&layers),
            "CLONE  LAYER         SIZE             WHY\n\
             a      a1a1a1a1a1a1  20.5 KiB  kept\n\
             b      a1a1a1a1a1a1  20.5 KiB  built  variable greeting; set web added\n"
        );
    }
}
