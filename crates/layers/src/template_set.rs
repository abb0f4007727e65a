//! Template sets: plain trees. `*.j2` is rendered, all else copied; `.wh.NAME` hides a name of the
//! root, `.wh.__dir_opaque` everything in its directory (UnionFS's marks, which the paper used).
//! `set.yaml` at the top says what the file system of a checkout cannot: modes, owners, and which
//! files are left out when they render to nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::LayerError;
use crate::set_settings::{SETTINGS, SetSettings};
use crate::set_variable::SetVariable;

const TEMPLATE_SUFFIX: &str = ".j2";
const WHITEOUT_PREFIX: &str = ".wh.";
const OPAQUE_MARK: &str = ".wh.__dir_opaque";

const MAX_ENTRIES: usize = 10_000;
const MAX_SET_BYTES: u64 = 16 << 20;
const MAX_DEPTH: usize = 32;

pub(crate) enum Embedded {
    File(bool, &'static [u8]),
    Symlink(&'static str),
}

mod embedded {
    use super::Embedded;
    include!(concat!(env!("OUT_DIR"), "/sets.rs"));
}

/// One set, read and checked, in memory.
#[derive(Debug, Clone)]
pub struct TemplateSet {
    name: String,
    /// By the path that the result has in the clone.
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) settings: SetSettings,
    bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Copy {
        mode: u32,
        bytes: Vec<u8>,
    },
    Template {
        mode: u32,
        source: String,
    },
    Symlink {
        target: String,
    },
    Whiteout,
    /// Stands for the directory it lies in.
    Opaque,
}

impl TemplateSet {
    /// Names of the sets that ship inside the program.
    pub fn shipped() -> impl Iterator<Item = &'static str> {
        embedded::SETS.iter().map(|(name, _)| *name)
    }

    /// A set that ships inside the program.
    pub fn embedded(name: &str) -> Result<Self, LayerError> {
        let Some((_, entries)) = embedded::SETS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = Self::shipped().collect();
            let meant = crate::reserved::nearest(name, known.iter().copied());
            return Err(LayerError::UnknownSet {
                name: name.to_owned(),
                meant: meant.map(str::to_owned),
                known: known.join(", "),
            });
        };
        let mut set = Self::empty(name);
        for (path, entry) in *entries {
            match entry {
                Embedded::File(executable, bytes) => {
                    let mode = if *executable { 0o755 } else { 0o644 };
                    set.add_file(path, mode, bytes.to_vec())?;
                }
                Embedded::Symlink(target) => set.add_symlink(path, target)?,
            }
        }
        Ok(set)
    }

    /// The sets of these names, lowest first: from `dirs` (each holds sets as directories, the
    /// first that has one wins), else from those that ship.
    pub fn find_all(names: &[String], dirs: &[PathBuf]) -> Result<Vec<Self>, LayerError> {
        let find = |name: &String| {
            let own = dirs
                .iter()
                .map(|dir| dir.join(name))
                .find(|dir| dir.is_dir());
            match own {
                Some(dir) => Self::load(name, &dir),
                None => Self::embedded(name),
            }
        };
        names.iter().map(find).collect()
    }

    /// Reads a set from its directory. Links are never followed; devices, sockets and the like
    /// are refused.
    pub fn load(name: &str, dir: &Path) -> Result<Self, LayerError> {
        let mut set = Self::empty(name);
        set.load_below(dir, "", 0)?;
        Ok(set)
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

    /// What is told when a file of a running clone changes.
    pub fn services(&self) -> &[estive_archive::Service] {
        &self.settings.services
    }

    fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            entries: BTreeMap::new(),
            settings: SetSettings::default(),
            bytes: 0,
        }
    }

    fn load_below(&mut self, dir: &Path, prefix: &str, depth: usize) -> Result<(), LayerError> {
        if depth > MAX_DEPTH {
            return Err(self.wrong(prefix, format!("deeper than {MAX_DEPTH} directories")));
        }
        let io = |doing, path: &Path| {
            let path = path.to_path_buf();
            move |source| LayerError::Io {
                doing,
                path,
                source,
            }
        };
        for entry in fs::read_dir(dir).map_err(io("reading the template set in", dir))? {
            let entry = entry.map_err(io("reading the template set in", dir))?;
            let path = entry.path();
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                return Err(self.wrong(prefix, format!("the name {name:?} is not UTF-8")));
            };
            let inner = format!("{prefix}{name}");
            let meta = fs::symlink_metadata(&path).map_err(io("looking at", &path))?;
            if meta.is_dir() {
                self.load_below(&path, &format!("{inner}/"), depth + 1)?;
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).map_err(io("reading the link", &path))?;
                let Some(target) = target.to_str() else {
                    return Err(self.wrong(&inner, "its target is not UTF-8"));
                };
                self.add_symlink(&inner, target)?;
            } else if meta.is_file() {
                let left = MAX_SET_BYTES - self.bytes;
                if meta.len() > left {
                    return Err(self.too_large(&inner));
                }
                let file = fs::File::open(&path).map_err(io("opening", &path))?;
                let mut bytes = Vec::new();
                // One byte more than allowed, so that a file that grew is seen.
                let limited = file.take(left + 1).read_to_end(&mut bytes);
                limited.map_err(io("reading", &path))?;
                self.add_file(&inner, meta.permissions().mode() & 0o7777, bytes)?;
            } else {
                return Err(self.wrong(&inner, "is no file, directory or symbolic link"));
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: &str, mode: u32, bytes: Vec<u8>) -> Result<(), LayerError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_SET_BYTES {
            return Err(self.too_large(path));
        }
        if path == SETTINGS {
            self.settings = SetSettings::parse(&self.name, &bytes)?;
            return Ok(());
        }
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == OPAQUE_MARK {
            if dir.is_empty() {
                return Err(self.wrong(path, "would hide the whole root"));
            }
            return self.add(path, dir.to_owned(), Entry::Opaque);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
            let hidden = if dir.is_empty() {
                hidden.to_owned()
            } else {
                format!("{dir}/{hidden}")
            };
            return self.add(path, hidden, Entry::Whiteout);
        }
        let Some(target) = path.strip_suffix(TEMPLATE_SUFFIX) else {
            return self.add(path, path.to_owned(), Entry::Copy { mode, bytes });
        };
        let source =
            String::from_utf8(bytes).map_err(|_| self.wrong(path, "a template is UTF-8"))?;
        self.add(path, target.to_owned(), Entry::Template { mode, source })
    }

    fn add_symlink(&mut self, path: &str, target: &str) -> Result<(), LayerError> {
        let target = target.to_owned();
        self.add(path, path.to_owned(), Entry::Symlink { target })
    }

    fn add(&mut self, path: &str, target: String, entry: Entry) -> Result<(), LayerError> {
        if self.entries.len() >= MAX_ENTRIES {
            return Err(self.wrong(path, format!("the set has more than {MAX_ENTRIES} files")));
        }
        estive_archive::check_path(&target).map_err(|error| self.wrong(path, error.to_string()))?;
        if self.entries.insert(target.clone(), entry).is_some() {
            return Err(self.wrong(path, format!("two files of the set make {target}")));
        }
        Ok(())
    }

    fn wrong(&self, path: &str, what: impl Into<String>) -> LayerError {
        LayerError::Set {
            set: self.name.clone(),
            path: path.trim_end_matches('/').to_owned(),
            what: what.into(),
        }
    }

    fn too_large(&self, path: &str) -> LayerError {
        self.wrong(path, format!("the set has more than {MAX_SET_BYTES} bytes"))
    }
}
