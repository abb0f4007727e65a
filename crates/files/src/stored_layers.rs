//! Kept layers, read back and held against their digests.

use std::collections::BTreeMap;
use std::fs::File;

use estive_archive::SharedBytes;
use estive_layers::{FileOrigins, Layer, LayerHead, RenderedHerd, RenderedLayer};
use estive_model::{Digest, DomainName};
use sha2::{Digest as _, Sha256};

use crate::error::FilesError;
use crate::layer_index::{IndexedLayer, LayerIndex};
use crate::objects::{Objects, hex};

/// Packs opened when they are first asked for.
pub(crate) struct OpenPacks<'a> {
    objects: &'a Objects,
    names: &'a [String],
    files: BTreeMap<usize, File>,
}

impl<'a> OpenPacks<'a> {
    pub fn new(objects: &'a Objects, names: &'a [String]) -> Self {
        Self {
            objects,
            names,
            files: BTreeMap::new(),
        }
    }

    pub fn tail(&mut self, layer: &IndexedLayer) -> Result<Vec<u8>, FilesError> {
        if !self.files.contains_key(&layer.pack) {
            let file = self.objects.open_object(&self.names[layer.pack])?;
            self.files.insert(layer.pack, file);
        }
        read_tail(self.objects, &self.files[&layer.pack], layer)
    }
}

fn read_tail(objects: &Objects, pack: &File, layer: &IndexedLayer) -> Result<Vec<u8>, FilesError> {
    let size = usize::try_from(layer.size_bytes).unwrap_or(usize::MAX);
    let limit = usize::try_from(estive_archive::LAYER_DISK_BYTES).unwrap_or(usize::MAX);
    objects.read_part(pack, layer.offset, size.min(limit))
}

/// The layers of one deployment as they were built.
#[derive(Debug)]
pub struct StoredLayers {
    pub(crate) objects: Objects,
    pub(crate) index: LayerIndex,
    pub(crate) heads: Vec<(SharedBytes, FileOrigins)>,
    pub(crate) packs: Vec<File>,
}

impl StoredLayers {
    /// A clone's layer, held against its digest; `None` when it has none.
    pub fn layer(&self, clone: &str) -> Result<Option<Layer>, FilesError> {
        let Some(layer) = self.index.clones.get(clone) else {
            return Ok(None);
        };
        let (head, _) = &self.heads[layer.head];
        let tail = read_tail(&self.objects, &self.packs[layer.pack], layer)?;
        let bytes = [&head[..], &tail].concat();
        let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        match DomainName::new(clone) {
            Ok(name) if digest == layer.digest.as_str() => Ok(Some(Layer {
                clone: name,
                digest: layer.digest.clone(),
                bytes,
            })),
            _ => Err(FilesError::Damaged {
                clone: clone.to_owned(),
            }),
        }
    }

    /// The layers of these clones as rendering gives them, held against their digests.
    pub fn rendered<'n>(
        &self,
        clones: impl Iterator<Item = &'n DomainName>,
    ) -> Result<RenderedHerd, FilesError> {
        let heads: Vec<Sha256> = self
            .heads
            .iter()
            .map(|(head, _)| Sha256::new_with_prefix(&head[..]))
            .collect();
        let mut layers = Vec::new();
        for clone in clones {
            let damaged = || FilesError::Damaged {
                clone: clone.to_string(),
            };
            let layer = self.index.clones.get(clone.as_str()).ok_or_else(damaged)?;
            let tail = read_tail(&self.objects, &self.packs[layer.pack], layer)?;
            let hash = heads[layer.head].clone().chain_update(&tail).finalize();
            if layer.digest.as_str() != format!("sha256:{}", hex(&hash)) {
                return Err(damaged());
            }
            layers.push(RenderedLayer {
                clone: clone.clone(),
                digest: layer.digest.clone(),
                head: layer.head,
                tail: tail.into(),
            });
        }
        let heads = self.heads.iter().map(|(bytes, origins)| LayerHead {
            bytes: bytes.clone(),
            origins: origins.clone(),
        });
        Ok(RenderedHerd {
            heads: heads.collect(),
            layers,
        })
    }

    /// The digest of a clone's layer, and where each of its paths comes from.
    pub fn origins(&self, clone: &str) -> Option<(&Digest, &FileOrigins)> {
        let layer = self.index.clones.get(clone)?;
        Some((&layer.digest, &self.heads[layer.head].1))
    }

    /// Names of the clones that have a layer.
    pub fn clones(&self) -> impl Iterator<Item = &str> {
        self.index.clones.keys().map(String::as_str)
    }
}
