//! Rendering: a clone's plan, the herd it stands in, the sets and the deployment's secret become
//! the clone's layer. Pure, and the same bytes from the same inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use estive_model::{Digest, DomainName};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};
use sha2::{Digest as _, Sha256};

use crate::error::LayerError;
use crate::plan::{ClonePlan, HerdPlan};
use crate::secrets::{CloneSecrets, DeploymentSecret, hex};
use crate::set_settings::Settings;
use crate::template_set::{Entry, TemplateSet};
use crate::tree::{Owner, Tree, TreeNode};

/// Steps that one template may take: a loop over thousands of clones, not one without end.
const TEMPLATE_FUEL: u64 = 2_000_000;

/// Output of one template.
const MAX_RENDERED_BYTES: usize = 4 << 20;

/// Names that templates know besides the herd file's variables, which cannot be called so.
pub(crate) const TEMPLATE_NAMES: [&str; 4] = ["clone", "clones", "deployment", "secrets"];

/// A clone's layer as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub clone: DomainName,
    /// The archive; only the used bytes.
    pub bytes: Vec<u8>,
    pub digest: Digest,
}

/// One clone's layer. For many clones of one herd make a [`Renderer`] once.
///
/// `sets` are the clone's own ([`TemplateSet::find_all`] of [`ClonePlan::sets`]), lowest first.
/// None: a minimal layer for any root, `/etc/hostname`, `/etc/hosts` and `/etc/machine-id`.
pub fn render(
    clone: &ClonePlan,
    herd: &HerdPlan,
    sets: &[TemplateSet],
    secret: &DeploymentSecret,
) -> Result<Layer, LayerError> {
    Renderer::new(herd, sets, secret)?.layer(clone)
}

/// The layers of all clones of a herd, in the order of their names. `set_dirs` hold own template
/// sets, which come before those that ship.
pub fn render_herd(
    herd: &HerdPlan,
    set_dirs: &[PathBuf],
    secret: &DeploymentSecret,
) -> Result<Vec<Layer>, LayerError> {
    let lists: BTreeSet<&Vec<String>> = herd.clones.iter().map(|clone| &clone.sets).collect();
    let mut layers = BTreeMap::new();
    for list in lists {
        let sets = TemplateSet::find_all(list, set_dirs)?;
        let renderer = Renderer::new(herd, &sets, secret)?;
        for clone in herd.clones.iter().filter(|clone| clone.sets == *list) {
            layers.insert(clone.name.clone(), renderer.layer(clone)?);
        }
    }
    Ok(layers.into_values().collect())
}

/// What is the same for all clones of a herd that have the same sets.
pub struct Renderer<'a> {
    sets: &'a [TemplateSet],
    secret: &'a DeploymentSecret,
    environment: Environment<'static>,
    deployment: &'a str,
    clones: Value,
    hosts: String,
}

impl<'a> Renderer<'a> {
    pub fn new(
        herd: &'a HerdPlan,
        sets: &'a [TemplateSet],
        secret: &'a DeploymentSecret,
    ) -> Result<Self, LayerError> {
        let mut environment = environment();
        for set in sets {
            for (path, entry) in &set.entries {
                let Entry::Template { source, .. } = entry else {
                    continue;
                };
                let name = template_name(set, path);
                environment
                    .add_template_owned(name.clone(), source.clone())
                    .map_err(|error| template_error(&error, &name, "any clone"))?;
            }
        }
        let clones = herd.clones.iter().map(|clone| {
            context! {
                name => clone.name.as_str(),
                address => clone.address.to_string(),
                prefix => clone.prefix,
                cpus => clone.cpus,
                memory_mib => clone.memory_mib,
            }
        });
        Ok(Self {
            sets,
            secret,
            environment,
            deployment: herd.deployment.as_str(),
            clones: clones.collect(),
            hosts: hosts(herd),
        })
    }

    /// The layer of one clone.
    pub fn layer(&self, clone: &ClonePlan) -> Result<Layer, LayerError> {
        let tree = self.tree(clone)?;
        let bytes = tree.to_archive().map_err(|source| LayerError::Archive {
            clone: clone.name.to_string(),
            source,
        })?;
        let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        let digest = Digest::new(digest).expect("64 hex digits after sha256: are a digest");
        Ok(Layer {
            clone: clone.name.clone(),
            bytes,
            digest,
        })
    }

    /// The same before it is an archive.
    pub fn tree(&self, clone: &ClonePlan) -> Result<Tree, LayerError> {
        let secrets = self.secret.of_clone(clone.name.as_str());
        let mut tree = self.common(clone, &secrets);
        let context = self.context(clone, &secrets)?;
        for set in self.sets {
            self.lay(set, clone, &context, &mut tree)?;
        }
        Ok(tree)
    }

