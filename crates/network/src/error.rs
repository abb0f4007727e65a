//! What can go wrong with a link.

use std::process::ExitStatus;

/// Why a bridge, tap or namespace could not be made, changed or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of the system could not be started.
    #[error("starting '{program}' failed; is the package that holds it ({package}) installed?")]
    Start {
        program: String,
        package: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// Talking to a started program failed.
    #[error("running '{command}' failed")]
    Run {
        command: String,
        #[source]
        source: std::io::Error,
    },
    /// A program ended with a failure of its own.
    #[error("'{command}' ended with {status}: {stderr}")]
    Refused {
        command: String,
        status: ExitStatus,
        stderr: String,
    },
    /// A program did not end in time and was killed.
    #[error(
        "'{command}' did not end within {limit_s} s and was killed; is the machine short of processor time?"
    )]
    TooSlow { command: String, limit_s: u64 },
    /// The JSON of `ip -j` was not what this version of Estive reads.
    #[error("'{command}' printed JSON that cannot be read; iproute2 4.17 or newer is needed")]
    Json {
        command: String,
        #[source]
        source: serde_json::Error,
    },
    /// A name that the kernel, or a command line, would not take.
    #[error(
        "{given:?} is not fit as a name of {what}: use 1 to {longest} of a-z, A-Z, 0-9, '-', '_', not beginning with '-'"
    )]
    Name {
        what: &'static str,
        given: String,
        longest: usize,
    },
    /// A MAC address that is none, or that is not one for a single interface.
    #[error("{given:?} is not a unicast MAC address of the form 02:77:00:00:00:0b")]
    Mac { given: String },
    /// The name is taken by something that is not ours to change.
    #[error(
        "there is already an interface '{name}' here and it is no {wanted} (it is: {found}); remove it or choose another name"
    )]
    Taken {
        name: String,
        wanted: &'static str,
        found: String,
    },
    /// The bridge a tap should join does not exist.
    #[error(
        "there is no bridge '{name}' here; make it first, or correct the bridge in the agent's configuration"
    )]
    NoBridge { name: String },
}
