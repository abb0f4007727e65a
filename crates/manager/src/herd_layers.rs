//! The layers of a herd: scripts of template sets in the sandbox, in the root of each clone's reference; templates in
//! processes that have nothing.

use crate::manager::Manager;
use crate::reference::Reference;
use estive_api::{Problem, ProblemKind};
use estive_files::{BuildError, BuildOptions, FilesError, LayerStore};
use estive_layers::{
    CloneFacts, ClonePlan, DeploymentSecret, HerdPlan, HerdWarnings, LayerError, OwnSets, Render,
    RenderHere, RenderRequest, RenderedHerd, SetLibrary, TemplateSet, check_variables,
};
use estive_model::DeploymentName;
use estive_sandbox::{ScriptCache, ScriptRoot, Worker, Workshop};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a manager makes layers with.
pub(crate) struct LayerMaker {
    worker: Option<Worker>,
    state: PathBuf,
    script_cache: PathBuf,
    references: BTreeMap<String, Reference>,
}

impl LayerMaker {
    pub fn of(manager: &Manager) -> Self {
        Self {
            worker: manager.worker.clone(),
            state: manager.state.clone(),
            script_cache: manager.script_cache.clone(),
            references: manager.references.all(),
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
        let mut library = SetLibrary::new(sets);
        let mut found: BTreeMap<&Vec<String>, Vec<TemplateSet>> = BTreeMap::new();
        for clone in &plan.clones {
            if !found.contains_key(&clone.sets) {
                let chosen = library.find_all(&clone.sets).map_err(impossible)?;
                found.insert(&clone.sets, chosen);
            }
        }
        let sets_of = |clone: &ClonePlan| {
            let found = found.get(&clone.sets);
            found.map(Vec::as_slice).unwrap_or_default()
        };
        let warnings = check_variables(plan, sets_of).map_err(impossible)?;
        let request = RenderRequest::new(plan, sets, secret).map_err(impossible)?;
        let rendered = self.build(plan, &request)?;
        Ok((rendered, warnings))
    }

    /// The layers as they are in the store, those whose inputs changed made anew.
    fn build(&self, plan: &HerdPlan, request: &RenderRequest) -> Result<RenderedHerd, Problem> {
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
        let reference_of = |clone: &CloneFacts| {
            let plan = plan.clone_named(clone.name.as_str());
            plan.map_or("", |plan| plan.reference.as_str())
        };
        let root_of = |clone: &CloneFacts| {
            let reference = reference_of(clone);
            roots.get(reference).ok_or_else(|| {
                format!(
                    "write tree: with its directory or its sealed image into the manager's configuration, under \
                     references: {reference}:, and start the manager again"
                )
            })
        };
        let workshop = self.worker.as_ref().map(|worker| Workshop {
            worker,
            root_of: &root_of,
            cache: Some(&cache),
        });
        let render: &dyn Render = match &workshop {
            Some(workshop) => workshop,
            None => &RenderHere,
        };
        let options = BuildOptions {
            render,
            root_of: &|clone| {
                let identity = roots.get(reference_of(clone))?.identity()?;
                Some(identity.iter().map(|byte| format!("{byte:02x}")).collect())
            },
            all: false,
        };
        let store = LayerStore::open(&self.state).map_err(of_store)?;
        store
            .build(request, &options)
            .map_err(|error| match error {
                BuildError::Layers(error) => impossible(error),
                BuildError::Files(error) => of_store(error),
            })?;
        let stored = store.layers(&request.deployment).map_err(of_store)?;
        let clones = request.clones.iter().map(|clone| &clone.name);
        match stored {
            Some(stored) => stored.rendered(clones).map_err(of_store),
            None => {
                Err(Problem::failed("the layers went while they were built").advice("try again"))
            }
        }
    }

    /// Forgets the layers of a deployment that is no more. Blocks.
    pub fn forget(&self, deployment: &DeploymentName) -> Result<(), Problem> {
        let store = LayerStore::open(&self.state).map_err(of_store)?;
        store.remove(deployment).map_err(of_store)
    }
}

fn of_store(error: FilesError) -> Problem {
    Problem::from_error(ProblemKind::Failed, &error)
        .advice("look at layers/ in the manager's state directory: what is in there may be removed, and is made anew")
}

fn impossible(error: LayerError) -> Problem {
    Problem::from_error(ProblemKind::Impossible, &error)
        .advice("correct the herd file or its template sets")
}
