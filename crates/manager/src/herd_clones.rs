//! A herd's folder as clones that can be sent: read, its layers rendered, each clone's archive packed.

use crate::clone_archive;
use crate::early::Made;
use crate::herd_checks::{checks_of, words_of};
use crate::herd_folder;
use crate::herd_layers::LayerMaker;
use crate::made_of::MadeOf;
use crate::manager::Manager;
use crate::records::{Change, DeploymentRecord};
use crate::reference::Reference;
use bytes::Bytes;
use estive_api::Problem;
use estive_layers::{ClonePlan, DeploymentSecret, HERD_FILE, HerdWarnings, RenderedHerd, UpCheck};
use estive_model::DeploymentName;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A clone as it is to be, ready to be sent.
pub(crate) struct Prepared {
    pub plan: ClonePlan,
    /// See [`HerdClone::words`].
    pub words: Vec<String>,
    pub checks: Vec<UpCheck>,
    pub made_of: MadeOf,
    pub archive: Bytes,
}

/// A clone as a herd file has it, with its reference.
pub(crate) struct HerdClone {
    /// Fitted to the reference.
    pub plan: ClonePlan,
    /// What the herd file itself adds to the command line: the reference may add something else tomorrow.
    pub words: Vec<String>,
    pub reference: Reference,
    pub checks: Vec<UpCheck>,
}

/// A herd's clones and their layers, in one order.
pub(crate) struct RenderedClones {
    pub clones: Vec<HerdClone>,
    pub herd: RenderedHerd,
    pub warnings: HerdWarnings,
}

impl Manager {
    /// Layers and archives of all clones; nothing is changed anywhere but the deployment's secret.
    pub(crate) async fn prepare_clones(
        &self,
        name: &DeploymentName,
        folder: Bytes,
    ) -> Result<(Vec<Prepared>, HerdWarnings), Problem> {
        let rendered = self.render_clones(name, folder).await?;
        let stateful = rendered.clones.iter().map(|clone| &clone.plan);
        let volumes = self.volumes_of(stateful)?;
        let (name, state) = (name.clone(), self.state.clone());
        blocking(move || {
            let mut made = Made::default();
            let RenderedClones {
                clones,
                herd,
                warnings,
            } = rendered;
            let prepared: Result<Vec<Prepared>, Problem> = clones
                .into_iter()
                .zip(&herd.layers)
                .map(|(clone, layer)| {
                    let HerdClone {
                        plan,
                        words,
                        reference,
                        checks,
                    } = clone;
                    let layer = herd.layer(layer).map(|layer| layer.bytes);
                    let layer = layer.unwrap_or_default();
                    let volume = volumes.get(&plan.name).cloned();
                    let initramfs = made.initramfs(&plan, &reference, &state)?;
                    let archive =
                        clone_archive::pack(&name, &plan, &reference, &initramfs, &layer, volume)?;
                    Ok(Prepared {
                        made_of: MadeOf::new(
                            &reference,
                            &initramfs.digest,
                            reference.route_of(&plan),
                        ),
                        plan,
                        words,
                        checks,
                        archive,
                    })
                })
                .collect();
            Ok((prepared?, warnings))
        })
        .await
    }

    /// The layers of all clones of a herd's folder; nothing is changed anywhere but the deployment's secret.
    pub(crate) async fn render_clones(
        &self,
        name: &DeploymentName,
        folder: Bytes,
    ) -> Result<RenderedClones, Problem> {
        let default_name = name.clone();
        // A clone that is there keeps its address, whoever comes to the herd.
        let domains = self.records.domains_of(name).await?;
        let addresses: BTreeMap<String, Ipv4Addr> = domains
            .iter()
            .filter_map(|record| Some((record.name.to_string(), record.address.parse().ok()?)))
            .collect();
        let (sets, mut plan) = blocking(move || {
            let folder = herd_folder::read(&folder)?;
            let (text, default) = (&folder.herd_file, default_name.as_str());
            let plan = estive_layers::herd::parse_knowing(HERD_FILE, text, default, &addresses)
                .map_err(|error| {
                    Problem::impossible(error.to_string()).advice("correct the herd file")
                })?;
            Ok((folder.sets, plan))
        })
        .await?;
        // Whatever the file calls itself: this is the name that `down` will be given.
        plan.deployment = name.clone();
        let mut clones = Vec::new();
        for clone in &mut plan.clones {
            let reference = self
                .references
                .find(&clone.reference)
                .map_err(|mut problem| {
                    problem.error = format!("{}: {}", clone.name, problem.error);
                    problem
                })?;
            if clone.sets.is_empty() {
                clone.sets = reference.sets.clone();
            }
            let words = words_of(clone);
            reference.fit(clone)?;
            let checks = checks_of(clone, &clone.sets);
            clones.push(HerdClone {
                plan: clone.clone(),
                words,
                reference,
                checks,
            });
        }
        let secret = self.secret(name).await?;
        let maker = LayerMaker::of(self);
        blocking(move || {
            let (herd, warnings) = maker.render(&plan, &sets, &secret)?;
            Ok(RenderedClones {
                clones,
                herd,
                warnings,
            })
        })
        .await
    }

    /// The deployment's secret, made at its first `up`.
    pub async fn secret(&self, name: &DeploymentName) -> Result<DeploymentSecret, Problem> {
        let fresh = DeploymentSecret::new(crate::random_bytes()).to_hex();
        let record = self
            .records
            .change_deployment(name, |known| {
                Ok(match known {
                    Some(_) => Change::Keep,
                    None => Change::Write(DeploymentRecord {
                        name: name.clone(),
                        secret: fresh.clone(),
                    }),
                })
            })
            .await?;
        record
            .and_then(|record| DeploymentSecret::from_hex(&record.secret))
            .ok_or_else(|| {
                Problem::failed(format!(
                    "the secret of {name} in the manager's store is damaged"
                ))
            })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(Problem::failed(format!(
                "a part of the manager failed: {error}"
            )))
        })
}
