//! What templates know, made when they ask for it: most ask for little, and of ten thousand clones
//! the list of all is long.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use minijinja::value::Object;
use minijinja::{Value, context};

use crate::listed_clone;
use crate::request::{CloneFacts, RenderRequest};
use crate::secrets::{ClusterSecrets, DeploymentSecret};

/// What is the same for all clones of a herd.
#[derive(Debug)]
pub(crate) struct HerdContext {
    deployment: String,
    facts: Arc<[CloneFacts]>,
    set_lists: Vec<Vec<String>>,
    secret: DeploymentSecret,
    clones: OnceLock<Value>,
    cluster: OnceLock<ClusterSecrets>,
}

impl HerdContext {
    pub fn new(request: &RenderRequest) -> Self {
        Self {
            deployment: request.deployment.to_string(),
            facts: Arc::clone(&request.clones),
            set_lists: request.set_lists.clone(),
            secret: request.secret.clone(),
            clones: OnceLock::new(),
            cluster: OnceLock::new(),
        }
    }

    fn value(&self, name: &str) -> Option<Value> {
        match name {
            "deployment" => Some(Value::from(self.deployment.as_str())),
            "clones" => {
                let clones = || listed_clone::clones(&self.facts, &self.set_lists, &self.secret);
                Some(self.clones.get_or_init(clones).clone())
            }
            _ => None,
        }
    }
}

/// What one clone's templates know.
#[derive(Debug)]
pub(crate) struct CloneContext {
    pub herd: Arc<HerdContext>,
    /// Number of the clone in the herd.
    pub number: usize,
    pub variables: Value,
    pub clone: OnceLock<Value>,
    pub secrets: OnceLock<Value>,
}

impl CloneContext {
    fn clone_value(&self) -> Value {
        let clone = &self.herd.facts[self.number];
        context! {
            name => clone.name.as_str(),
            groups => &clone.groups,
            memory_mib => clone.memory_mib,
            cpus => clone.cpus,
            address => clone.address.to_string(),
            prefix => clone.prefix,
            mac => &clone.mac,
            gateway => clone.gateway.map(|gateway| gateway.to_string()),
            ssh_authorized_keys => clone.ssh_authorized_keys.to_vec(),
        }
    }

    fn secrets_value(&self) -> Value {
        let name = self.herd.facts[self.number].name.as_str();
        let secrets = self.herd.secret.of_clone(name);
        let of_cluster = || self.herd.secret.of_cluster();
        let cluster = self.herd.cluster.get_or_init(of_cluster);
        context! {
            machine_id => &secrets.machine_id,
            ssh_host_key => &secrets.ssh_host_key,
            ssh_host_key_public => &secrets.ssh_host_key_public,
            cluster_key => &cluster.key,
            cluster_key_public => &cluster.key_public,
        }
    }
}

impl Object for CloneContext {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        match name {
            "clone" => Some(self.clone.get_or_init(|| self.clone_value()).clone()),
            "secrets" => Some(self.secrets.get_or_init(|| self.secrets_value()).clone()),
            // The names of ours stand first: they win over variables.
            _ => self.herd.value(name).or_else(|| {
                let value = self.variables.get_attr(name).ok()?;
                (!value.is_undefined()).then_some(value)
            }),
        }
    }
}

/// What all clones know, and whether a template asked for more: one that does not gives the same
/// for each of them.
#[derive(Debug)]
pub(crate) struct SharedContext {
    pub herd: Arc<HerdContext>,
    /// Names of the language's own functions that are no clone's variables.
    pub functions: Arc<BTreeSet<String>>,
    pub asked_more: AtomicBool,
}

impl Object for SharedContext {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        let value = self.herd.value(name);
        if value.is_none() && !self.functions.contains(name) {
            self.asked_more.store(true, Ordering::Relaxed);
        }
        value
    }
}
