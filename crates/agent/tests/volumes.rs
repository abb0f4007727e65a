//! A domain with a volume: no instruction runs before the storage host has cut off who had it before, however long that
//! is silent and whoever dies meanwhile. Simulated hosts and volumes, real REST over mutual TLS.

mod common;

use axum::extract::Request;
use axum::middleware::map_request;
use common::*;
use estive_api::authority::Authority;
use estive_api::server::{Listen, Listener};
use estive_api::wire::*;
use estive_api::{Client, Credentials, Endpoint, ProblemKind, Role};
use estive_hypervisor::simulated::{Fault, Step};
use estive_model::{DeploymentName, DomainState, Generation, HostName, NbdSource};
use estive_moves::Holding;
use estive_volumes::{By, SimulatedVolumes, Volumes, router};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const CLONE: &str = "clone01";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
/// Long enough for several tries, each half a second after the last.
const SEVERAL_TRIES: Duration = Duration::from_millis(1600);

struct Storage {
    volumes: SimulatedVolumes,
    port: u16,
    /// How often a fence was asked for.
    fences: Arc<AtomicUsize>,
    _serving: CancellationToken,
}

impl Storage {
    async fn start(world: &World) -> Self {
        let place = world.home.path().join("storage");
        world
            .authority
            .issue(Role::Storage, "storage", &[ADDRESS.into()], BOUND * 1000)
            .unwrap()
            .write_to(&place)
            .unwrap();
        let listen = Listen::Tls {
            address: (ADDRESS, 0).into(),
            credentials: Credentials::load(&place).unwrap(),
        };
        let listener = Listener::bind(listen).await.unwrap();
        let port = listener.endpoint().to_string();
        let port: SocketAddr = port.trim_start_matches("https://").parse().unwrap();
        let volumes = SimulatedVolumes::default();
        let wish = VolumeWish {
            owner: DeploymentName::new("web").unwrap(),
            size_bytes: 64 << 20,
        };
        volumes.create(&name(CLONE), &wish).await.unwrap();
        let serving = CancellationToken::new();
        let fences = Arc::new(AtomicUsize::new(0));
        let counted = fences.clone();
        let count = move |request: Request| {
            if request.uri().path().ends_with("/fence") {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            request
        };
        let routes = router(Arc::new(volumes.clone())).layer(map_request(move |request| {
            std::future::ready(count(request))
        }));
        tokio::spawn(listener.serve(routes, serving.clone()));
        Self {
            volumes,
            port: port.port(),
            fences,
            _serving: serving,
        }
    }

    fn archive(&self) -> Vec<u8> {
        let mut description = description(CLONE, 128);
        description.volume = Some(NbdSource {
            host: ADDRESS.to_string(),
            port: self.port,
            export: CLONE.to_owned(),
            tls: true,
        });
        archive_of(&description)
    }

    /// As the manager says it before it orders a start or a move.
    async fn grant(&self, generation: u64, host: &str) {
        let (clone, generation) = (name(CLONE), Generation(generation));
        let granted = self.volumes.grant(&clone, generation, host).await;
        granted.unwrap();
    }

    /// The same for the next start on this host.
    async fn grant_next(&self, host: &Host) {
        let next = host.entry(CLONE).await.floor.next();
        self.grant(next.0, host.config.name.as_str()).await;
    }

    /// Generations that may write.
    async fn open_to(&self) -> Vec<(u64, String)> {
        let report = self.volumes.show(&name(CLONE)).await.unwrap();
        let exports = report.exports.into_iter();
        exports
            .map(|export| (export.generation.0, export.client))
            .collect()
    }

    fn writes(&self, generation: u64, host: &str) -> bool {
        let export = format!("{CLONE}@{generation}");
        self.volumes.write(&export, host, 1, 7).is_ok()
    }
}

fn opened(generations: &[(u64, &str)]) -> Vec<(u64, String)> {
    let generations = generations.iter();
    generations
        .map(|(generation, host)| (*generation, (*host).to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_the_storage_host() {
    let world = World::new();
    let storage = Storage::start(&world).await;
    let mut a = world.host(1);
    a.start().await;
    // Somebody had it before, and was never heard of again.
    let volumes = &storage.volumes;
    storage.grant(1, "host7").await;
    let before = volumes.export(&name(CLONE), Generation(1), "host7").await;
    before.unwrap();
    assert!(storage.writes(1, "host7"));
    a.try_define(CLONE, storage.archive()).await.unwrap();
    // The manager has not said that this host may: nothing is opened, nothing runs, who had it has it.
    let refused = a.ask(CLONE, DomainState::Running).await.unwrap_err();
    let problem = refused.problem().unwrap();
    assert_eq!(problem.kind, ProblemKind::Refused);
    assert!(problem.error.contains("not granted to host1"), "{problem}");
    assert!(world.fabric.runs_at(&name(CLONE)).is_empty());
    assert_eq!(storage.open_to().await, opened(&[(1, "host7")]));
    storage.grant_next(&a).await;
    volumes.be_silent(true);
    let refused = a.ask(CLONE, DomainState::Running).await.unwrap_err();
    let said = refused.problem().unwrap().error.clone();
    assert!(
        said.contains("storage host") && said.contains(CLONE),
        "{said}"
    );
    assert!(world.fabric.runs_at(&name(CLONE)).is_empty());
    volumes.be_silent(false);
    storage.grant_next(&a).await;
    a.ask(CLONE, DomainState::Running).await.unwrap();
    let generation = a.entry(CLONE).await.generation.0;
    assert_eq!(world.fabric.runs_at(&name(CLONE)), [a.address]);
    assert_eq!(storage.open_to().await, opened(&[(generation, "host1")]));
    assert!(!storage.writes(1, "host7"));
    assert!(storage.writes(generation, "host1"));
    // Stopped, it needs no door.
    a.ask(CLONE, DomainState::Stopped).await.unwrap();
    until("its export is given back", async || {
        storage.open_to().await.is_empty()
    })
    .await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_cut_off_between_release_and_start_writes_nothing() {
    let world = World::new();
    let storage = Storage::start(&world).await;
    let (mut a, mut b) = (world.host(1), world.host(2));
    a.start().await;
    b.start().await;
    a.try_define(CLONE, storage.archive()).await.unwrap();
    storage.grant_next(&a).await;
    a.ask(CLONE, DomainState::Running).await.unwrap();
    let here = a.entry(CLONE).await.generation.0;
    let there = here + 1;
    storage.grant(there, "host2").await;
    let stream = b.prepare(&a, CLONE, there, false).await.unwrap();
    // During the move there are both, and the source goes on writing.
    let both = opened(&[(here, "host1"), (there, "host2")]);
    assert_eq!(storage.open_to().await, both);
    storage.volumes.be_silent(true);
    a.send(&b, stream, CLONE, there, false).await.unwrap();
    b.holds(CLONE, "the destination has taken it", |held| {
        held == Holding::Running
    })
    .await;
    // Released, and the storage host is silent: it runs nowhere, and that is said.
    until("it is said", async || {
        let note = b.report(CLONE).await.note.unwrap_or_default();
        note.contains("storage host")
    })
    .await;
    tokio::time::sleep(SEVERAL_TRIES).await;
    assert!(world.fabric.runs_at(&name(CLONE)).is_empty());
    assert!(storage.writes(here, "host1"), "nothing was cut yet");
    // The source is cut off. The destination comes back by itself, over a restart too.
    a.stop().await;
    b.restart().await;
    tokio::time::sleep(SEVERAL_TRIES).await;
    assert!(world.fabric.runs_at(&name(CLONE)).is_empty());
    storage.volumes.be_silent(false);
    until("it runs", async || {
        world.fabric.runs_at(&name(CLONE)) == [b.address]
    })
    .await;
    assert_eq!(storage.open_to().await, opened(&[(there, "host2")]));
    assert!(!storage.writes(here, "host1"), "the old generation writes");
    assert!(storage.writes(there, "host2"));
    let clone = name(CLONE);
    let late = storage.volumes.export(&clone, Generation(here), "host1");
    assert!(late.await.is_err());
    a.start().await;
    a.holds(CLONE, "the source has dropped it", |held| {
        held == Holding::Absent
    })
    .await;
    assert!(world.fabric.ran_twice().is_empty());
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_after_its_door_was_opened_shuts_it_again() {
    let world = World::new();
    let storage = Storage::start(&world).await;
    let (mut a, mut b) = (world.host(1), world.host(2));
    a.start().await;
    b.start().await;
    a.try_define(CLONE, storage.archive()).await.unwrap();
    let clone = name(CLONE);
    storage.grant_next(&a).await;
    world
        .fabric
        .inject(a.address, &clone, Step::Create, Fault::Die);
    a.ask(CLONE, DomainState::Running).await.unwrap_err();
    until(
        "a start that failed has given its export back",
        async || storage.open_to().await.is_empty(),
    )
    .await;
    storage.grant_next(&a).await;
    a.ask(CLONE, DomainState::Running).await.unwrap();
    let here = a.entry(CLONE).await.generation.0;
    let there = here + 1;
    storage.grant(there, "host2").await;
    world
        .fabric
        .inject(b.address, &clone, Step::CreateIncoming, Fault::Die);
    b.prepare(&a, CLONE, there, false).await.unwrap_err();
    until("so has a destination that could not be made", async || {
        storage.open_to().await == opened(&[(here, "host1")])
    })
    .await;
    assert!(storage.writes(here, "host1"));
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_that_is_refused_for_good_is_not_asked_for_without_end() {
    let world = World::new();
    let storage = Storage::start(&world).await;
    let (mut a, mut b) = (world.host(1), world.host(2));
    a.start().await;
    b.start().await;
    a.try_define(CLONE, storage.archive()).await.unwrap();
    storage.grant_next(&a).await;
    a.ask(CLONE, DomainState::Running).await.unwrap();
    let there = a.entry(CLONE).await.generation.0 + 1;
    storage.grant(there, "host2").await;
    let stream = b.prepare(&a, CLONE, there, false).await.unwrap();
    // A newer one has it by now.
    let (clone, newer) = (name(CLONE), Generation(there + 1));
    let fenced = storage.volumes.fence(&clone, newer, By::Keeper).await;
    fenced.unwrap();
    a.send(&b, stream, CLONE, there, false).await.unwrap();
    b.holds(CLONE, "the destination has taken it", |held| {
        held == Holding::Running
    })
    .await;
    // The source asks on; here that would hide who does.
    a.stop().await;
    let order = GrantOrder {
        generation: Generation(there),
    };
    let path = format!("/domain/{CLONE}/commit");
    let there = b.client();
    let said = there.post_json::<GrantAnswer>(&path, &order, BOUND);
    let refused = said.await.unwrap_err();
    let problem = refused.problem().unwrap();
    assert_eq!(problem.kind, ProblemKind::Impossible);
    // In the words of who refused it, who answers and therefore runs.
    let advice = problem.advice.clone().unwrap();
    assert!(advice.contains("start it anew"), "{advice}");
    let asked = || storage.fences.load(Ordering::SeqCst);
    let before = asked();
    tokio::time::sleep(SEVERAL_TRIES).await;
    assert_eq!(asked(), before);
    assert!(world.fabric.runs_at(&clone).is_empty());
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_given_up_leaves_the_door_of_the_source() {
    let world = World::new();
    let storage = Storage::start(&world).await;
    let (mut a, mut b) = (world.host(1), world.host(2));
    a.start().await;
    b.start().await;
    a.try_define(CLONE, storage.archive()).await.unwrap();
    storage.grant_next(&a).await;
    a.ask(CLONE, DomainState::Running).await.unwrap();
    let here = a.entry(CLONE).await.generation.0;
    // Granted to another host, it is not received by this one.
    storage.grant(here + 1, "host3").await;
    assert!(b.prepare(&a, CLONE, here + 1, false).await.is_err());
    let there = here + 2;
    storage.grant(there, "host2").await;
    b.prepare(&a, CLONE, there, false).await.unwrap();
    assert_eq!(storage.open_to().await.len(), 2);
    a.grant(CLONE, "abort", there).await;
    b.grant(CLONE, "discard", there).await;
    until("the destination's door is shut", async || {
        storage.open_to().await == opened(&[(here, "host1")])
    })
    .await;
    assert!(storage.writes(here, "host1"));
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_saved_does_not_run_beside_a_volume_that_has_gone_on() {
    let world = World::new();
    let storage = Storage::start(&world).await;
    let mut a = world.host(1);
    a.start().await;
    a.try_define(CLONE, storage.archive()).await.unwrap();
    storage.grant_next(&a).await;
    a.ask(CLONE, DomainState::Running).await.unwrap();
    a.save(CLONE).await.unwrap();
    until("its export is given back", async || {
        storage.open_to().await.is_empty()
    })
    .await;
    // While the storage host is silent it stays saved, however often it is tried.
    storage.volumes.be_silent(true);
    for _ in 0..2 {
        a.restore(CLONE).await.unwrap_err();
        assert_eq!(a.report(CLONE).await.state, DomainState::Saved);
    }
    storage.volumes.be_silent(false);
    // Nor is anything lost when its fence is recorded, and then cannot be done: it stands there from now on.
    storage.volumes.fail_once_recorded(true);
    for _ in 0..2 {
        storage.grant_next(&a).await;
        let tried = a.entry(CLONE).await.floor.next();
        let failed = a.restore(CLONE).await.unwrap_err();
        assert_eq!(failed.problem().unwrap().kind, ProblemKind::Failed);
        assert_eq!(a.report(CLONE).await.state, DomainState::Saved);
        let volume = storage.volumes.show(&name(CLONE)).await.unwrap();
        assert_eq!(volume.fenced, tried);
    }
    storage.volumes.fail_once_recorded(false);
    // Tries of its own count for nothing.
    storage.grant_next(&a).await;
    a.restore(CLONE).await.unwrap();
    let held = a.entry(CLONE).await.generation;
    assert_eq!(storage.open_to().await, opened(&[(held.0, "host1")]));
    assert!(storage.writes(held.0, "host1"));
    a.save(CLONE).await.unwrap();
    // Somebody else has it and writes, as after a manager that has lost its store.
    let (clone, volumes) = (name(CLONE), &storage.volumes);
    let next = held.next();
    storage.grant(next.0, "host7").await;
    volumes.export(&clone, next, "host7").await.unwrap();
    let fenced = volumes.fence(&clone, next, By::Host("host7"));
    fenced.await.unwrap();
    for _ in 0..3 {
        let refused = a.restore(CLONE).await.unwrap_err();
        let problem = refused.problem().unwrap();
        assert!(problem.error.contains("has gone on"), "{problem}");
        assert_eq!(problem.kind, estive_api::ProblemKind::Impossible);
        assert_eq!(a.report(CLONE).await.state, DomainState::Saved);
        a.restart().await;
    }
    assert!(storage.writes(next.0, "host7"), "the other was cut off");
    assert!(world.fabric.runs_at(&clone).is_empty());
    a.drop_saved(CLONE).await.unwrap();
    storage.grant_next(&a).await;
    a.ask(CLONE, DomainState::Running).await.unwrap();
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_manager_grants_and_a_stranger_gets_nothing() {
    let world = World::new();
    let storage = Storage::start(&world).await;
    let stranger = Authority::open_or_create(world.home.path().join("other")).unwrap();
    storage.grant(1, "host7").await;
    let endpoint = Endpoint::Tls {
        host: ADDRESS.to_string(),
        port: storage.port,
    };
    let client = |authority: &Authority, role, name: &str| {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("tls");
        let issued = authority.issue(role, name, &[], BOUND).unwrap();
        issued.write_to(&place).unwrap();
        let credentials = Credentials::load(&place).unwrap();
        Client::new(endpoint.clone(), Some(&credentials)).unwrap()
    };
    let path = |rest: &str| format!("/v1/volumes/{CLONE}/{rest}");
    let grant = |host: &str| VolumeGrant {
        client: HostName::new(host).unwrap(),
    };
    let granted = async |client: &Client, generation: u64, host: &str| {
        let path = path(&format!("grants/{generation}"));
        let granted: Result<VolumeReport, _> = client.put_json(&path, &grant(host), BOUND).await;
        granted
    };
    let opened = async |client: &Client, generation: u64| {
        let path = path(&format!("exports/{generation}"));
        let opened: Result<ExportPlace, _> = client.put_json(&path, &(), BOUND).await;
        opened
    };
    let fenced = async |client: &Client, generation: u64| {
        let order = FenceOrder {
            generation: Generation(generation),
            only_at: None,
        };
        let fenced: Result<VolumeReport, _> = client.put_json(&path("fence"), &order, BOUND).await;
        fenced
    };
    let manager = client(&world.authority, Role::Manager, "manager");
    let host7 = client(&world.authority, Role::Agent, "host7");
    let host8 = client(&world.authority, Role::Agent, "host8");
    let forged = client(&stranger, Role::Manager, "manager");
    let unknown = client(&stranger, Role::Agent, "host7");
    for who in [&host7, &host8, &forged, &unknown] {
        assert!(granted(who, 2, "host8").await.is_err());
    }
    for role in [Role::User, Role::Storage] {
        let who = client(&world.authority, role, "anna");
        assert!(granted(&who, 2, "host8").await.is_err());
        assert!(opened(&who, 1).await.is_err() && fenced(&who, 1).await.is_err());
    }
    for who in [&host8, &unknown, &forged, &manager] {
        assert!(opened(who, 1).await.is_err());
    }
    for who in [&host8, &unknown, &forged] {
        for generation in [1, 2, u64::MAX] {
            assert!(fenced(who, generation).await.is_err());
        }
        let path = path("exports/1");
        let shut: Result<(), _> = who.delete_json(&path, BOUND).await;
        // What was not opened yet could not be shut by another either: the grant stands.
        assert!(shut.is_err());
    }
    opened(&host7, 1).await.unwrap();
    assert_eq!(storage.open_to().await, self::opened(&[(1, "host7")]));
    assert!(fenced(&host7, 2).await.is_err());
    // Of no generation at all it may not stand anywhere.
    let order = FenceOrder {
        generation: Generation(1),
        only_at: Some(Vec::new()),
    };
    let nowhere: Result<VolumeReport, _> = host7.put_json(&path("fence"), &order, BOUND).await;
    assert!(nowhere.is_err());
    fenced(&host7, 1).await.unwrap();
    granted(&manager, 2, "host8").await.unwrap();
    opened(&host8, 2).await.unwrap();
    assert!(storage.writes(1, "host7"));
}
