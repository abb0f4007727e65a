//! `estive console`: a domain's serial console, here.

use crate::arguments::Global;
use crate::connection::{PATIENCE, Service, service};
use crate::failure::{Failure, failed};
use crate::terminal;
use clap::Args;
use estive_model::DomainName;

#[derive(Debug, Args)]
pub struct Console {
    /// The domain.
    domain: DomainName,
}

impl Console {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let (Service::Manager(client) | Service::Agent(client)) = service(global)?;
        let stream = client
            .upgrade(&format!("/domain/{}/console", self.domain), PATIENCE)
            .await?;
        eprintln!("console of {}; leave with Ctrl-]", self.domain);
        let ended = terminal::join(stream).await;
        eprintln!();
        ended.map_err(failed)?;
        Ok(0)
    }
}
