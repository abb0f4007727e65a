//! Everything that can go wrong in `./x`, said once, with what to try.

use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Failure>;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(
        "{doing}: could not run {program}; is it installed? ./x setup installs what is missing"
    )]
    Spawn {
        doing: String,
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{doing}: {command} ended with {status}\n{tail}")]
    Ended {
        doing: String,
        command: String,
        status: std::process::ExitStatus,
        tail: String,
    },
    #[error("{doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Unfit(String),
    #[error("{0} of the checks failed: {1}")]
    Checks(usize, String),
    #[error("{0} of the suites failed: {1}")]
    Suites(usize, String),
    #[error("sealing {root}")]
    Seal {
        root: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("making what boots {root}")]
    Boot {
        root: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("reading {what}")]
    Json {
        what: String,
        #[source]
        source: serde_json::Error,
    },
}

impl Failure {
    /// The message and those of its causes, on one line each way down.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// `file("reading", path)` as a closure for `map_err`.
pub fn file<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> Failure + 'a {
    move |source| Failure::File {
        doing,
        path: path.to_path_buf(),
        source,
    }
}
