//! `estive storage`: the place that serves a sealed root.

use crate::failure::{Failure, failed};
use clap::Args;
use estive_exports::nbd::{RootServerConfig, serve};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Storage {
    /// The sealed image.
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Name of the export.
    #[arg(long, value_name = "NAME")]
    export: String,
    /// Certificate and key; without them anybody who reaches the port may read the root.
    #[arg(long, value_name = "DIR")]
    credentials: Option<PathBuf>,
}

impl Storage {
    pub async fn run(self) -> Result<u8, Failure> {
        super::speak();
        let shutdown = super::shutdown()?;
        let config = RootServerConfig {
            image: self.image,
            listen: self.listen,
            export: self.export,
            credentials: self.credentials,
        };
        let ready = |server: &estive_exports::nbd::RootServer| {
            tracing::info!(pid = server.pid(), listen = %server.config().listen, "the root is served");
        };
        serve(config, ready, shutdown.cancelled_owned())
            .await
            .map_err(failed)?;
        Ok(0)
    }
}
