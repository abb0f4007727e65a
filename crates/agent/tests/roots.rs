//! An agent and its host's cache: files between them, words about what is wrong, and events.

mod common;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use common::*;
use estive_api::Problem;
use estive_api::domain_xml::{DiskSource, DomainXml, RootSource};
use estive_api::server::{Listen, serve};
use estive_api::wire::{DomainReport, RootNote, Trouble, write_note};
use estive_model::{DomainState, Event, EventKind};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

fn root() -> RootSource {
    RootSource {
        name: digest(b"sealed"),
        origins: vec!["https://10.77.0.5:7610".parse().unwrap()],
    }
}

fn archive_of(name: &str) -> Vec<u8> {
    let xml = DomainXml {
        root: DiskSource::Root(root()),
        ..description(name, 64)
    };
    let mut members = vec![
        ("config.xml".to_owned(), xml.to_xml().into_bytes()),
        ("layer".to_owned(), vec![7; 1000]),
        ("identity.json".to_owned(), identity(name).into_bytes()),
    ];
    for content in [&b"kernel"[..], b"initramfs", b"modules"] {
        members.push((format!("files/{}", digest(content).hex()), content.to_vec()));
    }
    tar_of(&members)
}

async fn define(host: &Host, name: &str) {
    let client = host.client();
    let path = format!("/domain/{name}?generation=1");
    let put = client.put_bytes::<DomainReport>(&path, "application/x-tar", archive_of(name), BOUND);
    put.await.unwrap();
}

type Asked = Arc<Mutex<(Vec<String>, Option<String>)>>;

/// The part of a cache that an agent speaks to: it notes what it is asked, and refuses when told to.
fn cache(host: &Host) -> (Asked, CancellationToken) {
    let directory = host.config.cache();
    std::fs::create_dir_all(directory.path()).unwrap();
    let asked = Asked::default();
    let answer = |State(asked): State<Asked>, Path(hex): Path<String>| async move {
        let mut asked = asked.lock().unwrap();
        asked.0.push(hex);
        match &asked.1 {
            None => Ok(r#"{"size_bytes": 1048576}"#),
            Some(reason) => Err(Problem::failed(reason.clone())),
        }
    };
    let router = Router::new()
        .route("/roots/{hex}", get(answer))
        .with_state(asked.clone());
    let shutdown = CancellationToken::new();
    let serving = serve(Listen::Unix(directory.control()), router, shutdown.clone());
    tokio::spawn(async move { serving.await.expect("the cache serves") });
    (asked, shutdown)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_is_told_of_a_root_before_its_domain_starts_and_until_it_is_gone() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    let (asked, _cache) = cache(&host);
    let note = host.config.cache().root_note(&root().name);
    for name in ["clone01", "clone02"] {
        define(&host, name).await;
        host.ask(name, DomainState::Running).await.unwrap();
    }
    assert_eq!(asked.lock().unwrap().0[0], root().name.hex());
    let said: RootNote = serde_json::from_slice(&std::fs::read(&note).unwrap()).unwrap();
    assert_eq!(said.origins, root().origins);
    // An emptied directory is filled again by the agent that starts, and what no domain reads, and what a kill has left
    // half written, goes.
    let roots = host.config.cache().roots();
    std::fs::remove_dir_all(&roots).unwrap();
    std::fs::create_dir(&roots).unwrap();
    let nobodys = host.config.cache().root_note(&digest(b"nobody's"));
    let left = [nobodys, roots.join(".new-aBc123")];
    let others = [roots.join(".cache-new-x"), roots.join("README")];
    for file in left.iter().chain(&others) {
        std::fs::write(file, "{}").unwrap();
    }
    host.restart().await;
    until("the cache is told again", async || note.exists()).await;
    until("what is left over goes", async || {
        left.iter().all(|file| !file.exists())
    })
    .await;
    assert!(
        others.iter().all(|file| file.exists()),
        "the cache's, and a person's"
    );
    let manifest = note.with_extension("manifest");
    std::fs::write(&manifest, "the cache's").unwrap();
    for (name, stays) in [("clone01", true), ("clone02", false)] {
        host.ask(name, DomainState::Stopped).await.unwrap();
        let path = format!("/domain/{name}");
        host.client().delete_json::<()>(&path, BOUND).await.unwrap();
        until("the list is swept", async || note.exists() == stays).await;
        assert_eq!(manifest.exists(), stays);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_cannot_be_had_is_said_in_the_caches_words_and_nothing_starts() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    let (asked, shutdown) = cache(&host);
    asked.lock().unwrap().1 = Some("our authority has not signed it".into());
    define(&host, "clone01").await;
    let refused = host.ask("clone01", DomainState::Running).await.unwrap_err();
    assert!(refused.to_string().contains("has not signed"), "{refused}");
    assert!(world.fabric.runs_at(&name("clone01")).is_empty());
    shutdown.cancel();
    until("the cache is gone", async || {
        !host.config.cache().control().exists()
    })
    .await;
    let refused = host.ask("clone01", DomainState::Running).await.unwrap_err();
    let problem = refused.problem().unwrap();
    assert!(problem.error.contains("does not answer"), "{problem}");
    assert!(
        problem.to_string().contains("estive cache --directory"),
        "{problem}"
    );
    assert!(world.fabric.runs_at(&name("clone01")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cache_refused_becomes_an_event_once() {
    let world = World::new();
    let mut host = world.host(1);
    let troubles = host.config.cache().troubles();
    std::fs::create_dir_all(&troubles).unwrap();
    let reason = "the chunk 30e1 of https://10.77.0.5:7610 was refused".to_owned();
    write_note(
        &troubles.join("1.json"),
        &Trouble {
            reason: reason.clone(),
        },
    )
    .unwrap();
    std::fs::write(troubles.join("2.json"), "not JSON").unwrap();
    std::fs::write(troubles.join(".new-3"), "half").unwrap();
    // Told while no agent was there.
    host.start().await;
    let told = async || {
        let client = host.client();
        let events: Vec<Event> = client.get_json("/events?after=0", BOUND).await.unwrap();
        let refused = |event: &Event| event.kind == EventKind::ChunkRefused;
        events.into_iter().filter(refused).collect::<Vec<_>>()
    };
    until("it is told", async || !told().await.is_empty()).await;
    until("the files are gone", async || count_files(&troubles) == 1).await;
    let told = told().await;
    assert_eq!((told.len(), &told[0].reason), (1, &reason));
    assert_eq!(told[0].host.as_ref(), Some(&host.config.name));
}
