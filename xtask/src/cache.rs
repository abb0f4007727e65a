//! Where everything that the next run reuses is kept, and the lock that keeps two runs apart.
//!
//! ```text
//! ${ESTIVE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/estive}/
//!   lock                        held while anything below is made
//!   prepared.json               what the last setup left ready
//!   acceleration.json           the verdict on KVM
//!   kernel/SUITE/               boot/vmlinuz-*, lib/modules/*; SUITE-generic the one with drivers of physical machines
//!   reference/SUITE-DIGEST/     the reference's root; SUITE-NAME-DIGEST those that only tests boot
//!   sealed/SUITE-DIGEST/        its EROFS image, and sealed.json which names it
//!   making-*                    half-made; renamed into place when whole, else removed by the next run
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::failure::{Failure, Result, file};
use crate::machine;
use crate::progress::Step;
use crate::setup::Prepared;

const HALF_MADE: &str = "making-";

/// Where the cache is, made if need be.
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    pub fn open() -> Result<Self> {
        let root = directory()?;
        fs::create_dir_all(&root).map_err(file("making the cache", &root))?;
        Ok(Self { root })
    }

    pub fn acceleration(&self) -> PathBuf {
        self.root.join("acceleration.json")
    }

    pub fn kernel(&self, suite: &str) -> PathBuf {
        self.root.join("kernel").join(suite)
    }

    pub fn reference(&self, key: &str) -> PathBuf {
        self.root.join("reference").join(key)
    }

    /// A program that no package has.
    pub fn program(&self, key: &str) -> PathBuf {
        self.root.join("programs").join(key)
    }

    pub fn sealed(&self, key: &str) -> PathBuf {
        self.root.join("sealed").join(key)
    }

    /// What the last setup left ready, for who may not look into all of it.
    pub fn prepared(&self) -> Result<Prepared> {
        let path = self.root.join("prepared.json");
        let text = fs::read(&path).map_err(file("reading", &path))?;
        serde_json::from_slice(&text).map_err(|source| Failure::Json {
            what: path.display().to_string(),
            source,
        })
    }

    pub fn write_prepared(&self, prepared: &Prepared) -> Result<()> {
        let path = self.root.join("prepared.json");
        let text = serde_json::to_vec_pretty(prepared).map_err(|source| Failure::Json {
            what: "what is prepared".into(),
            source,
        })?;
        fs::write(&path, text).map_err(file("writing", &path))
    }

    /// Waits until no other run makes anything here, and clears what a run that died left half-made.
    pub fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(file("opening", &path))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let step = Step::begin("waiting for another run of ./x to finish its preparations");
            flock(&lock, FlockOperation::LockExclusive)
                .map_err(|e| file("locking", &path)(e.into()))?;
            step.done("");
        }
        for entry in fs::read_dir(&self.root)
            .map_err(file("listing", &self.root))?
            .flatten()
        {
            if entry.file_name().to_string_lossy().starts_with(HALF_MADE) {
                remove(&entry.path())?;
            }
        }
        Ok(lock)
    }

    /// Has `make` fill a new directory, and puts it at `place` only when it is whole. Call with the lock held.
    pub fn make_whole(&self, place: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let making = self.root.join(format!("{HALF_MADE}{name}"));
        fs::create_dir(&making).map_err(file("making", &making))?;
        if let Err(failure) = make(&making) {
            // The first failure is the one to tell; the next run clears what could not be removed.
            let _ = remove(&making);
            return Err(failure);
        }
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).map_err(file("making", parent))?;
        }
        fs::rename(&making, place).map_err(file("putting in place", place))
    }
}

/// `./x clean`.
pub fn clean(builds: bool) -> Result<()> {
    let root = directory()?;
    if root.exists() && !machine::is_root() {
        machine::again_as_root(&["clean"], &root)?;
    } else if root.exists() {
        let _lock = Cache { root: root.clone() }.lock()?;
        let step = Step::begin(format!("removing the cache {}", root.display()));
        for name in [
            "prepared.json",
            "kernel",
            "reference",
            "sealed",
            "acceleration.json",
        ] {
            remove(&root.join(name))?;
        }
        step.done("");
    }
    if builds {
        let target = machine::target_directory();
        let step = Step::begin(format!("removing what was built in {}", target.display()));
        remove(&target)?;
        step.done("");
    }
    Ok(())
}

/// Where the cache is, whether it exists or not.
pub fn directory() -> Result<PathBuf> {
    if let Some(chosen) = std::env::var_os("ESTIVE_CACHE").filter(|value| !value.is_empty()) {
        return std::path::absolute(PathBuf::from(&chosen))
            .map_err(file("finding", Path::new(&chosen)));
    }
    let base = std::env::var_os("XDG_CACHE_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    base.or_else(home)
        .map(|base| base.join("estive"))
        .ok_or_else(|| Failure::Unfit("no place for the cache: set ESTIVE_CACHE or HOME".into()))
}

/// Removes a file or a tree; nothing there is well too.
fn remove(path: &Path) -> Result<()> {
    let Ok(metadata) = path.symlink_metadata() else {
        return Ok(());
    };
    // A root that was being made may still have the machine's own /dev or /proc mounted in it.
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let inside = format!("{}/", path.display());
    if mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .any(|mount| mount.starts_with(&inside))
    {
        return Err(Failure::Unfit(format!(
            "something is mounted inside {}: unmount it, then try again",
            path.display()
        )));
    }
    let removed = if metadata.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.map_err(file("removing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(root: &Path) -> Cache {
        Cache {
            root: root.to_path_buf(),
        }
    }

    #[test]
    fn a_failed_making_leaves_nothing_in_place() {
        let temporary = tempfile::tempdir().unwrap();
        let cache = cache(temporary.path());
        let place = cache.reference("bookworm-1");
        let failed = cache.make_whole(&place, |making| {
            fs::write(making.join("half"), "x").unwrap();
            Err(Failure::Unfit("no".into()))
        });
        assert!(failed.is_err());
        assert!(!place.exists());
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_next_run_clears_what_a_dead_one_left() {
        let temporary = tempfile::tempdir().unwrap();
        let cache = cache(temporary.path());
        fs::create_dir_all(temporary.path().join("making-old/deep")).unwrap();
        let place = cache.kernel("trixie");
        let _lock = cache.lock().unwrap();
        assert!(!temporary.path().join("making-old").exists());
        cache
            .make_whole(&place, |making| {
                fs::write(making.join("a"), "x").map_err(file("writing", making))
            })
            .unwrap();
        assert!(place.join("a").is_file());
    }
}
