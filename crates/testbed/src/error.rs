//! What can go wrong in the testbed.

use std::path::PathBuf;

/// Why a part of the testbed could not be made, started or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Namespaces and mounts need root.
    #[error(
        "the testbed makes namespaces and mounts, which needs root: run it as root or through sudo"
    )]
    NotRoot,
    /// A call to the system failed.
    #[error("{doing} failed")]
    System {
        doing: String,
        #[source]
        source: std::io::Error,
    },
    /// A link or namespace could not be made.
    #[error("{doing} failed")]
    Network {
        doing: String,
        #[source]
        source: estive_network::Error,
    },
    /// The outer namespace ended before what runs in it was ready.
    #[error(
        "what runs in the outer namespace ended (exit code {code}) before it was ready; its own messages above say why"
    )]
    EndedEarly { code: i32 },
    /// A kept testbed is already up.
    #[error("a testbed is already kept up (process {pid}); take it down first ('estive-bed down')")]
    AlreadyKept { pid: u32 },
    /// A path is taken by something that is not ours.
    #[error(
        "{path} exists and is not a link of the testbed's; remove it by hand if nothing needs it"
    )]
    PathTaken { path: PathBuf },
    /// A program of the bed did not do what it should.
    #[error("the {name}: {problem}; the end of its log:\n{log}")]
    Part {
        name: String,
        problem: String,
        log: String,
    },
    /// A command failed.
    #[error("'{command}' ended with {status}: {stderr}")]
    Command {
        command: String,
        status: std::process::ExitStatus,
        stderr: String,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {limit_s} s; is the machine short of processor time?")]
    TooSlow { what: String, limit_s: u64 },
    /// JSON that cannot be read.
    #[error("what {what} printed cannot be read")]
    Json {
        what: String,
        #[source]
        source: serde_json::Error,
    },
    /// A load, ping or witness could not be started or ended before it should.
    #[error("{what}: {problem}")]
    Gauge { what: String, problem: String },
    /// What was asked for is beyond the testbed's limits.
    #[error("{what}: {given} is not within {least} to {most}")]
    Limit {
        what: &'static str,
        given: u64,
        least: u64,
        most: u64,
    },
}

impl Error {
    /// For `map_err`: what was being done, around the system's own error.
    pub fn system(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source }
    }

    pub(crate) fn network(doing: impl Into<String>) -> impl FnOnce(estive_network::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Network { doing, source }
    }
}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
