//! The scripts of a herd's sets, run for every clone that is wanted; what they make goes into the request, to be laid
//! between a set's own files and the next set.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use estive_layers::{
    CloneFacts, LayerError, RenderRequest, ScriptTree, ScriptVariables, SetKind, SetNode, SetTree,
    TemplateSet,
};
use sha2::{Digest as _, Sha256};

use crate::limits::Limits;
use crate::messages;
use crate::request::{InputNode, OutputNode, ScriptOutput, ScriptRequest};
use crate::root_identity;
use crate::script_cache::ScriptCache;
use crate::worker::Worker;

/// Another one makes every script run again: what they see has changed.
const VERSION: &[u8] = b"estive script run v1";

/// A reference's root as scripts use it.
#[derive(Debug)]
pub struct ScriptRoot {
    path: PathBuf,
    /// Looked for once; `None` where it cannot be told, and nothing is remembered of it.
    identity: OnceLock<Option<[u8; 32]>>,
}

impl ScriptRoot {
    /// A directory or a sealed image. What is in it is looked at once: make a new one for each use.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            identity: OnceLock::new(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another one when anything in the root has changed; `None` where it cannot be told.
    pub fn identity(&self) -> Option<[u8; 32]> {
        *self
            .identity
            .get_or_init(|| root_identity::of(&self.path).ok().flatten())
    }
}

/// A set as its scripts see it.
struct ScriptSet {
    set: TemplateSet,
    digest: [u8; 32],
    input: Arc<BTreeMap<String, InputNode>>,
    modes_given: Arc<BTreeSet<String>>,
}

/// One script for one clone.
struct Job<'a> {
    number: usize,
    facts: &'a CloneFacts,
    set: &'a ScriptSet,
    script: &'a str,
    root: &'a ScriptRoot,
}

impl Worker {
    /// Runs every script that the wanted clones' sets have, in the order of sets and names, and puts what they make into
    /// the request. `root_of` gives the root of a clone's reference, or says what to do to have one.
    pub fn run_scripts<'r>(
        &self,
        request: &mut RenderRequest,
        root_of: impl Fn(&CloneFacts) -> Result<&'r ScriptRoot, String>,
        cache: Option<&ScriptCache>,
    ) -> Result<(), LayerError> {
        let sets = sets_with_scripts(request)?;
        if sets.is_empty() {
            return Ok(());
        }
        let outputs = {
            let jobs = jobs(request, &sets, root_of)?;
            self.run_all(request, &jobs, cache)?
        };
        request.outputs = outputs;
        Ok(())
    }

    fn run_all(
        &self,
        request: &RenderRequest,
        jobs: &[Job<'_>],
        cache: Option<&ScriptCache>,
    ) -> Result<Vec<ScriptTree>, LayerError> {
        let variables = ScriptVariables::new(request);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let next = AtomicUsize::new(0);
        let done: Mutex<BTreeMap<usize, Result<SetTree, LayerError>>> = Mutex::default();
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = jobs.get(number) else { return };
                let made = self.run_one(job, &variables, cache);
                if made.is_err() {
                    // No use in the others.
                    next.store(jobs.len(), Ordering::Relaxed);
                }
                done.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(number, made);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..cores.min(jobs.len()) {
                scope.spawn(work);
            }
        });
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.into_iter()
            .map(|(number, tree)| {
                let job = &jobs[number];
                Ok(ScriptTree {
                    clone: job.facts.name.clone(),
                    set: job.set.set.name().to_owned(),
                    script: job.script.to_owned(),
                    tree: tree?,
                })
            })
            .collect()
    }

    fn run_one(
        &self,
        job: &Job<'_>,
        variables: &ScriptVariables<'_>,
        cache: Option<&ScriptCache>,
    ) -> Result<SetTree, LayerError> {
        let set = job.set.set.name();
        let request = ScriptRequest {
            script: format!("sets/{set}/.scripts/{} for {}", job.script, job.facts.name),
            root: job.root.path.clone(),
            program: format!(".scripts/{}", job.script),
            set: Arc::clone(&job.set.input),
            variables: variables.of(job.number)?,
            modes_given: Arc::clone(&job.set.modes_given),
            limits: Limits::default(),
        };
        let key = match (cache, job.root.identity()) {
            (Some(cache), Some(root)) => Some((cache, key(job, &request, &root))),
            _ => None,
        };
        if let Some((cache, key)) = &key
            && let Some(tree) = cache.get(key)
        {
            return Ok(tree);
        }
        let output = self
            .run_script(&request)
            .map_err(|error| LayerError::Elsewhere {
                what: messages::chain(&error),
            })?;
        let tree = tree_of(set, output)?;
        if let Some((cache, key)) = &key {
            cache.put(key, &tree);
        }
        Ok(tree)
    }
}

