//! From the global options to a client of a manager or of one agent.

use crate::arguments::Global;
use crate::failure::{Failure, failed};
use estive_api::{Client, Credentials, Endpoint};
use std::time::Duration;

/// How long an ordinary question may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long an order may take that waits for a guest to stop, or for a stream to begin.
pub const LONG: Duration = Duration::from_secs(180);

fn client(url: &str, global: &Global) -> Result<Client, Failure> {
    let endpoint = Endpoint::parse(url).map_err(failed)?;
    let credentials = match (&endpoint, &global.credentials) {
        (Endpoint::Tls { .. }, Some(directory)) => {
            Some(Credentials::load(directory).map_err(failed)?)
        }
        (Endpoint::Tls { .. }, None) => {
            return Err(Failure::impossible(format!("{url} asks for a certificate and none was given"))
                .advice("--credentials DIR, made by `estive authority issue --role user --name YOU --out DIR`"));
        }
        (Endpoint::Unix(_), _) => None,
    };
    Ok(Client::new(endpoint, credentials.as_ref())?)
}

/// What a command speaks to.
pub enum Service {
    /// The manager of a herd.
    Manager(Client),
    /// One agent, driven alone.
    Agent(Client),
}

/// The service named by the options.
pub fn service(global: &Global) -> Result<Service, Failure> {
    match &global.agent {
        Some(url) => Ok(Service::Agent(client(url, global)?)),
        None => Ok(Service::Manager(client(&global.manager, global)?)),
    }
}

/// The manager; a command that only a manager can answer refuses `--agent`.
pub fn manager(global: &Global) -> Result<Client, Failure> {
    match service(global)? {
        Service::Manager(client) => Ok(client),
        Service::Agent(_) => Err(Failure::impossible(
            "an agent alone cannot do this: it knows one host",
        )
        .advice("leave --agent away, and name a manager with --manager or ESTIVE_MANAGER")),
    }
}
