//! Built layers, kept from one time to the next: content-addressed archives, and for each
//! deployment an index of what they were made from. Only a layer of which an input changed is made
//! anew.
//!
//! An archive is kept in two parts: heads, which many clones have in common, as objects of their
//! own; tails one after another in *packs*, one for each build, so that ten thousand small files
//! are one that is synced once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use estive_archive::SharedBytes;
use estive_layers::{
    FileOrigins, LayerError, LayerInputs, Render, RenderRequest, RenderedHerd, RootIdentity,
    changed_inputs,
};
use estive_model::{DeploymentName, Digest, DomainName};
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use crate::error::FilesError;
use crate::layer_index::{INDEX_VERSION, IndexedHead, IndexedLayer, LayerIndex, Numbered};
use crate::objects::Objects;
use crate::state::{make_private, sync_directory};
use crate::stored_layers::{OpenPacks, StoredLayers};

/// A pack of which less than this share is in use is written anew.
const LEAST_PACK_USE: f64 = 0.5;
/// More packs than this become one.
const MAX_PACKS: usize = 8;

/// The layers of all deployments, below one directory.
#[derive(Debug, Clone)]
pub struct LayerStore {
    directory: PathBuf,
    objects: Objects,
}

/// What a build did for one clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuiltLayer {
    pub clone: DomainName,
    pub layer: Digest,
    pub size_bytes: u64,
    /// Otherwise it was kept.
    pub built: bool,
    /// Which inputs changed; empty when it was kept.
    pub why: Vec<String>,
}

/// What can go wrong in a build.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Rendering; nothing was changed.
    #[error(transparent)]
    Layers(#[from] LayerError),
}

/// How to build.
pub struct BuildOptions<'a> {
    pub render: &'a dyn Render,
    /// Asked for clones whose sets have scripts.
    pub root_of: &'a RootIdentity<'a>,
    /// Make all layers anew.
    pub all: bool,
}

impl LayerStore {
    /// The store below a state directory; made when it is not there.
    pub fn open(state: &Path) -> Result<Self, FilesError> {
        let directory = state.join("layers");
        make_private(&directory)?;
        make_private(&directory.join("index"))?;
        Ok(Self {
            objects: Objects::open(directory.join("objects"))?,
            directory,
        })
    }

