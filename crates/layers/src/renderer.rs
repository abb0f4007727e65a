//! Rendering: a request becomes layers. Pure, and the same bytes from the same request.
//!
//! What a layer looks like, its paths and kinds and modes, depends on the clone only where a file
//! may be left out. So for each pattern of files left out the archive's *form* is made once: the
//! tree, the bytes that all clones have in common and their digest. A clone then costs the
//! rendering of its own templates and the bytes of its own files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock, PoisonError};

use estive_archive::SharedBytes;
use minijinja::Value;
use sha2::{Digest as _, Sha256};

use crate::context::{CloneContext, HerdContext};
use crate::error::LayerError;
use crate::file_origin::FileSource;
use crate::lay::{Maker, Overlay, is_blank};
use crate::layer::{Layer, RenderedHerd, RenderedLayer};
use crate::render_progress::{RenderProgress, Unwatched};
use crate::rendered_form::{Form, Heads, Rendered};
use crate::request::{CloneFacts, RenderRequest, ScriptTree};
use crate::set_entries::{SetEntries, TreeOf, What};
use crate::stack::Stack;
use crate::template_lines;
use crate::template_set::TemplateSet;
use crate::templates;
use crate::tree::{NodeKind, Owner, Tree, TreeNode};

/// Numbers of contents that every clone has.
const HOSTNAME: usize = 0;
const MACHINE_ID: usize = 1;
const FIRST_TEMPLATE: usize = 2;

/// Below this many layers a second thread costs more than it brings.
const LAYERS_PER_THREAD: usize = 64;

/// Renders the layers of one request.
pub struct Renderer<'a> {
    request: &'a RenderRequest,
    herd: Arc<HerdContext>,
    hosts: SharedBytes,
    variables: Vec<Value>,
    stacks: Vec<Stack>,
    /// Of each clone that has any: numbers of its scripts' outputs.
    outputs: BTreeMap<&'a str, Vec<&'a ScriptTree>>,
    progress: &'a dyn RenderProgress,
}

impl<'a> Renderer<'a> {
    pub fn new(request: &'a RenderRequest) -> Result<Self, LayerError> {
        Self::watched(request, &Unwatched)
    }

    /// The same, telling `progress` of each template.
    pub fn watched(
        request: &'a RenderRequest,
        progress: &'a dyn RenderProgress,
    ) -> Result<Self, LayerError> {
        let herd = Arc::new(HerdContext::new(request));
        let mut names = BTreeSet::new();
        let mut variables = Vec::new();
        for text in &request.variables {
            let object: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(text).map_err(|_| broken("variables that are no object"))?;
            names.extend(object.keys().cloned());
            variables.push(Value::from(minijinja::value::Serde(&object)));
        }
        let stacks = request.set_lists.iter();
        let stacks: Result<_, LayerError> = stacks
            .map(|list| Stack::new(list, request, &herd, &names, progress))
            .collect();
        let mut outputs: BTreeMap<&str, Vec<&ScriptTree>> = BTreeMap::new();
        for output in &request.outputs {
            outputs
                .entry(output.clone.as_str())
                .or_default()
                .push(output);
        }
        Ok(Self {
            herd,
            hosts: hosts(&request.clones).into(),
            variables,
            stacks: stacks?,
            outputs,
            request,
            progress,
        })
    }

