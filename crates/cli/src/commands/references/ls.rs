//! `estive references ls`: name, size, when, used by.

use super::{Known, Users};
use crate::arguments::Global;
use crate::failure::Failure;
use crate::output::{self, Output, table};
use clap::Args;
use std::time::{Duration, SystemTime};

/// Digits of a digest that are shown, and enough for `rm`.
const DIGITS: usize = 12;

#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    users: Users,
}

impl Ls {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let Known {
            references,
            cannot_tell,
        } = self.users.known(global).await?;
        if let Some(why) = cannot_tell {
            eprintln!("there may be more users: {why}");
        }
        if let Output::Json = global.output {
            output::json(&references)?;
            return Ok(0);
        }
        let rows: Vec<Vec<String>> = references
            .into_iter()
            .map(|reference| {
                let sealed = SystemTime::UNIX_EPOCH + Duration::from_secs(reference.sealed_at_s);
                let or_none = |words: Vec<String>| {
                    if words.is_empty() {
                        "-".to_owned()
                    } else {
                        words.join(", ")
                    }
                };
                vec![
                    or_none(reference.names),
                    reference.digest["sha256:".len()..][..DIGITS].to_owned(),
                    output::mib(reference.size_bytes),
                    humantime::format_rfc3339_seconds(sealed).to_string(),
                    if reference.signed { "yes" } else { "no" }.to_owned(),
                    or_none(reference.used_by),
                ]
            })
            .collect();
        let headings = ["name", "digest", "size", "sealed", "signed", "used by"];
        output::print(&table(&headings, &rows))?;
        Ok(0)
    }
}
