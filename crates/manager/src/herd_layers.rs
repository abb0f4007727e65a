//! The layers of a herd: scripts of template sets in the sandbox, in the root of each clone's reference; templates in
//! processes that have nothing.

use crate::manager::Manager;
use crate::reference::Reference;
use estive_api::{Problem, ProblemKind};
use estive_layers::{
    CloneFacts, ClonePlan, DeploymentSecret, HerdPlan, HerdWarnings, LayerError, OwnSets, Render,
    RenderHere, RenderRequest, RenderedHerd, TemplateSet, check_variables,
};
use estive_sandbox::{ScriptCache, ScriptRoot, Worker, Workshop};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a manager makes layers with.
pub(crate) struct LayerMaker {
    worker: Option<Worker>,
    script_cache: PathBuf,
    references: BTreeMap<String, Reference>,
}

impl LayerMaker {
    pub fn of(manager: &Manager) -> Self {
        Self {
            worker: manager.worker.clone(),
            script_cache: manager.script_cache.clone(),
            references: manager.references.clone(),
        }
    }

    /// The layers of all clones, in their order; and what may be a slip in the herd file. `sets` are the herd's own.
    /// Blocks.
    pub fn render(
        &self,
        plan: &HerdPlan,
        sets: &OwnSets,
        secret: &DeploymentSecret,
    ) -> Result<(RenderedHerd, HerdWarnings), Problem> {
        let mut found: BTreeMap<&Vec<String>, Vec<TemplateSet>> = BTreeMap::new();
        for clone in &plan.clones {
            if !found.contains_key(&clone.sets) {
                let chosen = TemplateSet::find_all(&clone.sets, sets).map_err(impossible)?;
                found.insert(&clone.sets, chosen);
            }
        }
        let sets_of = |clone: &ClonePlan| {
            let found = found.get(&clone.sets);
            found.map(Vec::as_slice).unwrap_or_default()
        };
        let warnings = check_variables(plan, sets_of).map_err(impossible)?;
        let request = RenderRequest::new(plan, sets, secret).map_err(impossible)?;
        let rendered = match &self.worker {
            Some(worker) => self.render_apart(worker, plan, &request)?,
            None => RenderHere.render(&request).map_err(impossible)?,
        };
        Ok((rendered, warnings))
    }

    fn render_apart(
        &self,
        worker: &Worker,
        plan: &HerdPlan,
        request: &RenderRequest,
    ) -> Result<RenderedHerd, Problem> {
        let cache = ScriptCache::open(&self.script_cache).map_err(|error| {
            Problem::failed(format!(
                "opening what scripts have made, {}: {error}",
                self.script_cache.display()
            ))
        })?;
        let roots: BTreeMap<&str, ScriptRoot> = self
            .references
            .iter()
            .filter_map(|(name, reference)| {
                Some((name.as_str(), ScriptRoot::new(reference.tree.as_ref()?)))
            })
            .collect();
        let root_of = |clone: &CloneFacts| {
            let plan = plan.clone_named(clone.name.as_str());
            let reference = plan.map_or("", |plan| plan.reference.as_str());
            roots.get(reference).ok_or_else(|| {
                format!(
                    "write tree: with its directory or its sealed image into the manager's configuration, under \
                     references: {reference}:, and start the manager again"
                )
            })
        };
        let workshop = Workshop {
            worker,
            root_of: &root_of,
            cache: Some(&cache),
        };
        workshop.render(request).map_err(impossible)
    }
}

fn impossible(error: LayerError) -> Problem {
    Problem::from_error(ProblemKind::Impossible, &error)
        .advice("correct the herd file or its template sets")
}
