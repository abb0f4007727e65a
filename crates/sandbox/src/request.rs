//! What the keeper is asked, and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// One run of a script. The same request on the same root gives the same output, if the script keeps from looking at
/// the clock and at random numbers: it can see both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptRequest {
    /// How messages call it: `sets/web/.scripts/10-logger for clone03`.
    pub script: String,
    /// The reference's root: a directory, or a sealed EROFS image.
    pub root: PathBuf,
    /// The script's path in the set.
    pub program: String,
    /// The set's tree, by path.
    pub set: Arc<BTreeMap<String, InputNode>>,
    /// JSON for its standard input.
    #[serde(with = "serde_bytes")]
    pub variables: Vec<u8>,
    /// Paths whose mode is said elsewhere (the set's `files:`), so that the output's own does not count.
    pub modes_given: Arc<BTreeSet<String>>,
    pub limits: Limits,
}

/// What a script can see of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputNode {
    File {
        executable: bool,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    Directory,
    Symlink {
        target: String,
    },
}

/// What a script left in its output, by path; whiteout marks (`.wh.NAME`) are files here as in a set. Owners and
/// times are not kept: all is root's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptOutput {
    pub nodes: BTreeMap<String, OutputNode>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputNode {
    File {
        mode: u32,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    Directory {
        mode: u32,
    },
    Symlink {
        target: String,
    },
    /// Another name of the file at `target`, which comes first in the order of paths.
    HardLink {
        target: String,
    },
}

/// What the keeper writes on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done(ScriptOutput),
    /// The script's fault.
    Failed(String),
    /// The script was not started.
    Unmade(String),
}
