//! `estive storage`: the place that gives out sealed roots.

use crate::failure::{Failure, failed};
use clap::Args;
use estive_cache::{OriginConfig, serve_origin};
use estive_exports::nbd::{RootServerConfig, serve};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Storage {
    /// A directory of sealed roots: images and their signed manifests; may be repeated. What comes into it later is
    /// found when it is asked for.
    #[arg(long = "directory", value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Certificate and key.
    #[arg(long, value_name = "DIR")]
    credentials: Option<PathBuf>,
    /// Instead of directories: one sealed image, which QEMUs read without a cache.
    #[arg(
        long,
        value_name = "FILE",
        requires = "export",
        conflicts_with = "directories"
    )]
    image: Option<PathBuf>,
    /// Name of that image's export.
    #[arg(long, value_name = "NAME")]
    export: Option<String>,
}

impl Storage {
    pub async fn run(self) -> Result<u8, Failure> {
        super::speak();
        let shutdown = super::shutdown()?;
        if let (Some(image), Some(export)) = (self.image, self.export) {
            let config = RootServerConfig {
                image,
                listen: self.listen,
                export,
                credentials: self.credentials,
            };
            let ready = |server: &estive_exports::nbd::RootServer| {
                tracing::info!(pid = server.pid(), listen = %server.config().listen, "the root is served");
            };
            serve(config, ready, shutdown.cancelled_owned())
                .await
                .map_err(failed)?;
            return Ok(0);
        }
        let Some(credentials) = self.credentials else {
            return Err(Failure::impossible(
                "--credentials is missing: roots are given to hosts of the same authority only",
            ));
        };
        let config = OriginConfig {
            directories: self.directories,
            listen: self.listen,
            credentials,
        };
        let ready = |endpoint: String, roots: usize| {
            tracing::info!(%endpoint, roots, "the roots are served");
        };
        serve_origin(config, ready, shutdown)
            .await
            .map_err(failed)?;
        Ok(0)
    }
}
