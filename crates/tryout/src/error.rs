//! What can go wrong while a clone is tried, each with what to try.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use estive_exports::ExportError;
use estive_hypervisor::HypervisorError;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum TryoutError {
    #[error("{doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error(
        "no {what}: give {option}, or run ./x setup, which makes one and leaves it where it is found"
    )]
    Missing {
        what: &'static str,
        option: &'static str,
    },

    #[error(transparent)]
    Parts(#[from] ExportError),

    #[error("{clone} cannot be given its identity")]
    Identity {
        clone: String,
        #[source]
        source: estive_boot::Error,
    },

    #[error(
        "the layer of {clone} has {size_bytes} bytes and the disk for it {limit_bytes}; leave files out of its sets"
    )]
    LayerTooLarge {
        clone: String,
        size_bytes: usize,
        limit_bytes: u64,
    },

    #[error(
        "the network {network} has no room for {clone} ({guest}), a router and a name server; write a larger network:"
    )]
    Network {
        network: String,
        clone: String,
        guest: Ipv4Addr,
    },

    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
}

impl TryoutError {
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}
