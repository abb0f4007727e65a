//! Laying one set, or the output of one of its scripts, over the tree of a layer.

use std::collections::BTreeMap;

use estive_archive::{SharedBytes, XattrValue, Xattrs};

use crate::file_origin::FileSource;
use crate::set_entries::{Entry, SetEntries, What};
use crate::set_settings::Settings;
use crate::tree::{NodeKind, Owner, Tree, TreeNode};

/// A content, and its number when it is the clone's own.
pub(crate) type Content = (SharedBytes, Option<usize>);

/// Something to be laid over a tree.
pub(crate) struct Overlay<'a> {
    pub entries: &'a SetEntries,
    /// What the set's `set.yaml` says of paths.
    pub files: &'a BTreeMap<String, Settings>,
    pub maker: Maker<'a>,
    /// Number of the first group of links that the tree has not used.
    pub first_link: usize,
    /// What a template gave, by its number.
    pub template: &'a dyn Fn(usize) -> Content,
    /// What an ordinary file is, by its path.
    pub file: &'a dyn Fn(&str, &SharedBytes) -> Content,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Maker<'a> {
    Set(&'a str),
    Script { set: &'a str, script: &'a str },
}

impl Maker<'_> {
    fn source(self, path: &str, what: Option<&What>) -> FileSource {
        let path = path.to_owned();
        match (self, what) {
            (Self::Script { set, script }, _) => FileSource::Script {
                set: set.to_owned(),
                script: script.to_owned(),
                path,
            },
            (Self::Set(set), Some(What::Template { .. })) => FileSource::Template {
                set: set.to_owned(),
                path,
            },
            (Self::Set(set), _) => FileSource::Copy {
                set: set.to_owned(),
                path,
            },
        }
    }
}

impl Overlay<'_> {
    pub fn lay(&self, tree: &mut Tree) {
        self.place_directories(tree);
        // First what hides, so that it hides the sets below and not this one's own files.
        for (path, mark) in &self.entries.opaque {
            tree.put_opaque(path, self.maker.source(mark, None));
        }
        for (path, mark) in &self.entries.whiteouts {
            let source = self.maker.source(mark, None);
            let node = TreeNode::new(NodeKind::Whiteout, Owner::root(0), source);
            tree.put(path, node);
        }
        // Once more: what was hidden has other directories now.
        self.place_directories(tree);
        let plain = Settings::default();
        let settings_of = |path: &str| self.files.get(path).unwrap_or(&plain);
        for (path, entry) in &self.entries.nodes {
            let settings = settings_of(path);
            let Some(kind) = self.kind(path, entry, settings) else {
                continue;
            };
            let mut node = TreeNode::new(
                kind,
                owner(settings, entry.owner),
                self.maker.source(&entry.from, Some(&entry.what)),
            );
            node.xattrs = xattrs(settings, Some(entry));
            tree.put(path, node);
        }
        self.lay_directories(tree);
    }

    fn place_directories(&self, tree: &mut Tree) {
        let plain = Settings::default();
        for (path, entry) in &self.entries.nodes {
            if matches!(entry.what, What::Directory { .. }) {
                let settings = self.files.get(path).unwrap_or(&plain);
                tree.place(path, owner(settings, entry.owner));
            }
        }
    }

    /// Directories with attributes of their own, of those that are there: what lies in one may all
    /// have been left out.
    fn lay_directories(&self, tree: &mut Tree) {
        let mut named: BTreeMap<&str, Option<&Entry>> = BTreeMap::new();
        for path in self.files.keys().filter(|path| tree.get(path).is_none()) {
            named.insert(path, None);
        }
        for (path, entry) in &self.entries.nodes {
            let own = self.files.contains_key(path) || !entry.xattrs.is_empty();
            if matches!(entry.what, What::Directory { empty: false }) && own {
                named.insert(path, Some(entry));
            }
        }
        let plain = Settings::default();
        for (path, entry) in named {
            if !tree.has_below(path) {
                continue;
            }
            let settings = self.files.get(path).unwrap_or(&plain);
            let kind = NodeKind::Directory { joined: false };
            let from = entry.map_or(path, |entry| entry.from.as_str());
            let own = entry.map_or(Owner::root(0o755), |entry| entry.owner);
            let source = self.maker.source(from, None);
            let mut node = TreeNode::new(kind, owner(settings, own), source);
            node.xattrs = xattrs(settings, entry);
            tree.put(path, node);
        }
    }

    /// What stands at a path; `None` for what is left out, and for directories with things in
    /// them.
    fn kind(&self, path: &str, entry: &Entry, settings: &Settings) -> Option<NodeKind> {
        let (content, links) = match &entry.what {
            What::File { bytes, links } => ((self.file)(path, bytes), links),
            What::Template { template, links } => ((self.template)(*template), links),
            What::Directory { empty: false } => return None,
            What::Directory { empty: true } => {
                let joined = !self.files.contains_key(path) && entry.xattrs.is_empty();
                return Some(NodeKind::Directory { joined });
            }
            What::Symlink(target) => return Some(NodeKind::Symlink(target.clone())),
            &What::Character { major, minor } => {
                return Some(NodeKind::Character { major, minor });
            }
            &What::Block { major, minor } => return Some(NodeKind::Block { major, minor }),
        };
        let (bytes, own) = content;
        if settings.optional && is_blank(&bytes) {
            return None;
        }
        Some(NodeKind::File {
            bytes,
            own,
            links: links.map(|links| self.first_link + links),
        })
    }
}

/// Nothing but white space: a file that is optional is left out.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_whitespace)
}

/// Those of the file in the set, and what `set.yaml` says.
fn xattrs(settings: &Settings, entry: Option<&Entry>) -> Xattrs {
    let mut xattrs = entry.map(|entry| entry.xattrs.clone()).unwrap_or_default();
    let said = settings.xattrs.iter();
    xattrs.extend(said.map(|(name, text)| (name.clone(), XattrValue(text.clone().into_bytes()))));
    xattrs
}

fn owner(settings: &Settings, owner: Owner) -> Owner {
    Owner {
        mode: settings.mode.unwrap_or(owner.mode),
        uid: settings.uid.unwrap_or(owner.uid),
        gid: settings.gid.unwrap_or(owner.gid),
    }
}
