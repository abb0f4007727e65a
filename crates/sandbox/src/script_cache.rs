//! What scripts have made, kept by the digest of everything they could see, so that the same run is not done twice.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use estive_layers::SetTree;

/// The oldest go when there are more, or more bytes.
const MAX_ENTRIES: usize = 20_000;
const MAX_BYTES: u64 = 1 << 30;
/// One output with its names.
const MAX_ENTRY_BYTES: u64 = 64 << 20;

const ENDING: &str = ".output";

/// A directory of outputs, for its owner only: they may hold keys.
#[derive(Debug, Clone)]
pub struct ScriptCache {
    directory: PathBuf,
}

impl ScriptCache {
    /// Makes the directory when it is missing, and makes room in it.
    pub fn open(directory: impl Into<PathBuf>) -> io::Result<Self> {
        let cache = Self {
            directory: directory.into(),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&cache.directory)?;
        cache.make_room(MAX_ENTRIES, MAX_BYTES)?;
        Ok(cache)
    }

    /// What was made; one that cannot be read is made again.
    pub(crate) fn get(&self, key: &str) -> Option<SetTree> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(key)).ok()?;
        file.take(MAX_ENTRY_BYTES).read_to_end(&mut bytes).ok()?;
        rmp_serde::from_slice(&bytes).ok()
    }

    /// Keeps it. That it could not be kept is no error: it is made again.
    pub(crate) fn put(&self, key: &str, tree: &SetTree) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let aside = self
            .directory
            .join(format!(".{}-{number}", std::process::id()));
        let write = || -> io::Result<()> {
            let bytes = rmp_serde::to_vec_named(tree).map_err(io::Error::other)?;
            let mut file = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&aside)?;
            file.write_all(&bytes)?;
            fs::rename(&aside, self.path(key))
        };
        if write().is_err() {
            let _ = fs::remove_file(&aside);
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{key}{ENDING}"))
    }

    /// Removes what a death left half written, and the oldest half when there is too much.
    fn make_room(&self, most_entries: usize, most_bytes: u64) -> io::Result<()> {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            if is_abandoned(&path) {
                let _ = fs::remove_file(&path);
            } else if path.to_string_lossy().ends_with(ENDING) {
                entries.push((metadata.modified()?, metadata.len(), path));
            }
        }
        let mut bytes: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        if entries.len() <= most_entries && bytes <= most_bytes {
            return Ok(());
        }
        entries.sort();
        let mut left = entries.len();
        for (_, own, path) in entries {
            if left <= most_entries / 2 && bytes <= most_bytes / 2 {
                break;
            }
            let _ = fs::remove_file(path);
            left -= 1;
            bytes -= own;
        }
        Ok(())
    }
}

/// Half written by a process that is gone.
fn is_abandoned(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let process = name
        .and_then(|name| name.strip_prefix('.'))
        .and_then(|name| name.split('-').next());
    process.is_some_and(|process| !Path::new("/proc").join(process).exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_layers::{SetKind, SetNode};

    fn tree(text: &str) -> SetTree {
        let file = SetNode::new(0o600, SetKind::File(text.as_bytes().to_vec().into()));
        SetTree::from_nodes("x", [("etc/x".to_owned(), file)]).unwrap()
    }

    #[test]
    fn what_was_put_is_there_and_the_oldest_goes() {
        let home = tempfile::tempdir().unwrap();
        let cache = ScriptCache::open(home.path().join("scripts")).unwrap();
        assert_eq!(cache.get("a"), None);
        cache.put("a", &tree("a"));
        assert_eq!(cache.get("a"), Some(tree("a")));
        fs::write(cache.path("b"), "damaged").unwrap();
        assert_eq!(cache.get("b"), None);
        cache.put("b", &tree("b"));
        assert_eq!(cache.get("b"), Some(tree("b")));
        fs::write(cache.directory.join(".999999999-0"), "half").unwrap();
        let old = SystemTime::UNIX_EPOCH;
        File::open(cache.path("a"))
            .unwrap()
            .set_modified(old)
            .unwrap();
        cache.make_room(1, u64::MAX).unwrap();
        let left: Vec<_> = fs::read_dir(&cache.directory).unwrap().flatten().collect();
        assert!(left.is_empty(), "half of one is none: {left:?}");
        cache.put("a", &tree("a"));
        cache.put("b", &tree("b"));
        File::open(cache.path("a"))
            .unwrap()
            .set_modified(old)
            .unwrap();
        cache
            .make_room(2, fs::metadata(cache.path("b")).unwrap().len())
            .unwrap();
        assert_eq!(cache.get("a"), None);
    }
}
