//! Content-addressed files in one directory: each is called by the SHA-256 of what it holds,
//! written aside, synced and renamed, for their owner only.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::FilesError;
use crate::state::{make_private, sync_directory};

/// Larger ones are not ours.
const MAX_OBJECT_BYTES: u64 = 16 << 30;

/// What is written aside begins so.
const ASIDE: &str = ".new-";

#[derive(Debug, Clone)]
pub(crate) struct Objects {
    directory: PathBuf,
}

impl Objects {
    pub fn open(directory: PathBuf) -> Result<Self, FilesError> {
        make_private(&directory)?;
        Ok(Self { directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Size in bytes, when it is there.
    pub fn size(&self, name: &str) -> Option<u64> {
        let meta = fs::symlink_metadata(self.path(name)).ok()?;
        meta.is_file().then_some(meta.size())
    }

    /// Writes an object in parts and gives its name; one that is there already is left. The
    /// directory is not synced: see [`Objects::sync`].
    pub fn put<'a>(
        &self,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<String, FilesError> {
        let mut hash = Sha256::new();
        let mut size = 0;
        for part in parts.clone() {
            hash.update(part);
            size += part.len() as u64;
        }
        let name = hex(&hash.finalize());
        // Damaged, it would stay so for ever: the same layers made anew have the same name.
        if self.size(&name) == Some(size) && self.holds(&name, parts.clone()) {
            return Ok(name);
        }
        let path = self.path(&name);
        let write = || FilesError::io("writing", &path);
        let mut aside = tempfile::Builder::new()
            .prefix(ASIDE)
            .tempfile_in(&self.directory)
            .map_err(FilesError::io("making a file in", &self.directory))?;
        let mut buffered = std::io::BufWriter::with_capacity(1 << 20, aside.as_file_mut());
        for part in parts {
            buffered.write_all(part).map_err(write())?;
        }
        buffered.flush().map_err(write())?;
        drop(buffered);
        aside.as_file().sync_all().map_err(write())?;
        match aside.persist(&path) {
            Ok(_) => Ok(name),
            Err(error) => Err(write()(error.error)),
        }
    }

    /// Whether the object of this name holds these bytes first; one that cannot be read does not.
    fn holds<'a>(&self, name: &str, mut parts: impl Iterator<Item = &'a [u8]>) -> bool {
        let Ok(file) = self.open_object(name) else {
            return false;
        };
        let mut file = std::io::BufReader::with_capacity(1 << 20, file);
        let mut chunk = vec![0; 64 << 10];
        parts.all(|part| {
            part.chunks(chunk.len()).all(|wanted| {
                let found = &mut chunk[..wanted.len()];
                file.read_exact(found).is_ok() && *found == *wanted
            })
        })
    }

    /// Makes the names of new objects durable.
    pub fn sync(&self) -> Result<(), FilesError> {
        sync_directory(&self.directory)
    }

    pub fn open_object(&self, name: &str) -> Result<File, FilesError> {
        let path = self.path(name);
        OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(&path)
            .map_err(FilesError::io("opening", &path))
    }

    /// A whole object, held against its name.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, FilesError> {
        let mut bytes = Vec::new();
        self.open_object(name)?
            .take(MAX_OBJECT_BYTES)
            .read_to_end(&mut bytes)
            .map_err(FilesError::io("reading", &self.path(name)))?;
        if hex(&Sha256::digest(&bytes)) != name {
            let what = "is damaged: its content is not what its name says; build all layers anew";
            return Err(FilesError::refused(&self.path(name), what));
        }
        Ok(bytes)
    }

    /// A part of an object; whoever asks holds it against what it should be.
    pub fn read_part(&self, file: &File, offset: u64, size: usize) -> Result<Vec<u8>, FilesError> {
        let mut bytes = vec![0; size];
        file.read_exact_at(&mut bytes, offset)
            .map_err(FilesError::io("reading layers in", &self.directory))?;
        Ok(bytes)
    }

    /// Removes all but these, and what writers that were killed left aside. Nobody else may be
    /// writing.
    pub fn keep_only(&self, kept: &BTreeSet<String>) -> Result<(), FilesError> {
        let listing = FilesError::io("listing", &self.directory);
        let entries: Vec<_> = fs::read_dir(&self.directory)
            .and_then(Iterator::collect)
            .map_err(listing)?;
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name.starts_with(ASIDE) || is_name(&name);
            if ours && !kept.contains(&name) {
                remove(&self.path(&name))?;
            }
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), FilesError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(FilesError::io("removing", path)(error))
        }
        _ => Ok(()),
    }
}

fn is_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|digit| digit.is_ascii_hexdigit())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
