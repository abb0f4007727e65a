//! Where each file of a layer comes from, and what it covers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Who put something at a path of a layer. Paths are those within the set or the script's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum FileSource {
    /// Estive itself: what every clone has, whatever its root is.
    Common,
    /// A rendered template.
    Template { set: String, path: String },
    /// Anything else that lies in a set: a file, a link, a directory, a mark.
    Copy { set: String, path: String },
    /// The output of a set's script.
    Script {
        set: String,
        script: String,
        path: String,
    },
}

impl fmt::Display for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Common => f.write_str("Estive, for every clone"),
            Self::Template { set, path } => write!(f, "set {set}, template {path}"),
            Self::Copy { set, path } => write!(f, "set {set}, {path}"),
            Self::Script { set, script, path } => {
                write!(f, "set {set}, {path} made by its script {script}")
            }
        }
    }
}

/// What stands at a path of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Device,
    /// Hides what the root has here.
    Whiteout,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symbolic link",
            Self::Device => "device",
            Self::Whiteout => "whiteout",
        })
    }
}

/// One path of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOrigin {
    pub kind: FileKind,
    pub source: FileSource,
    /// What lower sets had at the same path, the lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covers: Vec<FileSource>,
}

/// All paths of a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOrigins {
    pub paths: BTreeMap<String, FileOrigin>,
    /// Directories that hide all that the root has in them, and who says so.
    pub opaque: BTreeMap<String, FileSource>,
}

/// Where a path of the union of layer and root comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whence<'a> {
    /// From the layer.
    Layer(&'a FileOrigin),
    /// A directory of the layer only because something lies in it; as in the root, if it has it.
    Joined,
    /// From the root, if it has it.
    Root,
    /// Whatever the root has there is not seen.
    Hidden {
        /// The path that hides it: itself or a directory above it.
        by: &'a str,
        source: &'a FileSource,
    },
}

impl FileOrigins {
    /// Where the path, without a leading slash, comes from.
    pub fn whence<'a>(&'a self, path: &'a str) -> Whence<'a> {
        if let Some(origin) = self.paths.get(path)
            && origin.kind != FileKind::Whiteout
        {
            return Whence::Layer(origin);
        }
        if self.is_directory(path) {
            return Whence::Joined;
        }
        let mut nearest = None;
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let above = &path[..end];
            if let Some(source) = self.opaque.get(above)
                && end < path.len()
            {
                nearest = Some((above, source));
            }
            if let Some(origin) = self.paths.get(above)
                && origin.kind != FileKind::Directory
            {
                nearest = Some((above, &origin.source));
            }
        }
        match nearest {
            Some((by, source)) => Whence::Hidden { by, source },
            None => Whence::Root,
        }
    }

    /// Whether the layer has something in it.
    fn is_directory(&self, path: &str) -> bool {
        let below = format!("{path}/");
        let paths = self.paths.range(below.clone()..).map(|(path, _)| path);
        let opaque = self.opaque.range(below.clone()..).map(|(path, _)| path);
        let mut firsts = paths.take(1).chain(opaque.take(1));
        self.opaque.contains_key(path) || firsts.any(|found| found.starts_with(&below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_of_the_layer_of_the_root_or_hidden() {
        let copy = |path: &str| FileSource::Copy {
            set: "s".to_owned(),
            path: path.to_owned(),
        };
        let at = |kind, path: &str| FileOrigin {
            kind,
            source: copy(path),
            covers: Vec::new(),
        };
        let origins = FileOrigins {
            paths: [
                ("etc/a", at(FileKind::File, "etc/a")),
                ("etc/gone", at(FileKind::Whiteout, "etc/.wh.gone")),
                ("new/in/deep", at(FileKind::File, "new/in/deep")),
            ]
            .map(|(path, origin)| (path.to_owned(), origin))
            .into(),
            opaque: [("new".to_owned(), copy("new/.wh.__dir_opaque"))].into(),
        };
        assert!(matches!(origins.whence("etc/a"), Whence::Layer(_)));
        assert_eq!(origins.whence("etc"), Whence::Joined);
        assert_eq!(origins.whence("new"), Whence::Joined);
        assert_eq!(origins.whence("new/in"), Whence::Joined);
        assert_eq!(origins.whence("etc/b"), Whence::Root);
        for (path, by) in [
            ("etc/gone", "etc/gone"),
            ("etc/gone/x", "etc/gone"),
            ("etc/a/x", "etc/a"),
            ("new/x", "new"),
        ] {
            let Whence::Hidden { by: found, .. } = origins.whence(path) else {
                panic!("{path}: {:?}", origins.whence(path));
            };
            assert_eq!(found, by);
        }
    }
}
