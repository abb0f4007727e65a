//! Both stores pass the one suite.

use estive_store::{EmbeddedStore, MemoryStore, conformance};

#[tokio::test]
async fn the_store_in_memory() {
    conformance::suite(|| async { MemoryStore::new() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut count = 0;
    conformance::suite(|| {
        count += 1;
        let path = dir.path().join(format!("{count}.redb"));
        async move { EmbeddedStore::open(&path).unwrap() }
    })
    .await;
}
