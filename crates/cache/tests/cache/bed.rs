//! An authority, roots of it, origins and caches, in directories that go with the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use estive_api::authority::Authority;
use estive_api::wire::{CacheAbout, CacheDirectory, RootNote, Trouble, write_note};
use estive_api::{Client, Endpoint, Role};
use estive_cache::{CacheConfig, OriginConfig, serve_cache, serve_origin};
use estive_chunks::{CHUNK_BYTES, Manifest, SignedManifest};
use estive_model::Digest;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::nbd_client::NbdClient;

pub const SOON: Duration = Duration::from_secs(20);

pub struct Bed {
    pub home: tempfile::TempDir,
    pub authority: Authority,
}

/// Something that serves until it is dropped or ended.
pub struct Serving {
    shutdown: CancellationToken,
    task: Option<JoinHandle<()>>,
}

pub struct Origin {
    pub endpoint: Endpoint,
    pub images: PathBuf,
    serving: Serving,
}

pub struct CacheProcess {
    pub directory: CacheDirectory,
    pub serving: Serving,
}

pub struct Image {
    pub name: Digest,
    pub bytes: Vec<u8>,
    pub manifest: Manifest,
}

impl Bed {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(home.path().join("ca")).unwrap();
        Self { home, authority }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Credentials of `role`, written once.
    pub fn credentials(&self, role: Role, name: &str) -> PathBuf {
        credentials_of(&self.authority, role, name, &self.path(name))
    }

    /// Bytes that differ from chunk to chunk, signed, in the directory `images`. The last chunk is short.
    pub fn image(&self, images: &str, chunks: usize) -> Image {
        let image = bytes(chunks);
        self.put(images, &image);
        image
    }

    /// Puts image and signed manifest into a directory of images.
    pub fn put(&self, images: &str, image: &Image) {
        let signed = self.authority.sign_root(image.manifest.clone()).unwrap();
        put(&self.path(images), image, &signed);
    }

    pub async fn origin(&self, images: &str) -> Origin {
        self.origin_at(images, "127.0.0.1:0").await
    }

    pub async fn origin_at(&self, images: &str, listen: &str) -> Origin {
        let images = self.path(images);
        let config = OriginConfig {
            directories: vec![images.clone()],
            listen: listen.parse().unwrap(),
            credentials: self.credentials(Role::Storage, "storage"),
            besides: None,
        };
        let shutdown = CancellationToken::new();
        let (told, ready) = oneshot::channel();
        let ending = shutdown.clone();
        let task = tokio::spawn(async move {
            serve_origin(config, |endpoint, _| told.send(endpoint).unwrap(), ending)
                .await
                .unwrap();
        });
        let endpoint = ready.await.expect("the origin serves").parse().unwrap();
        Origin {
            endpoint,
            images,
            serving: Serving {
                shutdown,
                task: Some(task),
            },
        }
    }

    /// A cache that keeps nothing in memory, so that each read is one of the disk.
    pub fn cache_config(&self, name: &str) -> CacheConfig {
        CacheConfig {
            memory_bytes: 0,
            patience: Duration::from_millis(300),
            ..CacheConfig::new(
                self.path(&format!("{name}-cache")),
                self.credentials(Role::Agent, name),
            )
        }
    }

    pub async fn cache(&self, name: &str) -> CacheProcess {
        cache(self.cache_config(name)).await
    }
}

pub async fn cache(config: CacheConfig) -> CacheProcess {
    let directory = CacheDirectory(config.directory.clone());
    let shutdown = CancellationToken::new();
    let (told, ready) = oneshot::channel();
    let ending = shutdown.clone();
    let task = tokio::spawn(async move {
        serve_cache(config, |_| told.send(()).unwrap(), ending)
            .await
            .unwrap();
    });
    ready.await.expect("the cache serves");
    CacheProcess {
        directory,
        serving: Serving {
            shutdown,
            task: Some(task),
        },
    }
}

impl CacheProcess {
    /// As the host's agent does.
    pub fn may_read(&self, root: &Digest, origins: &[&Endpoint]) {
        let origins = origins.iter().map(|&origin| origin.clone()).collect();
        write_note(&self.directory.root_note(root), &RootNote { origins }).unwrap();
    }

    pub async fn about(&self) -> CacheAbout {
        let control = Endpoint::Unix(self.directory.control());
        let client = Client::new(control, None).unwrap();
        client.get_json("/about", SOON).await.unwrap()
    }

    /// A client of one root; the error is what the server said.
    pub async fn client(&self, root: &Digest) -> Result<NbdClient, String> {
        let (socket, name) = (self.directory.socket(), root.hex().to_owned());
        tokio::task::spawn_blocking(move || NbdClient::open(&socket, &name, true))
            .await
            .unwrap()
    }

    /// Reads a chunk through a client of its own: the bytes, or the error number.
    pub async fn read_chunk(&self, image: &Image, index: usize) -> Result<Vec<u8>, u32> {
        let range = image.manifest.bytes_of(index);
        let mut client = self.client(&image.name).await.unwrap();
        tokio::task::spawn_blocking(move || {
            client.read(range.start, (range.end - range.start) as u32)
        })
        .await
        .unwrap()
    }

    /// What the agent is told, as soon as one of it holds all `words`.
    pub async fn trouble(&self, words: &[&str]) -> String {
        let looking = async {
            loop {
                let reasons = self.troubles();
                let found = reasons
                    .into_iter()
                    .find(|reason| words.iter().all(|word| reason.contains(word)));
                if let Some(found) = found {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, looking)
            .await
            .unwrap_or_else(|_| panic!("no trouble with {words:?} in {:?}", self.troubles()))
    }

    pub fn troubles(&self) -> Vec<String> {
        fs::read_dir(self.directory.troubles())
            .unwrap()
            .flatten()
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .filter_map(|entry| fs::read(entry.path()).ok())
            .map(|bytes| serde_json::from_slice::<Trouble>(&bytes).unwrap().reason)
            .collect()
    }

    /// Where a chunk is kept.
    pub fn chunk_file(&self, image: &Image, index: usize) -> PathBuf {
        let hex = image.manifest.chunks()[index].to_string();
        self.directory.chunks().join(&hex[..2]).join(hex)
    }
}

impl Origin {
    pub async fn end(self) {
        self.serving.end().await;
    }
}

impl Serving {
    pub async fn end(mut self) {
        self.shutdown.cancel();
        if let Some(task) = self.task.take() {
            task.await.unwrap();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub fn credentials_of(authority: &Authority, role: Role, name: &str, place: &Path) -> PathBuf {
    if !place.exists() {
        let addresses = ["127.0.0.1".parse().unwrap()];
        let day = Duration::from_secs(86_400);
        let issued = authority.issue(role, name, &addresses, day).unwrap();
        issued.write_to(place).unwrap();
    }
    place.to_owned()
}

pub fn bytes(chunks: usize) -> Image {
    let size = chunks * CHUNK_BYTES - 4096;
    let bytes: Vec<u8> = (0..size as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ (at >> 20) as u8)
        .collect();
    let manifest = Manifest::read(&mut &bytes[..]).unwrap();
    Image {
        name: manifest.name(),
        bytes,
        manifest,
    }
}

pub fn put(directory: &Path, image: &Image, signed: &SignedManifest) {
    fs::create_dir_all(directory).unwrap();
    let place = |ending| directory.join(format!("{}.{ending}", image.name.hex()));
    fs::write(place("erofs"), &image.bytes).unwrap();
    fs::write(place("manifest"), signed.encode().unwrap()).unwrap();
}

/// Flips one bit of a file.
pub fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}
