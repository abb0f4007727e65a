//! Chunks on disk: `chunks/ab/<64 hex digits>`, named by their digest, within a limit.
//!
//! Written aside and renamed, and digested again whenever they are read: neither a kill, a power cut nor a bit that
//! flips turns into data. So nothing needs to be synced.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use estive_chunks::{CHUNK_BYTES, ChunkDigest};
use rustix::fd::OwnedFd;

use crate::CacheError;
use crate::lru::Lru;

const TEMPORARY_PREFIX: &str = ".new-";

/// A chunk that was on disk and is not what its name says; it has been removed.
#[derive(Debug)]
pub(crate) struct Spoilt {
    pub path: PathBuf,
}

pub(crate) struct ChunkStore {
    directory: PathBuf,
    top: OwnedFd,
    limit_bytes: u64,
    index: Mutex<Lru<ChunkDigest, ()>>,
    /// Who names or removes files holds it, so that what lies here is what the index says. Never held to read.
    naming: Mutex<()>,
}

impl ChunkStore {
    /// Takes over what lies there, the oldest first; half-written chunks and what is over the limit goes. Blocks.
    pub fn open(directory: PathBuf, limit_bytes: u64) -> Result<Self, CacheError> {
        let failed = |doing| CacheError::file(doing, &directory);
        make_private(&directory).map_err(failed("make the directory"))?;
        let mut found = Vec::new();
        for part in fs::read_dir(&directory).map_err(failed("list"))? {
            let part = part.map_err(failed("list"))?;
            let name = part.file_name();
            // A link is none: what lies behind it is not ours to sweep.
            let ours = part.file_type().is_ok_and(|kind| kind.is_dir());
            let Some(name) = name.to_str().filter(|name| ours && name.len() == 2) else {
                continue;
            };
            let part = part.path();
            for entry in fs::read_dir(&part).map_err(CacheError::file("list", &part))? {
                let entry = entry.map_err(CacheError::file("list", &part))?;
                match chunk_file(&entry) {
                    Some(chunk) if chunk.0.to_string().starts_with(name) => found.push(chunk),
                    // Nothing else belongs here.
                    _ => {
                        let _ = fs::remove_file(entry.path());
                    }
                }
            }
        }
        found.sort_by_key(|(_, _, used)| *used);
        let mut index = Lru::new();
        for (digest, size_bytes, _) in found {
            index.insert(digest, (), size_bytes);
        }
        let top = estive_beneath::open_top(&directory)
            .map_err(|errno| failed("open the directory")(errno.into()))?;
        let store = Self {
            directory,
            top,
            limit_bytes,
            index: Mutex::new(index),
            naming: Mutex::default(),
        };
        store.shrink();
        Ok(store)
    }

    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Number of chunks and their bytes.
    pub fn kept(&self) -> (u64, u64) {
        let index = self.index();
        (index.len() as u64, index.total_bytes())
    }

    pub fn has(&self, digest: &ChunkDigest) -> bool {
        self.index().contains(digest)
    }

    /// The chunk, if it is here and is what its name says. Blocks.
    pub fn read(&self, digest: &ChunkDigest) -> Result<Option<Bytes>, Spoilt> {
        if self.index().get(digest).is_none() {
            return Ok(None);
        }
        let path = self.path(digest);
        let opened = estive_beneath::open_file(&self.top, &relative(digest));
        let read = opened.map_err(io::Error::from).and_then(|fd| {
            let file = File::from(fd);
            let mut bytes = Vec::with_capacity(CHUNK_BYTES + 1);
            (&file)
                .take(CHUNK_BYTES as u64 + 1)
                .read_to_end(&mut bytes)?;
            // The order of use outlives this process. That it cannot be kept harms nobody.
            let _ = rustix::fs::futimens(&file, &now());
            Ok(bytes)
        });
        match read {
            Ok(bytes) if ChunkDigest::of(&bytes) == *digest => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let _naming = self.naming();
                // Unless it has come again by now.
                if !path.exists() {
                    self.index().remove(digest);
                }
                Ok(None)
            }
            Ok(_) | Err(_) => {
                let _naming = self.naming();
                self.index().remove(digest);
                let _ = fs::remove_file(&path);
                Err(Spoilt { path })
            }
        }
    }

    /// Keeps a chunk that was checked; what was not used for longest makes room. Blocks.
    pub fn keep(&self, digest: &ChunkDigest, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(digest);
        let parent = path.parent().unwrap_or(&self.directory);
        make_private(parent)?;
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempfile_in(parent)?;
        file.write_all(bytes)?;
        let naming = self.naming();
        file.persist(&path).map_err(|error| error.error)?;
        self.index().insert(*digest, (), bytes.len() as u64);
        self.shrink_named(&naming);
        Ok(())
    }

    fn shrink(&self) {
        self.shrink_named(&self.naming());
    }

    fn shrink_named(&self, _naming: &MutexGuard<'_, ()>) {
        let out = self.index().shrink_to(self.limit_bytes);
        for digest in out {
            if let Err(error) = fs::remove_file(self.path(&digest)) {
                tracing::warn!(%digest, %error, "a chunk could not be removed");
            }
        }
    }

    fn path(&self, digest: &ChunkDigest) -> PathBuf {
        self.directory.join(relative(digest))
    }

    fn naming(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> MutexGuard<'_, Lru<ChunkDigest, ()>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn relative(digest: &ChunkDigest) -> String {
    let hex = digest.to_string();
    format!("{}/{hex}", &hex[..2])
}

