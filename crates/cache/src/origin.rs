//! The origin: sealed images and their signed manifests in directories, given out chunk by chunk.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use estive_api::credentials::AuthorityKey;
use estive_api::server::{Listen, Listener};
use estive_api::{Credentials, Problem};
use estive_chunks::{ChunkDigest, MAX_ENCODED_BYTES, SignedManifest};
use estive_model::{Digest, ReferenceName};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::CacheError;
use crate::routes::{Chunks, router};

/// Manifests looked at in one directory.
const MAX_ROOTS: usize = 4096;
/// The coarsest clock of a file system, and more.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// What an origin is told at start.
#[derive(Debug, Clone)]
pub struct OriginConfig {
    /// Where images (`HEX.erofs`) and signed manifests (`HEX.manifest`) lie, perhaps in different ones.
    pub directories: Vec<PathBuf>,
    pub listen: SocketAddr,
    /// Its certificate; also of whose authority manifests must be.
    pub credentials: PathBuf,
    /// What is served by the same door besides; with it, there need be no root.
    pub besides: Option<axum::Router>,
}

/// Roots that can be given out.
pub struct Origin {
    directories: Vec<PathBuf>,
    authority: AuthorityKey,
    index: Mutex<Index>,
    /// One looks, the others wait and find what it found.
    looking: Mutex<()>,
}

#[derive(Default)]
struct Index {
    roots: HashMap<Digest, Arc<Served>>,
    chunks: HashMap<ChunkDigest, Place>,
    /// Of all directories, as they were looked through.
    looked: Vec<Option<SystemTime>>,
    /// When they were first seen so.
    since: Option<Instant>,
    /// Looked through again long after: what changes in one tick of a file system's clock shows in no time stamp.
    settled: bool,
}

#[derive(Clone)]
struct Place {
    root: Arc<Served>,
    offset: u64,
    length: usize,
}

struct Served {
    manifest: Bytes,
    /// Opened at each read: whoever wants to remove the image sees who has it open, and this is nobody's need.
    path: PathBuf,
}

/// Serves until `shutdown`. `ready` is called with the address and the number of roots once it answers. Fails when there
/// is no root to serve.
pub async fn serve_origin(
    config: OriginConfig,
    ready: impl FnOnce(String, usize),
    shutdown: CancellationToken,
) -> Result<(), CacheError> {
    let credentials = Credentials::load(&config.credentials)?;
    let authority = credentials.authority().clone();
    let may_be_empty = config.besides.is_some();
    let opening = move || match may_be_empty {
        true => Ok(Origin::open_empty(config.directories, authority)),
        false => Origin::open(config.directories, authority),
    };
    let origin = tokio::task::spawn_blocking(opening)
        .await
        .map_err(|error| CacheError::file("look through", "")(std::io::Error::other(error)))??;
    let listener = Listener::bind(Listen::Tls {
        address: config.listen,
        credentials,
    })
    .await?;
    ready(listener.endpoint().to_string(), origin.index().roots.len());
    let mut routes = router(Arc::new(origin));
    if let Some(besides) = config.besides {
        routes = routes.merge(besides);
    }
    listener.serve(routes, shutdown).await;
    Ok(())
}

impl Origin {
    /// Looks through the directories; there need be nothing yet. Blocks.
    pub fn open_empty(directories: Vec<PathBuf>, authority: AuthorityKey) -> Self {
        Self::looked_through(directories, authority).0
    }

    fn looked_through(directories: Vec<PathBuf>, authority: AuthorityKey) -> (Self, Vec<String>) {
        let origin = Self {
            directories,
            authority,
            index: Mutex::default(),
            looking: Mutex::default(),
        };
        let skipped = origin.look();
        (origin, skipped)
    }

    /// Looks through the directories; what cannot be served is said, and is an error only when nothing is left. Blocks.
    pub fn open(directories: Vec<PathBuf>, authority: AuthorityKey) -> Result<Self, CacheError> {
        let (origin, skipped) = Self::looked_through(directories, authority);
        if origin.index().roots.is_empty() {
            let shown: Vec<String> = origin
                .directories
                .iter()
                .map(|directory| directory.display().to_string())
                .collect();
            return Err(CacheError::NoRoot {
                directories: shown.join(", "),
                skipped: match skipped.is_empty() {
                    true => "there is no manifest".to_owned(),
                    false => skipped.join("; "),
                },
            });
        }
        Ok(origin)
    }

    /// Takes what is new, drops what is gone. Gives what is wrong with the rest.
    fn look(&self) -> Vec<String> {
        let mut found = HashMap::new();
        let mut skipped = Vec::new();
        let looked = self.times();
        let since = {
            let index = self.index();
            let same = index.looked == looked;
            index.since.filter(|_| same).unwrap_or_else(Instant::now)
        };
        let mut settled = since.elapsed() >= COARSE_TICK;
        for directory in &self.directories {
            let entries = match fs::read_dir(directory) {
                Ok(entries) => entries,
                // Not there yet, or removed whole.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                // Whether its roots are there still cannot be told: none of them is given out before that is known.
                Err(error) => {
                    skipped.push(format!("{}: {error}", directory.display()));
                    settled = false;
                    continue;
                }
            };
            for entry in entries.flatten().take(MAX_ROOTS) {
                let name = entry.file_name();
                let hex = name
                    .to_str()
                    .and_then(|name| name.strip_suffix(".manifest"));
                let Some(digest) = hex.and_then(|hex| Digest::new(format!("sha256:{hex}")).ok())
                else {
                    continue;
                };
                if found.contains_key(&digest) {
                    continue;
                }
                match self.take(&digest, &entry.path()) {
                    Ok(taken) => drop(found.insert(digest, taken)),
                    Err(reason) => skipped.push(format!("{}: {reason}", entry.path().display())),
                }
            }
        }
        for reason in &skipped {
            tracing::warn!("not served: {reason}");
        }
        let mut index = Index {
            looked,
            since: Some(since),
            settled,
            ..Index::default()
        };
        for (name, (signed, root)) in found {
            for (at, digest) in signed.manifest.chunks().iter().enumerate() {
                let place = Place {
                    root: root.clone(),
                    offset: signed.manifest.bytes_of(at).start,
                    length: signed.manifest.chunk_bytes(at),
                };
                index.chunks.insert(*digest, place);
            }
            index.roots.insert(name, root);
        }
        *self.index() = index;
        skipped
    }