    /// Builds the layers of all clones of the request whose inputs changed; gives what was done for
    /// each clone, in the request's order. When it fails, everything is as it was.
    pub fn build(
        &self,
        request: &RenderRequest,
        options: &BuildOptions<'_>,
    ) -> Result<Vec<BuiltLayer>, BuildError> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let was = self.read_index(&request.deployment)?.unwrap_or_default();
        let sound = self.sound(&was);
        let inputs = LayerInputs::new(request, options.root_of)?;
        let mut why: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let mut keys = Vec::with_capacity(request.clones.len());
        for (number, clone) in request.clones.iter().enumerate() {
            let key = inputs.key(number);
            let known = was.clones.get(clone.name.as_str());
            let reasons = match known {
                None => Some(vec!["it has none yet".to_owned()]),
                Some(_) if options.all => Some(vec!["asked for".to_owned()]),
                Some(known) if !sound.has(known) => Some(vec!["its archive was gone".to_owned()]),
                Some(known) if key.as_ref() == Some(&known.key) => None,
                Some(known) => Some(reasons(&was, known, &inputs, number)),
            };
            why.extend(reasons.map(|reasons| (number, reasons)));
            keys.push(key.unwrap_or_default());
        }
        let rendered = match why.is_empty() {
            true => RenderedHerd::default(),
            false => {
                let mut wanted = request.clone();
                wanted.wanted = why.keys().copied().collect();
                options.render.render(&wanted)?
            }
        };
        let index = self.write_layers(request, &was, &sound, &inputs, &keys, &rendered)?;
        if index != was {
            self.write_index(&request.deployment, &index)?;
            self.prune(Some((&request.deployment, &index)))?;
        }
        let built = request
            .clones
            .iter()
            .enumerate()
            .filter_map(|(number, clone)| {
                let layer = index.clones.get(clone.name.as_str())?;
                let why = why.remove(&number);
                Some(BuiltLayer {
                    clone: clone.name.clone(),
                    layer: layer.digest.clone(),
                    size_bytes: index.size_of(layer),
                    built: why.is_some(),
                    why: why.unwrap_or_default(),
                })
            });
        Ok(built.collect())
    }

    /// Writes heads and tails of what was rendered; gives the index of all layers, old and new.
    fn write_layers(
        &self,
        request: &RenderRequest,
        was: &LayerIndex,
        sound: &Sound,
        inputs: &LayerInputs<'_>,
        keys: &[String],
        rendered: &RenderedHerd,
    ) -> Result<LayerIndex, BuildError> {
        let mut index = LayerIndex {
            version: INDEX_VERSION,
            sets: inputs.sets().clone(),
            ..LayerIndex::default()
        };
        let mut kinds = Numbered::new();
        let mut kind_of = BTreeMap::new();
        let mut heads = Numbered::new();
        let mut new_heads = Vec::new();
        for head in &rendered.heads {
            new_heads.push(heads.number(&self.put_head(&head.bytes, &head.origins)?));
        }
        let made: HashMap<&str, _> = rendered
            .layers
            .iter()
            .map(|layer| (layer.clone.as_str(), layer))
            .collect();
        // Tails to be written, new ones and those that leave their packs, in the order of clones.
        let moved = packs_left(was, |name| {
            request.number_of(name).is_some() && !made.contains_key(name)
        });
        let mut old_packs = OpenPacks::new(&self.objects, &was.packs);
        let mut packs = Numbered::new();
        let mut tails: Vec<SharedBytes> = Vec::new();
        let mut offset = 0;
        let mut in_new_pack = Vec::new();
        for (number, clone) in request.clones.iter().enumerate() {
            let name = clone.name.as_str();
            let Some(common) = inputs.common(number) else {
                continue;
            };
            let mut layer = match (made.get(name), was.clones.get(name)) {
                (Some(made), _) => {
                    let layer = IndexedLayer {
                        digest: made.digest.clone(),
                        key: String::new(),
                        kind: 0,
                        head: new_heads.get(made.head).copied().unwrap_or_default(),
                        pack: 0,
                        offset,
                        size_bytes: made.tail.len() as u64,
                        own: Default::default(),
                    };
                    tails.push(made.tail.clone());
                    in_new_pack.push(name.to_owned());
                    offset += layer.size_bytes;
                    layer
                }
                (None, Some(known)) if sound.has(known) => {
                    let mut layer = known.clone();
                    layer.head = heads.number(&was.heads[known.head]);
                    if moved.contains(&known.pack) {
                        tails.push(old_packs.tail(known)?.into());
                        in_new_pack.push(name.to_owned());
                        layer.offset = offset;
                        offset += layer.size_bytes;
                    } else {
                        layer.pack = packs.number(&was.packs[known.pack]);
                    }
                    layer
                }
                _ => {
                    return Err(LayerError::Request {
                        what: format!("{name}, and no layer of it came back"),
                    }
                    .into());
                }
            };
            // As many as there are lists of sets and variables, and not as clones.
            let kind = kind_of.entry((clone.sets, clone.variables));
            layer.kind = *kind.or_insert_with(|| kinds.number(common));
            layer.key = keys.get(number).cloned().unwrap_or_default();
            layer.own = inputs.own(number).unwrap_or_default();
            index.clones.insert(name.to_owned(), layer);
        }
        if !tails.is_empty() {
            let pack = self.objects.put(tails.iter().map(|tail| &tail[..]))?;
            let pack = packs.number(&pack);
            for name in &in_new_pack {
                if let Some(layer) = index.clones.get_mut(name) {
                    layer.pack = pack;
                }
            }
        }
        self.objects.sync()?;
        index.kinds = kinds.into_items();
        index.heads = heads.into_items();
        index.packs = packs.into_items();
        Ok(index)
    }

    fn put_head(&self, bytes: &[u8], origins: &FileOrigins) -> Result<IndexedHead, FilesError> {
        let origins = serde_json::to_vec(origins)
            .map_err(|error| FilesError::io("writing", &self.directory)(error.into()))?;
        Ok(IndexedHead {
            bytes: self.objects.put([bytes].into_iter())?,
            size_bytes: bytes.len() as u64,
            origins: self.objects.put([&origins[..]].into_iter())?,
        })
    }

    /// Which heads and packs of an index are there, whole as far as their sizes say.
    fn sound(&self, index: &LayerIndex) -> Sound {
        let heads = index.heads.iter().map(|head| {
            self.objects.size(&head.bytes) == Some(head.size_bytes)
                && self.objects.size(&head.origins).is_some()
        });
        let ends = index.packs.iter().map(|pack| self.objects.size(pack));
        Sound {
            heads: heads.collect(),
            pack_bytes: ends.map(Option::unwrap_or_default).collect(),
        }
    }

    /// The kept layers of a deployment, to be read; `None` when none were built.
    pub fn layers(&self, deployment: &DeploymentName) -> Result<Option<StoredLayers>, FilesError> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        let Some(index) = self.read_index(deployment)? else {
            return Ok(None);
        };
        // Opened here: what is pruned from now on stays readable.
        let packs: Result<Vec<File>, FilesError> = index
            .packs
            .iter()
            .map(|pack| self.objects.open_object(pack))
            .collect();
        let mut heads = Vec::new();
        for head in &index.heads {
            let origins = self.objects.read(&head.origins)?;
            let origins = serde_json::from_slice(&origins)
                .map_err(|error| FilesError::io("reading", &self.directory)(error.into()))?;
            heads.push((self.objects.read(&head.bytes)?.into(), origins));
        }
        Ok(Some(StoredLayers {
            objects: self.objects.clone(),
            packs: packs?,
            index,
            heads,
        }))
    }

    /// Forgets a deployment's layers.
    pub fn remove(&self, deployment: &DeploymentName) -> Result<(), FilesError> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let path = self.index_path(deployment);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(FilesError::io("removing", &path)(error));
            }
            _ => {}
        }
        self.prune(None)
    }

    /// One builder at a time; gone with the file.
    fn lock(&self, how: FlockOperation) -> Result<File, FilesError> {
        let path = self.directory.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(FilesError::io("opening", &path))?;
        flock(&lock, how).map_err(|error| FilesError::io("locking", &path)(error.into()))?;
        Ok(lock)
    }

    fn index_path(&self, deployment: &DeploymentName) -> PathBuf {
        self.directory
            .join("index")
            .join(format!("{deployment}.json"))
    }

    fn read_index(&self, deployment: &DeploymentName) -> Result<Option<LayerIndex>, FilesError> {
        read_index(&self.index_path(deployment))
    }

    fn write_index(
        &self,
        deployment: &DeploymentName,
        index: &LayerIndex,
    ) -> Result<(), FilesError> {
        let path = self.index_path(deployment);
        let directory = self.directory.join("index");
        let write = || FilesError::io("writing", &path);
        let text = serde_json::to_vec(index).map_err(|error| write()(error.into()))?;
        let mut aside = tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(&directory)
            .map_err(FilesError::io("making a file in", &directory))?;
        aside
            .write_all(&text)
            .and_then(|()| aside.as_file().sync_all())
            .map_err(write())?;
        aside.persist(&path).map_err(|error| write()(error.error))?;
        sync_directory(&directory)
    }

    /// Removes what no index needs; `known` is one that was just written. The lock is held.
    fn prune(&self, known: Option<(&DeploymentName, &LayerIndex)>) -> Result<(), FilesError> {
        let directory = self.directory.join("index");
        let entries: Vec<_> = fs::read_dir(&directory)
            .and_then(Iterator::collect)
            .map_err(FilesError::io("listing", &directory))?;
        let mut kept = BTreeSet::new();
        let mut keep = |index: &LayerIndex| kept.extend(index.objects().map(str::to_owned));
        let known_path = known.map(|(name, _)| self.index_path(name));
        for entry in entries.iter().map(fs::DirEntry::path) {
            if known_path.as_ref() != Some(&entry)
                && let Some(index) = read_index(&entry)?
            {
                keep(&index);
            }
        }
        if let Some((_, index)) = known {
            keep(index);
        }
        self.objects.keep_only(&kept)
    }
}

