//! Clients that go away, and manifests that are wrong though signed.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use estive_api::server::{Listen, serve};
use estive_api::{Credentials, Endpoint, Role};
use estive_cache::{Cache, CacheConfig, Chunks, Origin};
use estive_chunks::{CHUNK_BYTES, ChunkDigest, Manifest};
use estive_model::Digest;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::bed::{Bed, Image, SOON, bytes, cache};

const EIO: u32 = 5;
const A_WHILE: Duration = Duration::from_secs(600);

/// Serves a router on a unix socket; enough of an origin for what is asked here.
fn served(bed: &Bed, router: Router) -> (Endpoint, AbortOnDropHandle<()>) {
    let socket = bed.path("origin.sock");
    let endpoint = format!("unix:{}", socket.display()).parse().unwrap();
    let serving = tokio::spawn(async move {
        serve(Listen::Unix(socket), router, CancellationToken::new())
            .await
            .unwrap();
    });
    (endpoint, AbortOnDropHandle::new(serving))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_of_another_length_than_its_manifest_says_is_refused_and_ends_nothing() {
    let bed = Bed::new();
    let short = vec![7; 1000];
    let long = vec![8; CHUNK_BYTES];
    let digests = [&short, &long, &long].map(|bytes| ChunkDigest::of(bytes));
    let manifest = Manifest::new(2 * CHUNK_BYTES as u64 + 500, digests.to_vec()).unwrap();
    let image = Image {
        name: manifest.name(),
        bytes: vec![],
        manifest: manifest.clone(),
    };
    let signed = bed.authority.sign_root(manifest).unwrap();
    let signed = signed.encode().unwrap();
    let given = short.clone();
    let chunk = move |Path(digest): Path<String>| async move {
        match digest == ChunkDigest::of(&given).to_string() {
            true => given,
            false => vec![8; CHUNK_BYTES],
        }
    };
    let router = Router::new()
        .route("/v1/manifests/{hex}", get(move || async move { signed }))
        .route("/v1/chunks/{digest}", get(chunk));
    let (endpoint, _origin) = served(&bed, router);
    let host = bed.cache("h1").await;
    host.may_read(&image.name, &[&endpoint]);
    assert_eq!(host.read_chunk(&image, 0).await, Err(EIO));
    assert_eq!(host.read_chunk(&image, 2).await, Err(EIO));
    assert!(host.read_chunk(&image, 1).await.unwrap() == long);
    host.trouble(&["its manifest is wrong", "1000 bytes"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanished_is_gone_at_once_whatever_it_had_asked_for() {
    let bed = Bed::new();
    let image = bytes(2);
    let hung = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", hung.local_addr().unwrap());
    let host = cache(CacheConfig {
        patience: A_WHILE,
        ..bed.cache_config("h1")
    })
    .await;
    host.may_read(&image.name, &[&endpoint.parse().unwrap()]);
    let signed = bed.authority.sign_root(image.manifest.clone()).unwrap();
    let place = host.directory.root_note(&image.name);
    fs::write(place.with_extension("manifest"), signed.encode().unwrap()).unwrap();
    let mut client = host.client(&image.name).await.unwrap();
    client.send(0, 0, 1, 0, 4096);
    hung.accept().await.unwrap();
    assert_eq!(host.about().await.clients, 1);
    drop(client);
    let gone = async {
        while host.about().await.clients > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, gone).await.expect("it is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_on_its_way_comes_though_who_asked_first_has_gone() {
    let bed = Bed::new();
    let image = bytes(1);
    let signed = bed.authority.sign_root(image.manifest.clone()).unwrap();
    let signed = signed.encode().unwrap();
    let (asked, go, times) = (
        Arc::new(Notify::new()),
        Arc::new(Notify::new()),
        Arc::new(AtomicUsize::new(0)),
    );
    let (asking, going, counting) = (asked.clone(), go.clone(), times.clone());
    let manifest = move || async move {
        counting.fetch_add(1, Ordering::Relaxed);
        asking.notify_one();
        going.notified().await;
        signed
    };
    let router = Router::new().route("/v1/manifests/{hex}", get(manifest));
    let (endpoint, _origin) = served(&bed, router);
    let config = bed.cache_config("h1");
    let credentials = Credentials::load(&config.credentials).unwrap();
    let cache = Cache::open(&config, credentials).unwrap();
    let directory = estive_api::wire::CacheDirectory(config.directory);
    let note = estive_api::wire::RootNote {
        origins: vec![endpoint],
    };
    estive_api::wire::write_note(&directory.root_note(&image.name), &note).unwrap();
    let (first, name) = (cache.clone(), image.name.clone());
    let first = tokio::spawn(async move { first.root(&name).await.map(drop) });
    tokio::time::timeout(SOON, asked.notified()).await.unwrap();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    go.notify_one();
    let root = tokio::time::timeout(SOON, cache.root(&image.name)).await;
    assert_eq!(root.unwrap().unwrap().manifest, image.manifest);
    assert_eq!(times.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_root_that_came_in_the_same_tick_as_the_origin_looked_is_found() {
    let bed = Bed::new();
    let (first, second) = (bed.image("images", 1), bytes(2));
    let images = bed.path("images");
    let host = Credentials::load(bed.credentials(Role::Agent, "h1")).unwrap();
    let directory = fs::File::open(&images).unwrap();
    let tick = directory.metadata().unwrap().modified().unwrap();
    let origin = Origin::open(vec![images], host.authority().clone()).unwrap();
    let origin = Arc::new(origin);
    bed.put("images", &second);
    directory.set_modified(tick).unwrap();
    for image in [&first, &second] {
        let found = origin.manifest(&image.name).await.unwrap();
        assert!(found.is_some(), "{}", image.name);
    }
}

#[tokio::test]
async fn roots_of_a_directory_that_is_removed_whole_are_given_out_no_more() {
    let bed = Bed::new();
    let (goes, stays) = (bed.image("goes", 1), bed.image("stays", 2));
    let host = Credentials::load(bed.credentials(Role::Agent, "h1")).unwrap();
    let directories = vec![bed.path("goes"), bed.path("stays")];
    let origin = Arc::new(Origin::open(directories, host.authority().clone()).unwrap());
    let is_given = async |image: &Digest| origin.manifest(image).await.unwrap().is_some();
    assert!(is_given(&goes.name).await && is_given(&stays.name).await);
    fs::rename(bed.path("goes"), bed.path("away")).unwrap();
    assert!(!is_given(&goes.name).await);
    assert!(is_given(&stays.name).await);
    // What cannot be listed gives nothing either, and does not stand in the way of others.
    fs::write(bed.path("goes"), "no directory").unwrap();
    assert!(!is_given(&goes.name).await);
    assert!(is_given(&stays.name).await);
    fs::remove_file(bed.path("goes")).unwrap();
    fs::rename(bed.path("away"), bed.path("goes")).unwrap();
    assert!(is_given(&goes.name).await);
}
