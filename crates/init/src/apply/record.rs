//! What was last put at each path of the clone: by its start, and by every push since.
//!
//! A path whose print is still the recorded one is ours to change; any other is the clone's own.
//! The record lies beside the layers, in the clone's own memory or state, and goes with it: on a
//! move, and at the end of a clone without state, whose next start has the whole layer anyway.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fault;
use super::layer::above;
use super::node::{Print, What};
use super::services::Due;
use super::tree::{Look, Tree};
use crate::failure::{Result, While, fail};

/// In the directory of the layers.
const NAME: &str = "pushed";
const PARTIAL: &str = "pushed.partial";
/// A layer has 65,536 paths at most, and a print some hundred bytes.
const BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    /// Paths of the last layer, and those that it left to the clone.
    pub put: BTreeMap<String, Put>,
    /// What a push that did not come to its end may have put instead.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub intended: BTreeMap<String, Print>,
    /// Services that it had still to tell.
    #[serde(default, skip_serializing_if = "Due::is_empty")]
    pub due: Due,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    pub print: Print,
    /// Nothing of the root is seen below this path.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hides: bool,
}

impl Record {
    pub fn new(put: BTreeMap<String, Put>) -> Record {
        Record {
            version: 1,
            put,
            ..Record::default()
        }
    }

    /// The record of a clone; of one that nothing was pushed to yet, what its start laid down.
    pub fn load(directory: &Path, boot_layer: &Tree) -> Result<Record> {
        let path = directory.join(NAME);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return of_start(boot_layer),
            Err(error) => return Err(error).doing(|| format!("opening {}", path.display())),
        };
        let mut text = Vec::new();
        file.take(BYTES_MAX)
            .read_to_end(&mut text)
            .doing(|| format!("reading {}", path.display()))?;
        match serde_json::from_slice::<Record>(&text) {
            Ok(record) if record.version == 1 => Ok(record),
            _ => fail(format!(
                "{} is damaged, so that nobody can tell which files are the clone's own: restart the clone, it then has the layer",
                path.display()
            )),
        }
    }

    /// Puts the record in the place of the former one; it is there whole or not at all.
    pub fn keep(&self, directory: &Path) -> Result<()> {
        let (path, partial) = (directory.join(NAME), directory.join(PARTIAL));
        let what = || format!("writing {}", path.display());
        let text = serde_json::to_vec(self).doing(what)?;
        fault::step();
        let mut file = File::create(&partial).doing(what)?;
        file.write_all(&text).doing(what)?;
        file.sync_all().doing(what)?;
        fault::step();
        fs::rename(&partial, &path).doing(what)?;
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .doing(what)?;
        fault::step();
        Ok(())
    }

    /// Whether something above `path` hides the root's part of it.
    pub fn is_hidden(&self, path: &str) -> bool {
        above(path).any(|above| self.put.get(above).is_some_and(|put| put.hides))
    }

    /// Whether nothing of the root is seen below `path`.
    pub fn hides_below(&self, path: &str) -> bool {
        self.is_hidden(path) || self.hides(path)
    }

    pub fn hides(&self, path: &str) -> bool {
        self.put.get(path).is_some_and(|put| put.hides)
    }

    /// What was last put at `path`: what is not recorded is the root's.
    pub fn print(&self, path: &str, root: &Tree) -> Print {
        match self.put.get(path) {
            Some(put) => put.print.clone(),
            None if self.is_hidden(path) => Print::absent(),
            None => root.node(path).print(),
        }
    }
}

/// What a start with this layer, as it was unpacked, has laid down.
fn of_start(boot_layer: &Tree) -> Result<Record> {
    let mut put = BTreeMap::new();
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        let shown = if directory.is_empty() {
            "."
        } else {
            &directory
        };
        let (names, _) = boot_layer
            .names(shown)
            .doing(|| format!("reading {shown} of the clone's layer"))?;
        for name in names {
            let path = match directory.as_str() {
                "" => name,
                directory => format!("{directory}/{name}"),
            };
            let node = match boot_layer.look(&path) {
                Look::Found { node, .. } => node,
                Look::Blocked(reason) => {
                    return fail(format!("{path} of the clone's layer: {reason}"));
                }
            };
            let (print, hides) = match node.what {
                What::Character { major: 0, minor: 0 } => (Print::absent(), true),
                What::Directory => {
                    directories.push(path.clone());
                    (node.print(), boot_layer.is_opaque(&path))
                }
                _ => (node.print(), true),
            };
            put.insert(path, Put { print, hides });
        }
    }
    Ok(Record::new(put))
}
