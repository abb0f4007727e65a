//! `estive storage`: the place that gives out roots, sealed and live, and shared directories, and keeps the volumes of
//! stateful clones.

mod volumes;

use crate::failure::{Failure, failed};
use crate::size::live_memory_bytes;
use clap::Args;
use estive_cache::{OriginConfig, serve_origin};
use estive_live::{Memory, Offer, Reserved};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use volumes::Volumes;

#[derive(Debug, Args)]
pub struct Storage {
    /// A directory of sealed roots: images and their signed manifests; may be repeated. What comes into it later is
    /// found when it is asked for.
    #[arg(long = "directory", value_name = "DIR", requires = "listen")]
    directories: Vec<PathBuf>,
    /// A live root, read by clones as it is now; may be repeated, each with a name of its own.
    #[arg(long, value_name = "NAME=DIR", requires = "state")]
    live: Vec<String>,
    /// A directory that clones of a reference write to, and where they mount it; may be repeated.
    #[arg(
        long,
        value_name = "NAME:/MOUNTED/AT=DIR[,bytes=SIZE][,files=COUNT][,root=kept]",
        requires = "state"
    )]
    share: Vec<String>,
    /// Hosts that a live reference and its shared directories are for, whatever managers say; may be repeated.
    #[arg(long, value_name = "NAME=HOST[,HOST]...", requires = "state")]
    only: Vec<String>,
    /// What must outlive this process for live roots and shared directories: the key of their file handles.
    #[arg(long, value_name = "DIR", requires = "listen")]
    state: Option<PathBuf>,
    /// The most memory for calls of clones of live references that are under way; what is over it waits in the clones.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = live_memory_bytes)]
    live_memory: u64,
    /// Where to listen for those who want roots.
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present = "volumes")]
    listen: Option<SocketAddr>,
    /// Certificate and key: all is given to hosts of the same authority only.
    #[arg(long, value_name = "DIR")]
    credentials: PathBuf,
    #[command(flatten)]
    volumes: Option<Volumes>,
}

impl Storage {
    pub async fn run(self) -> Result<u8, Failure> {
        super::speak();
        super::many_files();
        let shutdown = super::shutdown()?;
        match (&self.volumes, self.listen) {
            (Some(volumes), None) => {
                volumes.serve(&self.credentials, shutdown).await?;
                Ok(0)
            }
            (Some(volumes), Some(listen)) => {
                let volumes = volumes.clone();
                let credentials = self.credentials.clone();
                let volumes = volumes.serve(&credentials, shutdown.clone());
                // One that fails ends the other: half a storage host is none.
                tokio::try_join!(volumes, self.serve_roots(listen, shutdown.clone()))?;
                Ok(0)
            }
            (None, Some(listen)) => {
                self.serve_roots(listen, shutdown).await?;
                Ok(0)
            }
            (None, None) => Err(Failure::impossible("--listen is missing")),
        }
    }

    async fn serve_roots(
        self,
        listen: SocketAddr,
        shutdown: CancellationToken,
    ) -> Result<(), Failure> {
        let config = OriginConfig {
            directories: self.directories,
            listen,
            credentials: self.credentials,
            besides: offered(
                &self.live,
                &self.share,
                &self.only,
                Memory::of(self.live_memory),
                self.state,
            )
            .await?,
        };
        let ready = |endpoint: String, roots: usize| {
            tracing::info!(%endpoint, roots, "the roots are served");
        };
        serve_origin(config, ready, shutdown).await.map_err(failed)
    }
}

/// The routes of live roots and shared directories, if there are any.
async fn offered(
    live: &[String],
    share: &[String],
    only: &[String],
    memory: Arc<Memory>,
    state: Option<PathBuf>,
) -> Result<Option<axum::Router>, Failure> {
    let live = live.iter().map(|text| Offer::live(text));
    let share = share.iter().map(|text| Offer::shared(text));
    let offers: Vec<Offer> = live
        .chain(share)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::impossible(error.to_string()))?;
    let reserved = Reserved::read(only.iter().map(String::as_str))
        .map_err(|error| Failure::impossible(error.to_string()))?;
    let (Some(state), false) = (state, offers.is_empty()) else {
        return Ok(None);
    };
    // Shared directories are counted first.
    tokio::task::spawn_blocking(move || estive_live::router(offers, reserved, memory, &state))
        .await
        .map_err(failed)?
        .map(Some)
        .map_err(failed)
}
