//! `estive authority revoke` and `ls`: what is issued, and what counts no more.

use crate::arguments::Global;
use crate::failure::{Failure, failed};
use crate::output::{self, Output};
use clap::Args;
use estive_api::{Error, authority};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

#[derive(Debug, Args)]
pub struct Revoke {
    /// Directory of the authority.
    #[arg(long, value_name = "DIR")]
    authority: PathBuf,
    /// Directories of credentials of this machine to put the list into; on others, put the authority's `ca-crl.pem` there.
    #[arg(long = "into", value_name = "DIR")]
    into: Vec<PathBuf>,
    /// A name (h1, agent:h1), which stands for every certificate of that name, or a serial number. None: the list is only
    /// put into the directories.
    #[arg(value_name = "NAME|SERIAL", required_unless_present = "into")]
    which: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Ls {
    /// Directory of the authority.
    #[arg(long, value_name = "DIR")]
    authority: PathBuf,
}

fn refused(error: Error) -> Failure {
    match error {
        Error::NotIssued(_) => Failure::impossible(error.to_string()),
        error => failed(error),
    }
}

impl Revoke {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        let authority = authority::Authority::open(&self.authority).map_err(failed)?;
        let revoked = match self.which.is_empty() {
            true => Vec::new(),
            false => authority.revoke(&self.which).map_err(refused)?,
        };
        for directory in &self.into {
            authority.put_list(directory).map_err(failed)?;
        }
        match global.output {
            Output::Json => output::json(&revoked)?,
            Output::Table => {
                let mut text = String::new();
                for one in &revoked {
                    let whose = one.issued.as_ref();
                    let whose = whose.map_or("a certificate".to_owned(), |holder| {
                        format!("{}:{}", holder.role, holder.name)
                    });
                    text.push_str(&format!("{whose} {} is revoked\n", one.serial));
                }
                let list = self.authority.join("ca-crl.pem");
                if list.exists() {
                    text.push_str(&format!(
                        "it counts where {} is put beside the credentials, at once\n",
                        list.display()
                    ));
                }
                output::print(&text)?;
            }
        }
        Ok(0)
    }
}

/// One certificate.
#[derive(Debug, Serialize)]
struct Shown {
    serial: String,
    name: String,
    /// Seconds since the epoch.
    not_after_s: Option<i64>,
    revoked_s: Option<i64>,
}

impl Ls {
    pub fn run(self, global: &Global) -> Result<u8, Failure> {
        let authority = authority::Authority::open(&self.authority).map_err(failed)?;
        let revoked = authority.revoked().map_err(failed)?;
        let issued = authority.issued().map_err(failed)?;
        let when = |serial: &str| {
            let found = revoked.iter().find(|one| one.serial == serial);
            found.map(|one| one.revoked_s)
        };
        let mut shown: Vec<Shown> = issued
            .iter()
            .map(|one| Shown {
                revoked_s: when(&one.serial),
                serial: one.serial.clone(),
                name: format!("{}:{}", one.role, one.name),
                not_after_s: Some(one.not_after_s),
            })
            .collect();
        // Issued before account was kept of it.
        let unknown = revoked.iter().filter(|one| one.issued.is_none());
        shown.extend(unknown.map(|one| Shown {
            serial: one.serial.clone(),
            name: "?".to_owned(),
            not_after_s: None,
            revoked_s: Some(one.revoked_s),
        }));
        match global.output {
            Output::Json => output::json(&shown)?,
            Output::Table => {
                let rows: Vec<Vec<String>> = shown
                    .into_iter()
                    .map(|one| {
                        let date = |at: Option<i64>| at.map_or("-".to_owned(), date);
                        vec![
                            one.name,
                            one.serial,
                            date(one.not_after_s),
                            date(one.revoked_s),
                        ]
                    })
                    .collect();
                let headings = ["certificate", "serial", "ends", "revoked"];
                output::print(&output::table(&headings, &rows))?;
            }
        }
        Ok(0)
    }
}

fn date(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}
