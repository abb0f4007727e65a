//! Which variables of the herd file a set reads: those it declares and those its templates name.

use std::collections::BTreeSet;

use crate::error::LayerError;
use crate::template_set::TemplateSet;
use crate::templates::{self, TEMPLATE_NAMES, template_error, template_name};

impl TemplateSet {
    /// Names of variables, declared or not; of a nested value the first name. A template may name
    /// more than it reads for one clone, and a script only what is declared.
    pub fn reads(&self) -> Result<BTreeSet<String>, LayerError> {
        let mut environment = templates::environment();
        let mut names: BTreeSet<String> =
            self.variables().map(|(name, _)| name.to_owned()).collect();
        let functions: BTreeSet<String> = environment
            .globals()
            .map(|(name, _)| name.to_owned())
            .collect();
        for template in self.templates() {
            let name = template_name(self.name(), &template.path);
            templates::add(&mut environment, &name, &template.source)?;
            let wrong = |error| template_error(&error, &name, "any clone");
            let template = environment.get_template(&name).map_err(wrong)?;
            names.extend(template.undeclared_variables(false));
        }
        names.retain(|name| !functions.contains(name) && !TEMPLATE_NAMES.contains(&name.as_str()));
        Ok(names)
    }
}