    /// All layers that the request wants, on all cores.
    pub fn all(&self) -> Result<RenderedHerd, LayerError> {
        self.all_on(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }

    /// The same on at most so many cores; with one, no thread is started.
    pub fn all_on(&self, cores: usize) -> Result<RenderedHerd, LayerError> {
        let wanted = &self.request.wanted;
        let threads = cores.min(wanted.len().div_ceil(LAYERS_PER_THREAD)).max(1);
        let part = wanted.len().div_ceil(threads).max(1);
        let render = |part: &[usize]| -> Vec<Result<Rendered, LayerError>> {
            let mut done = Vec::with_capacity(part.len());
            for number in part {
                done.push(self.render(*number));
                if done.last().is_some_and(Result::is_err) {
                    break;
                }
            }
            done
        };
        let parts: Vec<_> = if threads == 1 {
            vec![render(wanted)]
        } else {
            std::thread::scope(|scope| {
                let threads: Vec<_> = wanted
                    .chunks(part)
                    .map(|part| scope.spawn(move || render(part)))
                    .collect();
                let done = threads.into_iter().map(|thread| match thread.join() {
                    Ok(done) => done,
                    Err(panic) => std::panic::resume_unwind(panic),
                });
                done.collect()
            })
        };
        let mut herd = RenderedHerd::default();
        let mut heads = Heads::default();
        for rendered in parts.into_iter().flatten() {
            let rendered = rendered?;
            let layer = RenderedLayer {
                clone: rendered.facts.name.clone(),
                digest: rendered.digest(),
                head: heads.number(&rendered.form, &mut herd.heads),
                tail: rendered.tail.into(),
            };
            herd.layers.push(layer);
        }
        Ok(herd)
    }

    /// The layer of the clone of this name.
    pub fn layer(&self, clone: &str) -> Result<Layer, LayerError> {
        let rendered = self.render(self.number(clone)?)?;
        Ok(Layer {
            clone: rendered.facts.name.clone(),
            digest: rendered.digest(),
            bytes: [rendered.form.archive.head(), &rendered.tail[..]].concat(),
        })
    }

    /// The same before it is an archive.
    pub fn tree(&self, clone: &str) -> Result<Tree, LayerError> {
        let number = self.number(clone)?;
        let (facts, stack) = self.clone_and_stack(number)?;
        self.check_scripts(facts, stack)?;
        let mut contents = self.contents(number, facts, stack)?;
        self.build_tree(facts, stack, &mut contents)
    }

    /// The line of the template that gave this line of the file at `path`, both from 1; `None` when
    /// the file has no such line, is no template's, or cannot be told.
    pub fn template_line(
        &self,
        clone: &str,
        path: &str,
        line: usize,
    ) -> Result<Option<usize>, LayerError> {
        let tree = self.tree(clone)?;
        let number = self.number(clone)?;
        let (facts, stack) = self.clone_and_stack(number)?;
        let Some(TreeNode {
            kind: NodeKind::File { bytes, .. },
            source: FileSource::Template { set, path },
            ..
        }) = tree.get(path)
        else {
            return Ok(None);
        };
        let set = stack.sets.iter().find(|known| known.name() == set);
        let templates = set.map(TemplateSet::templates).unwrap_or_default();
        let template = templates.iter().find(|template| template.path == *path);
        let (Some(template), Ok(text)) = (template, std::str::from_utf8(bytes)) else {
            return Ok(None);
        };
        let context = self.context(number, facts)?;
        let lines = template_lines::trace(&template.path, &template.source, text, &context);
        let wanted = line.checked_sub(1);
        Ok(lines.and_then(|lines| lines.get(wanted?).copied()))
    }

    fn number(&self, clone: &str) -> Result<usize, LayerError> {
        self.request
            .number_of(clone)
            .ok_or_else(|| LayerError::UnknownClone {
                name: clone.to_owned(),
                meant: crate::reserved::nearest(
                    clone,
                    self.request.clones.iter().map(|facts| facts.name.as_str()),
                )
                .map(str::to_owned),
            })
    }

    fn clone_and_stack(&self, number: usize) -> Result<(&'a CloneFacts, &Stack), LayerError> {
        let facts = self.request.clones.get(number);
        let facts = facts.ok_or_else(|| broken("a clone that it does not have"))?;
        let stack = self.stacks.get(facts.sets);
        Ok((
            facts,
            stack.ok_or_else(|| broken("a list of sets that it does not have"))?,
        ))
    }

    /// A layer without what its scripts make would be another one.
    fn check_scripts(&self, facts: &CloneFacts, stack: &Stack) -> Result<(), LayerError> {
        for set in &stack.sets {
            for (script, _) in set.scripts() {
                let outputs = self.outputs.get(facts.name.as_str()).into_iter().flatten();
                let mut own = outputs.filter(|output| output.set == set.name());
                if !own.any(|output| output.script == *script) {
                    return Err(LayerError::ScriptNotRun {
                        set: set.name().to_owned(),
                        script: script.clone(),
                        clone: facts.name.to_string(),
                    });
                }
            }
        }
        Ok(())
    }

    fn render(&self, number: usize) -> Result<Rendered<'a>, LayerError> {
        let (facts, stack) = self.clone_and_stack(number)?;
        self.check_scripts(facts, stack)?;
        let mut contents = self.contents(number, facts, stack)?;
        let form = self.form(facts, stack, &mut contents)?;
        let tail = form.archive.tail(&contents);
        let tail = tail.map_err(|source| archive_error(facts, source))?;
        Ok(Rendered { facts, form, tail })
    }

    /// What is the clone's own: each content at its number.
    fn contents(
        &self,
        number: usize,
        facts: &CloneFacts,
        stack: &Stack,
    ) -> Result<Vec<SharedBytes>, LayerError> {
        let name = facts.name.as_str();
        let machine_id = self.request.secret.machine_id(name);
        let mut contents = Vec::with_capacity(FIRST_TEMPLATE + stack.templates.len());
        contents.push(format!("{name}\n").into());
        contents.push(format!("{machine_id}\n").into());
        let context = self.context(number, facts)?;
        for template in &stack.templates {
            contents.push(match &template.shared {
                Some(bytes) => bytes.clone(),
                None => {
                    self.progress.begin(&template.name, name);
                    let rendered =
                        templates::render(&stack.environment, &template.name, name, &context)?;
                    self.progress.end();
                    rendered
                }
            });
        }
        Ok(contents)
    }

