//! `estive cache`: the process that reads roots for the clones of a host, checks and keeps them.

use crate::failure::{Failure, failed};
use crate::size::{live_memory_bytes, size_bytes};
use clap::Args;
use estive_cache::{CacheConfig, serve_cache};
use estive_live::{Memory, forward};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub struct Cache {
    /// Its directory, which the host's agent names as `cache:` (without that: `cache` in the agent's `state:`).
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Certificate and key: the agent's.
    #[arg(long, value_name = "DIR")]
    credentials: PathBuf,
    /// Where other hosts may read what it holds; without it, nowhere.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The most that it keeps on disk.
    #[arg(long, value_name = "SIZE", default_value = "16G", value_parser = size_bytes)]
    limit: u64,
    /// The most that it keeps in memory.
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size_bytes)]
    memory: u64,
    /// The most memory for calls of clones of live references that are under way; what is over it waits in the clones.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = live_memory_bytes)]
    live_memory: u64,
    /// How long a read waits for origins that do not answer before it fails.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    patience: Duration,
}

impl Cache {
    pub async fn run(self) -> Result<u8, Failure> {
        super::speak();
        super::many_files();
        let shutdown = super::shutdown()?;
        let (doors, told) = tokio::sync::watch::channel(Vec::new());
        let config = CacheConfig {
            listen: self.listen,
            limit_bytes: self.limit,
            memory_bytes: self.memory,
            patience: self.patience,
            doors: Some(told),
            ..CacheConfig::new(self.directory, self.credentials)
        };
        let ready = |cache: &estive_cache::Cache| {
            let about = cache.about();
            tracing::info!(
                pid = about.pid,
                kept_chunks = about.kept_chunks,
                kept_bytes = about.kept_bytes,
                "the cache serves"
            );
        };
        // Beside it in one process: what clones of live references read.
        let credentials = estive_api::Credentials::load(&config.credentials).map_err(failed)?;
        let directory = estive_api::wire::CacheDirectory(config.directory.clone());
        let forwarding = {
            let shutdown = shutdown.clone();
            let memory = Memory::of(self.live_memory);
            tokio::spawn(
                async move { forward(&directory, credentials, doors, memory, shutdown).await },
            )
        };
        let ends_with_us = shutdown.clone().drop_guard();
        serve_cache(config, ready, shutdown).await.map_err(failed)?;
        drop(ends_with_us);
        forwarding.await.map_err(failed)?.map_err(failed)?;
        Ok(0)
    }
}
