//! `estive save`, `estive restore`: a domain's memory, kept on its host.

use crate::arguments::Global;
use crate::connection::{Service, service};
use crate::failure::Failure;
use crate::output::{self, Output};
use clap::Args;
use estive_api::fault;
use estive_api::wire::{DomainReport, HerdDomain, SaveOrder};
use estive_model::{DomainName, DomainState};
use std::time::Duration;

/// Memory goes to a disk, or comes from there.
const PATIENCE: Duration = Duration::from_secs(960);

/// It goes on from there by estive restore, once and on the same host.
#[derive(Debug, Args)]
pub struct Save {
    /// The domain.
    domain: DomainName,
    /// Drops what was saved instead: the domain is stopped, and may be started.
    #[arg(long)]
    drop: bool,
}

/// What was saved is gone then.
#[derive(Debug, Args)]
pub struct Restore {
    /// The domain.
    domain: DomainName,
}

impl Save {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let path = format!("/domain/{}/saved", self.domain);
        let method = match self.drop {
            true => Method::Delete,
            false => Method::Put,
        };
        order(global, &self.domain, &path, method).await
    }
}

impl Restore {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let path = format!("/domain/{}/restore", self.domain);
        order(global, &self.domain, &path, Method::Post).await
    }
}

#[derive(Clone, Copy)]
enum Method {
    Put,
    Post,
    Delete,
}

async fn order(
    global: &Global,
    domain: &DomainName,
    path: &str,
    method: Method,
) -> Result<u8, Failure> {
    fault::before("command.sent");
    let (state, json): (DomainState, _) = match service(global)? {
        Service::Manager(client) => {
            let answer: HerdDomain = ask(&client, path, method).await?;
            (answer.state, serde_json::to_value(&answer))
        }
        Service::Agent(client) => {
            let answer: DomainReport = ask(&client, path, method).await?;
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

async fn ask<T: serde::de::DeserializeOwned>(
    client: &estive_api::Client,
    path: &str,
    method: Method,
) -> Result<T, Failure> {
    let body = SaveOrder::default();
    Ok(match method {
        Method::Put => client.put_json(path, &body, PATIENCE).await?,
        Method::Post => client.post_json(path, &body, PATIENCE).await?,
        Method::Delete => client.delete_json(path, PATIENCE).await?,
    })
}
