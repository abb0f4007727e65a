//! What the names of a set mean: marks, templates, scripts, and plain files.

use std::collections::BTreeMap;

use estive_archive::{OPAQUE_MARK, OPAQUE_XATTR, SharedBytes, WHITEOUT_PREFIX, Xattrs, check_path};

use crate::error::LayerError;
use crate::set_settings::SETTINGS;
use crate::set_tree::{SetKind, SetNode, SetTree};
use crate::tree::Owner;

const TEMPLATE_SUFFIX: &str = ".j2";
const SCRIPTS: &str = ".scripts";

/// A tree by what it makes in the clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SetEntries {
    /// By path in the clone.
    pub nodes: BTreeMap<String, Entry>,
    /// Paths that are hidden, and the mark that says so.
    pub whiteouts: BTreeMap<String, String>,
    /// Directories of which nothing below is seen, and the mark.
    pub opaque: BTreeMap<String, String>,
    pub templates: Vec<Template>,
}

/// What a set has for one path of the clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Path in the set.
    pub from: String,
    pub owner: Owner,
    pub xattrs: Xattrs,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// Entries of the same `links` are one file.
    File {
        bytes: SharedBytes,
        links: Option<usize>,
    },
    /// Number of the template.
    Template {
        template: usize,
        links: Option<usize>,
    },
    Directory {
        empty: bool,
    },
    Symlink(String),
    Character {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    /// Path in the set, with its suffix.
    pub path: String,
    pub source: String,
}

/// What a name is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Plain,
    Template,
    Mark,
    /// Read by Estive and not copied.
    Own,
}

/// Whose tree is read: a script writes files and marks, and no templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TreeOf {
    Set,
    Script,
}

impl SetEntries {
    /// `set` is its name, for messages.
    pub fn of(set: &str, tree: &SetTree, whose: TreeOf) -> Result<Self, LayerError> {
        let mut reader = Reader {
            set,
            tree,
            whose,
            links: links(tree, whose),
            template_at: BTreeMap::new(),
            entries: Self::default(),
        };
        for (path, node) in tree.iter() {
            reader.read(path, node)?;
        }
        reader.check()?;
        Ok(reader.entries)
    }

    /// The set's scripts in the order of their names, each with its content.
    pub fn scripts(set: &str, tree: &SetTree) -> Result<Vec<(String, SharedBytes)>, LayerError> {
        let mut scripts = Vec::new();
        for (path, node) in tree.iter() {
            let Some(name) = path.strip_prefix(".scripts/") else {
                continue;
            };
            let file = match &node.kind {
                SetKind::HardLink(target) => tree.get(target).map_or(node, |file| file),
                _ => node,
            };
            match &file.kind {
                SetKind::File(bytes) if !name.contains('/') && file.owner.mode & 0o100 != 0 => {
                    scripts.push((name.to_owned(), bytes.clone()));
                }
                _ => {
                    let what =
                        "is no executable file; .scripts holds those of a set and nothing else";
                    return Err(wrong(set, path, what));
                }
            }
        }
        Ok(scripts)
    }
}

fn role(path: &str, kind: &SetKind, whose: TreeOf) -> Role {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_file = matches!(kind, SetKind::File(_) | SetKind::HardLink(_));
    if name.starts_with(WHITEOUT_PREFIX) {
        return Role::Mark;
    }
    if whose == TreeOf::Script {
        return Role::Plain;
    }
    if path == SETTINGS || path == SCRIPTS || path.starts_with(".scripts/") {
        return Role::Own;
    }
    if is_file && name.len() > TEMPLATE_SUFFIX.len() && name.ends_with(TEMPLATE_SUFFIX) {
        return Role::Template;
    }
    Role::Plain
}

/// A number for each file of the clone that has several names, by its first path in the set.
fn links(tree: &SetTree, whose: TreeOf) -> BTreeMap<&str, usize> {
    let mut links = BTreeMap::new();
    for (path, node) in tree.iter() {
        let SetKind::HardLink(target) = &node.kind else {
            continue;
        };
        let of = |path: &str| tree.get(path).map(|node| role(path, &node.kind, whose));
        if matches!(of(path), Some(Role::Plain | Role::Template)) && of(path) == of(target) {
            let number = links.len();
            links.entry(target.as_str()).or_insert(number);
        }
    }
    links
}

struct Reader<'a> {
    set: &'a str,
    tree: &'a SetTree,
    whose: TreeOf,
    links: BTreeMap<&'a str, usize>,
    /// Number of the template whose text lies at this path.
    template_at: BTreeMap<&'a str, usize>,
    entries: SetEntries,
}

