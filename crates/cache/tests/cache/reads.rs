//! What is read is what the root holds, fetched once.

use std::time::Duration;

use estive_api::Role;
use estive_cache::CacheConfig;

use crate::bed::{Bed, cache};
use crate::link::Link;
use crate::nbd_client::NbdClient;

#[tokio::test(flavor = "multi_thread")]
async fn every_read_is_the_roots_bytes_in_both_forms_of_reply() {
    let bed = Bed::new();
    let mut image = crate::bed::bytes(5);
    image.bytes[1 << 20..2 << 20].fill(0);
    image.manifest = estive_chunks::Manifest::read(&mut &image.bytes[..]).unwrap();
    image.name = image.manifest.name();
    bed.put("images", &image);
    let origin = bed.origin("images").await;
    let host = bed.cache("h1").await;
    host.may_read(&image.name, &[&origin.endpoint]);
    let size = image.bytes.len() as u64;
    for structured in [true, false] {
        let (socket, name) = (host.directory.socket(), image.name.hex().to_owned());
        let bytes = image.bytes.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let mut client = NbdClient::open(&socket, &name, structured).unwrap();
            assert_eq!(client.size_bytes, size);
            let mib = 1_u64 << 20;
            for (offset, length) in [
                (0, 1),
                (mib - 1, 2),
                (mib - 512, mib + 1024),
                (3 * mib + 7, 4096),
                (size - 1, 1),
                (0, size),
            ] {
                let read = client.read(offset, length as u32).unwrap();
                let wanted = &bytes[offset as usize..(offset + length) as usize];
                assert!(read == wanted, "{length} bytes from {offset}");
            }
            // Many at once, in whatever order the replies come.
            for cookie in 0..30 {
                client.send(0, 0, cookie, cookie * 100_000, 50_000);
            }
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..30 {
                let (cookie, data) = client.receive(50_000).unwrap();
                let from = cookie as usize * 100_000;
                assert!(data.unwrap() == bytes[from..from + 50_000]);
                assert!(seen.insert(cookie));
            }
        });
        reading.await.unwrap();
    }
    let about = host.about().await;
    let chunks: u64 = size - (1 << 20);
    assert_eq!(about.kept_bytes, chunks, "zeros are not fetched");
    assert_eq!(host.troubles(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_ask_for_crosses_the_link_once_and_never_again() {
    let bed = Bed::new();
    let image = bed.image("images", 3);
    let origin = bed.origin("images").await;
    let link = Link::to(&origin.endpoint).await;
    let host = bed.cache("h1").await;
    host.may_read(&image.name, &[&link.endpoint]);
    let asking = (0..24).map(|_| host.read_chunk(&image, 1));
    for read in futures_util::future::join_all(asking).await {
        assert!(read.unwrap() == image.bytes[1 << 20..2 << 20]);
    }
    for index in 0..3 {
        host.read_chunk(&image, index).await.unwrap();
    }
    let size = image.bytes.len() as u64;
    let manifest = estive_chunks::encoded_bytes(size).unwrap();
    let about = host.about().await;
    assert!((size..size + manifest).contains(&about.fetched_bytes));
    let crossed = link.bytes();
    assert!(crossed < size + size / 10, "{crossed} bytes for {size}");
    // A second clone of this host, and the same after the cache was started again.
    for index in 0..3 {
        host.read_chunk(&image, index).await.unwrap();
    }
    host.serving.end().await;
    let host = bed.cache("h1").await;
    for index in 0..3 {
        host.read_chunk(&image, index).await.unwrap();
    }
    // Connections that end say so.
    assert!(link.bytes() < crossed + 1000);
    assert_eq!(host.about().await.fetched_bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_origin_is_not_missed_for_what_was_read_once() {
    let bed = Bed::new();
    let image = bed.image("images", 40);
    let origin = bed.origin("images").await;
    let host = bed.cache("h1").await;
    host.may_read(&image.name, &[&origin.endpoint]);
    host.read_chunk(&image, 3).await.unwrap();
    origin.end().await;
    assert!(host.read_chunk(&image, 3).await.unwrap() == image.bytes[3 << 20..4 << 20]);
    // EIO, and told; not at once: an origin may be started again.
    assert_eq!(host.read_chunk(&image, 30).await, Err(5));
    host.trouble(&["a read was refused", "chunk 30"]).await;
    assert!(host.about().await.refused_reads > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_an_origin_that_comes_back() {
    let bed = Bed::new();
    let image = bed.image("images", 2);
    let origin = bed.origin("images").await;
    let endpoint = origin.endpoint.clone();
    let config = CacheConfig {
        patience: Duration::from_secs(60),
        ..bed.cache_config("h1")
    };
    let host = cache(config).await;
    host.may_read(&image.name, &[&endpoint]);
    // The manifest is there, the chunk is not.
    drop(host.client(&image.name).await.unwrap());
    origin.end().await;
    let reading = host.read_chunk(&image, 1);
    tokio::pin!(reading);
    let early = tokio::time::timeout(Duration::from_millis(500), &mut reading).await;
    assert!(early.is_err(), "{early:?}");
    let listen = endpoint.to_string();
    let _origin = bed
        .origin_at("images", listen.strip_prefix("https://").unwrap())
        .await;
    assert!(reading.await.unwrap() == image.bytes[1 << 20..]);
    assert_eq!(host.troubles(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_hosts_cache_is_an_origin_of_what_it_holds() {
    let bed = Bed::new();
    let image = bed.image("images", 30);
    let origin = bed.origin("images").await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap();
    drop(free);
    let first = cache(CacheConfig {
        listen: Some(listen),
        ..bed.cache_config("h1")
    })
    .await;
    first.may_read(&image.name, &[&origin.endpoint]);
    first.read_chunk(&image, 2).await.unwrap();
    origin.end().await;
    let second = bed.cache("h2").await;
    let peer = format!("https://{listen}").parse().unwrap();
    second.may_read(&image.name, &[&peer]);
    assert!(second.read_chunk(&image, 2).await.unwrap() == image.bytes[2 << 20..3 << 20]);
    assert!(first.about().await.given_bytes >= 1 << 20);
    // What it does not hold it does not fetch for others.
    assert_eq!(second.read_chunk(&image, 20).await, Err(5));
    assert_eq!(first.about().await.refused_reads, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_larger_than_the_limit_is_read_whole_and_the_limit_is_kept() {
    let bed = Bed::new();
    let image = bed.image("images", 70);
    let origin = bed.origin("images").await;
    let limit_bytes = 64 << 20;
    let host = cache(CacheConfig {
        limit_bytes,
        ..bed.cache_config("h1")
    })
    .await;
    host.may_read(&image.name, &[&origin.endpoint]);
    for index in 0..70 {
        let range = image.manifest.bytes_of(index);
        let read = host.read_chunk(&image, index).await.unwrap();
        assert!(read == image.bytes[range.start as usize..range.end as usize]);
        assert!(host.about().await.kept_bytes <= limit_bytes);
    }
    let on_disk: u64 = std::fs::read_dir(host.directory.chunks())
        .unwrap()
        .flat_map(|part| std::fs::read_dir(part.unwrap().path()).unwrap())
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(on_disk <= limit_bytes, "{on_disk}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_caches_do_not_share_a_directory_and_a_root_that_comes_later_is_found() {
    let bed = Bed::new();
    let image = bed.image("images", 1);
    let origin = bed.origin("images").await;
    let host = bed.cache("h1").await;
    let again = estive_cache::serve_cache(bed.cache_config("h1"), |_| (), Default::default()).await;
    assert!(again.unwrap_err().to_string().contains("in use"));
    let later = bed.image("images", 2);
    host.may_read(&later.name, &[&origin.endpoint]);
    assert!(host.read_chunk(&later, 1).await.is_ok());
    // What the agent has taken away is given to nobody new.
    assert!(
        host.client(&image.name)
            .await
            .unwrap_err()
            .contains("not been told")
    );
    std::fs::remove_file(host.directory.root_note(&later.name)).unwrap();
    assert!(host.client(&later.name).await.is_err());
    let nothing = estive_cache::Origin::open(
        vec![bed.home.path().to_owned()],
        estive_api::Credentials::load(bed.credentials(Role::Storage, "storage"))
            .unwrap()
            .authority()
            .clone(),
    );
    assert!(nothing.err().unwrap().to_string().contains("estive seal"));
}
