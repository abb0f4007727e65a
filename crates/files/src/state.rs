//! The state directory of layers: what commands without a manager remember of deployments. A
//! deployment's secret is made once; its clones' host keys and machine ids follow from it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use estive_layers::DeploymentSecret;
use estive_model::DeploymentName;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::error::FilesError;

/// For root, when nobody names another.
const SYSTEM: &str = "/var/lib/estive/layers";

/// A directory for its owner only.
#[derive(Debug, Clone)]
pub struct StateDirectory {
    path: PathBuf,
}

impl StateDirectory {
    /// The directory at this path, made when it is not there.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FilesError> {
        let path = path.into();
        make_private(&path)?;
        Ok(Self { path })
    }

    /// Where it is when nobody names one: `/var/lib/estive/layers` for root, else below
    /// `$XDG_STATE_HOME` (XDG Base Directory Specification).
    pub fn usual() -> Result<PathBuf, FilesError> {
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from(SYSTEM));
        }
        let variable = |name| {
            let path = PathBuf::from(std::env::var_os(name)?);
            path.is_absolute().then_some(path)
        };
        let home = || variable("HOME").map(|home| home.join(".local/state"));
        let state = variable("XDG_STATE_HOME").or_else(home);
        Ok(state.ok_or(FilesError::NoState)?.join("estive/layers"))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The secret of a deployment, made at its first use. Two commands that make it at once get the
    /// same.
    pub fn secret(&self, deployment: &DeploymentName) -> Result<DeploymentSecret, FilesError> {
        let directory = self.path.join("secrets");
        make_private(&directory)?;
        let path = directory.join(deployment.as_str());
        if let Some(secret) = read_secret(&path)? {
            return Ok(secret);
        }
        let mut bytes = [0; 32];
        rand::RngCore::fill_bytes(&mut StdRng::from_os_rng(), &mut bytes);
        let secret = DeploymentSecret::new(bytes);
        let write = FilesError::io("writing", &path);
        // Made for its owner only, whatever the umask is.
        let mut aside = tempfile::Builder::new()
            .prefix(".secret-")
            .tempfile_in(&directory)
            .map_err(FilesError::io("making a file in", &directory))?;
        writeln!(aside, "{}", secret.to_hex())
            .and_then(|()| aside.as_file().sync_all())
            .map_err(write)?;
        match aside.persist_noclobber(&path) {
            Ok(_) => {
                sync_directory(&directory)?;
                Ok(secret)
            }
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
                let gone = || FilesError::refused(&path, "was there and is gone; try again");
                read_secret(&path)?.ok_or_else(gone)
            }
            Err(error) => Err(FilesError::io("writing", &path)(error.error)),
        }
    }
}

fn read_secret(path: &Path) -> Result<Option<DeploymentSecret>, FilesError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FilesError::io("opening the secret", path)(error)),
    };
    let read = FilesError::io("reading the secret", path);
    let metadata = file
        .metadata()
        .map_err(FilesError::io("looking at", path))?;
    if !metadata.is_file() {
        return Err(FilesError::refused(path, "is no file"));
    }
    if metadata.mode() & 0o077 != 0 {
        let what = format!(
            "is open to others (mode {:04o}) and holds a secret; chmod 600 it, or remove it for new keys",
            metadata.mode() & 0o7777
        );
        return Err(FilesError::refused(path, what));
    }
    let mut text = String::new();
    file.take(1024).read_to_string(&mut text).map_err(read)?;
    let damaged = || FilesError::refused(path, "is damaged: 64 hex digits are wanted");
    DeploymentSecret::from_hex(&text)
        .map(Some)
        .ok_or_else(damaged)
}

pub(crate) fn make_private(path: &Path) -> Result<(), FilesError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(FilesError::io("making the directory", path))
}

pub(crate) fn sync_directory(path: &Path) -> Result<(), FilesError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(FilesError::io("syncing", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn name(text: &str) -> DeploymentName {
        DeploymentName::new(text).unwrap()
    }

    #[test]
    fn a_secret_is_made_once_and_for_its_owner_only() {
        let home = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(home.path().join("a/b")).unwrap();
        let secrets: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| state.secret(&name("one")).unwrap()))
                .collect();
            makers
                .into_iter()
                .map(|maker| maker.join().unwrap())
                .collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
        assert_ne!(state.secret(&name("two")).unwrap(), secrets[0]);
        let again = StateDirectory::open(state.path()).unwrap();
        assert_eq!(again.secret(&name("one")).unwrap(), secrets[0]);
        let left: Vec<_> = fs::read_dir(state.path().join("secrets"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .collect();
        assert_eq!(left.len(), 2);
        for entry in left {
            assert_eq!(entry.metadata().unwrap().mode() & 0o7777, 0o600);
        }
        assert_eq!(fs::metadata(state.path()).unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_secret_that_others_read_or_that_is_damaged_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(home.path()).unwrap();
        state.secret(&name("one")).unwrap();
        let path = home.path().join("secrets/one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = state.secret(&name("one")).unwrap_err().to_string();
        assert!(error.contains("is open to others (mode 0644)"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "abc").unwrap();
        let error = state.secret(&name("one")).unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{error}");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(state.secret(&name("one")).is_err());
    }
}
