//! The sets that some clones have, one over another, with their templates ready.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use estive_archive::SharedBytes;
use minijinja::{Environment, Value};

use crate::context::{HerdContext, SharedContext};
use crate::error::LayerError;
use crate::render_progress::RenderProgress;
use crate::rendered_form::Form;
use crate::request::RenderRequest;
use crate::set_entries::What;
use crate::template_set::TemplateSet;
use crate::templates::{self, template_name};

/// Where a template is rendered once for all.
const ANY_CLONE: &str = "any clone";

/// What is the same for all clones that have the same sets.
pub(crate) struct Stack {
    pub sets: Vec<TemplateSet>,
    pub environment: Environment<'static>,
    /// The templates of all sets, one after another.
    pub templates: Vec<StackTemplate>,
    /// By which of the files that may be left out are there.
    pub forms: Mutex<HashMap<Vec<bool>, Arc<Form>>>,
}

pub(crate) struct StackTemplate {
    pub name: String,
    /// What it gives for every clone, if it asks for nothing of any one.
    pub shared: Option<SharedBytes>,
    /// A file made of it may be left out.
    pub optional: bool,
}

impl Stack {
    /// `variables` are the names of all that any clone has.
    pub fn new(
        list: &[String],
        request: &RenderRequest,
        herd: &Arc<HerdContext>,
        variables: &BTreeSet<String>,
        progress: &dyn RenderProgress,
    ) -> Result<Self, LayerError> {
        let mut environment = templates::environment();
        let sets = TemplateSet::find_all(list, &request.sets)?;
        let mut all = Vec::new();
        for set in &sets {
            let mut optional = BTreeSet::new();
            for (path, entry) in &set.entries.nodes {
                let may_go = set
                    .settings
                    .files
                    .get(path)
                    .is_some_and(|file| file.optional);
                if let What::Template { template, .. } = entry.what
                    && may_go
                {
                    optional.insert(template);
                }
            }
            for (number, template) in set.templates().iter().enumerate() {
                let name = template_name(set.name(), &template.path);
                templates::add(&mut environment, &name, &template.source)?;
                all.push(StackTemplate {
                    name,
                    shared: None,
                    optional: optional.contains(&number),
                });
            }
        }
        let functions = environment.globals().map(|(name, _)| name.to_owned());
        let functions: BTreeSet<String> =
            functions.filter(|name| !variables.contains(name)).collect();
        let functions = Arc::new(functions);
        for template in &mut all {
            let context = Arc::new(SharedContext {
                herd: Arc::clone(herd),
                functions: Arc::clone(&functions),
                asked_more: AtomicBool::new(false),
            });
            let value = Value::from_dyn_object(Arc::clone(&context));
            // One that fails fails again, for a clone.
            progress.begin(&template.name, ANY_CLONE);
            let rendered = templates::render(&environment, &template.name, ANY_CLONE, &value);
            progress.end();
            if !context.asked_more.load(Ordering::Relaxed) {
                template.shared = rendered.ok();
            }
        }
        Ok(Self {
            sets,
            environment,
            templates: all,
            forms: Mutex::default(),
        })
    }
}
