//! A root's bytes, each chunk from memory, from disk or from an origin, and checked wherever it came from.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use estive_api::wire::{CacheAbout, CacheDirectory, DoorAbout};
use estive_api::{Credentials, Endpoint, Problem};
use estive_chunks::{CHUNK_BYTES, ChunkDigest, MAX_ENCODED_BYTES, ZERO_CHUNK};
use estive_model::Digest;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::fetch::{Asked, Fetcher};
use crate::lru::Lru;
use crate::roots::{Root, Roots};
use crate::routes::Chunks;
use crate::store::{ChunkStore, make_private};
use crate::trouble::Troubles;
use crate::{CacheConfig, CacheError, ReadError};

/// How long an origin may be away before a manifest is given up: QEMU, which waits for it, asks again.
const MANIFEST_PATIENCE: Duration = Duration::from_secs(5);

static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];

/// See the module. Everything here may be killed at any time.
pub struct Cache {
    roots: Roots,
    store: ChunkStore,
    memory: Mutex<Lru<ChunkDigest, Bytes>>,
    memory_bytes: u64,
    flights: Mutex<HashMap<ChunkDigest, Landing>>,
    fetcher: Fetcher,
    /// A manifest may have half a GiB, and says so only itself: one at a time.
    manifests: Semaphore,
    troubles: Troubles,
    patience: Duration,
    doors: Option<watch::Receiver<Vec<DoorAbout>>>,
    tasks: TaskTracker,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    read_bytes: AtomicU64,
    given_bytes: AtomicU64,
    refused_reads: AtomicU64,
    clients: AtomicU64,
}

/// Ends a flight.
struct Over<'a>(&'a Arc<Cache>, ChunkDigest);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.flights().remove(&self.1);
    }
}

type Landing = watch::Receiver<Option<Result<Bytes, ReadError>>>;

impl Cache {
    /// Takes over what an earlier process has left. Blocks.
    pub fn open(config: &CacheConfig, credentials: Credentials) -> Result<Arc<Self>, CacheError> {
        let directory = CacheDirectory(config.directory.clone());
        let troubles = directory.troubles();
        make_private(&troubles).map_err(CacheError::file("make the directory", &troubles))?;
        Ok(Arc::new(Self {
            roots: Roots::open(directory.clone(), credentials.authority().clone())?,
            store: ChunkStore::open(directory.chunks(), config.limit_bytes)?,
            memory: Mutex::new(Lru::new()),
            memory_bytes: config.memory_bytes,
            flights: Mutex::default(),
            fetcher: Fetcher::new(credentials),
            manifests: Semaphore::new(1),
            troubles: Troubles::new(troubles),
            patience: config.patience,
            doors: config.doors.clone(),
            tasks: TaskTracker::new(),
            counts: Counts::default(),
        }))
    }

    /// What it did so far.
    pub fn about(&self) -> CacheAbout {
        let (kept_chunks, kept_bytes) = self.store.kept();
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CacheAbout {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            fetched_bytes: self.fetcher.fetched_bytes(),
            given_bytes: of(&self.counts.given_bytes),
            read_bytes: of(&self.counts.read_bytes),
            refused_reads: of(&self.counts.refused_reads),
            kept_chunks,
            kept_bytes,
            limit_bytes: self.store.limit_bytes(),
            clients: of(&self.counts.clients),
            doors: self.doors.as_ref().map(|doors| doors.borrow().clone()),
        }
    }

    pub(crate) fn count_clients(&self) -> &AtomicU64 {
        &self.counts.clients
    }

    /// Roots that may be asked for, at most `most`.
    pub async fn names(self: &Arc<Self>, most: usize) -> Vec<Digest> {
        self.blocking(move |cache| cache.roots.names(most))
            .await
            .unwrap_or_default()
    }

    /// A root that the agent of this host named; its manifest is fetched the first time.
    pub async fn root(self: &Arc<Self>, name: &Digest) -> Result<Arc<Root>, ReadError> {
        if let Some(root) = self.root_at_hand(name).await? {
            return Ok(root);
        }
        let held = self.roots.gate(name).lock_owned().await;
        if let Some(root) = self.root_at_hand(name).await? {
            return Ok(root);
        }
        let (cache, name) = (self.clone(), name.clone());
        // Apart from who asks: a client that has waited long enough does not make the next one begin anew.
        let fetching = self.tasks.spawn(async move {
            // Never closed.
            let _turn = cache.manifests.acquire().await;
            let fetched = cache.fetch_manifest(&name).await;
            drop(held);
            fetched
        });
        fetching.await.unwrap_or(Err(ReadError::Ending))
    }

    /// Whether the agent named it is asked each time: what it has taken away is given to nobody new.
    async fn root_at_hand(self: &Arc<Self>, name: &Digest) -> Result<Option<Arc<Root>>, ReadError> {
        let wanted = name.clone();
        self.blocking(move |cache| {
            cache
                .roots
                .note(&wanted)
                .ok_or_else(|| ReadError::UnknownRoot(wanted.clone()))?;
            let opened = cache.roots.opened(&wanted);
            Ok(opened.or_else(|| {
                let kept = cache.roots.kept_manifest(&wanted)?;
                Some(cache.roots.add(&wanted, kept.manifest))
            }))
        })
        .await?
    }

