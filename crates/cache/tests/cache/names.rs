//! What a reference's name stands for: asked of who seals, given only as what our authority has signed and is there.

use std::fs;
use std::os::unix::fs::symlink;

use estive_api::client::ClientError;
use estive_api::{Client, Credentials, Role};
use estive_chunks::SignedManifest;

use crate::bed::{Bed, SOON, bytes, put};

#[tokio::test(flavor = "multi_thread")]
async fn a_name_stands_for_one_signed_root_at_a_time() {
    let bed = Bed::new();
    let (first, second) = (bed.image("images", 1), bytes(2));
    let origin = bed.origin("images").await;
    let credentials = Credentials::load(bed.credentials(Role::Manager, "manager")).unwrap();
    let client = Client::new(origin.endpoint.clone(), Some(&credentials)).unwrap();
    let ask = async |name: &str| {
        let path = format!("/v1/references/{name}");
        client.get_bytes(&path, 1 << 20, SOON).await
    };
    let refused = async |name: &str, words: &str| {
        let said = ask(name).await.unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
    };
    let stands_for = |manifest: &str| {
        let aside = origin.images.join(".web.manifest.new");
        symlink(manifest, &aside).unwrap();
        fs::rename(aside, origin.images.join("web.manifest")).unwrap();
    };
    assert!(ask("web").await.unwrap_err().is_not_found());
    refused("..%2fweb", "is not fit").await;

    stands_for(&format!("{}.manifest", first.name.hex()));
    let signed = SignedManifest::decode(&ask("web").await.unwrap()).unwrap();
    assert_eq!(signed.manifest.name(), first.name);

    // Sealed anew: unsigned, then signed, then without its image.
    let unsigned = SignedManifest::unsigned(second.manifest.clone());
    put(&origin.images, &second, &unsigned);
    stands_for(&format!("{}.manifest", second.name.hex()));
    refused("web", "has not signed").await;
    bed.put("images", &second);
    let signed = SignedManifest::decode(&ask("web").await.unwrap()).unwrap();
    assert_eq!(signed.manifest.name(), second.name);
    fs::remove_file(origin.images.join(format!("{}.erofs", second.name.hex()))).unwrap();
    refused("web", "is not there").await;
    fs::write(origin.images.join("half.manifest"), b"ESTIVE-M").unwrap();
    refused("half", "half.manifest").await;
    // It leads nowhere: that is said, and hides what a later directory has under that name.
    symlink("gone.manifest", origin.images.join("lost.manifest")).unwrap();
    assert!(!ask("lost").await.unwrap_err().is_not_found());
    refused("lost", "lost.manifest").await;

    let credentials = Credentials::load(bed.credentials(Role::User, "anna")).unwrap();
    let anna = Client::new(origin.endpoint.clone(), Some(&credentials)).unwrap();
    let answer = anna.get_bytes("/v1/references/web", 1 << 20, SOON).await;
    assert!(
        matches!(answer, Err(ClientError::Refused { .. })),
        "{answer:?}"
    );
}
