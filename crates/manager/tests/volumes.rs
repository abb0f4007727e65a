//! Which host may use which generation of a volume: granted by the manager before a start or a move, and taken back.
//! Real manager and agents over a simulated hypervisor and simulated volumes, whose REST is real.

mod common;

use common::*;
use estive_api::authority::Authority;
use estive_api::server::{Listen, Listener};
use estive_api::wire::*;
use estive_api::{Credentials, ProblemKind, Role};
use estive_manager::VolumesConfig;
use estive_model::{DomainState, Generation};
use estive_store::{EmbeddedStore, Store};
use estive_volumes::{SimulatedVolumes, Volumes};
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const HERD: &str = "{memory_mib: 128, hosts: {keeps: {mode: stateful, volume: {size: 64M}, host: host1}, \
                    other: {host: host1}}}";

struct Storage {
    volumes: SimulatedVolumes,
    config: VolumesConfig,
    authority: Authority,
    home: tempfile::TempDir,
    serving: CancellationToken,
}

impl Storage {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(home.path().join("authority")).unwrap();
        let place = issued(&authority, &home, Role::Storage, "storage");
        let listener = Listener::bind(Listen::Tls {
            address: "127.0.0.1:0".parse().unwrap(),
            credentials: Credentials::load(place).unwrap(),
        });
        let listener = listener.await.unwrap();
        let endpoint = listener.endpoint().to_string();
        let (host, port) = endpoint["https://".len()..].split_once(':').unwrap();
        let config = VolumesConfig {
            host: host.to_owned(),
            port: port.parse().unwrap(),
        };
        let volumes = SimulatedVolumes::default();
        let serving = CancellationToken::new();
        let routes = estive_volumes::router(Arc::new(volumes.clone()));
        tokio::spawn(listener.serve(routes, serving.clone()));
        Self {
            volumes,
            config,
            authority,
            home,
            serving,
        }
    }

    /// A world with it. Of hosts that are not `known` the agent has no certificate: the storage host hears nothing of
    /// them.
    async fn world(&self, hosts: u8, known: &[u8]) -> World {
        let mut world = World::new(hosts).await;
        world.stop_manager().await;
        for number in 1..=hosts {
            world.stop_agent(number).await;
        }
        let issue = |role, name: &str| Some(issued(&self.authority, &self.home, role, name));
        for number in 1..=hosts {
            let is_known = known.contains(&number);
            world.agent_credentials = is_known
                .then(|| issue(Role::Agent, &format!("host{number}")))
                .flatten();
            world.start_agent(number).await;
        }
        world.agent_credentials = issue(Role::Agent, "host1");
        world.credentials = issue(Role::Manager, "manager");
        world.volumes = Some(self.config.clone());
        // Its reference can make initial RAM file systems then.
        world.live = true;
        world.start_manager().await;
        world
    }

    /// What was granted, and what is open.
    async fn is(&self) -> [Vec<(u64, String)>; 2] {
        let report = self.volumes.show(&name("keeps")).await.unwrap();
        [report.granted, report.exports].map(|exports| {
            let exports = exports.into_iter();
            exports
                .map(|export| (export.generation.0, export.client))
                .collect()
        })
    }

    async fn is_only(&self, clone: &HerdDomain) {
        let only = vec![(clone.generation.0, clone.host.to_string())];
        assert_eq!(self.is().await, [only.clone(), only]);
    }
}

fn issued(authority: &Authority, home: &tempfile::TempDir, role: Role, name: &str) -> PathBuf {
    let place = home.path().join(name);
    if !place.exists() {
        let addresses = ["127.0.0.1".parse().unwrap()];
        let lifetime = std::time::Duration::from_secs(86_400);
        let issued = authority.issue(role, name, &addresses, lifetime).unwrap();
        issued.write_to(&place).unwrap();
    }
    place
}