    /// What every clone has, whatever its root is.
    fn common(&self, clone: &ClonePlan, secrets: &CloneSecrets) -> Tree {
        let mut tree = Tree::default();
        let mut put = |path: &str, mode: u32, text: String| {
            let owner = Owner::root(mode);
            let bytes = text.into_bytes();
            tree.put(path, TreeNode::File { owner, bytes });
        };
        put("etc/hostname", 0o644, format!("{}\n", clone.name));
        put("etc/hosts", 0o644, self.hosts.clone());
        put("etc/machine-id", 0o444, format!("{}\n", secrets.machine_id));
        tree
    }

    fn context(&self, clone: &ClonePlan, secrets: &CloneSecrets) -> Result<Value, LayerError> {
        let variables = clone.context_variables(self.sets)?;
        // The names of ours stand first: they win over variables.
        Ok(context! {
            clone => context! {
                name => clone.name.as_str(),
                groups => &clone.groups,
                memory_mib => clone.memory_mib,
                cpus => clone.cpus,
                address => clone.address.to_string(),
                prefix => clone.prefix,
                mac => &clone.mac,
                gateway => clone.gateway.map(|gateway| gateway.to_string()),
                ssh_authorized_keys => clone.ssh_authorized_keys.to_vec(),
            },
            clones => self.clones.clone(),
            deployment => self.deployment,
            secrets => context! {
                machine_id => &secrets.machine_id,
                ssh_host_key => &secrets.ssh_host_key,
                ssh_host_key_public => &secrets.ssh_host_key_public,
            },
            ..Value::from(minijinja::value::Serde(&variables))
        })
    }

    /// Lays one set over the tree.
    fn lay(
        &self,
        set: &TemplateSet,
        clone: &ClonePlan,
        context: &Value,
        tree: &mut Tree,
    ) -> Result<(), LayerError> {
        // First what hides, so that it hides the sets below and not this one's own files.
        for (path, entry) in &set.entries {
            match entry {
                Entry::Opaque => tree.put_opaque(path),
                Entry::Whiteout => tree.put(path, TreeNode::Whiteout),
                _ => {}
            }
        }
        let plain = Settings::default();
        for (path, entry) in &set.entries {
            let settings = set.settings.files.get(path).unwrap_or(&plain);
            let (mode, bytes) = match entry {
                Entry::Opaque | Entry::Whiteout => continue,
                Entry::Symlink { target } => {
                    let target = target.clone();
                    tree.put(path, TreeNode::Symlink { target });
                    continue;
                }
                Entry::Copy { mode, bytes } => (*mode, bytes.clone()),
                Entry::Template { mode, .. } => {
                    let text = self.render_one(&template_name(set, path), clone, context)?;
                    (*mode, text)
                }
            };
            if settings.optional && bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let owner = owner(settings, mode);
            tree.put(path, TreeNode::File { owner, bytes });
        }
        for (path, settings) in &set.settings.files {
            let named = tree.get(path).is_some();
            if !named && tree.has_below(path) {
                let owner = owner(settings, 0o755);
                tree.put(path, TreeNode::Directory { owner });
            }
        }
        Ok(())
    }

    fn render_one(
        &self,
        name: &str,
        clone: &ClonePlan,
        context: &Value,
    ) -> Result<Vec<u8>, LayerError> {
        let mut output = Limited(Vec::new());
        let wrong = |error| template_error(&error, name, clone.name.as_str());
        let template = self.environment.get_template(name).map_err(wrong)?;
        template
            .render_captured_to(context, &mut output)
            .map_err(wrong)?;
        Ok(output.0)
    }
}

pub(crate) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(TEMPLATE_FUEL));
    // Configuration files mean what they say; only pages are escaped.
    environment.set_auto_escape_callback(|name| {
        if name.ends_with(".html") || name.ends_with(".html.j2") {
            AutoEscape::Html
        } else {
            AutoEscape::None
        }
    });
    let mut syntax = minijinja::syntax::SyntaxConfig::builder();
    syntax
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true);
    if let Ok(syntax) = syntax.build() {
        environment.set_syntax(syntax);
    }
    environment
}

pub(crate) fn template_name(set: &TemplateSet, path: &str) -> String {
    format!("{}/{path}.j2", set.name())
}

fn owner(settings: &Settings, mode: u32) -> Owner {
    Owner {
        mode: settings.mode.unwrap_or(mode),
        uid: settings.uid,
        gid: settings.gid,
    }
}

/// All clones of the deployment by name, the same for each of them.
fn hosts(herd: &HerdPlan) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for clone in &herd.clones {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}\t{}", clone.address, clone.name);
    }
    text
}

pub(crate) fn template_error(error: &minijinja::Error, name: &str, clone: &str) -> LayerError {
    let mut what = error.kind().to_string();
    if let Some(detail) = error.detail() {
        let _ = write!(what, ": {detail}");
    }
    LayerError::Template {
        template: error.name().unwrap_or(name).to_owned(),
        line: error.line().unwrap_or(1),
        clone: clone.to_owned(),
        what,
    }
}

/// Takes no more than a template may give.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED_BYTES {
            let message = format!("more than {MAX_RENDERED_BYTES} bytes of output");
            return Err(io::Error::other(message));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