    fn context(&self, number: usize, facts: &CloneFacts) -> Result<Value, LayerError> {
        let variables = self.variables.get(facts.variables);
        Ok(Value::from_object(CloneContext {
            herd: Arc::clone(&self.herd),
            number,
            variables: variables
                .cloned()
                .ok_or_else(|| broken("variables that it does not have"))?,
            clone: OnceLock::new(),
            secrets: OnceLock::new(),
        }))
    }

    fn form(
        &self,
        facts: &CloneFacts,
        stack: &Stack,
        contents: &mut Vec<SharedBytes>,
    ) -> Result<Arc<Form>, LayerError> {
        if self.outputs.contains_key(facts.name.as_str()) {
            // A script may make any paths.
            return self.make_form(facts, stack, contents).map(Arc::new);
        }
        let optional = stack.templates.iter().zip(&contents[FIRST_TEMPLATE..]);
        let pattern: Vec<bool> = optional
            .filter(|(template, _)| template.optional)
            .map(|(_, bytes)| !is_blank(bytes))
            .collect();
        let mut forms = stack.forms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(form) = forms.get(&pattern) {
            return Ok(Arc::clone(form));
        }
        let form = Arc::new(self.make_form(facts, stack, contents)?);
        forms.insert(pattern, Arc::clone(&form));
        Ok(form)
    }

    fn make_form(
        &self,
        facts: &CloneFacts,
        stack: &Stack,
        contents: &mut Vec<SharedBytes>,
    ) -> Result<Form, LayerError> {
        let tree = self.build_tree(facts, stack, contents)?;
        let archive = tree
            .to_form()
            .map_err(|source| archive_error(facts, source))?;
        Ok(Form {
            digest: Sha256::new_with_prefix(archive.head()),
            origins: tree.origins(),
            archive,
        })
    }

    /// The tree of one clone; what scripts made is added to the contents.
    fn build_tree(
        &self,
        facts: &CloneFacts,
        stack: &Stack,
        contents: &mut Vec<SharedBytes>,
    ) -> Result<Tree, LayerError> {
        let mut tree = Tree::default();
        for (path, mode, bytes, own) in [
            ("etc/hostname", 0o644, &contents[HOSTNAME], Some(HOSTNAME)),
            ("etc/hosts", 0o644, &self.hosts, None),
            (
                "etc/machine-id",
                0o444,
                &contents[MACHINE_ID],
                Some(MACHINE_ID),
            ),
        ] {
            let kind = NodeKind::File {
                bytes: bytes.clone(),
                own,
                links: None,
            };
            tree.put(
                path,
                TreeNode::new(kind, Owner::root(mode), FileSource::Common),
            );
        }
        let outputs = self.outputs.get(facts.name.as_str());
        let mut first_template = FIRST_TEMPLATE;
        let mut first_link = 0;
        for set in &stack.sets {
            let templates = &stack.templates[first_template - FIRST_TEMPLATE..];
            Overlay {
                entries: &set.entries,
                files: &set.settings.files,
                maker: Maker::Set(set.name()),
                first_link,
                template: &|number| {
                    let content = first_template + number;
                    let own = templates[number].shared.is_none().then_some(content);
                    (contents[content].clone(), own)
                },
                file: &|_, bytes| (bytes.clone(), None),
            }
            .lay(&mut tree);
            first_template += set.templates().len();
            first_link += set.entries.nodes.len();
            for service in set.services() {
                tree.add_service(service.clone());
            }
            let made = outputs.into_iter().flatten();
            for output in made.filter(|output| output.set == set.name()) {
                first_link = lay_output(set, output, first_link, contents, &mut tree)?;
            }
        }
        Ok(tree)
    }
}

/// Lays what a script made; its files are the clone's own. Gives the next number of links.
fn lay_output(
    set: &TemplateSet,
    output: &ScriptTree,
    first_link: usize,
    contents: &mut Vec<SharedBytes>,
    tree: &mut Tree,
) -> Result<usize, LayerError> {
    let entries = SetEntries::of(set.name(), &output.tree, TreeOf::Script)?;
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for (path, entry) in &entries.nodes {
        if let What::File { bytes, .. } = &entry.what {
            numbers.insert(path, contents.len());
            contents.push(bytes.clone());
        }
    }
    let no_template = |_| (SharedBytes::default(), None);
    Overlay {
        entries: &entries,
        files: &set.settings.files,
        maker: Maker::Script {
            set: set.name(),
            script: &output.script,
        },
        first_link,
        template: &no_template,
        file: &|path, bytes| (bytes.clone(), numbers.get(path).copied()),
    }
    .lay(tree);
    Ok(first_link + entries.nodes.len())
}

/// All clones of the deployment by name, the same for each of them.
fn hosts(clones: &[CloneFacts]) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for clone in clones {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}\t{}", clone.address, clone.name);
    }
    text
}

fn archive_error(facts: &CloneFacts, source: estive_archive::Error) -> LayerError {
    LayerError::Archive {
        clone: facts.name.to_string(),
        source,
    }
}

fn broken(what: &str) -> LayerError {
    LayerError::Request {
        what: what.to_owned(),
    }
}
