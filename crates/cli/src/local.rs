//! A herd's folder on this machine, for the commands that need no manager.

use crate::failure::{Failure, chain, failed};
use clap::Args;
use estive_files::StateDirectory;
use estive_layers::{
    ClonePlan, HERD_FILE, HerdFolder, HerdPlan, LayerError, Render as _, RenderHere, RenderRequest,
};
use estive_model::DomainName;
use std::path::PathBuf;

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

impl Local {
    /// Builds one clone's layer.
    pub fn layer(&self, name: &DomainName) -> Result<LocalLayer, Failure> {
        let impossible = |error: LayerError| Failure::impossible(chain(&error));
        let folder = HerdFolder::read(&self.herd).map_err(|error| {
            impossible(error).advice("give the folder that holds herd.yaml with --herd")
        })?;
        let directory = self.herd.canonicalize().map_err(failed)?;
        let deployment = directory.file_name().and_then(|name| name.to_str());
        let herd = estive_layers::herd::parse(
            &self.herd.join(HERD_FILE).display().to_string(),
            &folder.herd_file,
            deployment.unwrap_or_default(),
        )
        .map_err(|error| Failure::impossible(error.to_string()))?;
        let secret = self.state()?.secret(&herd.deployment).map_err(failed)?;
        let mut request = RenderRequest::new(&herd, &folder.sets, &secret).map_err(impossible)?;
        request.wanted = request.number_of(name.as_str()).into_iter().collect();
        let rendered = RenderHere.render(&request).map_err(impossible)?;
        let layer = rendered.layer_of(name.as_str()).ok_or_else(|| {
            let known = herd.clones.iter().take(10).map(|clone| clone.name.as_str());
            let known: Vec<&str> = known.collect();
            Failure::impossible(format!("there is no clone {name} in the herd")).advice(format!(
                "the {} there are begin with {}",
                herd.clones.len(),
                known.join(", ")
            ))
        })?;
        Ok(LocalLayer {
            herd,
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
