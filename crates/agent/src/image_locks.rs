//! Locks on images by which agents tell each other something; QEMU's own are elsewhere in the file, and its business.
//!
//! A move asks that the destination has the source's own file, not one like it. The source's agent locks one byte of each
//! file, far behind its end and chosen at random, and says which in the domain's archive; the destination asks whether
//! that byte, and it alone, is locked in what lies at the same path there. Nothing is written, and what cannot tell (a
//! copy, another file system, storage without locks) says no.
//!
//! The same lock is a claim, kept until the domain is ended here: between the source's QEMU, which gives its disks away,
//! and the destination's, which takes them, no other agent's QEMU gets in.

use crate::agent::{Agent, lock};
use crate::images::blocking;
use estive_api::Problem;
use estive_api::domain_xml::ImagesXml;
use estive_hypervisor::{FileId, Grip};
use estive_model::DomainName;
use rand::TryRngCore as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Mutex;
use std::time::Duration;

/// Name of the proofs in a domain's archive.
pub const PROOFS_FILE: &str = "images.json";
/// Behind the end of every image, and within what file systems and NFS take.
const NONCE_FROM: i64 = 1 << 50;

/// How long storage is waited for that is to take a lock back.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// Which byte of a file the source has locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageProof {
    /// The path in the description.
    pub path: String,
    /// From the file's start, in bytes.
    pub lock_offset: i64,
}

type Held = Vec<(ImageProof, File)>;

/// The locks that this host's agent holds for others to see, by domain. No file is touched while the maps are held: its
/// storage may be gone, and the others' is not.
#[derive(Debug, Default)]
pub struct Proofs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<DomainName, Held>,
    /// How often those of a domain were given back.
    ends: BTreeMap<DomainName, u64>,
}

fn proofs_of(held: &Held) -> Vec<ImageProof> {
    held.iter().map(|(proof, _)| proof.clone()).collect()
}

impl Proofs {
    /// What is held already; or, where nothing is, since which end.
    fn begin(&self, domain: &DomainName) -> Result<Vec<ImageProof>, u64> {
        let state = lock(&self.0);
        match state.held.get(domain) {
            Some(held) => Ok(proofs_of(held)),
            None => Err(state.ends.get(domain).copied().unwrap_or_default()),
        }
    }

    /// Keeps what was locked, unless the domain was ended meanwhile: then it shows nothing.
    fn keep(&self, domain: &DomainName, since: u64, held: Held) -> (Vec<ImageProof>, Option<Held>) {
        let mut state = lock(&self.0);
        if state.ends.get(domain).copied().unwrap_or_default() != since {
            return (Vec::new(), Some(held));
        }
        // Two that asked at once are shown the same.
        let former = state.held.remove(domain);
        let (kept, left) = match former {
            Some(former) => (former, Some(held)),
            None => (held, None),
        };
        let proofs = proofs_of(&kept);
        state.held.insert(domain.clone(), kept);
        (proofs, left)
    }

    /// Gives the locks back; on storage that is gone, whenever that comes about.
    pub async fn end(&self, domain: &DomainName) {
        let held = {
            let mut state = lock(&self.0);
            *state.ends.entry(domain.clone()).or_default() += 1;
            state.held.remove(domain)
        };
        if let Some(held) = held {
            let given_back = blocking(move || {
                drop(held);
                Ok(())
            });
            if tokio::time::timeout(GIVE_BACK, given_back).await.is_err() {
                tracing::warn!(%domain, "its images do not let go of their locks: is their storage there?");
            }
        }
    }
}

impl Agent {
    /// Locks a byte of every file of a domain whose QEMU here has at least this `grip` of its disks, if it is not done
    /// yet. Nothing is shown of files that its QEMU does not have (so).
    pub(crate) async fn show_images(
        &self,
        xml: &ImagesXml,
        least: Grip,
    ) -> Result<Vec<ImageProof>, Problem> {
        let name = &xml.name;
        let since = match self.image_proofs.begin(name) {
            Ok(shown) => return Ok(shown),
            Err(since) => since,
        };
        let paths: Vec<String> = xml.paths().into_iter().map(str::to_owned).collect();
        let allowed = self.config.images.clone();
        let held = {
            let name = name.clone();
            blocking(move || lock_all(&name, &allowed, paths)).await?
        };
        for ((proof, _), id) in &held {
            // A kernel is read once; which one lies there now says enough.
            let is_disk = xml.disks.iter().any(|disk| disk.path == proof.path);
            let grip = self.hypervisor.grip(name, *id).await.map_err(|error| {
                Problem::failed(format!(
                    "whether others see {} of {name} cannot be shown: {error}",
                    proof.path
                ))
            })?;
            // Another file may stand there by now, which QEMU does not have.
            if is_disk && grip < least {
                return Ok(Vec::new());
            }
        }
        let held = held.into_iter().map(|(held, _)| held).collect();
        let (proofs, left) = self.image_proofs.keep(name, since, held);
        let _ = blocking(move || {
            drop(left);
            Ok(())
        })
        .await;
        Ok(proofs)
    }
}

type Locked = Vec<((ImageProof, File), FileId)>;

