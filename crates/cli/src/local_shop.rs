//! Who makes layers on this machine: scripts of sets in the sandbox, templates in processes that
//! have nothing.

use crate::failure::{Failure, failed};
use estive_files::StateDirectory;
use estive_layers::{LayerError, Render, RenderRequest, RenderedHerd};
use estive_sandbox::{ScriptCache, ScriptRoot, Worker, Workshop};
use std::fmt::Write as _;
use std::path::Path;

pub struct LocalShop {
    worker: Worker,
    root: Option<ScriptRoot>,
    cache: ScriptCache,
}

impl LocalShop {
    /// `root` is the one that scripts see, if the user named one.
    pub fn open(root: Option<&Path>, state: &StateDirectory) -> Result<Self, Failure> {
        Ok(Self {
            worker: Worker::this_program(),
            root: root.map(ScriptRoot::new),
            cache: ScriptCache::open(state.path().join("scripts")).map_err(failed)?,
        })
    }

    /// What tells the root from another; `None` when nothing does.
    pub fn root_identity(&self) -> Option<String> {
        let Some(root) = &self.root else {
            return Some("none".to_owned());
        };
        let mut text = String::new();
        for byte in root.identity()? {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Some(text)
    }
}

impl Render for LocalShop {
    fn render(&self, request: &RenderRequest) -> Result<RenderedHerd, LayerError> {
        let missing = || "give it with --root".to_owned();
        Workshop {
            worker: &self.worker,
            root_of: &|_| self.root.as_ref().ok_or_else(missing),
            cache: Some(&self.cache),
        }
        .render(request)
    }
}