    async fn fetch_manifest(self: &Arc<Self>, name: &Digest) -> Result<Arc<Root>, ReadError> {
        let path = format!("/v1/manifests/{}", name.hex());
        let asked = Asked {
            path: &path,
            most_bytes: usize::try_from(MAX_ENCODED_BYTES).unwrap_or(usize::MAX),
            patience: MANIFEST_PATIENCE.min(self.patience),
        };
        let check = |bytes: Bytes| {
            let (cache, name) = (self.clone(), name.clone());
            async move {
                let checked = cache.blocking(move |cache| {
                    let signed = cache.roots.checked_manifest(&name, &bytes)?;
                    if let Err(error) = cache.roots.keep_manifest(&name, &bytes) {
                        tracing::warn!(root = %name, %error, "the manifest cannot be kept");
                    }
                    Ok(cache.roots.add(&name, signed.manifest))
                });
                checked.await.map_err(|error| error.to_string())?
            }
        };
        let fetched = self
            .fetcher
            .fetch(
                asked,
                || self.origins(name),
                check,
                |wrong| self.trouble(wrong),
            )
            .await;
        fetched.map_err(|reasons| {
            let error = ReadError::NotHad {
                what: format!("the manifest of {name}"),
                reasons,
            };
            self.trouble(error.to_string());
            error
        })
    }

    /// The bytes from `offset` on, as pieces of chunks. The caller has checked that they are within the root.
    pub async fn read(
        self: &Arc<Self>,
        root: &Arc<Root>,
        offset: u64,
        length: u32,
    ) -> Result<Vec<Bytes>, ReadError> {
        let end = offset + u64::from(length);
        let first = (offset / CHUNK_BYTES as u64) as usize;
        let last = (end.saturating_sub(1) / CHUNK_BYTES as u64) as usize;
        self.read_ahead(root, first, last);
        let mut pieces = Vec::with_capacity(last - first + 1);
        for index in first..=last {
            let chunk = self.chunk_of(root, index).await.inspect_err(|_| {
                self.counts.refused_reads.fetch_add(1, Ordering::Relaxed);
            })?;
            let range = root.manifest.bytes_of(index);
            let from = offset.max(range.start) - range.start;
            let to = end.min(range.end) - range.start;
            pieces.push(chunk.slice(from as usize..to as usize));
        }
        self.counts
            .read_bytes
            .fetch_add(length.into(), Ordering::Relaxed);
        Ok(pieces)
    }

    /// Has the chunks of this read, and those that will likely be read next, on their way.
    fn read_ahead(self: &Arc<Self>, root: &Arc<Root>, first: usize, last: usize) {
        let count = root.manifest.chunks().len();
        let ahead = {
            let mut ahead = root.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            (first..=last)
                .map(|index| ahead.read(index, count))
                .last()
                .unwrap_or(0..0)
        };
        // What follows the first of this very read is asked for at once, not one after the other.
        for index in (first + 1..=last).chain(ahead) {
            let digest = root.manifest.chunks()[index];
            if digest != ZERO_CHUNK && !self.store.has(&digest) && !self.in_memory(&digest) {
                self.fly(root, index);
            }
        }
    }

    /// Chunk `index`, as long as the manifest has it: the digest alone does not say how long.
    async fn chunk_of(
        self: &Arc<Self>,
        root: &Arc<Root>,
        index: usize,
    ) -> Result<Bytes, ReadError> {
        let (chunk, wanted) = (
            self.chunk_called(root, index).await?,
            root.manifest.chunk_bytes(index),
        );
        if chunk.len() == wanted {
            return Ok(chunk);
        }
        let error = ReadError::NotHad {
            what: format!("chunk {index} of {}", root.name),
            reasons: format!(
                "its manifest is wrong: it names a chunk of {} bytes where {wanted} belong; seal the root anew",
                chunk.len()
            ),
        };
        self.trouble(format!("a read was refused: {error}"));
        Err(error)
    }

    async fn chunk_called(
        self: &Arc<Self>,
        root: &Arc<Root>,
        index: usize,
    ) -> Result<Bytes, ReadError> {
        let digest = root.manifest.chunks()[index];
        if digest == ZERO_CHUNK {
            return Ok(Bytes::from_static(&ZEROS));
        }
        if let Some(bytes) = self.memory().get(&digest) {
            return Ok(bytes);
        }
        let mut landing = self.fly(root, index);
        match landing.wait_for(Option::is_some).await {
            Ok(landed) => landed.clone().unwrap_or(Err(ReadError::Ending)),
            Err(_) => Err(ReadError::Ending),
        }
    }

