//! A herd's folder on this machine, for the commands that need no manager.

use crate::failure::{Failure, chain, failed};
use clap::Args;
use estive_files::StateDirectory;
use estive_layers::{
    CloneFacts, ClonePlan, HERD_FILE, HerdFolder, HerdPlan, LayerError, OwnSets, Render as _,
    RenderRequest,
};
use estive_model::DomainName;
use estive_sandbox::{ScriptCache, ScriptRoot, Worker, Workshop};
use std::path::{Path, PathBuf};

/// Where the herd lies, and where what is made of it is kept.
#[derive(Debug, Clone, Args)]
pub struct Local {
    /// The herd's folder, which holds herd.yaml.
    #[arg(long, env = "ESTIVE_HERD", value_name = "DIR", default_value = ".")]
    herd: PathBuf,
    /// Directory for built layers and the deployments' secrets; for root /var/lib/estive/layers, for others
    /// estive/layers in their XDG_STATE_HOME.
    #[arg(long, env = "ESTIVE_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
}

/// One clone's layer, with the herd it belongs to.
pub struct LocalLayer {
    pub herd: HerdPlan,
    name: DomainName,
    pub bytes: Vec<u8>,
}

impl LocalLayer {
    pub fn clone(&self) -> Result<&ClonePlan, Failure> {
        let missing =
            || Failure::impossible(format!("there is no clone {} in the herd", self.name));
        self.herd
            .clone_named(self.name.as_str())
            .ok_or_else(missing)
    }
}

/// A herd as its folder says it.
pub struct LocalHerd {
    pub plan: HerdPlan,
    /// Template sets of its own.
    pub sets: OwnSets,
}

impl LocalHerd {
    /// A clone of the herd; when there is none of that name, that and what was meant.
    pub fn clone_named(&self, name: &DomainName) -> Result<&ClonePlan, Failure> {
        self.plan.clone_named(name.as_str()).ok_or_else(|| {
            let clones = &self.plan.clones;
            let known = clones.iter().take(10).map(|clone| clone.name.as_str());
            let known: Vec<&str> = known.collect();
            Failure::impossible(format!("there is no clone {name} in the herd")).advice(format!(
                "the {} there are begin with {}",
                clones.len(),
                known.join(", ")
            ))
        })
    }
}

impl Local {
    /// As if these had been given as options.
    pub fn new(herd: PathBuf, state: Option<PathBuf>) -> Self {
        Self { herd, state }
    }

    /// Reads the herd's folder.
    pub fn herd(&self) -> Result<LocalHerd, Failure> {
        let folder = HerdFolder::read(&self.herd).map_err(|error| {
            unfit(error).advice("give the folder that holds herd.yaml with --herd")
        })?;
        let directory = self.herd.canonicalize().map_err(failed)?;
        let deployment = directory.file_name().and_then(|name| name.to_str());
        // As an editor finds it.
        let file = self.herd.join(HERD_FILE);
        let file = file.strip_prefix(".").unwrap_or(&file);
        let plan = estive_layers::herd::parse(
            &file.display().to_string(),
            &folder.herd_file,
            deployment.unwrap_or_default(),
        )
        .map_err(|error| Failure::impossible(error.to_string()))?;
        Ok(LocalHerd {
            plan,
            sets: folder.sets,
        })
    }

    /// Builds one clone's layer. `root` is the reference's, in which the scripts of sets run.
    pub fn layer(&self, name: &DomainName, root: Option<&Path>) -> Result<LocalLayer, Failure> {
        let herd = self.herd()?;
        herd.clone_named(name)?;
        let LocalHerd { plan, sets } = herd;
        let state = self.state()?;
        let secret = state.secret(&plan.deployment).map_err(failed)?;
        let mut request = RenderRequest::new(&plan, &sets, &secret).map_err(unfit)?;
        request.wanted = request.number_of(name.as_str()).into_iter().collect();
        let worker = Worker::this_program();
        let cache = ScriptCache::open(state.path().join("scripts")).map_err(failed)?;
        let root = root.map(ScriptRoot::new);
        let root_of = |_: &CloneFacts| {
            root.as_ref()
                .ok_or_else(|| "give it with --root".to_owned())
        };
        let workshop = Workshop {
            worker: &worker,
            root_of: &root_of,
            cache: Some(&cache),
        };
        let rendered = workshop.render(&request).map_err(unfit)?;
        let none = || Failure::failed(format!("no layer was made for {name}"));
        let layer = rendered.layer_of(name.as_str()).ok_or_else(none)?;
        Ok(LocalLayer {
            herd: plan,
            name: name.clone(),
            bytes: layer.bytes,
        })
    }

    /// The state directory, made when missing.
    pub fn state(&self) -> Result<StateDirectory, Failure> {
        let path = match &self.state {
            Some(path) => path.clone(),
            None => StateDirectory::usual().map_err(failed)?,
        };
        StateDirectory::open(path).map_err(failed)
    }
}

/// Herd files and sets are for people to correct.
pub fn unfit(error: LayerError) -> Failure {
    Failure::impossible(chain(&error))
}