/// Of everything that the script can see, and of what is made of its output.
fn key(job: &Job<'_>, request: &ScriptRequest, root: &[u8; 32]) -> String {
    let mut hash = Sha256::new_with_prefix(VERSION);
    for part in [
        env!("CARGO_PKG_VERSION").as_bytes(),
        request.program.as_bytes(),
        &job.set.digest,
        &request.variables,
        root,
    ] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn sets_with_scripts(request: &RenderRequest) -> Result<BTreeMap<String, ScriptSet>, LayerError> {
    let mut sets = BTreeMap::new();
    for (name, tree) in &request.sets {
        // Cheaper than reading the whole set.
        if !tree.has_below(".scripts") {
            continue;
        }
        let set = TemplateSet::from_tree(name, tree)?;
        if set.scripts().is_empty() {
            continue;
        }
        let modes_given = set.modes_given().map(str::to_owned).collect();
        let found = ScriptSet {
            digest: tree.digest(),
            input: Arc::new(input(tree)),
            modes_given: Arc::new(modes_given),
            set,
        };
        sets.insert(name.clone(), found);
    }
    Ok(sets)
}

fn jobs<'a, 'r: 'a>(
    request: &'a RenderRequest,
    sets: &'a BTreeMap<String, ScriptSet>,
    root_of: impl Fn(&CloneFacts) -> Result<&'r ScriptRoot, String>,
) -> Result<Vec<Job<'a>>, LayerError> {
    let mut jobs = Vec::new();
    for number in &request.wanted {
        let Some(facts) = request.clones.get(*number) else {
            continue;
        };
        let chosen = request.sets_of(facts).iter();
        for set in chosen.filter_map(|name| sets.get(name)) {
            let root = root_of(facts).map_err(|what| LayerError::Elsewhere {
                what: format!(
                    "the template set {} of {} has scripts, which run in the root of its reference: {what}",
                    set.set.name(),
                    facts.name
                ),
            })?;
            jobs.extend(set.set.scripts().iter().map(|(script, _)| Job {
                number: *number,
                facts,
                set,
                script,
                root,
            }));
        }
    }
    Ok(jobs)
}

/// Files, directories and links; a set's devices are nothing to be looked at.
fn input(tree: &SetTree) -> BTreeMap<String, InputNode> {
    let node = |node: &SetNode| {
        let file = match &node.kind {
            SetKind::HardLink(target) => tree.get(target).unwrap_or(node),
            _ => node,
        };
        match &file.kind {
            SetKind::File(bytes) => Some(InputNode::File {
                executable: file.owner.mode & 0o111 != 0,
                bytes: bytes.to_vec(),
            }),
            SetKind::Directory => Some(InputNode::Directory),
            SetKind::Symlink(target) => Some(InputNode::Symlink {
                target: target.clone(),
            }),
            _ => None,
        }
    };
    tree.iter()
        .filter_map(|(path, found)| Some((path.to_owned(), node(found)?)))
        .collect()
}

fn tree_of(set: &str, output: ScriptOutput) -> Result<SetTree, LayerError> {
    let (links, others): (Vec<_>, Vec<_>) = output
        .nodes
        .into_iter()
        .partition(|(_, node)| matches!(node, OutputNode::HardLink { .. }));
    // What a link is another name of comes first.
    let nodes = others.into_iter().chain(links).map(|(path, node)| {
        let node = match node {
            OutputNode::File { mode, bytes } => SetNode::new(mode, SetKind::File(bytes.into())),
            OutputNode::Directory { mode } => SetNode::new(mode, SetKind::Directory),
            OutputNode::Symlink { target } => SetNode::new(0o777, SetKind::Symlink(target)),
            OutputNode::HardLink { target } => SetNode::new(0o644, SetKind::HardLink(target)),
        };
        (path, node)
    });
    SetTree::from_nodes(set, nodes)
}
