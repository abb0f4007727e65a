//! `estive storage --volumes`: volumes, by REST to the manager and the agents, and by NBD to QEMUs.

use crate::failure::{Failure, failed};
use clap::Args;
use estive_api::Credentials;
use estive_api::server::{Listen, Listener};
use estive_volumes::{StorageHost, StorageHostConfig, router};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Args)]
#[group(id = "volume_options", multiple = true)]
pub struct Volumes {
    /// The directory of volumes; made when it is not there.
    #[arg(
        long,
        value_name = "DIR",
        required = false,
        requires = "volumes_listen"
    )]
    volumes: PathBuf,
    /// Where volumes are asked for. Their exports are served on the same address.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        required = false,
        requires = "volumes"
    )]
    volumes_listen: SocketAddr,
    /// TCP ports of the exports, one a volume.
    #[arg(long, value_name = "FIRST-LAST", value_parser = ports, default_value = "7700-8699")]
    volume_ports: (u16, u16),
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').ok_or("write FIRST-LAST")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no port"));
    let (first, last): (u16, u16) = (number(first)?, number(last)?);
    match first != 0 && first <= last {
        true => Ok((first, last)),
        false => Err(format!("{first}-{last} is an empty range")),
    }
}

impl Volumes {
    /// Serves until `shutdown`. The storage daemons go on.
    pub async fn serve(
        &self,
        credentials: &Path,
        shutdown: CancellationToken,
    ) -> Result<(), Failure> {
        // Bound first: whom nobody can reach should take nothing over.
        let listen = Listen::Tls {
            address: self.volumes_listen,
            credentials: Credentials::load(credentials).map_err(failed)?,
        };
        let listener = Listener::bind(listen).await.map_err(failed)?;
        let config = StorageHostConfig {
            directory: self.volumes.clone(),
            address: self.volumes_listen.ip(),
            first_port: self.volume_ports.0,
            last_port: self.volume_ports.1,
            credentials: Some(credentials.to_owned()),
        };
        let host = StorageHost::open(config).await.map_err(failed)?;
        tracing::info!(at = %listener.endpoint(), directory = %self.volumes.display(), "volumes are kept");
        listener.serve(router(Arc::new(host)), shutdown).await;
        Ok(())
    }
}
