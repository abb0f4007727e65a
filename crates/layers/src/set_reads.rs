//! Which variables of the herd file a set reads: those it declares and those its templates name.

use std::collections::BTreeSet;

use crate::error::LayerError;
use crate::layer::{self, TEMPLATE_NAMES};
use crate::template_set::{Entry, TemplateSet};

impl TemplateSet {
    /// Names of variables, declared or not; of a nested value the first name. A template may name
    /// more than it reads for one clone, and a script only what is declared.
    pub fn reads(&self) -> Result<BTreeSet<String>, LayerError> {
        let mut environment = layer::environment();
        let mut names: BTreeSet<String> =
            self.variables().map(|(name, _)| name.to_owned()).collect();
        let functions: BTreeSet<String> = environment
            .globals()
            .map(|(name, _)| name.to_owned())
            .collect();
        for (path, entry) in &self.entries {
            let Entry::Template { source, .. } = entry else {
                continue;
            };
            let name = layer::template_name(self, path);
            let wrong = |error| layer::template_error(&error, &name, "any clone");
            environment
                .add_template_owned(name.clone(), source.clone())
                .map_err(wrong)?;
            let template = environment.get_template(&name).map_err(wrong)?;
            names.extend(template.undeclared_variables(false));
        }
        names.retain(|name| !functions.contains(name) && !TEMPLATE_NAMES.contains(&name.as_str()));
        Ok(names)
    }
}
