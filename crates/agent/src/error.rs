//! Why an agent does not start, or had to end.

use estive_model::HostName;
use std::path::{Path, PathBuf};

/// Errors of the agent as a whole. What goes wrong with one request is an [`estive_api::Problem`].
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file could not be worked with.
    #[error("could not {doing} {path}", path = path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The configuration cannot be used.
    #[error("the configuration {path} cannot be used: {reason}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Its certificate is somebody else's: what is granted to this host would not be given to it.
    #[error(
        "the agent's certificate is that of {is}, and its configuration names it {name}; issue it one with \
         'estive authority issue --role agent --name {name}'"
    )]
    OthersCertificate {
        /// Role and name in the certificate.
        is: String,
        /// Of the configuration.
        name: HostName,
    },
    /// Another agent works with the same state.
    #[error(
        "the state directory {path} is held by another agent; stop that one, or give this one its own directory",
        path = path.display()
    )]
    StateHeld {
        /// The directory.
        path: PathBuf,
    },
    /// Credentials or listening.
    #[error(transparent)]
    Api(#[from] estive_api::Error),
    /// The hypervisor cannot be used.
    #[error("the hypervisor cannot be used")]
    Hypervisor(#[from] estive_hypervisor::HypervisorError),
}

impl AgentError {
    pub(crate) fn file(doing: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::File {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}
