//! A whole herd to be rendered as one value: what may go to another process to be rendered there.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use estive_model::{DeploymentName, DomainName};
use serde::{Deserialize, Serialize};

use crate::error::LayerError;
use crate::herd_folder::OwnSets;
use crate::plan::HerdPlan;
use crate::secrets::DeploymentSecret;
use crate::set_tree::SetTree;
use crate::template_set::{SetLibrary, TemplateSet};
use crate::variables::Joining;

/// Everything that layers are made of. The same request gives the same layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenderRequest {
    pub deployment: DeploymentName,
    pub secret: DeploymentSecret,
    /// All clones of the herd, in the order of their names: each knows of the others.
    pub clones: Arc<[CloneFacts]>,
    /// Lists of template sets, lowest first, that clones have.
    pub set_lists: Vec<Vec<String>>,
    /// Variables that clones have, defaults of their sets among them: each a JSON object.
    pub variables: Vec<String>,
    /// Every set that a list names.
    pub sets: BTreeMap<String, SetTree>,
    /// What scripts made.
    pub outputs: Vec<ScriptTree>,
    /// Numbers of the clones to render.
    pub wanted: Vec<usize>,
}

/// What rendering knows of a clone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CloneFacts {
    pub name: DomainName,
    /// The groups it stands in, outermost first.
    pub groups: Vec<String>,
    pub memory_mib: u64,
    pub cpus: u32,
    pub address: Ipv4Addr,
    /// Length of the network's prefix, in bits.
    pub prefix: u8,
    /// `52:54:xx:xx:xx:xx`
    pub mac: String,
    pub gateway: Option<Ipv4Addr>,
    pub ssh_authorized_keys: Arc<[String]>,
    /// Number of its list of sets.
    pub sets: usize,
    /// Number of its variables.
    pub variables: usize,
}

/// The output of one run of a set's script for one clone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScriptTree {
    pub clone: DomainName,
    pub set: String,
    pub script: String,
    pub tree: SetTree,
}

impl RenderRequest {
    /// All clones of a herd. Sets are the herd's own, else those that ship. Fails when a set is
    /// not there, not right, or lacks a variable.
    pub fn new(
        herd: &HerdPlan,
        own: &OwnSets,
        secret: &DeploymentSecret,
    ) -> Result<Self, LayerError> {
        let mut request = Self {
            deployment: herd.deployment.clone(),
            secret: secret.clone(),
            clones: Arc::new([]),
            set_lists: Vec::new(),
            variables: Vec::new(),
            sets: BTreeMap::new(),
            outputs: Vec::new(),
            wanted: (0..herd.clones.len()).collect(),
        };
        let mut library = SetLibrary::new(own);
        let mut joining = Joining::default();
        let mut lists: BTreeMap<&[String], usize> = BTreeMap::new();
        let mut parsed: Vec<Vec<TemplateSet>> = Vec::new();
        let mut variables = BTreeMap::new();
        let mut clones = Vec::with_capacity(herd.clones.len());
        for clone in &herd.clones {
            let list = match lists.get(clone.sets.as_slice()) {
                Some(known) => *known,
                None => {
                    request.take_sets(&clone.sets, own)?;
                    parsed.push(library.find_all(&clone.sets)?);
                    request.set_lists.push(clone.sets.clone());
                    lists.insert(&clone.sets, parsed.len() - 1);
                    parsed.len() - 1
                }
            };
            // Clones at the same level of the herd file with the same sets have the same values.
            let key = (Arc::as_ptr(&clone.values.frame), list);
            let number = match variables.get(&key) {
                Some(known) => *known,
                None => {
                    joining.count(clone, &parsed[list], &herd.file)?;
                    let values = clone.context_variables(&parsed[list])?;
                    request
                        .variables
                        .push(serde_json::Value::from(values).to_string());
                    variables.insert(key, request.variables.len() - 1);
                    request.variables.len() - 1
                }
            };
            clones.push(CloneFacts {
                name: clone.name.clone(),
                groups: clone.groups.clone(),
                memory_mib: clone.memory_mib,
                cpus: clone.cpus,
                address: clone.address,
                prefix: clone.prefix,
                mac: clone.mac.clone(),
                gateway: clone.gateway,
                ssh_authorized_keys: Arc::clone(&clone.ssh_authorized_keys),
                sets: list,
                variables: number,
            });
        }
        request.clones = clones.into();
        Ok(request)
    }

    fn take_sets(&mut self, names: &[String], own: &OwnSets) -> Result<(), LayerError> {
        for name in names {
            if self.sets.contains_key(name) {
                continue;
            }
            let tree = match own.get(name) {
                Some(tree) => tree.clone(),
                None => TemplateSet::shipped_tree(name)?,
            };
            self.sets.insert(name.clone(), tree);
        }
        Ok(())
    }

    /// The same without what scripts made, cheap to have.
    pub fn without_outputs(&self) -> Self {
        Self {
            deployment: self.deployment.clone(),
            secret: self.secret.clone(),
            clones: Arc::clone(&self.clones),
            set_lists: self.set_lists.clone(),
            variables: self.variables.clone(),
            sets: self.sets.clone(),
            outputs: Vec::new(),
            wanted: self.wanted.clone(),
        }
    }

    /// The number of the clone of this name.
    pub fn number_of(&self, clone: &str) -> Option<usize> {
        let by_name = |facts: &CloneFacts| facts.name.as_str().cmp(clone);
        self.clones.binary_search_by(by_name).ok()
    }

    /// The sets of a clone, lowest first.
    pub fn sets_of(&self, clone: &CloneFacts) -> &[String] {
        self.set_lists.get(clone.sets).map_or(&[], Vec::as_slice)
    }
}
