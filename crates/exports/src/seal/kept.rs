//! What a directory of images holds: images under their manifests' names, the manifests beside them, and what is half made.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use estive_chunks::{MAX_ENCODED_BYTES, Manifest, SignedManifest};
use rustix::fs::FlockOperation;

use crate::ExportError;

const TEMPORARY_PREFIX: &str = ".seal-";

/// Where the manifest of the image at `path` lies: beside it, `<64 hex digits>.manifest`.
pub fn manifest_path(path: &Path) -> PathBuf {
    path.with_extension("manifest")
}

/// Writes an unsigned manifest, unless the one that is there, perhaps signed, is of this root.
pub(super) fn write_manifest(out_dir: &Path, manifest: &Manifest) -> Result<(), ExportError> {
    let known = read_manifest(&out_dir.join(format!("{}.manifest", manifest.name().hex())));
    if known.is_ok_and(|known| known.manifest == *manifest) {
        return Ok(());
    }
    put_manifest(out_dir, &SignedManifest::unsigned(manifest.clone()))
}

/// Reads a manifest, signed or not.
pub fn read_manifest(path: &Path) -> Result<SignedManifest, ExportError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_ENCODED_BYTES + 1).read_to_end(&mut bytes))
        .map_err(ExportError::io("reading the manifest", path))?;
    SignedManifest::decode(&bytes).map_err(ExportError::manifest(path))
}

/// Puts a manifest into `out_dir` under its root's name, whole and 0600, in place of one that is there.
pub fn put_manifest(out_dir: &Path, signed: &SignedManifest) -> Result<(), ExportError> {
    let path = out_dir.join(format!("{}.manifest", signed.manifest.name().hex()));
    let bytes = signed.encode().map_err(ExportError::manifest(&path))?;
    put_file(out_dir, &path, &bytes)
}

/// Puts a file into a directory of images, whole and 0600, in place of one that is there.
pub(crate) fn put_file(out_dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let mut half_made = Temporary::new(out_dir)?;
    half_made
        .file
        .write_all(bytes)
        .map_err(ExportError::io("writing", &half_made.path))?;
    half_made.rename(path)?;
    sync_directory(out_dir)
}

fn sync_directory(directory: &Path) -> Result<(), ExportError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(ExportError::io("writing to disk", directory))
}

/// A half-made image: locked while its maker lives, removed unless kept.
pub(super) struct Temporary {
    pub path: PathBuf,
    pub file: File,
}

impl Temporary {
    pub fn new(out_dir: &Path) -> Result<Self, ExportError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = out_dir.join(format!(
            "{TEMPORARY_PREFIX}{}-{}.tmp",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(ExportError::io("making", &path))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| ExportError::io("locking", &path)(errno.into()))?;
        Ok(Self { path, file })
    }

    /// Of what was written into it, read from its start.
    pub fn manifest(&self) -> Result<Manifest, ExportError> {
        Manifest::read(&mut &self.file).map_err(ExportError::manifest(&self.path))
    }

    /// Keeps an image under the name of its manifest; gives where it lies.
    pub fn keep(self, out_dir: &Path, manifest: &Manifest) -> Result<PathBuf, ExportError> {
        let path = out_dir.join(format!("{}.erofs", manifest.name().hex()));
        self.rename(&path)?;
        sync_directory(out_dir)?;
        Ok(path)
    }

    pub fn rename(self, path: &Path) -> Result<(), ExportError> {
        self.file
            .sync_all()
            .map_err(ExportError::io("writing to disk", &self.path))?;
        fs::rename(&self.path, path).map_err(ExportError::io("naming", path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename the name is gone and this finds nothing, as it should.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes half-made images whose maker was killed: nobody holds their lock any more.
pub(super) fn remove_abandoned(out_dir: &Path) {
    let Ok(entries) = fs::read_dir(out_dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with(TEMPORARY_PREFIX) || !name.ends_with(".tmp") {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else {
            continue;
        };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}
