//! What can go wrong in and around the sandbox, each with where and what to try.

use std::io;
use std::path::PathBuf;

/// What can go wrong in the sandbox. `doing` is the script that was to be run, or the rendering.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("starting the sandbox of {doing} ({program})")]
    Start {
        doing: String,
        program: PathBuf,
        #[source]
        source: io::Error,
    },

    /// The script did what it may not, failed, or took too much.
    #[error("the script {script}: {what}")]
    Script { script: String, what: String },

    /// This machine does not let us make the sandbox; nothing was started in it.
    #[error("the sandbox of {doing} could not be made: {what}")]
    Unmade { doing: String, what: String },

    #[error("the sandbox of {doing} ended without an answer ({status}): {words}")]
    NoAnswer {
        doing: String,
        status: String,
        words: String,
    },
}
