//! A host's cache of sealed roots, and the origin it reads from.
//!
//! `estive storage` is an [`Origin`]: images and their signed manifests in directories, handed out chunk by chunk over
//! mutual TLS. `estive cache` is one process on each host, apart from the agent: it serves QEMU over NBD on a unix
//! socket, fetches chunks from origins, checks each before it passes it on, and keeps them on disk within a limit.

mod cache;
mod error;
mod fetch;
mod lru;
pub mod nbd;
mod origin;
mod process;
mod read_ahead;
mod roots;
mod routes;
mod store;
mod trouble;

pub use cache::Cache;
pub use error::{CacheError, ReadError};
pub use origin::{Origin, OriginConfig, serve_origin};
pub use process::{CacheConfig, serve_cache};
pub use routes::{Chunks, router};
