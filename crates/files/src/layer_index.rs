//! What is kept of a deployment's layers: for each clone what its layer was made from, and where
//! it lies.

use std::collections::BTreeMap;

use estive_layers::{CommonInputs, OwnInputs, SetInputs};
use estive_model::Digest;
use serde::{Deserialize, Serialize};

/// Of the file; another one is not read, and all layers are made anew.
pub(crate) const INDEX_VERSION: u32 = 1;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerIndex {
    pub version: u32,
    /// The sets that layers were made from.
    pub sets: SetInputs,
    /// Inputs that clones have in common.
    pub kinds: Vec<CommonInputs>,
    pub heads: Vec<IndexedHead>,
    /// Names of objects that hold tails, one after another.
    pub packs: Vec<String>,
    pub clones: BTreeMap<String, IndexedLayer>,
}

/// The first part of archives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct IndexedHead {
    /// Name of the object, and its size.
    pub bytes: String,
    pub size_bytes: u64,
    /// Name of the object that says where each path comes from.
    pub origins: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexedLayer {
    /// Digest of the archive.
    pub digest: Digest,
    /// Digest of all inputs.
    pub key: String,
    /// Numbers in the lists above.
    pub kind: usize,
    pub head: usize,
    pub pack: usize,
    /// Where the tail lies in its pack.
    pub offset: u64,
    pub size_bytes: u64,
    #[serde(default, skip_serializing_if = "OwnInputs::is_empty")]
    pub own: OwnInputs,
}

impl LayerIndex {
    /// The objects that it needs.
    pub fn objects(&self) -> impl Iterator<Item = &str> {
        let heads = self.heads.iter();
        let heads = heads.flat_map(|head| [head.bytes.as_str(), head.origins.as_str()]);
        heads.chain(self.packs.iter().map(String::as_str))
    }

    /// Size of a clone's archive in bytes.
    pub fn size_of(&self, layer: &IndexedLayer) -> u64 {
        let head = self.heads.get(layer.head);
        head.map_or(0, |head| head.size_bytes) + layer.size_bytes
    }
}

/// A list without twins, whose items are known by their numbers.
pub(crate) struct Numbered<T> {
    items: Vec<T>,
    numbers: BTreeMap<T, usize>,
}

impl<T: Ord + Clone> Numbered<T> {
    pub fn new() -> Self {
        Self {
            items: Vec::new(),
            numbers: BTreeMap::new(),
        }
    }

    pub fn number(&mut self, item: &T) -> usize {
        if let Some(number) = self.numbers.get(item) {
            return *number;
        }
        self.numbers.insert(item.clone(), self.items.len());
        self.items.push(item.clone());
        self.items.len() - 1
    }

    pub fn into_items(self) -> Vec<T> {
        self.items
    }
}
