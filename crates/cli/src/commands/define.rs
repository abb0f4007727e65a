//! `estive define`, `estive delete`: one agent driven alone.

use crate::arguments::Global;
use crate::connection::{LONG, agent};
use crate::failure::Failure;
use crate::output::{self, Output};
use clap::Args;
use estive_api::wire::{DomainReport, MAX_ARCHIVE_BYTES};
use estive_model::DomainName;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Define {
    /// The domain.
    domain: DomainName,
    /// Its archive: tar, plain or packed by gzip or bzip2, with config.xml at its root. Of a domain with image files also
    /// its XML by itself.
    archive: PathBuf,
}

#[derive(Debug, Args)]
pub struct Delete {
    /// The domain.
    domain: DomainName,
    /// Of a domain that the agent's journal does not know: end what runs of it there, and remove its files.
    #[arg(long)]
    forget: bool,
    /// With --forget: the highest generation that may have been granted for it (estive ls shows its generation).
    #[arg(long, requires = "forget")]
    floor: Option<u64>,
}

impl Define {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let client = agent(global)?;
        let unreadable = |error: std::io::Error| {
            Failure::impossible(format!(
                "could not read {}: {error}",
                self.archive.display()
            ))
        };
        let size_bytes = std::fs::metadata(&self.archive).map_err(unreadable)?.len();
        if size_bytes > MAX_ARCHIVE_BYTES {
            return Err(Failure::impossible(format!(
                "{} is larger than {}, the most an agent takes",
                self.archive.display(),
                output::mib(MAX_ARCHIVE_BYTES)
            )));
        }
        let bytes = std::fs::read(&self.archive).map_err(unreadable)?;
        let path = format!("/domain/{}", self.domain);
        let report: DomainReport = client
            .put_bytes(&path, "application/x-tar", bytes, LONG)
            .await?;
        match global.output {
            Output::Json => output::json(&report)?,
            Output::Table => output::print(&format!("{} is {}\n", report.name, report.state))?,
        }
        Ok(0)
    }
}

impl Delete {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let client = agent(global)?;
        let mut path = format!("/domain/{}", self.domain);
        if self.forget {
            path.push_str("?forget=true");
        }
        if let Some(floor) = self.floor {
            path.push_str(&format!("&floor={floor}"));
        }
        client.delete_json::<serde_json::Value>(&path, LONG).await?;
        if global.output == Output::Table {
            output::print(&format!("{} is gone\n", self.domain))?;
        }
        Ok(0)
    }
}
