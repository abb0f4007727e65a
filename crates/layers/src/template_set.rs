//! Template sets: plain trees. `*.j2` is rendered, all else copied; `.wh.NAME` hides a name of the
//! root, `.wh.__dir_opaque` everything in its directory (UnionFS's marks, which the paper used).
//! `set.yaml` at the top says what the file system of a checkout cannot: modes, owners, and which
//! files are left out when they render to nothing. `.scripts/NAME` are programs that make more.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use estive_archive::SharedBytes;

use crate::error::LayerError;
use crate::herd_folder::OwnSets;
use crate::set_entries::{SetEntries, Template, TreeOf};
use crate::set_folder;
use crate::set_settings::{SETTINGS, SetSettings};
use crate::set_tree::{SetKind, SetNode, SetTree, SetTreeBuilder};
use crate::set_variable::SetVariable;

pub(crate) enum Embedded {
    File(bool, &'static [u8]),
    Symlink(&'static str),
}

mod embedded {
    use super::Embedded;
    include!(concat!(env!("OUT_DIR"), "/sets.rs"));
}

/// One set, read and checked, in memory. A clone of it is cheap.
#[derive(Debug, Clone)]
pub struct TemplateSet {
    name: Arc<str>,
    pub(crate) settings: Arc<SetSettings>,
    pub(crate) entries: Arc<SetEntries>,
    scripts: Arc<[(String, SharedBytes)]>,
}

/// Sets that several lists name, each read once.
pub struct SetLibrary<'a> {
    own: &'a OwnSets,
    read: BTreeMap<String, TemplateSet>,
}

impl<'a> SetLibrary<'a> {
    /// Sets are the herd's own, else those that ship.
    pub fn new(own: &'a OwnSets) -> Self {
        Self {
            own,
            read: BTreeMap::new(),
        }
    }

    /// The sets of these names, lowest first.
    pub fn find_all(&mut self, names: &[String]) -> Result<Vec<TemplateSet>, LayerError> {
        names.iter().map(|name| self.find(name)).collect()
    }

    fn find(&mut self, name: &str) -> Result<TemplateSet, LayerError> {
        if let Some(known) = self.read.get(name) {
            return Ok(known.clone());
        }
        let set = match self.own.get(name) {
            Some(tree) => TemplateSet::from_tree(name, tree)?,
            None => TemplateSet::embedded(name)?,
        };
        self.read.insert(name.to_owned(), set.clone());
        Ok(set)
    }
}

impl TemplateSet {
    /// Names of the sets that ship inside the program.
    pub fn shipped() -> impl Iterator<Item = &'static str> {
        embedded::SETS.iter().map(|(name, _)| *name)
    }

    /// The tree of a set that ships inside the program.
    pub fn shipped_tree(name: &str) -> Result<SetTree, LayerError> {
        let Some((_, entries)) = embedded::SETS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = Self::shipped().collect();
            let meant = crate::reserved::nearest(name, known.iter().copied());
            return Err(LayerError::UnknownSet {
                name: name.to_owned(),
                meant: meant.map(str::to_owned),
                known: known.join(", "),
            });
        };
        let mut builder = SetTreeBuilder::new(name);
        for (path, entry) in *entries {
            let node = match entry {
                Embedded::File(executable, bytes) => {
                    let mode = if *executable { 0o755 } else { 0o644 };
                    builder.admit(path, bytes.len() as u64)?;
                    SetNode::new(mode, SetKind::File((*bytes).into()))
                }
                Embedded::Symlink(target) => {
                    builder.admit(path, 0)?;
                    SetNode::new(0o777, SetKind::Symlink((*target).to_owned()))
                }
            };
            builder.put(path, node)?;
        }
        builder.finish()
    }

    /// A set that ships inside the program.
    pub fn embedded(name: &str) -> Result<Self, LayerError> {
        Self::from_tree(name, &Self::shipped_tree(name)?)
    }

    /// The sets of these names, lowest first: the herd's own, else those that ship.
    pub fn find_all(names: &[String], own: &OwnSets) -> Result<Vec<Self>, LayerError> {
        SetLibrary::new(own).find_all(names)
    }

    /// Reads a set from its directory; no link is followed.
    pub fn load(name: &str, dir: &Path) -> Result<Self, LayerError> {
        Self::from_tree(name, &Self::load_tree(name, dir)?)
    }

    /// A set's tree from its directory; no link is followed.
    pub fn load_tree(name: &str, dir: &Path) -> Result<SetTree, LayerError> {
        let top = estive_beneath::open_top(dir).map_err(|error| LayerError::Io {
            doing: "opening the template set in",
            path: dir.to_owned(),
            source: error.into(),
        })?;
        set_folder::read(name, &top)
    }

    /// What a tree says.
    pub fn from_tree(name: &str, tree: &SetTree) -> Result<Self, LayerError> {
        let settings = match tree.get(SETTINGS).map(|node| &node.kind) {
            Some(SetKind::File(bytes)) => SetSettings::parse(name, bytes)?,
            Some(_) => {
                return Err(LayerError::Set {
                    set: name.to_owned(),
                    path: SETTINGS.to_owned(),
                    what: "is no plain file".to_owned(),
                });
            }
            None => SetSettings::default(),
        };
        Ok(Self {
            name: name.into(),
            settings: settings.into(),
            entries: SetEntries::of(name, tree, TreeOf::Set)?.into(),
            scripts: SetEntries::scripts(name, tree)?.into(),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// One line on what it is for.
    pub fn help(&self) -> &str {
        &self.settings.help
    }

    /// The variables that it declares, by name.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &SetVariable)> {
        let declared = self.settings.variables.iter();
        declared.map(|(name, variable)| (name.as_str(), variable))
    }

    /// What it costs to hold a clone's values against them.
    pub(crate) fn variables_weight(&self) -> usize {
        1 + self.settings.variables_weight
    }

    /// What is told when a file of a running clone changes.
    pub fn services(&self) -> &[estive_archive::Service] {
        &self.settings.services
    }

    /// Programs that make files which templates cannot, in the order they run: name and content.
    pub fn scripts(&self) -> &[(String, SharedBytes)] {
        &self.scripts
    }

    /// Paths in the clone whose mode `set.yaml` says.
    pub fn modes_given(&self) -> impl Iterator<Item = &str> {
        let files = self.settings.files.iter();
        files
            .filter(|(_, file)| file.mode.is_some())
            .map(|(path, _)| path.as_str())
    }

    pub(crate) fn templates(&self) -> &[Template] {
        &self.entries.templates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_that_many_lists_name_is_read_once() {
        let own = OwnSets::new();
        let mut library = SetLibrary::new(&own);
        let mut list = |names: [&str; 2]| library.find_all(&names.map(str::to_owned)).unwrap();
        let (one, two) = (list(["web", "dummy"]), list(["dummy", "web"]));
        assert!(Arc::ptr_eq(&one[0].entries, &two[1].entries));
        assert!(Arc::ptr_eq(&one[0].settings, &two[1].settings));
    }
}
