//! Files that many domains share (kernel, initramfs, modules), kept once and named by the digest of their content.

use estive_model::Digest;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// `state/files/<hex>`.
#[derive(Debug, Clone)]
pub struct Files {
    directory: PathBuf,
}

/// A file on its way in: it gets its name only when its content is proved to be what the name says.
pub struct Incoming {
    file: tempfile::NamedTempFile,
    hash: Sha256,
    bytes: u64,
    limit_bytes: u64,
}

impl Files {
    /// Makes the directory.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        // What a crash left half written.
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'))
            {
                let _ = fs::remove_file(path);
            }
        }
        Ok(Self { directory })
    }

    /// Where the file lies, or would.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }

    /// Whether it is here.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Begins to take a file of at most `limit_bytes`.
    pub fn begin(&self, limit_bytes: u64) -> io::Result<Incoming> {
        Ok(Incoming {
            file: tempfile::Builder::new()
                .prefix(".partial-")
                .tempfile_in(&self.directory)?,
            hash: Sha256::new(),
            bytes: 0,
            limit_bytes,
        })
    }

    /// Takes a whole file from a reader.
    pub fn take(&self, digest: &Digest, from: &mut impl Read, limit_bytes: u64) -> io::Result<()> {
        let mut incoming = self.begin(limit_bytes)?;
        io::copy(from, &mut incoming)?;
        incoming.finish(&self.path(digest), digest)
    }
}

impl Write for Incoming {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.bytes += part.len() as u64;
        if self.bytes > self.limit_bytes {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it is larger than {} bytes", self.limit_bytes),
            ));
        }
        self.file.write_all(part)?;
        self.hash.update(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Incoming {
    /// Gives it its name, if it is what the name says.
    pub fn finish(self, path: &Path, digest: &Digest) -> io::Result<()> {
        let found: String = self
            .hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if found != digest.hex() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("its content is sha256:{found}, not {digest}"),
            ));
        }
        self.file.as_file().sync_all()?;
        self.file.persist(path).map_err(|error| error.error)?;
        crate::journal::sync_directory(path.parent().unwrap_or(Path::new(".")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "abc", FIPS 180-2 appendix B.1.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn only_what_the_name_says_gets_the_name() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::open(home.path().join("files")).unwrap();
        let digest = Digest::new(ABC).unwrap();
        let error = files.take(&digest, &mut &b"abd"[..], 10).unwrap_err();
        assert!(error.to_string().contains("not sha256:ba78"), "{error}");
        assert!(files.take(&digest, &mut &b"abc"[..], 2).is_err());
        assert!(!files.has(&digest));
        assert_eq!(fs::read_dir(home.path().join("files")).unwrap().count(), 0);
        files.take(&digest, &mut &b"abc"[..], 3).unwrap();
        assert!(files.has(&digest));
    }
}
