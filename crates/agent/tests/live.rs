//! Which domains of a host its forwarder is told to let in to live references: before they run, in moves, over restarts.

mod common;

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use common::*;
use estive_agent::Taps;
use estive_api::domain_xml::{DomainXml, LiveSource};
use estive_api::server::{Listen, serve};
use estive_api::wire::{CacheAbout, DoorAbout, LiveNote, write_note};
use estive_model::{DomainName, DomainState};
use estive_network::Sender;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

fn reads_live(name: &str, door: &str) -> Vec<u8> {
    let xml = DomainXml {
        live: Some(LiveSource {
            reference: "demo".into(),
            door: door.parse().unwrap(),
            origins: vec!["https://10.77.0.5:7610".parse().unwrap()],
        }),
        ..description(name, 64)
    };
    archive_of(&xml)
}

async fn define(host: &Host, name: &str, archive: Vec<u8>) {
    host.try_define(name, archive).await.unwrap();
}

/// The part of a cache process that an agent asks.
fn cache(host: &Host) {
    cache_that_says(host, CacheAbout::default());
}

fn cache_that_says(host: &Host, said: CacheAbout) {
    let directory = host.config.cache();
    std::fs::create_dir_all(directory.path()).unwrap();
    let about = get(async move || axum::Json(said.clone()));
    let router = Router::new().route("/about", about);
    let listen = Listen::Unix(directory.control());
    tokio::spawn(async move {
        serve(listen, router, CancellationToken::new())
            .await
            .expect("the cache serves");
    });
}

fn note(host: &Host, domain: &str) -> PathBuf {
    host.config.cache().live_note(&name(domain))
}

