//! A flipped bit, wherever it is, is never data: a read is refused or another copy found, and the agent is told.

use std::fs;

use crate::bed::{Bed, flip};
use crate::link::Link;

const EIO: u32 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_flipped_on_the_server_is_refused_or_read_from_elsewhere() {
    let bed = Bed::new();
    let image = bed.image("images", 3);
    bed.put("others", &image);
    let origin = bed.origin("images").await;
    let file = origin.images.join(format!("{}.erofs", image.name.hex()));
    flip(&file, (1 << 20) + 12345);
    let host = bed.cache("h1").await;
    host.may_read(&image.name, &[&origin.endpoint]);
    assert!(host.read_chunk(&image, 0).await.is_ok());
    assert_eq!(host.read_chunk(&image, 1).await, Err(EIO));
    assert!(host.read_chunk(&image, 2).await.is_ok());
    let digest = image.manifest.chunks()[1].to_string();
    let said = host.trouble(&[&digest, &origin.endpoint.to_string()]).await;
    assert!(said.contains("was refused"), "{said}");
    assert!(
        !host.chunk_file(&image, 1).exists(),
        "it is not kept either"
    );
    // An origin that has it right, written by the agent while all runs.
    let other = bed.origin("others").await;
    host.may_read(&image.name, &[&origin.endpoint, &other.endpoint]);
    let read = host.read_chunk(&image, 1).await.unwrap();
    assert!(read == image.bytes[1 << 20..2 << 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_flips_on_the_link_ends_the_connection_and_is_told() {
    let bed = Bed::new();
    let image = bed.image("images", 4);
    let origin = bed.origin("images").await;
    let link = Link::to(&origin.endpoint).await;
    let host = bed.cache("h1").await;
    host.may_read(&image.name, &[&link.endpoint]);
    // Once: it is asked again, and the second try is good.
    link.flip(1);
    let read = host.read_chunk(&image, 0).await.unwrap();
    assert!(read == image.bytes[..1 << 20]);
    host.trouble(&["was refused", &link.endpoint.to_string()])
        .await;
    // For ever: no read is answered with data.
    link.flip(u64::MAX);
    assert_eq!(host.read_chunk(&image, 3).await, Err(EIO));
    host.trouble(&["a read was refused", "chunk 3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_flips_in_the_caches_file_is_refused_and_the_chunk_fetched_again_if_it_can_be() {
    let bed = Bed::new();
    let image = bed.image("images", 2);
    let origin = bed.origin("images").await;
    let host = bed.cache("h1").await;
    host.may_read(&image.name, &[&origin.endpoint]);
    host.read_chunk(&image, 0).await.unwrap();
    let file = host.chunk_file(&image, 0);
    flip(&file, 4711);
    let read = host.read_chunk(&image, 0).await.unwrap();
    assert!(read == image.bytes[..1 << 20]);
    host.trouble(&["was refused", &file.display().to_string()])
        .await;
    assert!(fs::read(&file).unwrap() == image.bytes[..1 << 20]);
    origin.end().await;
    flip(&file, 4711);
    assert_eq!(host.read_chunk(&image, 0).await, Err(EIO));
    host.trouble(&["a read was refused", "chunk 0"]).await;
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_changed_on_the_hosts_disk_is_fetched_again() {
    let bed = Bed::new();
    let image = bed.image("images", 2);
    let origin = bed.origin("images").await;
    let host = bed.cache("h1").await;
    host.may_read(&image.name, &[&origin.endpoint]);
    host.read_chunk(&image, 0).await.unwrap();
    host.serving.end().await;
    let kept = bed
        .path("h1-cache/roots")
        .join(format!("{}.manifest", image.name.hex()));
    for at in [0, 20, fs::metadata(&kept).unwrap().len() as usize - 1] {
        flip(&kept, at);
        let host = bed.cache("h1").await;
        assert!(host.read_chunk(&image, 1).await.unwrap() == image.bytes[1 << 20..]);
        host.serving.end().await;
    }
}
