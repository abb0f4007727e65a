//! A clone as the templates of all clones see it: an entry of `clones`.

use std::sync::{Arc, OnceLock};

use minijinja::Value;
use minijinja::value::{Enumerator, Object};

use crate::request::CloneFacts;
use crate::secrets::DeploymentSecret;

/// Its host key is derived when a template first asks for it: the keys of ten thousand clones take longer than a layer.
#[derive(Debug)]
pub(crate) struct ListedClone {
    facts: Arc<[CloneFacts]>,
    number: usize,
    sets: Value,
    secret: DeploymentSecret,
    host_key: OnceLock<String>,
}

/// All clones of a herd, with the lists of sets that they have by number.
pub(crate) fn clones(
    facts: &Arc<[CloneFacts]>,
    set_lists: &[Vec<String>],
    secret: &DeploymentSecret,
) -> Value {
    let set_lists: Vec<Value> = set_lists
        .iter()
        .map(|list| list.iter().map(String::as_str).collect())
        .collect();
    let clones = facts.iter().enumerate().map(|(number, clone)| {
        Value::from_object(ListedClone {
            facts: Arc::clone(facts),
            number,
            sets: set_lists.get(clone.sets).cloned().unwrap_or_default(),
            secret: secret.clone(),
            host_key: OnceLock::new(),
        })
    });
    clones.collect()
}

impl Object for ListedClone {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let clone = &self.facts[self.number];
        Some(match key.as_str()? {
            "name" => Value::from(clone.name.as_str()),
            "groups" => clone.groups.iter().map(String::as_str).collect(),
            "sets" => self.sets.clone(),
            "address" => Value::from(clone.address.to_string()),
            "prefix" => Value::from(clone.prefix),
            "cpus" => Value::from(clone.cpus),
            "memory_mib" => Value::from(clone.memory_mib),
            "ssh_host_key_public" => {
                let derive = || {
                    self.secret
                        .of_clone(clone.name.as_str())
                        .ssh_host_key_public
                };
                Value::from(self.host_key.get_or_init(derive).as_str())
            }
            _ => return None,
        })
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&[
            "name",
            "groups",
            "sets",
            "address",
            "prefix",
            "cpus",
            "memory_mib",
            "ssh_host_key_public",
        ])
    }
}
