//! The roots this host may read: what the agent wrote of each, and their manifests.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use estive_api::credentials::AuthorityKey;
use estive_api::wire::{CacheDirectory, MAX_NOTE_BYTES, MAX_ORIGINS, RootNote};
use estive_chunks::{MAX_ENCODED_BYTES, Manifest, SignedManifest};
use estive_model::Digest;
use rustix::fd::OwnedFd;

use crate::CacheError;
use crate::read_ahead::ReadAhead;
use crate::store::make_private;

/// Begins what we write here; the agent has its own.
const TEMPORARY_PREFIX: &str = ".cache-new-";

/// A root that is being read.
pub struct Root {
    pub name: Digest,
    pub manifest: Manifest,
    pub(crate) ahead: Mutex<ReadAhead>,
}

pub(crate) struct Roots {
    directory: CacheDirectory,
    top: OwnedFd,
    authority: AuthorityKey,
    opened: Mutex<HashMap<Digest, Arc<Root>>>,
    gates: Mutex<HashMap<Digest, Gate>>,
}

/// Who fetches a manifest holds it; the others wait, and find the manifest there.
pub(crate) type Gate = Arc<tokio::sync::Mutex<()>>;

impl Roots {
    pub fn open(directory: CacheDirectory, authority: AuthorityKey) -> Result<Self, CacheError> {
        let path = directory.roots();
        make_private(&path).map_err(CacheError::file("make the directory", &path))?;
        let top = estive_beneath::open_top(&path)
            .map_err(|errno| CacheError::file("open the directory", &path)(errno.into()))?;
        sweep(&directory);
        Ok(Self {
            directory,
            top,
            authority,
            opened: Mutex::default(),
            gates: Mutex::default(),
        })
    }

    /// What the agent wrote of a root; `None`: this host may not read it. Blocks.
    pub fn note(&self, name: &Digest) -> Option<RootNote> {
        let file = format!("{}.json", name.hex());
        let bytes = match self.read(&file, MAX_NOTE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%file, %error, "what the agent wrote cannot be read");
                return None;
            }
        };
        match serde_json::from_slice::<RootNote>(&bytes) {
            Ok(mut note) => {
                note.origins.truncate(MAX_ORIGINS);
                Some(note)
            }
            Err(error) => {
                tracing::warn!(%file, %error, "what the agent wrote cannot be understood");
                None
            }
        }
    }

    /// Roots that the agent wrote of, at most `most`. Blocks.
    pub fn names(&self, most: usize) -> Vec<Digest> {
        let entries = std::fs::read_dir(self.directory.roots())
            .into_iter()
            .flatten()
            .flatten();
        let name = |entry: std::fs::DirEntry| {
            let name = entry.file_name();
            let hex = name.to_str()?.strip_suffix(".json")?;
            Digest::new(format!("sha256:{hex}")).ok()
        };
        let mut names: Vec<Digest> = entries.filter_map(name).take(most).collect();
        names.sort();
        names
    }

    /// One that was opened before.
    pub fn opened(&self, name: &Digest) -> Option<Arc<Root>> {
        self.lock().get(name).cloned()
    }

    /// See [`Gate`].
    pub fn gate(&self, name: &Digest) -> Gate {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        gates.entry(name.clone()).or_default().clone()
    }

    /// Of a manifest that was checked.
    pub fn add(&self, name: &Digest, manifest: Manifest) -> Arc<Root> {
        let mut opened = self.lock();
        // Whoever reads one of which the agent says nothing any more goes on holding it, we do not.
        opened.retain(|_, root| Arc::strong_count(root) > 1);
        opened
            .entry(name.clone())
            .or_insert_with(|| {
                Arc::new(Root {
                    name: name.clone(),
                    manifest,
                    ahead: Mutex::default(),
                })
            })
            .clone()
    }

    /// The manifest that lies beside the agent's file, if it is good. Blocks.
    pub fn kept_manifest(&self, name: &Digest) -> Option<SignedManifest> {
        let bytes = self
            .read(&format!("{}.manifest", name.hex()), MAX_ENCODED_BYTES)
            .ok()?;
        self.checked_manifest(name, &bytes).ok()
    }

    /// The manifest in these bytes, of this root and vouched for by the authority; or what is wrong with it.
    pub fn checked_manifest(&self, name: &Digest, bytes: &[u8]) -> Result<SignedManifest, String> {
        let signed = SignedManifest::decode_as(bytes, name).map_err(|error| error.to_string())?;
        if self.authority.vouches_for(&signed) {
            Ok(signed)
        } else if signed.signature.is_empty() {
            Err("nobody has signed it; \"estive authority sign\" does".to_owned())
        } else {
            Err("our authority has not signed it".to_owned())
        }
    }

    /// Keeps a manifest that was checked, as it came. Blocks.
    pub fn keep_manifest(&self, name: &Digest, bytes: &[u8]) -> io::Result<()> {
        let path = self
            .directory
            .roots()
            .join(format!("{}.manifest", name.hex()));
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempfile_in(self.directory.roots())?;
        io::Write::write_all(&mut file, bytes)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    fn read(&self, name: &str, most_bytes: u64) -> io::Result<Vec<u8>> {
        let file = File::from(estive_beneath::open_file(&self.top, name)?);
        let mut bytes = Vec::new();
        file.take(most_bytes + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most_bytes {
            return Err(io::Error::other(format!(
                "it has more than {most_bytes} bytes"
            )));
        }
        Ok(bytes)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Root>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes what a kill has left half-written, and manifests of roots that this host may not read any more.
fn sweep(directory: &CacheDirectory) {
    let entries = std::fs::read_dir(directory.roots());
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let of_nobody = name.strip_suffix(".manifest").is_some_and(|hex| {
            let root = Digest::new(format!("sha256:{hex}"));
            root.is_ok_and(|root| !directory.root_note(&root).exists())
        });
        if of_nobody || name.starts_with(TEMPORARY_PREFIX) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    // Written by nobody else.
    let entries = std::fs::read_dir(directory.troubles());
    for entry in entries.into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with('.') {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kill_left_and_what_belongs_to_no_root_is_swept_and_nothing_of_the_agents() {
        let home = tempfile::tempdir().unwrap();
        let directory = CacheDirectory(home.path().to_owned());
        std::fs::create_dir(directory.roots()).unwrap();
        std::fs::create_dir(directory.troubles()).unwrap();
        let (read, gone) = ("a".repeat(64), "b".repeat(64));
        let stay = [
            format!("roots/{read}.json"),
            format!("roots/{read}.manifest"),
            "roots/.new-x".to_owned(),
            format!("troubles/{gone}.json"),
        ];
        let go = [
            format!("roots/{gone}.manifest"),
            "roots/.cache-new-x".to_owned(),
            "troubles/.new-x".to_owned(),
        ];
        for file in stay.iter().chain(&go) {
            std::fs::write(home.path().join(file), "x").unwrap();
        }
        sweep(&directory);
        for (files, there) in [(&stay[..], true), (&go[..], false)] {
            for file in files {
                assert_eq!(home.path().join(file).exists(), there, "{file}");
            }
        }
    }
}
