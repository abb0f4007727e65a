//! Who makes the layers of a herd: scripts in the sandbox, then templates in processes that have nothing.

use estive_layers::{CloneFacts, LayerError, Render, RenderRequest, RenderedHerd};

use crate::script_cache::ScriptCache;
use crate::scripts::ScriptRoot;
use crate::worker::Worker;

/// The root of a clone's reference, or what to do to have one.
pub type RootOf<'a> = dyn Fn(&CloneFacts) -> Result<&'a ScriptRoot, String> + Sync + 'a;

/// Renders requests whose scripts were not run yet.
pub struct Workshop<'a> {
    pub worker: &'a Worker,
    pub root_of: &'a RootOf<'a>,
    pub cache: Option<&'a ScriptCache>,
}

impl Render for Workshop<'_> {
    fn render(&self, request: &RenderRequest) -> Result<RenderedHerd, LayerError> {
        let mut request = request.without_outputs();
        self.worker
            .run_scripts(&mut request, self.root_of, self.cache)?;
        self.worker.render(&request)
    }
}
