//! `estive define`, `estive delete`: a domain that is in no herd; or anything on one agent that is driven alone.

use crate::arguments::Global;
use crate::connection::{LONG, Service, service};
use crate::failure::Failure;
use crate::output::{self, Output};
use clap::Args;
use estive_api::Client;
use estive_api::domain_xml::Description;
use estive_api::wire::{DomainReport, HerdDomain, MAX_ARCHIVE_BYTES};
use estive_model::{DomainName, HostName};
use std::path::{Path, PathBuf};

/// To the manager: estive define FILE.xml --host HOST. To one agent: estive --agent URL define DOMAIN FILE.
#[derive(Debug, Args)]
pub struct Define {
    /// The domain, which its XML names too; and its XML. For an agent also its archive: tar, plain or packed by gzip or
    /// bzip2, with config.xml at its root.
    #[arg(required = true, num_args = 1..=2, value_name = "[DOMAIN] FILE")]
    what: Vec<String>,
    /// The host that is to have it: one that has its images. Of a domain that is there already, the one that it is on
    #[arg(long)]
    host: Option<HostName>,
}

#[derive(Debug, Args)]
pub struct Delete {
    /// The domain.
    domain: DomainName,
    /// With --agent, of a domain that the agent's journal does not know: end what runs of it there, and remove its files.
    #[arg(long)]
    forget: bool,
    /// With --forget: the highest generation that may have been granted for it (estive ls shows its generation).
    #[arg(long, requires = "forget")]
    floor: Option<u64>,
}

impl Define {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let (domain, file) = match &self.what[..] {
            [domain, file] => (Some(domain), PathBuf::from(file)),
            [file] => (None, PathBuf::from(file)),
            _ => return Err(Failure::impossible("name the domain's file")),
        };
        let bytes = read(&file)?;
        let domain = match domain {
            Some(domain) => DomainName::new(domain)
                .map_err(|error| Failure::impossible(format!("{domain:?}: {error}")))?,
            None => named_in(&file, &bytes)?,
        };
        match service(global)? {
            Service::Manager(client) => self.at_manager(&client, &domain, bytes, global).await,
            Service::Agent(client) => self.at_agent(&client, &domain, bytes, global).await,
        }
    }

    async fn at_manager(
        &self,
        client: &Client,
        domain: &DomainName,
        bytes: Vec<u8>,
        global: &Global,
    ) -> Result<u8, Failure> {
        let mut path = format!("/domain/{domain}");
        if let Some(host) = &self.host {
            path.push_str(&format!("?host={host}"));
        }
        let answer: HerdDomain = client
            .put_bytes(&path, "application/xml", bytes, LONG)
            .await?;
        match global.output {
            Output::Json => output::json(&answer)?,
            Output::Table => output::print(&format!(
                "{} is {} on {}\n",
                answer.name, answer.state, answer.host
            ))?,
        }
        Ok(0)
    }

    async fn at_agent(
        &self,
        client: &Client,
        domain: &DomainName,
        bytes: Vec<u8>,
        global: &Global,
    ) -> Result<u8, Failure> {
        if self.host.is_some() {
            return Err(Failure::impossible("an agent alone knows one host")
                .advice("leave --host away, or leave --agent away to ask the manager"));
        }
        let path = format!("/domain/{domain}");
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

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::impossible(format!("could not read {}: {error}", file.display()))
    };
    let size_bytes = std::fs::metadata(file).map_err(unreadable)?.len();
    if size_bytes > MAX_ARCHIVE_BYTES {
        return Err(Failure::impossible(format!(
            "{} is larger than {}, the most an agent takes",
            file.display(),
            output::mib(MAX_ARCHIVE_BYTES)
        )));
    }
    std::fs::read(file).map_err(unreadable)
}

/// The name that the XML says.
fn named_in(file: &Path, bytes: &[u8]) -> Result<DomainName, Failure> {
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| text.starts_with('<'));
    let text = text.ok_or_else(|| {
        Failure::impossible(format!("{} is not XML by itself", file.display()))
            .advice("for an archive: estive --agent URL define DOMAIN FILE")
    })?;
    match Description::parse(text) {
        Ok(description) => Ok(description.name().clone()),
        Err(error) => Err(Failure::impossible(format!("{}: {error}", file.display()))),
    }
}

impl Delete {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let mut path = format!("/domain/{}", self.domain);
        let client = match service(global)? {
            Service::Agent(client) => client,
            Service::Manager(client) if !self.forget => client,
            Service::Manager(_) => {
                return Err(Failure::impossible("--forget is said to one agent")
                    .advice("--agent https://ADDRESS:PORT or --agent unix:/PATH"));
            }
        };
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
