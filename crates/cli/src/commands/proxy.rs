//! `estive proxy`: standard input and output joined to a TCP port of a domain, through its host.

use crate::arguments::Global;
use crate::connection::{PATIENCE, Service, service};
use crate::failure::{Failure, failed};
use clap::Args;
use estive_model::DomainName;
use tokio::io::{AsyncWriteExt, copy};

#[derive(Debug, Args)]
pub struct Proxy {
    /// The domain.
    domain: DomainName,
    /// Its TCP port.
    port: u16,
}

impl Proxy {
    pub async fn run(self, global: &Global) -> Result<u8, Failure> {
        let (Service::Manager(client) | Service::Agent(client)) = service(global)?;
        let path = format!("/domain/{}/tcp/{}", self.domain, self.port);
        let stream = client.upgrade(&path, PATIENCE).await?;
        let (mut from_domain, mut to_domain) = tokio::io::split(stream);
        let there = async {
            copy(&mut tokio::io::stdin(), &mut to_domain).await?;
            // Our input is over; the other direction may go on.
            to_domain.shutdown().await?;
            std::future::pending::<std::io::Result<()>>().await
        };
        let back = async {
            let mut out = tokio::io::stdout();
            let mut buffer = vec![0u8; 64 * 1024];
            loop {
                let count = tokio::io::AsyncReadExt::read(&mut from_domain, &mut buffer).await?;
                if count == 0 {
                    return Ok(());
                }
                out.write_all(&buffer[..count]).await?;
                out.flush().await?;
            }
        };
        tokio::select! { ended = there => ended, ended = back => ended }.map_err(failed)?;
        Ok(0)
    }
}
