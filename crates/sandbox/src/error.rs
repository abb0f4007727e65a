//! What can go wrong around a script, each with where and what to try.

use std::io;
use std::path::PathBuf;

/// What can go wrong in the sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("starting the sandbox of {script} ({program})")]
    Start {
        script: String,
        program: PathBuf,
        #[source]
        source: io::Error,
    },

    /// The script did what it may not, failed, or took too much.
    #[error("the script {script}: {what}")]
    Script { script: String, what: String },

    /// This machine does not let us make the sandbox; the script was not started.
    #[error("the sandbox of the script {script} could not be made: {what}")]
    Unmade { script: String, what: String },

    #[error("the sandbox of the script {script} ended without an answer ({status}): {words}")]
    NoAnswer {
        script: String,
        status: String,
        words: String,
    },
}