impl<'a> Reader<'a> {
    fn read(&mut self, path: &'a str, node: &'a SetNode) -> Result<(), LayerError> {
        let role = role(path, &node.kind, self.whose);
        // The file that a hard link is another name of, and its first path.
        let (first, file) = match &node.kind {
            SetKind::HardLink(target) => match self.tree.get(target) {
                Some(file) => (target.as_str(), file),
                None => return Err(self.wrong(path, "is a hard link to nothing")),
            },
            _ => (path, node),
        };
        match role {
            Role::Own => return Ok(()),
            Role::Mark => return self.mark(path, file),
            Role::Plain | Role::Template => {}
        }
        let same_role = first == path
            || self
                .tree
                .get(first)
                .is_some_and(|node| self::role(first, &node.kind, self.whose) == role);
        let links = self.links.get(first).copied().filter(|_| same_role);
        let mut xattrs = file.xattrs.clone();
        let opaque = xattrs.remove(OPAQUE_XATTR);
        let (target, what) = match &file.kind {
            SetKind::File(bytes) if role == Role::Template => {
                let template = self.template(first, path, bytes)?;
                let target = path.strip_suffix(TEMPLATE_SUFFIX).unwrap_or(path);
                (target, What::Template { template, links })
            }
            SetKind::File(bytes) => {
                let bytes = bytes.clone();
                (path, What::File { bytes, links })
            }
            SetKind::Directory => {
                if opaque.is_some_and(|value| value.0 == b"y") {
                    let mark = format!("{path} ({OPAQUE_XATTR})");
                    self.entries.opaque.insert(path.to_owned(), mark);
                }
                let empty = !self.tree.has_below(path);
                (path, What::Directory { empty })
            }
            SetKind::Symlink(target) => (path, What::Symlink(target.clone())),
            SetKind::Character { major: 0, minor: 0 } => {
                self.entries
                    .whiteouts
                    .insert(path.to_owned(), path.to_owned());
                return Ok(());
            }
            &SetKind::Character { major, minor } => (path, What::Character { major, minor }),
            &SetKind::Block { major, minor } => (path, What::Block { major, minor }),
            SetKind::HardLink(_) => return Err(self.wrong(path, "is a hard link to a hard link")),
        };
        let entry = Entry {
            from: path.to_owned(),
            owner: file.owner,
            xattrs,
            what,
        };
        if self
            .entries
            .nodes
            .insert(target.to_owned(), entry)
            .is_some()
        {
            return Err(self.wrong(path, format!("two files of the set make {target}")));
        }
        Ok(())
    }

    fn mark(&mut self, path: &str, file: &SetNode) -> Result<(), LayerError> {
        if !matches!(file.kind, SetKind::File(_)) {
            return Err(self.wrong(path, "is a mark and must be a file"));
        }
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == OPAQUE_MARK {
            if directory.is_empty() {
                return Err(self.wrong(path, "would hide the whole root"));
            }
            self.entries
                .opaque
                .insert(directory.to_owned(), path.to_owned());
            return Ok(());
        }
        let hidden = name.strip_prefix(WHITEOUT_PREFIX).unwrap_or(name);
        let hidden = match directory {
            "" => hidden.to_owned(),
            directory => format!("{directory}/{hidden}"),
        };
        check_path(&hidden).map_err(|error| self.wrong(path, error.to_string()))?;
        if let Some(other) = self
            .entries
            .whiteouts
            .insert(hidden.clone(), path.to_owned())
        {
            let what = format!("hides {hidden}, and so does {other}");
            return Err(self.wrong(path, what));
        }
        Ok(())
    }

    /// The number of the template at this path, whose text lies at `first`.
    fn template(
        &mut self,
        first: &'a str,
        path: &str,
        bytes: &SharedBytes,
    ) -> Result<usize, LayerError> {
        if let Some(known) = self.template_at.get(first) {
            return Ok(*known);
        }
        let source =
            std::str::from_utf8(bytes).map_err(|_| self.wrong(path, "a template is UTF-8"))?;
        let number = self.entries.templates.len();
        self.entries.templates.push(Template {
            path: path.to_owned(),
            source: source.to_owned(),
        });
        self.template_at.insert(first, number);
        Ok(number)
    }

    /// A directory that is hidden and there is one of which nothing below is seen.
    fn check(&mut self) -> Result<(), LayerError> {
        let entries = &mut self.entries;
        let both: Vec<String> = entries
            .whiteouts
            .keys()
            .filter(|path| entries.nodes.contains_key(*path))
            .cloned()
            .collect();
        for path in both {
            let mark = entries.whiteouts.remove(&path).unwrap_or_default();
            let entry = entries.nodes.get(&path);
            if !matches!(
                entry,
                Some(Entry {
                    what: What::Directory { .. },
                    ..
                })
            ) {
                return Err(wrong(
                    self.set,
                    &mark,
                    &format!("two files of the set make {path}"),
                ));
            }
            entries.opaque.insert(path, mark);
        }
        Ok(())
    }

    fn wrong(&self, path: &str, what: impl AsRef<str>) -> LayerError {
        wrong(self.set, path, what.as_ref())
    }
}

fn wrong(set: &str, path: &str, what: &str) -> LayerError {
    LayerError::Set {
        set: set.to_owned(),
        path: path.to_owned(),
        what: what.to_owned(),
    }
}