fn lock_all(
    name: &DomainName,
    allowed: &[std::path::PathBuf],
    paths: Vec<String>,
) -> Result<Locked, Problem> {
    let lock = |path: String| {
        let file = crate::images::open_allowed(allowed, &path)?;
        let locked = || -> io::Result<(i64, FileId)> {
            let mut random = [0; 8];
            rand::rngs::OsRng
                .try_fill_bytes(&mut random)
                .map_err(io::Error::other)?;
            let lock_offset = NONCE_FROM + (i64::from_ne_bytes(random) & (NONCE_FROM - 1));
            lock_byte(&file, lock_offset)?;
            Ok((lock_offset, FileId::of(&file)?))
        };
        let (lock_offset, id) = locked().map_err(|error| {
            Problem::failed(format!(
                "whether others see {path} of {name} cannot be shown: {error}"
            ))
        })?;
        Ok(((ImageProof { path, lock_offset }, file), id))
    };
    paths.into_iter().map(lock).collect()
}

/// Whether what is open here is the file that the proof is about: the very byte is locked, and not as a part of more. (A
/// lock over all of a copy, as `flock` takes on NFS, shows nothing.)
pub(crate) fn shows(file: &File, proof: &ImageProof) -> io::Result<bool> {
    let range = (proof.lock_offset, 1);
    Ok(proof.lock_offset >= NONCE_FROM && found(file, range)? == Some(range))
}

/// Whether some agent has locked a byte to show the file; or somebody has all of it locked.
pub(crate) fn is_claimed(file: &File) -> io::Result<bool> {
    found(file, (NONCE_FROM, 0)).map(|found| found.is_some())
}

fn whole(kind: libc::c_int, (start, length): (i64, i64)) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// Of this open file, for as long as it is open (`F_OFD_SETLK`).
fn lock_byte(file: &File, offset: i64) -> io::Result<()> {
    let wanted = whole(libc::F_RDLCK, (offset, 1));
    // SAFETY: the descriptor is open and the structure outlives the call, which only reads it.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const wanted) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The first lock that anybody else has there, shared or not, with its start and length (`F_OFD_GETLK`).
fn found(file: &File, range: (i64, i64)) -> io::Result<Option<(i64, i64)>> {
    let mut asked = whole(libc::F_WRLCK, range);
    // SAFETY: the descriptor is open and the structure outlives the call, which writes within it.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut asked) } {
        0 if i32::from(asked.l_type) == libc::F_UNLCK => Ok(None),
        0 => Ok(Some((asked.l_start, asked.l_len))),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn proof(lock_offset: i64) -> ImageProof {
        ImageProof {
            path: "/disk".into(),
            lock_offset,
        }
    }

    #[test]
    fn a_locked_byte_is_seen_in_the_same_file_and_in_no_copy() {
        let home = tempfile::tempdir().unwrap();
        let (path, copy) = (home.path().join("disk"), home.path().join("copy"));
        fs::write(&path, "x").unwrap();
        fs::copy(&path, &copy).unwrap();
        let held = File::open(&path).unwrap();
        lock_byte(&held, NONCE_FROM + 77).unwrap();
        lock_byte(&held, 77).unwrap();
        let other = File::open(&path).unwrap();
        let at = |file: &File, offset: i64| shows(file, &proof(offset)).unwrap();
        assert!(at(&other, NONCE_FROM + 77));
        assert!(!at(&other, NONCE_FROM + 78));
        assert!(!at(&other, 77), "anybody locks there");
        assert!(!at(&File::open(&copy).unwrap(), NONCE_FROM + 77));
        assert!(is_claimed(&other).unwrap());
        assert!(!is_claimed(&File::open(&copy).unwrap()).unwrap());
        drop(held);
        assert!(!at(&other, NONCE_FROM + 77));
    }

    #[test]
    fn a_lock_over_all_of_a_copy_shows_nothing() {
        let copy = tempfile::NamedTempFile::new().unwrap();
        let held = File::open(copy.path()).unwrap();
        let all = whole(libc::F_RDLCK, (0, 0));
        // SAFETY: as in `lock_byte`.
        let locked = unsafe { libc::fcntl(held.as_raw_fd(), libc::F_OFD_SETLK, &raw const all) };
        assert_eq!(locked, 0);
        let other = File::open(copy.path()).unwrap();
        assert!(!shows(&other, &proof(NONCE_FROM + 77)).unwrap());
    }

    #[tokio::test]
    async fn what_was_locked_for_an_ended_domain_is_not_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let name = DomainName::new("shop").unwrap();
        let proofs = Proofs::default();
        let held = || {
            let held = File::open(file.path()).unwrap();
            lock_byte(&held, NONCE_FROM + 1).unwrap();
            vec![(proof(NONCE_FROM + 1), held)]
        };
        let since = proofs.begin(&name).unwrap_err();
        proofs.end(&name).await;
        let (shown, left) = proofs.keep(&name, since, held());
        assert!(shown.is_empty() && left.is_some());
        drop(left);
        assert!(!is_claimed(&file.reopen().unwrap()).unwrap());
        let since = proofs.begin(&name).unwrap_err();
        let (shown, left) = proofs.keep(&name, since, held());
        assert_eq!((shown.len(), left.is_none()), (1, true));
        assert_eq!(proofs.begin(&name), Ok(shown));
        proofs.end(&name).await;
        assert!(!is_claimed(&file.reopen().unwrap()).unwrap());
    }
}
