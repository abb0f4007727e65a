//! Who is not of our authority, or has no right to roots, gets nothing; and what such a one gives is not taken.

use std::time::Duration;

use estive_api::authority::Authority;
use estive_api::client::ClientError;
use estive_api::{Client, Credentials, Role};
use estive_chunks::SignedManifest;

use crate::bed::{Bed, Image, SOON, credentials_of, put};

#[tokio::test(flavor = "multi_thread")]
async fn roots_are_given_to_hosts_of_the_same_authority_only() {
    let bed = Bed::new();
    let image = bed.image("images", 1);
    let origin = bed.origin("images").await;
    let manifest = format!("/v1/manifests/{}", image.name.hex());
    let chunk = format!("/v1/chunks/{}", image.manifest.chunks()[0]);
    let stranger = Authority::open_or_create(bed.path("other-ca")).unwrap();
    let ask = |credentials: std::path::PathBuf| {
        let credentials = Credentials::load(credentials).unwrap();
        let client = Client::new(origin.endpoint.clone(), Some(&credentials)).unwrap();
        let (manifest, chunk) = (manifest.clone(), chunk.clone());
        async move {
            [
                client.get_bytes(&manifest, 1 << 20, SOON).await,
                client.get_bytes(&chunk, 1 << 20, SOON).await,
            ]
        }
    };
    for answer in ask(bed.credentials(Role::Agent, "h1")).await {
        answer.unwrap();
    }
    let unknown = credentials_of(&stranger, Role::Agent, "h1", &bed.path("stranger"));
    for answer in ask(unknown).await {
        assert!(answer.is_err());
    }
    for answer in ask(bed.credentials(Role::User, "anna")).await {
        let error = answer.unwrap_err();
        assert!(matches!(error, ClientError::Refused { .. }), "{error}");
    }
    let credentials = Credentials::load(bed.credentials(Role::Agent, "h1")).unwrap();
    let client = Client::new(origin.endpoint.clone(), Some(&credentials)).unwrap();
    for path in [
        "/v1/chunks/..%2f..%2fetc",
        "/v1/manifests/zz",
        "/v1/chunks/AB",
    ] {
        assert!(
            client.get_bytes(path, 1 << 20, SOON).await.is_err(),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_was_removed_is_given_out_no_more() {
    let bed = Bed::new();
    let (gone, stays) = (bed.image("images", 1), bed.image("images", 2));
    let origin = bed.origin("images").await;
    let credentials = Credentials::load(bed.credentials(Role::Agent, "h1")).unwrap();
    let client = Client::new(origin.endpoint.clone(), Some(&credentials)).unwrap();
    let get = async |path: String| client.get_bytes(&path, 1 << 20, SOON).await;
    let manifest = |image: &Image| format!("/v1/manifests/{}", image.name.hex());
    let chunk = |image: &Image| format!("/v1/chunks/{}", image.manifest.chunks()[0]);
    for path in [manifest(&gone), chunk(&gone), manifest(&stays)] {
        get(path).await.unwrap();
    }
    for ending in ["erofs", "manifest"] {
        let name = format!("{}.{ending}", gone.name.hex());
        std::fs::remove_file(origin.images.join(name)).unwrap();
    }
    // At once, or one tick of the file system's clock later.
    let asking = async {
        while get(manifest(&gone)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, asking).await.unwrap();
    let error = get(chunk(&gone)).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    get(manifest(&stays)).await.unwrap();
    get(chunk(&stays)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_our_authority_did_not_sign_is_served_by_nobody_and_taken_from_nobody() {
    let bed = Bed::new();
    let image = crate::bed::bytes(1);
    let stranger = Authority::open_or_create(bed.path("other-ca")).unwrap();
    let forged = stranger.sign_root(image.manifest.clone()).unwrap();
    let unsigned = SignedManifest::unsigned(image.manifest.clone());
    for (name, signed) in [("forged", &forged), ("unsigned", &unsigned)] {
        put(&bed.path(name), &image, signed);
        let host = Credentials::load(bed.credentials(Role::Agent, "h1")).unwrap();
        let opened = estive_cache::Origin::open(vec![bed.path(name)], host.authority().clone());
        let said = opened.err().expect("it would be served").to_string();
        assert!(said.contains("has not signed"), "{said}");
        // Likewise beside the agent's own file, where it might have been put.
        let cache = bed.cache("h1").await;
        let nowhere = "https://127.0.0.1:1".parse().unwrap();
        cache.may_read(&image.name, &[&nowhere]);
        let place = cache
            .directory
            .roots()
            .join(format!("{}.manifest", image.name.hex()));
        std::fs::write(place, signed.encode().unwrap()).unwrap();
        let said = cache.client(&image.name).await.unwrap_err();
        assert!(said.contains("manifest"), "{said}");
        cache.serving.end().await;
    }
}

/// An origin with a certificate of ours that gives whatever it likes.
#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_lies_is_found_out() {
    let bed = Bed::new();
    let image = bed.image("images", 2);
    let stranger = Authority::open_or_create(bed.path("other-ca")).unwrap();
    let other = bed
        .authority
        .sign_root(crate::bed::bytes(3).manifest)
        .unwrap();
    let lies = [
        stranger
            .sign_root(image.manifest.clone())
            .unwrap()
            .encode()
            .unwrap(),
        SignedManifest::unsigned(image.manifest.clone())
            .encode()
            .unwrap(),
        // Signed, but of another root.
        other.encode().unwrap(),
        b"nonsense".to_vec(),
        vec![],
    ];
    let host = bed.cache("h1").await;
    for lie in lies {
        let listener = estive_api::server::Listener::bind(estive_api::server::Listen::Tls {
            address: "127.0.0.1:0".parse().unwrap(),
            credentials: Credentials::load(bed.credentials(Role::Storage, "storage")).unwrap(),
        })
        .await
        .unwrap();
        let endpoint = listener.endpoint();
        let router = axum::Router::new().fallback(move || async move { lie });
        let shutdown = tokio_util::sync::CancellationToken::new();
        let serving = tokio::spawn(listener.serve(router, shutdown.clone()));
        host.may_read(&image.name, &[&endpoint]);
        let said = host.client(&image.name).await.unwrap_err();
        assert!(said.contains("manifest"), "{said}");
        host.trouble(&["was refused", &endpoint.to_string()]).await;
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(20), serving)
            .await
            .unwrap()
            .unwrap();
    }
    let honest = bed.origin("images").await;
    host.may_read(&image.name, &[&honest.endpoint]);
    assert!(host.read_chunk(&image, 1).await.is_ok());
}
