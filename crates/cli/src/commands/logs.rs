//! `estive logs`: everything a domain wrote on its console.

use crate::arguments::Global;
use crate::connection::{PATIENCE, Service, service};
use crate::failure::Failure;
use crate::output;
use clap::Args;
use estive_model::DomainName;

/// Largest console log that is fetched, in bytes.
const MAX_LOG_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug, Args)]
pub struct Logs {
    /// The domain.
    domain: DomainName,
}

impl Logs {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let (Service::Manager(client) | Service::Agent(client)) = service(global)?;
        let path = format!("/domain/{}/console.log", self.domain);
        let text = client.get_bytes(&path, MAX_LOG_BYTES, PATIENCE).await?;
        output::print(&String::from_utf8_lossy(&text))?;
        Ok(0)
    }
}