/// `None` when it is not there, or is none of ours: its layers are made anew then.
fn read_index(path: &Path) -> Result<Option<LayerIndex>, FilesError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FilesError::io("reading", path)(error)),
    };
    let index: Option<LayerIndex> = serde_json::from_slice(&text).ok();
    Ok(index.filter(|index| index.version == INDEX_VERSION && is_whole(index)))
}

/// Every number in it is one of its lists.
fn is_whole(index: &LayerIndex) -> bool {
    index.clones.values().all(|layer| {
        layer.kind < index.kinds.len()
            && layer.head < index.heads.len()
            && layer.pack < index.packs.len()
    })
}

fn reasons(
    was: &LayerIndex,
    known: &IndexedLayer,
    inputs: &LayerInputs<'_>,
    number: usize,
) -> Vec<String> {
    let (Some(common), Some(own)) = (inputs.common(number), inputs.own(number)) else {
        return Vec::new();
    };
    let before = (&was.kinds[known.kind], &known.own, &was.sets);
    let mut reasons = changed_inputs(before, (common, &own, inputs.sets()));
    if reasons.is_empty() {
        reasons.push("what its scripts see cannot be told".to_owned());
    }
    reasons
}

/// Numbers of packs whose tails are to be written anew, since little of them is still in use.
fn packs_left(index: &LayerIndex, stays: impl Fn(&str) -> bool) -> BTreeSet<usize> {
    let (mut used, mut whole) = (vec![0u64; index.packs.len()], vec![0u64; index.packs.len()]);
    for (name, layer) in &index.clones {
        let end = layer.offset + layer.size_bytes;
        whole[layer.pack] = whole[layer.pack].max(end);
        if stays(name) {
            used[layer.pack] += layer.size_bytes;
        }
    }
    let in_use = used.iter().filter(|used| **used > 0).count();
    let little = |number: &usize| {
        #[allow(clippy::cast_precision_loss, reason = "a share of bytes")]
        let share = used[*number] as f64 / whole[*number].max(1) as f64;
        used[*number] > 0 && (share < LEAST_PACK_USE || in_use >= MAX_PACKS)
    };
    (0..index.packs.len()).filter(little).collect()
}

struct Sound {
    heads: Vec<bool>,
    pack_bytes: Vec<u64>,
}

impl Sound {
    fn has(&self, layer: &IndexedLayer) -> bool {
        let pack = self.pack_bytes.get(layer.pack).copied().unwrap_or_default();
        self.heads.get(layer.head) == Some(&true) && layer.offset + layer.size_bytes <= pack
    }
}