fn said(path: &Path) -> LiveNote {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_is_let_in_while_it_runs_and_the_journal_has_the_last_word() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    cache(&host);
    let path = note(&host, "clone01");
    define(&host, "clone01", reads_live("clone01", "10.77.0.9:2049")).await;
    define(&host, "clone02", archive("clone02", 64)).await;
    assert!(!path.exists(), "it does not run");
    for name in ["clone01", "clone02"] {
        host.ask(name, DomainState::Running).await.unwrap();
    }
    let told = said(&path);
    assert_eq!(
        (told.reference.as_str(), told.clone.to_string()),
        ("demo", "10.77.1.101".to_owned())
    );
    assert_eq!(told.listen, "10.77.0.9:2049".parse().unwrap());
    assert!(!note(&host, "clone02").exists(), "it reads nothing live");

    // What was done while no agent was there is mended by the next one: a file that is gone, one too many, and one that
    // somebody has changed.
    for damage in ["gone", "changed"] {
        host.stop().await;
        let left = note(&host, "clone07");
        write_note(&left, &told).unwrap();
        match damage {
            "gone" => std::fs::remove_file(&path).unwrap(),
            _ => {
                let other = LiveNote {
                    reference: "other".into(),
                    ..told.clone()
                };
                write_note(&path, &other).unwrap();
            }
        }
        host.start().await;
        assert_eq!(said(&path), told, "{damage}");
        assert!(!left.exists());
    }
    host.save("clone01").await.unwrap();
    assert!(!path.exists());
    host.restore("clone01").await.unwrap();
    assert_eq!(said(&path), told);
    host.ask("clone01", DomainState::Stopped).await.unwrap();
    assert!(!path.exists());
    host.ask("clone01", DomainState::Running).await.unwrap();
    assert_eq!(said(&path), told);
    host.ask("clone01", DomainState::Stopped).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_journal_cannot_tell_of_stays_let_in_until_it_is_forgotten() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    cache(&host);
    define(&host, "clone01", reads_live("clone01", "10.77.0.9:2049")).await;
    host.ask("clone01", DomainState::Running).await.unwrap();
    let path = note(&host, "clone01");
    host.stop().await;
    std::fs::remove_dir_all(host.config.state.join("journal")).unwrap();
    host.start().await;
    assert!(path.exists(), "its QEMU stands");
    let forget = "/domain/clone01?forget=true";
    host.client()
        .delete_json::<()>(forget, BOUND)
        .await
        .unwrap();
    until("it is forgotten", async || !path.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_description_chooses_an_address_of_its_host_and_nothing_starts_without_a_server() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    define(&host, "clone01", reads_live("clone01", "10.77.0.2:2049")).await;
    let refused = host.ask("clone01", DomainState::Running).await.unwrap_err();
    let problem = refused.problem().unwrap().to_string();
    assert!(
        problem.contains("10.77.0.2, and this host's door is 10.77.0.9"),
        "{problem}"
    );
    define(&host, "clone02", reads_live("clone02", "10.77.0.9:2049")).await;
    let refused = host.ask("clone02", DomainState::Running).await.unwrap_err();
    let problem = refused.problem().unwrap().to_string();
    assert!(problem.contains("live reference demo"), "{problem}");
    assert!(problem.contains("estive cache --directory"), "{problem}");
    for domain in ["clone01", "clone02"] {
        assert!(world.fabric.runs_at(&name(domain)).is_empty());
        assert!(!note(&host, domain).exists(), "{domain} does not run");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_move_both_hosts_let_it_in_until_one_alone_may_run_it() {
    let world = World::new();
    let (mut source, mut destination) = (world.host(1), world.host(2));
    for host in [&mut source, &mut destination] {
        host.start().await;
        cache(host);
    }
    define(&source, "clone01", reads_live("clone01", "10.77.0.9:2049")).await;
    source.ask("clone01", DomainState::Running).await.unwrap();
    let (here, there) = (note(&source, "clone01"), note(&destination, "clone01"));
    // One that is given up.
    let prepared = destination.prepare(&source, "clone01", 3, false).await;
    prepared.unwrap();
    assert!(here.exists() && there.exists(), "both may need it");
    destination.grant("clone01", "discard", 3).await;
    until("it is not awaited any more", async || !there.exists()).await;
    assert!(here.exists());
    // One that is done.
    let prepared = destination.prepare(&source, "clone01", 4, false).await;
    let sent = source.send(&destination, prepared.unwrap(), "clone01", 4, false);
    sent.await.unwrap();
    until("only one host has it", async || {
        there.exists() && !here.exists()
    })
    .await;
    let runs = || world.fabric.runs_at(&name("clone01"));
    until("it runs there", async || runs() == [destination.address]).await;
    assert!(there.exists() && !here.exists());
}

/// What was made, in order.
#[derive(Default)]
struct Made(Mutex<Vec<String>>);

impl Made {
    fn taken(&self) -> Vec<String> {
        let mut made = std::mem::take(&mut *self.0.lock().unwrap());
        made.sort();
        made
    }

    fn say(&self, text: String) -> Result<(), String> {
        self.0.lock().unwrap().push(text);
        Ok(())
    }
}

#[async_trait]
impl Taps for Made {
    fn name(&self, domain: &DomainName) -> String {
        estive_network::tap_name(domain)
    }
    async fn ensure(&self, domain: &DomainName, _: &str, sender: &Sender) -> Result<(), String> {
        match sender {
            Sender::Known { mac, address } => self.say(format!("{domain} {mac} {address}")),
            Sender::Unknown { .. } => self.say(format!("{domain} unknown")),
        }
    }
    async fn door(&self, bridge: &str, address: Ipv4Addr) -> Result<(), String> {
        self.say(format!("door {address} on {bridge}"))
    }
    async fn remove(&self, _: &DomainName) -> Result<(), String> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_starts_makes_door_and_interfaces_again_as_its_operator_says_now() {
    let world = World::new();
    let mut host = world.host(1);
    let made = Arc::new(Made::default());
    host.taps = made.clone();
    host.start().await;
    cache(&host);
    define(&host, "clone01", reads_live("clone01", "10.77.0.9:2049")).await;
    host.ask("clone01", DomainState::Running).await.unwrap();
    let all = [
        "clone01 52:54:00:00:00:01 10.77.1.101",
        "door 10.77.0.9 on br0",
    ];
    assert_eq!(made.taken(), all);
    let path = note(&host, "clone01");
    host.restart().await;
    let mut again = Vec::new();
    until("both are made again", async || {
        again.extend(made.taken());
        again.sort();
        again == all
    })
    .await;
    // It is let in by no door that is the host's no more.
    host.config.door = Some([10, 77, 0, 8].into());
    host.restart().await;
    assert!(!path.exists());
    assert!(!made.taken().iter().any(|made| made.starts_with("door")));
    host.config.door = Some([10, 77, 0, 9].into());
    host.restart().await;
    assert!(path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_by_a_door_where_its_cache_cannot_listen() {
    let world = World::new();
    let mut host = world.host(1);
    host.start().await;
    let door = |port: u16, wrong: Option<&str>| DoorAbout {
        listen: ([10, 77, 0, 9], port).into(),
        wrong: wrong.map(str::to_owned),
    };
    let doors = vec![door(2049, Some("it is taken")), door(2050, None)];
    let said = CacheAbout {
        doors: Some(doors),
        ..CacheAbout::default()
    };
    cache_that_says(&host, said);
    define(&host, "clone01", reads_live("clone01", "10.77.0.9:2049")).await;
    define(&host, "clone02", reads_live("clone02", "10.77.0.9:2050")).await;
    let refused = host.ask("clone01", DomainState::Running).await.unwrap_err();
    let problem = refused.problem().unwrap().to_string();
    assert!(
        problem.contains("10.77.0.9:2049") && problem.contains("it is taken"),
        "{problem}"
    );
    assert!(world.fabric.runs_at(&name("clone01")).is_empty());
    host.ask("clone02", DomainState::Running).await.unwrap();
}