async fn comes_up(world: &World) {
    let (done, _) = world.up("d", HERD).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_and_who_receives_is_granted_that_and_nothing_else() {
    let storage = Storage::start().await;
    let world = storage.world(2, &[1, 2]).await;
    comes_up(&world).await;
    let first = world.show("keeps").await;
    storage.is_only(&first).await;
    let (moved, _) = world.migrate("keeps", Some(2)).await.unwrap();
    assert!(matches!(moved, MigrateLine::Done { .. }), "{moved:?}");
    let second = world.show("keeps").await;
    assert_eq!(second.host, host(2));
    assert!(second.generation > first.generation);
    storage.is_only(&second).await;
    for wanted in [DomainState::Stopped, DomainState::Running] {
        world.order("keeps", wanted).await.unwrap();
    }
    let third = world.show("keeps").await;
    assert!(third.generation > second.generation);
    until("only the new start may use it", async || {
        let only = vec![(third.generation.0, third.host.to_string())];
        storage.is().await == [only.clone(), only]
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_granted_for_a_move_that_is_given_up_is_taken_back() {
    let storage = Storage::start().await;
    // The other host's agent gives nothing back itself.
    let world = storage.world(2, &[1]).await;
    comes_up(&world).await;
    let before = world.show("keeps").await;
    let (failed, _) = world.migrate("keeps", Some(2)).await.unwrap();
    assert!(matches!(failed, MigrateLine::Failed { .. }), "{failed:?}");
    let after = world.show("keeps").await;
    assert_eq!(
        (after.state, after.generation, &after.host),
        (DomainState::Running, before.generation, &before.host)
    );
    storage.is_only(&before).await;
    let newer = after.generation.next();
    let opened = storage.volumes.export(&name("keeps"), newer, "host2").await;
    assert!(opened.is_err());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_lost_its_store_grants_above_all_that_the_volume_has_seen() {
    let storage = Storage::start().await;
    let mut world = storage.world(1, &[1]).await;
    comes_up(&world).await;
    for wanted in [
        DomainState::Stopped,
        DomainState::Running,
        DomainState::Stopped,
    ] {
        world.order("keeps", wanted).await.unwrap();
    }
    world.order("other", DomainState::Stopped).await.unwrap();
    let before = world.show("keeps").await.generation;
    let seen = storage.volumes.show(&name("keeps")).await.unwrap().fenced;
    assert_eq!(seen, before);
    // Nobody remembers anything but the volume.
    world.stop_manager().await;
    world.stop_agent(1).await;
    let home = world.home.path().to_owned();
    std::fs::remove_file(home.join("manager/store.redb")).unwrap();
    std::fs::remove_dir_all(home.join("host1/state")).unwrap();
    world.start_agent(1).await;
    world.start_manager().await;
    comes_up(&world).await;
    let after = world.show("keeps").await;
    assert!(after.generation > before, "{before} {}", after.generation);
    storage.is_only(&after).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_without_a_volume_recorded_before_there_were_any_needs_no_storage_host() {
    let storage = Storage::start().await;
    let mut world = storage.world(1, &[1]).await;
    comes_up(&world).await;
    for clone in ["keeps", "other"] {
        world.order(clone, DomainState::Stopped).await.unwrap();
    }
    world.stop_manager().await;
    let store = EmbeddedStore::open(&world.home.path().join("manager/store.redb")).unwrap();
    for clone in ["keeps", "other"] {
        let key = format!("domain/{clone}");
        let found = store.get(&key).await.unwrap().unwrap();
        let mut row: serde_json::Value = serde_json::from_slice(&found.value).unwrap();
        let record = row["live"].as_object_mut().unwrap();
        assert!(record.remove("volume").is_some());
        let row = serde_json::to_vec(&row).unwrap();
        let written = store.compare_and_swap(&key, Some(found.version), Some(row));
        written.await.unwrap();
    }
    drop(store);
    storage.serving.cancel();
    world.start_manager().await;
    world.order("other", DomainState::Running).await.unwrap();
    assert_eq!(world.show("other").await.state, DomainState::Running);
    let silent = world.order("keeps", DomainState::Running).await;
    let silent = silent.unwrap_err();
    assert_eq!(silent.problem().unwrap().kind, ProblemKind::Unreachable);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_lies_about_generations_brings_no_clone_to_their_end() {
    let world = World::new(2).await;
    let herd = "{memory_mib: 128, hosts: {a: {host: host1}, b: {host: host1}}}";
    let (done, _) = world.up("d", herd).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let before = world.show("a").await.generation;
    let far = Generation(u64::MAX);
    let lies = async |number: u8, path: &str| {
        let order = GrantOrder { generation: far };
        let said = world.agent(number).post_json(path, &order, BOUND).await;
        let _: GrantAnswer = said.unwrap();
    };
    // A destination: the clone runs on, and goes anywhere else.
    lies(2, "/domain/a/discard").await;
    let refused = world.migrate("a", Some(2)).await.unwrap_err();
    let problem = refused.problem().unwrap();
    assert_eq!(problem.kind, ProblemKind::Impossible);
    assert!(
        problem.error.contains("host2") && problem.error.contains(&far.to_string()),
        "{problem}"
    );
    assert!(problem.advice.as_ref().unwrap().contains("journal/a.json"));
    let after = world.show("a").await;
    assert_eq!(
        (after.state, after.generation),
        (DomainState::Running, before)
    );
    for wanted in [DomainState::Stopped, DomainState::Running] {
        world.order("a", wanted).await.unwrap();
    }
    assert_eq!(world.show("a").await.generation, before.next());
    // Its own host: nothing is granted, and nothing is lost.
    world.order("b", DomainState::Stopped).await.unwrap();
    let before = world.show("b").await.generation;
    lies(1, "/domain/b/abort").await;
    let refused = world.order("b", DomainState::Running).await.unwrap_err();
    let problem = refused.problem().unwrap();
    assert!(problem.error.contains("host1"), "{problem}");
    assert_eq!(world.show("b").await.generation, before);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_taken_back_has_gone_on_for_whoever_was_saved_over_it() {
    let storage = Storage::start().await;
    let world = storage.world(1, &[1]).await;
    comes_up(&world).await;
    let clone = name("keeps");
    let first = SnapshotName::new("first").unwrap();
    storage.volumes.snapshot(&clone, &first).await.unwrap();
    let client = world.client();
    let restored = async || {
        let order = RestoreOrder {
            snapshot: first.clone(),
        };
        let path = "/volume/keeps/restore";
        let restored: Result<VolumeReport, _> = client.post_json(path, &order, BOUND).await;
        restored
    };
    // Saved on its host, which the manager was not told: what the host holds counts.
    let path = "/domain/keeps/saved";
    let order = SaveOrder::default();
    let saved: Result<DomainReport, _> = world.agent(1).put_json(path, &order, BOUND).await;
    saved.unwrap();
    world.order("keeps", DomainState::Stopped).await.unwrap();
    let refused = restored().await.unwrap_err();
    let said = refused.problem().unwrap().to_string();
    assert!(said.contains("is saved"), "{said}");
    let dropped: HerdDomain = client.delete_json(path, BOUND).await.unwrap();
    assert_eq!(dropped.state, DomainState::Stopped);
    until("nobody has it open", async || {
        storage.is().await[1].is_empty()
    })
    .await;
    let before = storage.volumes.show(&clone).await.unwrap().fenced;
    let report = restored().await.unwrap();
    assert!(report.fenced > before, "{report:?}");
    // Once more, with no start in between: the next one comes up all the same.
    restored().await.unwrap();
    world.order("keeps", DomainState::Running).await.unwrap();
    world.stop().await;
}
