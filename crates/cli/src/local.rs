//! A herd's folder on this machine, for the commands that need no manager.

use crate::failure::{Failure, chain, failed};
use crate::local_shop::LocalShop;
use clap::Args;
use estive_files::{
    BuildError, BuildOptions, BuiltLayer, LayerStore, StateDirectory, StoredLayers,
};
use estive_layers::{
    ClonePlan, FileOrigins, HERD_FILE, HerdFolder, HerdPlan, Layer, LayerError, OwnSets,
    Render as _, RenderRequest, SetLibrary, TemplateSet, check_variables,
};
use estive_model::{Digest, DomainName};
use std::collections::BTreeMap;
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

/// The layers of a herd, as they are now in the state directory.
pub struct LocalLayers {
    pub herd: LocalHerd,
    /// What the layers were made from.
    pub request: RenderRequest,
    /// What was done for each clone.
    pub built: Vec<BuiltLayer>,
    /// The herd's folder as it was named.
    pub folder: PathBuf,
    stored: StoredLayers,
}

impl LocalLayers {
    /// A clone's layer.
    pub fn layer(&self, name: &DomainName) -> Result<Layer, Failure> {
        self.herd.clone_named(name)?;
        let none = || Failure::failed(format!("no layer was made for {name}"));
        let advice = |error| failed(error).advice("estive layers build --all makes all anew");
        self.stored
            .layer(name.as_str())
            .map_err(advice)?
            .ok_or_else(none)
    }

    /// The digest of a clone's layer, and where each of its paths comes from.
    pub fn origins(&self, name: &DomainName) -> Result<(&Digest, &FileOrigins), Failure> {
        self.herd.clone_named(name)?;
        let none = || Failure::failed(format!("no layer was made for {name}"));
        self.stored.origins(name.as_str()).ok_or_else(none)
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

/// The sets that clones have, read once for each list of them.
pub struct ChosenSets<'a>(BTreeMap<&'a [String], Vec<TemplateSet>>);

impl ChosenSets<'_> {
    pub fn of(&self, clone: &ClonePlan) -> &[TemplateSet] {
        let sets = self.0.get(clone.sets.as_slice());
        sets.map(Vec::as_slice).unwrap_or_default()
    }
}

impl LocalHerd {
    pub fn chosen_sets(&self) -> Result<ChosenSets<'_>, Failure> {
        let mut library = SetLibrary::new(&self.sets);
        let mut chosen: BTreeMap<&[String], Vec<TemplateSet>> = BTreeMap::new();
        for clone in &self.plan.clones {
            if !chosen.contains_key(clone.sets.as_slice()) {
                let sets = library.find_all(&clone.sets).map_err(unfit)?;
                chosen.insert(&clone.sets, sets);
            }
        }
        Ok(ChosenSets(chosen))
    }

    /// Fails when variables do not fit the sets; says on standard error what may be a slip.
    pub fn check_variables(&self) -> Result<(), Failure> {
        let chosen = self.chosen_sets()?;
        let warnings = check_variables(&self.plan, |clone| chosen.of(clone)).map_err(unfit)?;
        for line in warnings.lines() {
            eprintln!("estive: warning: {line}");
        }
        Ok(())
    }
}

impl Local {
    /// As if these had been given as options.
    pub fn new(herd: PathBuf, state: Option<PathBuf>) -> Self {
        Self { herd, state }
    }

    /// The same with the herd's folder at another place.
    pub fn with_herd(self, herd: PathBuf) -> Self {
        Self { herd, ..self }
    }

    /// Builds the layers of which an input changed, or all of them. `root` is the one that scripts
    /// of sets see.
    pub fn build(&self, root: Option<&Path>, all: bool) -> Result<LocalLayers, Failure> {
        let herd = self.herd()?;
        herd.check_variables()?;
        let state = self.state()?;
        let secret = state.secret(&herd.plan.deployment).map_err(failed)?;
        let request = RenderRequest::new(&herd.plan, &herd.sets, &secret).map_err(unfit)?;
        let store = LayerStore::open(state.path()).map_err(failed)?;
        let shop = LocalShop::open(root, &state)?;
        let options = BuildOptions {
            render: &shop,
            root_of: &|_| shop.root_identity(),
            all,
        };
        let built = store
            .build(&request, &options)
            .map_err(|error| match error {
                BuildError::Layers(error) => unfit(error),
                BuildError::Files(error) => failed(error),
            })?;
        let stored = store.layers(&herd.plan.deployment).map_err(failed)?;
        let stored = stored.ok_or_else(|| Failure::failed("another command removed the layers"))?;
        Ok(LocalLayers {
            herd,
            request,
            built,
            folder: self.shown_folder(),
            stored,
        })
    }

    /// The herd's folder, as an editor finds it.
    fn shown_folder(&self) -> PathBuf {
        self.herd.strip_prefix(".").unwrap_or(&self.herd).to_owned()
    }

    /// Reads the herd's folder.
    pub fn herd(&self) -> Result<LocalHerd, Failure> {
        let folder = HerdFolder::read(&self.herd).map_err(|error| {
            unfit(error).advice("give the folder that holds herd.yaml with --herd")
        })?;
        let directory = self.herd.canonicalize().map_err(failed)?;
        let deployment = directory.file_name().and_then(|name| name.to_str());
        let file = self.shown_folder().join(HERD_FILE);
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
        let shop = LocalShop::open(root, &state)?;
        let rendered = shop.render(&request).map_err(unfit)?;
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
