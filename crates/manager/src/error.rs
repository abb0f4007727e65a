//! Why a manager cannot start, or had to end.

use std::io;
use std::path::PathBuf;

/// Failures of the manager as a process; what goes wrong with one request is answered as a problem.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// A file or directory could not be worked with.
    #[error("could not {doing} {path}", path = path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The configuration is not understood.
    #[error("the manager's configuration {path} cannot be used: {reason}", path = path.display())]
    Config { path: PathBuf, reason: String },
    /// There are no credentials.
    #[error(
        "there are no credentials in {path}; issue them with \"estive authority issue --authority DIR --role manager \
         --name NAME --address ADDRESS --out {path}\"",
        path = path.display()
    )]
    NoCredentials { path: PathBuf },
    /// A file that a reference names is missing or cannot be read.
    #[error(
        "the reference {reference}: could not read its {part} {path}; make the reference again, or correct the path in \
         the manager's configuration",
        path = path.display()
    )]
    Reference {
        reference: String,
        part: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Listening, TLS, endpoints.
    #[error(transparent)]
    Api(#[from] estive_api::Error),
    /// An agent's URL cannot be used.
    #[error("the host {host}")]
    Host {
        host: estive_model::HostName,
        #[source]
        source: Box<estive_api::ClientError>,
    },
    /// An origin's URL cannot be used.
    #[error("the reference {reference}: an origin of its root")]
    Origin {
        reference: String,
        #[source]
        source: Box<estive_api::ClientError>,
    },
    /// The storage host's address cannot be used.
    #[error("the storage host of volumes:")]
    Storage {
        #[source]
        source: Box<estive_api::ClientError>,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    OpenStore(#[from] estive_store::StoreError),
    /// The store cannot be read.
    #[error("{0}")]
    Store(estive_api::Problem),
}
