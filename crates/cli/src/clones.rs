//! Clones to be listed: those of a herd's folder, or those that the manager knows of.

use crate::arguments::Global;
use crate::connection::{PATIENCE, manager};
use crate::failure::{Failure, failed};
use crate::local::Local;
use clap::Args;
use estive_api::Client;
use estive_api::wire::{HerdDomain, HostKey};
use estive_layers::{HERD_FILE, ListedClone};
use estive_model::{DeploymentName, ExitCode};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::path::{Path, PathBuf};

/// Host keys that are asked for at once.
const AT_ONCE: usize = 16;

/// Whose clones.
#[derive(Debug, Args)]
pub struct Whose {
    /// The herd's folder, which holds herd.yaml. Without it the clones that the manager knows of; when none answers,
    /// those of the herd in this folder, but no host keys: a manager's clones have others.
    #[arg(long, env = "ESTIVE_HERD", value_name = "DIR")]
    herd: Option<PathBuf>,
    /// Directory of the deployments' secrets, when --herd is given and host keys are asked for; for root
    /// /var/lib/estive/layers, for others estive/layers in their XDG_STATE_HOME.
    #[arg(long, env = "ESTIVE_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
    /// Only the clones of this deployment.
    #[arg(long, value_name = "DEPLOYMENT")]
    name: Option<DeploymentName>,
}

impl Whose {
    /// In the order of their names; with their host keys if asked for.
    pub async fn clones(&self, keys: bool, global: &Global) -> Result<Vec<ListedClone>, Failure> {
        let mut clones = match &self.herd {
            Some(herd) => self.of_folder(herd, keys)?,
            None => self.of_manager(keys, global).await?,
        };
        if let Some(name) = &self.name {
            clones.retain(|clone| clone.deployment == name.as_str());
        }
        clones.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(clones)
    }

    /// The deployment that is named, when one is.
    pub fn name(&self) -> Option<&DeploymentName> {
        self.name.as_ref()
    }

    fn of_folder(&self, herd: &Path, keys: bool) -> Result<Vec<ListedClone>, Failure> {
        let local = Local::new(herd.to_owned(), self.state.clone());
        let plan = local.herd()?.plan;
        let mut clones = plan.listed();
        if keys {
            let secret = local.state()?.secret(&plan.deployment).map_err(failed)?;
            for clone in &mut clones {
                clone.host_key = Some(secret.of_clone(&clone.name).ssh_host_key_public);
            }
        }
        Ok(clones)
    }

    async fn of_manager(&self, keys: bool, global: &Global) -> Result<Vec<ListedClone>, Failure> {
        let client = manager(global)?;
        let answer = client.get_json::<Vec<HerdDomain>>("/domains", PATIENCE);
        let domains = match answer.await.map_err(Failure::from) {
            Ok(domains) => domains,
            Err(failure) if failure.code == ExitCode::Unreachable => {
                // Its clones' host keys cannot be told: they follow from a secret of the manager's own.
                if Path::new(HERD_FILE).is_file() && !keys {
                    eprintln!(
                        "estive: note: no manager answers: these are the clones of the herd in this folder"
                    );
                    return self.of_folder(Path::new("."), keys);
                }
                return Err(failure.advice("name a herd's folder with --herd DIR"));
            }
            Err(failure) => return Err(failure),
        };
        // Those of no herd are no clones: neither address nor host key is known.
        let clones = domains.into_iter().filter_map(|domain| {
            let deployment = domain.deployment.clone()?;
            let wanted = self.name.as_ref().is_none_or(|name| deployment == *name);
            wanted.then_some((domain, deployment))
        });
        let client = &client;
        stream::iter(clones)
            .map(|(domain, deployment)| listed(domain, deployment, keys, client))
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }
}

async fn listed(
    domain: HerdDomain,
    deployment: DeploymentName,
    key: bool,
    client: &Client,
) -> Result<ListedClone, Failure> {
    let host_key = if key {
        let path = format!("/domain/{}/host-key", domain.name);
        let answer: HostKey = client.get_json(&path, PATIENCE).await?;
        Some(answer.public_key)
    } else {
        None
    };
    Ok(ListedClone {
        name: domain.name.to_string(),
        deployment: deployment.to_string(),
        groups: domain.groups,
        address: domain.address,
        cpus: domain.cpus,
        memory_mib: domain.memory_mib,
        host_key,
    })
}