    fn take(&self, name: &Digest, path: &Path) -> Result<(SignedManifest, Arc<Served>), String> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_ENCODED_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|error| error.to_string())?;
        let signed = SignedManifest::decode_as(&bytes, name).map_err(|error| error.to_string())?;
        if !self.authority.vouches_for(&signed) {
            return Err("our authority has not signed it".to_owned());
        }
        let image_name = format!("{}.erofs", name.hex());
        let image_path = self
            .directories
            .iter()
            .map(|directory| directory.join(&image_name))
            .find(|path| path.is_file())
            .ok_or_else(|| format!("its image {image_name} is not there"))?;
        let size_bytes = fs::metadata(&image_path)
            .map_err(|error| error.to_string())?
            .len();
        if size_bytes != signed.manifest.size_bytes() {
            return Err(format!(
                "its image has {size_bytes} bytes, not {}",
                signed.manifest.size_bytes()
            ));
        }
        let served = Served {
            manifest: bytes.into(),
            path: image_path,
        };
        Ok((signed, Arc::new(served)))
    }

    /// Looks again when a directory has changed since.
    fn look_if_changed(&self) {
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let index = self.index();
            if index.looked == self.times() && index.settled {
                return;
            }
        }
        self.look();
    }

    fn times(&self) -> Vec<Option<SystemTime>> {
        self.directories
            .iter()
            .map(|directory| directory.metadata().and_then(|m| m.modified()).ok())
            .collect()
    }

    /// What `find` gives of what is there by now. A root that was removed is not given out any more.
    fn find<T>(&self, find: impl Fn(&Index) -> Option<T>) -> Option<T> {
        let times = self.times();
        let known = {
            let index = self.index();
            // Within one tick of a clock, a change may not show.
            let fresh = index.settled
                || index
                    .since
                    .is_some_and(|since| since.elapsed() < COARSE_TICK);
            (fresh && index.looked == times)
                .then(|| find(&index))
                .flatten()
        };
        known.or_else(|| {
            self.look_if_changed();
            find(&self.index())
        })
    }

    fn read(&self, digest: &ChunkDigest) -> Result<Option<Bytes>, Problem> {
        let Some(place) = self.find(|index| index.chunks.get(digest).cloned()) else {
            return Ok(None);
        };
        let mut bytes = vec![0; place.length];
        let read = File::open(&place.root.path)
            .and_then(|image| image.read_exact_at(&mut bytes, place.offset));
        match read {
            Ok(()) => Ok(Some(bytes.into())),
            // Removed at this moment.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Problem::failed(format!(
                "could not read {} at {}: {error}",
                place.root.path.display(),
                place.offset
            ))),
        }
    }

    /// The manifest of the root that `NAME.manifest` stands for, as it is served; where that cannot be, why.
    fn standing_for(&self, name: &ReferenceName) -> Result<Option<Bytes>, Problem> {
        let place = |directory: &PathBuf| directory.join(format!("{name}.manifest"));
        let mut places = self.directories.iter().map(place);
        // Also one that leads nowhere: what a later directory has under that name is older.
        let Some(path) = places.find(|path| fs::symlink_metadata(path).is_ok()) else {
            return Ok(None);
        };
        let wrong = |what: String| Problem::failed(format!("the reference {name}: {what}"));
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_ENCODED_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|error| wrong(format!("reading {}: {error}", path.display())))?;
        let signed = SignedManifest::decode(&bytes)
            .map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        let root = signed.manifest.name();
        // The signed one may lie in another directory.
        let served =
            self.find(|index| index.roots.get(&root).map(|served| served.manifest.clone()));
        served.map(Some).ok_or_else(|| {
            let why = self.take(&root, &path).err();
            let why = why.unwrap_or_else(|| "it is not served".to_owned());
            wrong(format!("its root is {root}, and {why}"))
                .advice("estive authority sign MANIFEST, or estive reseal with --authority DIR")
        })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Problem::failed(error.to_string()))
}

#[async_trait]
impl Chunks for Arc<Origin> {
    async fn manifest(&self, root: &Digest) -> Result<Option<Bytes>, Problem> {
        let (origin, root) = (self.clone(), root.clone());
        blocking(move || {
            origin.find(|index| index.roots.get(&root).map(|served| served.manifest.clone()))
        })
        .await
    }

    async fn named(&self, name: &ReferenceName) -> Result<Option<Bytes>, Problem> {
        let (origin, name) = (self.clone(), name.clone());
        blocking(move || origin.standing_for(&name)).await?
    }

    async fn chunk(&self, digest: &ChunkDigest) -> Result<Option<Bytes>, Problem> {
        let (origin, digest) = (self.clone(), *digest);
        blocking(move || origin.read(&digest)).await?
    }
}
