//! What a script of a set is told: the names that templates know, as JSON.

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value as Json};

use crate::context::{CloneContext, HerdContext};
use crate::error::LayerError;
use crate::request::RenderRequest;

/// The variables of each clone of a request.
pub struct ScriptVariables<'a> {
    request: &'a RenderRequest,
    herd: Arc<HerdContext>,
    /// `clones` and `deployment`.
    shared: OnceLock<Map<String, Json>>,
}

impl<'a> ScriptVariables<'a> {
    pub fn new(request: &'a RenderRequest) -> Self {
        Self {
            request,
            herd: Arc::new(HerdContext::new(request)),
            shared: OnceLock::new(),
        }
    }

    /// JSON for the clone of this number; the same request, the same bytes.
    pub fn of(&self, number: usize) -> Result<Vec<u8>, LayerError> {
        let broken = |what: &str| LayerError::Request {
            what: what.to_owned(),
        };
        let facts = self.request.clones.get(number);
        let facts = facts.ok_or_else(|| broken("a clone that it does not have"))?;
        let text = self.request.variables.get(facts.variables);
        let mut variables: Map<String, Json> = text
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(|| broken("variables that it does not have"))?;
        let context = Arc::new(CloneContext {
            herd: Arc::clone(&self.herd),
            number,
            variables: minijinja::Value::UNDEFINED,
            clone: OnceLock::new(),
            secrets: OnceLock::new(),
        });
        let shared = self
            .shared
            .get_or_init(|| named(&context, &["clones", "deployment"]));
        // The names of ours win over variables, as in templates.
        variables.extend(shared.clone());
        variables.append(&mut named(&context, &["clone", "secrets"]));
        // Sorted, whatever the order they came in.
        let mut sorted: Vec<(String, Json)> = variables.into_iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        let sorted: Map<String, Json> = sorted.into_iter().collect();
        Ok(Json::from(sorted).to_string().into_bytes())
    }
}

fn named(context: &Arc<CloneContext>, names: &[&str]) -> Map<String, Json> {
    use minijinja::value::Object as _;
    let json = |name: &str| {
        let value = context.get_value(&name.into())?;
        serde_json::to_value(value).ok()
    };
    names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), json(name)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeploymentSecret, OwnSets};

    #[test]
    fn a_script_is_told_what_a_template_knows() {
        let text = "{name: d, greeting: hi, hosts: {b: , a: {greeting: [1, true]}}}";
        let herd = crate::herd::parse("herd.yaml", text, "d").unwrap();
        let secret = DeploymentSecret::new([7; 32]);
        let request = RenderRequest::new(&herd, &OwnSets::new(), &secret).unwrap();
        let variables = ScriptVariables::new(&request);
        let told = variables.of(0).unwrap();
        assert_eq!(told, variables.of(0).unwrap());
        let told: Json = serde_json::from_slice(&told).unwrap();
        assert_eq!(told["greeting"], serde_json::json!([1, true]));
        assert_eq!(told["clone"]["name"], "a");
        assert_eq!(told["clones"].as_array().unwrap().len(), 2);
        assert_eq!(told["clones"][1]["name"], "b");
        assert_eq!(told["deployment"], "d");
        let own = secret.of_clone("a");
        assert_eq!(
            told["secrets"]["ssh_host_key_public"],
            own.ssh_host_key_public
        );
        let keys: Vec<&String> = told.as_object().unwrap().keys().collect();
        assert!(keys.is_sorted(), "{keys:?}");
        let other: Json = serde_json::from_slice(&variables.of(1).unwrap()).unwrap();
        assert_eq!(other["greeting"], "hi");
        assert!(variables.of(2).is_err());
    }
}