    /// One way for many askers: whoever comes while a chunk is on its way waits for the same one.
    fn fly(self: &Arc<Self>, root: &Arc<Root>, index: usize) -> Landing {
        let digest = root.manifest.chunks()[index];
        let mut flights = self.flights();
        if let Some(landing) = flights.get(&digest) {
            return landing.clone();
        }
        let (arrived, landing) = watch::channel(None);
        flights.insert(digest, landing.clone());
        drop(flights);
        let (cache, root) = (self.clone(), root.clone());
        // Apart from who asks: an asker that goes away takes nothing from the others.
        self.tasks.spawn(async move {
            // Whatever becomes of this task: a flight that nobody flies must not keep others from setting out.
            let over = Over(&cache, digest);
            let brought = cache.bring(&root, index).await;
            if let Ok(bytes) = &brought {
                let mut memory = cache.memory();
                memory.insert(digest, bytes.clone(), bytes.len() as u64);
                memory.shrink_to(cache.memory_bytes);
            }
            drop(over);
            let _ = arrived.send(Some(brought));
        });
        landing
    }

    async fn bring(self: &Arc<Self>, root: &Arc<Root>, index: usize) -> Result<Bytes, ReadError> {
        let digest = root.manifest.chunks()[index];
        match self.blocking(move |cache| cache.store.read(&digest)).await? {
            Ok(Some(bytes)) => return Ok(bytes),
            Ok(None) => {}
            Err(spoilt) => self.trouble(format!(
                "the chunk {digest} of {}, kept in {}, was refused: it is not what it was when it came; it has been \
                 removed and is fetched again",
                root.name,
                spoilt.path.display()
            )),
        }
        let path = format!("/v1/chunks/{digest}");
        let asked = Asked {
            path: &path,
            most_bytes: CHUNK_BYTES,
            patience: self.patience,
        };
        let check = |bytes: Bytes| {
            let cache = self.clone();
            async move {
                let checked = cache.blocking(move |cache| {
                    let is = ChunkDigest::of(&bytes);
                    if is != digest {
                        return Err(format!("its bytes have the digest {is}"));
                    }
                    if let Err(error) = cache.store.keep(&digest, &bytes) {
                        tracing::warn!(%digest, %error, "a chunk cannot be kept on disk");
                    }
                    Ok(bytes)
                });
                checked.await.map_err(|error| error.to_string())?
            }
        };
        let fetched = self
            .fetcher
            .fetch(
                asked,
                || self.origins(&root.name),
                check,
                |wrong| self.trouble(wrong),
            )
            .await;
        fetched.map_err(|reasons| {
            let error = ReadError::NotHad {
                what: format!("chunk {index} ({digest}) of {}", root.name),
                reasons,
            };
            self.trouble(format!("a read was refused: {error}"));
            error
        })
    }

    async fn origins(self: &Arc<Self>, name: &Digest) -> Vec<Endpoint> {
        let name = name.clone();
        self.blocking(move |cache| cache.roots.note(&name))
            .await
            .ok()
            .flatten()
            .map(|note| note.origins)
            .unwrap_or_default()
    }

    fn trouble(self: &Arc<Self>, reason: String) {
        let cache = self.clone();
        self.tasks
            .spawn_blocking(move || cache.troubles.tell(reason));
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        let cache = self.clone();
        tokio::task::spawn_blocking(move || work(&cache))
            .await
            .map_err(|_| ReadError::Ending)
    }

    fn in_memory(&self, digest: &ChunkDigest) -> bool {
        self.memory().contains(digest)
    }

    fn memory(&self) -> MutexGuard<'_, Lru<ChunkDigest, Bytes>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<ChunkDigest, Landing>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it holds it gives to other hosts; it fetches nothing for them, so that caches never ask in a circle.
#[async_trait]
impl Chunks for Arc<Cache> {
    async fn manifest(&self, root: &Digest) -> Result<Option<Bytes>, Problem> {
        let root = root.clone();
        self.blocking(move |cache| {
            let signed = cache.roots.kept_manifest(&root)?;
            signed.encode().ok().map(Bytes::from)
        })
        .await
        .map_err(|error| Problem::failed(error.to_string()))
    }

    async fn chunk(&self, digest: &ChunkDigest) -> Result<Option<Bytes>, Problem> {
        let digest = *digest;
        let in_memory = self.memory().get(&digest);
        if let Some(bytes) = in_memory {
            return Ok(Some(self.give(bytes)));
        }
        let found = self.blocking(move |cache| cache.store.read(&digest)).await;
        match found.map_err(|error| Problem::failed(error.to_string()))? {
            Ok(found) => Ok(found.map(|bytes| self.give(bytes))),
            Err(spoilt) => {
                self.trouble(format!(
                    "the chunk {digest}, kept in {}, was refused: it is not what it was when it came; it has been removed",
                    spoilt.path.display()
                ));
                Ok(None)
            }
        }
    }
}

impl Cache {
    fn give(&self, bytes: Bytes) -> Bytes {
        self.counts
            .given_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        bytes
    }
}
