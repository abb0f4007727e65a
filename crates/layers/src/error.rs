//! What can go wrong in reading sets and making layers, each with what to try.

use std::io;
use std::path::PathBuf;

use crate::problem::HerdError;

/// What can go wrong while sets are read and layers made.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("there is no template set {name:?}{}; the sets that ship are {known}",
        meant.as_ref().map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default())]
    UnknownSet {
        name: String,
        meant: Option<String>,
        known: String,
    },

    #[error("the template set {set}: {path}: {what}")]
    Set {
        set: String,
        path: String,
        what: String,
    },

    #[error(transparent)]
    Values(#[from] HerdError),
    /// No folder, or no herd file in it.
    #[error("{what}")]
    NoHerd { what: String },

    #[error("the herd's folder: {path:?} {what}")]
    Folder { path: String, what: String },

    #[error("{doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("rendering sets/{template}:{line} for {clone}: {what}")]
    Template {
        /// `SET/PATH.j2`
        template: String,
        line: usize,
        clone: String,
        what: String,
    },

    #[error("there is no clone {name:?} in the herd{}",
        meant.as_ref().map(|meant| format!("; did you mean {meant}?")).unwrap_or_default())]
    UnknownClone { name: String, meant: Option<String> },

    #[error(
        "the script {script} of the template set {set} was not run for {clone}: scripts run in the root of a \
        reference, which nobody named"
    )]
    ScriptNotRun {
        set: String,
        script: String,
        clone: String,
    },

    /// In another process, which said so.
    #[error("{what}")]
    Elsewhere { what: String },

    /// A request that was not made by [`crate::RenderRequest::new`].
    #[error("the request to render names {what}")]
    Request { what: String },

    #[error("making the layer of {clone}")]
    Archive {
        clone: String,
        #[source]
        source: estive_archive::Error,
    },
}
