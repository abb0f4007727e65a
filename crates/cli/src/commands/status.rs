//! `estive start`, `stop`, `pause`, `resume`: the state a domain should be in.

use crate::arguments::Global;
use crate::connection::{LONG, Service, service};
use crate::failure::Failure;
use crate::output::{self, Output};
use clap::Args;
use estive_api::fault;
use estive_api::wire::{DomainReport, HerdDomain, StatusOrder};
use estive_model::{DomainName, DomainState};

#[derive(Debug, Args)]
pub struct Start {
    /// The domain.
    domain: DomainName,
}

#[derive(Debug, Args)]
pub struct Stop {
    /// The domain.
    domain: DomainName,
    /// Seconds it may take to power off; 0 ends it at once.
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    grace: u64,
}

#[derive(Debug, Args)]
pub struct Pause {
    /// The domain.
    domain: DomainName,
}

#[derive(Debug, Args)]
pub struct Resume {
    /// The domain.
    domain: DomainName,
}

impl Start {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        order(global, &self.domain, DomainState::Running, 0).await
    }
}

impl Stop {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let grace_ms = self.grace.saturating_mul(1000).min(150_000);
        order(global, &self.domain, DomainState::Stopped, grace_ms).await
    }
}

impl Pause {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        order(global, &self.domain, DomainState::Paused, 0).await
    }
}

impl Resume {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        order(global, &self.domain, DomainState::Running, 0).await
    }
}

async fn order(
    global: &Global,
    domain: &DomainName,
    state: DomainState,
    grace_ms: u64,
) -> Result<u8, Failure> {
    let path = format!("/domain/{domain}/status");
    let body = StatusOrder {
        state,
        generation: None,
        grace_ms,
    };
    fault::before("command.sent");
    let (state, json) = match service(global)? {
        Service::Manager(client) => {
            let answer: HerdDomain = client.put_json(&path, &body, LONG).await?;
            (answer.state, serde_json::to_value(&answer))
        }
        Service::Agent(client) => {
            let answer: DomainReport = client.put_json(&path, &body, LONG).await?;
            (answer.state, serde_json::to_value(&answer))
        }
    };
    fault::after("command.sent");
    match global.output {
        Output::Json => output::json(&json.map_err(crate::failure::failed)?)?,
        Output::Table => output::print(&format!("{domain} is {state}\n"))?,
    }
    Ok(0)
}