fn chunk_file(entry: &fs::DirEntry) -> Option<(ChunkDigest, u64, SystemTime)> {
    let digest = entry.file_name().to_str()?.parse().ok()?;
    let metadata = entry.metadata().ok()?;
    let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    (metadata.is_file() && metadata.len() <= CHUNK_BYTES as u64).then_some((
        digest,
        metadata.len(),
        used,
    ))
}

fn now() -> rustix::fs::Timestamps {
    let now = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    rustix::fs::Timestamps {
        last_access: now,
        last_modification: now,
    }
}

pub(crate) fn make_private(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(number: u8) -> (ChunkDigest, Vec<u8>) {
        let bytes = vec![number; 1000];
        (ChunkDigest::of(&bytes), bytes)
    }

    fn age(store: &ChunkStore, digest: &ChunkDigest, seconds: u64) {
        let file = File::options()
            .write(true)
            .open(store.path(digest))
            .unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
            .unwrap();
    }

    #[test]
    fn what_was_kept_is_there_after_a_kill_and_the_oldest_makes_room() {
        let home = tempfile::tempdir().unwrap();
        let open = || ChunkStore::open(home.path().join("chunks"), 3000).unwrap();
        let store = open();
        let chunks: Vec<_> = (0..4).map(chunk).collect();
        for (at, (digest, bytes)) in chunks[..3].iter().enumerate() {
            store.keep(digest, bytes).unwrap();
            age(&store, digest, 10 + at as u64);
        }
        let half = store.path(&chunks[0].0).with_file_name(".new-half");
        fs::write(&half, "half").unwrap();
        let read = |store: &ChunkStore, at: usize| store.read(&chunks[at].0).unwrap();
        assert_eq!(read(&store, 0).as_deref(), Some(&chunks[0].1[..]));
        // Nothing is told to the one that goes: it is as if it had been killed.
        let store = open();
        assert!(!half.exists());
        assert_eq!(store.kept(), (3, 3000));
        store.keep(&chunks[3].0, &chunks[3].1).unwrap();
        assert_eq!(store.kept(), (3, 3000));
        let there: Vec<bool> = (0..4).map(|at| read(&store, at).is_some()).collect();
        // The first was used last of the old ones.
        assert_eq!(there, [true, false, true, true]);
        assert!(!store.path(&chunks[1].0).exists());
    }

    #[test]
    fn a_flipped_bit_a_cut_and_a_link_are_no_chunk() {
        let home = tempfile::tempdir().unwrap();
        let store = ChunkStore::open(home.path().join("chunks"), 3000).unwrap();
        let (digest, bytes) = chunk(7);
        let path = store.path(&digest);
        let mut flipped = bytes.clone();
        flipped[500] ^= 4;
        let outside = home.path().join("outside");
        fs::write(&outside, &bytes).unwrap();
        type Harm<'a> = &'a dyn Fn();
        let harms: [Harm; 4] = [
            &|| fs::write(&path, &flipped).unwrap(),
            &|| fs::write(&path, &bytes[..999]).unwrap(),
            &|| fs::write(&path, b"").unwrap(),
            &|| {
                fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink(&outside, &path).unwrap();
            },
        ];
        for harm in harms {
            store.keep(&digest, &bytes).unwrap();
            assert!(store.read(&digest).unwrap().is_some());
            harm();
            assert_eq!(store.read(&digest).unwrap_err().path, path);
            assert!(store.read(&digest).unwrap().is_none());
            assert!(path.symlink_metadata().is_err(), "it is gone");
        }
        assert!(outside.exists());
        // Somebody made room by hand.
        store.keep(&digest, &bytes).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(store.read(&digest).unwrap().is_none());
        assert_eq!(store.kept(), (0, 0));
    }
    #[test]
    fn what_lies_there_is_what_is_counted_whoever_reads_and_keeps_at_once() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("chunks");
        let store = ChunkStore::open(place.clone(), 3000).unwrap();
        let chunks: Vec<_> = (0..8).map(chunk).collect();
        std::thread::scope(|scope| {
            for start in 0..4 {
                let (store, chunks) = (&store, &chunks);
                scope.spawn(move || {
                    for round in 0..400 {
                        let (digest, bytes) = &chunks[(start * 3 + round) % chunks.len()];
                        match round % 3 {
                            0 => store.keep(digest, bytes).unwrap(),
                            _ => drop(store.read(digest)),
                        }
                    }
                });
            }
        });
        let lie = |(digest, _): &&(ChunkDigest, Vec<u8>)| store.path(digest).exists();
        let lying = chunks.iter().filter(lie).count() as u64;
        assert_eq!(store.kept(), (lying, 1000 * lying));
    }

    #[test]
    fn nothing_but_chunks_in_their_places_is_counted_or_swept() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("chunks");
        let store = ChunkStore::open(place.clone(), 3000).unwrap();
        let (digest, bytes) = chunk(1);
        store.keep(&digest, &bytes).unwrap();
        drop(store);
        let outside = home.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("dear"), "dear").unwrap();
        std::os::unix::fs::symlink(&outside, place.join("zz")).unwrap();
        let (other, bytes) = chunk(2);
        let wrong = place.join(&digest.to_string()[..2]).join(other.to_string());
        fs::write(&wrong, &bytes).unwrap();
        let store = ChunkStore::open(place, 3000).unwrap();
        assert!(outside.join("dear").exists());
        assert!(!wrong.exists());
        assert_eq!(store.kept(), (1, 1000));
    }
}
