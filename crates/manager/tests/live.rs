//! Clones of a live reference, from a herd file to what each host lets in: placed, stopped, moved, taken down.

mod common;

use axum::extract::{Path, State};
use common::*;
use estive_api::authority::Authority;
use estive_api::domain_xml::{DiskSource, DomainXml};
use estive_api::server::{JsonBody, Listen, Listener};
use estive_api::wire::*;
use estive_api::{Credentials, ProblemKind, Role};
use estive_manager::ReferenceConfig;
use estive_model::DomainState;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

const HERD: &str = "
memory_mib: 128
hosts:
  plain:
  sealed: {shared: {/home: {}, /data: {from: \"nfs://10.0.0.1/data\"}}}
  live: {reference: live, address: 10.77.0.101}
  own: {reference: live, root: \"nfs:10.77.0.9:/:ro:vers=3:follow;estive;tmpfs:size=9m\"}
";

async fn world() -> World {
    let mut world = World::new(2).await;
    world.stop_manager().await;
    world.live = true;
    world.start_manager().await;
    world
}

async fn description(world: &World, domain: &str) -> DomainXml {
    let held = world.show(domain).await.host;
    let number = if held == host(1) { 1 } else { 2 };
    let path = format!("/domain/{domain}/config.xml");
    let xml = world.agent(number).get_bytes(&path, 1 << 20, BOUND).await;
    DomainXml::parse(std::str::from_utf8(&xml.unwrap()).unwrap()).unwrap()
}

/// The domains that each host lets in.
fn let_in(world: &World) -> [Vec<String>; 2] {
    [1, 2].map(|number| {
        let directory = format!("host{number}/state/cache/live");
        let entries = std::fs::read_dir(world.home.path().join(directory));
        let name = |entry: std::fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<String> = entries.into_iter().flatten().flatten().map(name).collect();
        names.sort();
        names
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_file_names_a_live_reference_and_no_line() {
    let world = world().await;
    let (done, _) = world.up("d", HERD).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let live = description(&world, "live").await;
    let line =
        " root=nfs:10.77.0.9:/:vers=3:port=2049:mountport=2049:actimeo=1:ro:follow;estive;tmpfs";
    assert!(live.command_line.ends_with(line), "{}", live.command_line);
    let route = live.live.unwrap();
    assert_eq!(route.reference, "live");
    assert_eq!(route.door, "10.77.0.9:2049".parse().unwrap());
    assert_eq!(route.origins.len(), 1);
    assert_eq!(live.root, live.modules);
    let own = description(&world, "own").await;
    assert!(own.live.is_some() && own.command_line.ends_with("tmpfs:size=9m"));
    let plain = description(&world, "plain").await;
    assert!(plain.live.is_none() && matches!(plain.root, DiskSource::Root(_)));
    let sealed = description(&world, "sealed").await;
    assert!(matches!(sealed.root, DiskSource::Root(_)));
    assert_eq!(sealed.live.unwrap().reference, "default");
    let words = " estive.shared=/data=nfs:10.0.0.1:/data \
                 estive.shared=/home=nfs:10.77.0.9:/home:vers=3:port=2049:mountport=2049:actimeo=1";
    assert!(
        sealed.command_line.ends_with(words),
        "{}",
        sealed.command_line
    );
    assert_ne!(
        sealed.initramfs, plain.initramfs,
        "it has the modules of NFS"
    );

    let notes = let_in(&world);
    let mut both = notes.concat();
    both.sort();
    assert_eq!(both, ["live.json", "own.json", "sealed.json"]);
    // It moves: what the one host lets in, the other does no more.
    let here = usize::from(world.show("live").await.host == host(2));
    assert!(notes[here].contains(&"live.json".to_owned()), "{notes:?}");
    let to = if here == 0 { 2 } else { 1 };
    let (moved, _) = world.migrate("live", Some(to)).await.unwrap();
    assert!(matches!(moved, MigrateLine::Done { .. }), "{moved:?}");
    until("one host alone lets it in", async || {
        let notes = let_in(&world);
        let has = |number: usize| notes[number].contains(&"live.json".to_owned());
        has(1 - here) && !has(here)
    })
    .await;
    let same = description(&world, "live").await.live.unwrap();
    assert_eq!(same, route);
    // Again, nothing is done; stopped, it is let in no more.
    let (done, lines) = world.up("d", HERD).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let warns = |line: &&UpLine| matches!(line, UpLine::Warning { .. });
    assert_eq!(lines.iter().filter(warns).count(), 0, "{lines:?}");
    world.order("live", DomainState::Stopped).await.unwrap();
    assert!(!let_in(&world).concat().contains(&"live.json".to_owned()));
    world.order("live", DomainState::Running).await.unwrap();
    assert_eq!(let_in(&world).concat().len(), 3);
    let (down, _) = world.down("d").await;
    assert!(matches!(down, DownLine::Done), "{down:?}");
    assert_eq!(let_in(&world).concat(), [""; 0]);
    world.stop().await;
}

/// The manager begins again with other references.
async fn with_references(world: &mut World, edit: fn(&mut BTreeMap<String, ReferenceConfig>)) {
    world.stop_manager().await;
    world.edit = edit;
    world.start_manager().await;
}

/// Whether all that a clone boots with is of one kind of root.
fn is_live(clone: &DomainXml) -> bool {
    let facts = [
        clone.live.is_some(),
        clone.command_line.contains("root=nfs:"),
        matches!(clone.root, DiskSource::File(_)),
    ];
    assert!(facts.iter().all(|fact| *fact == facts[0]), "{clone:?}");
    facts[0]
}

fn warnings(lines: &[UpLine]) -> Vec<String> {
    let warning = |line: &UpLine| match line {
        UpLine::Warning { text } => Some(text.clone()),
        _ => None,
    };
    lines.iter().filter_map(warning).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_of_another_kind_is_taken_by_up_and_never_by_half() {
    let mut world = world().await;
    let herd = "{memory_mib: 64, hosts: {a: , b: }}";
    let (done, _) = world.up("d", herd).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let live: fn(&mut BTreeMap<String, ReferenceConfig>) = |references| {
        let default = references.get_mut("default").unwrap();
        (default.root, default.live) = (None, default.shares.take());
    };
    for (to, edit) in [(true, live), (false, |_| {})] {
        world.order("a", DomainState::Stopped).await.unwrap();
        with_references(&mut world, edit).await;
        // A start alone has it boot as it would have before.
        world.order("a", DomainState::Running).await.unwrap();
        assert_eq!(is_live(&description(&world, "a").await), !to);
        world.order("a", DomainState::Stopped).await.unwrap();
        let (done, lines) = world.up("d", herd).await;
        assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
        assert_eq!(is_live(&description(&world, "a").await), to);
        assert_eq!(is_live(&description(&world, "b").await), !to);
        let said = warnings(&lines);
        assert!(said[0].starts_with("b: on an older root"), "{said:?}");
        // For the way back, both are of one kind.
        world.order("b", DomainState::Stopped).await.unwrap();
        let (done, _) = world.up("d", herd).await;
        assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_way_to_a_live_reference_reaches_its_clones() {
    let mut world = world().await;
    let herd = "{memory_mib: 64, reference: live, hosts: {a: , b: }}";
    let (done, _) = world.up("d", herd).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    // Another origin: a start alone takes it.
    world.order("a", DomainState::Stopped).await.unwrap();
    with_references(&mut world, |references| {
        let route = references.get_mut("live").unwrap().live.as_mut().unwrap();
        route.origins = vec!["https://127.0.0.1:7611".parse().unwrap()];
    })
    .await;
    world.order("a", DomainState::Running).await.unwrap();
    let taken = description(&world, "a").await.live.unwrap();
    assert_eq!(taken.origins[0].to_string(), "https://127.0.0.1:7611");
    let (done, lines) = world.up("d", herd).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let said = warnings(&lines);
    assert!(said[0].starts_with("b: on an older route"), "{said:?}");
    // Another port: the line is another, so only `up` has it; nobody's herd file has changed.
    world.order("a", DomainState::Stopped).await.unwrap();
    with_references(&mut world, |references| {
        let route = references.get_mut("live").unwrap().live.as_mut().unwrap();
        route.port = 2050;
    })
    .await;
    let port = async || {
        let a = description(&world, "a").await;
        let port = a.live.unwrap().door.port();
        assert!(a.command_line.contains(&format!(":port={port}:")));
        port
    };
    world.order("a", DomainState::Running).await.unwrap();
    assert_eq!(port().await, 2049);
    world.order("a", DomainState::Stopped).await.unwrap();
    let (done, lines) = world.up("d", herd).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    assert_eq!(port().await, 2050);
    let said = warnings(&lines);
    assert!(said[0].starts_with("b: on an older route"), "{said:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_that_offers_nothing_to_share_is_said() {
    let world = World::new(1).await;
    let herd = "{memory_mib: 64, shared: {/home: {}}, hosts: {a: }}";
    let (failed, _) = world.up("d", herd).await;
    let UpLine::Failed { problem } = failed else {
        panic!("{failed:?}")
    };
    assert!(
        problem.error.contains("offers nothing to share"),
        "{problem}"
    );
    assert!(
        problem.to_string().contains("shares: {origins"),
        "{problem}"
    );
    assert_eq!(world.ls().await.len(), 0);
    world.stop().await;
}

/// As far as managers speak to it: who serves live references.
#[derive(Clone, Default)]
struct Origin {
    known: Arc<Mutex<BTreeMap<String, BTreeSet<LiveReader>>>>,
    /// How often somebody said something.
    heard: Arc<AtomicU64>,
}

impl Origin {
    async fn serve(&self, listen: &str, credentials: Credentials) -> (String, CancellationToken) {
        let address = listen.parse().unwrap();
        let listener = Listener::bind(Listen::Tls {
            address,
            credentials,
        });
        let listener = listener.await.unwrap();
        let endpoint = listener.endpoint().to_string();
        let say = async |State(origin): State<Origin>,
                         Path(reference): Path<String>,
                         JsonBody(said): JsonBody<LiveReaders>| {
            origin.heard.fetch_add(1, Ordering::SeqCst);
            let mut all = origin.known.lock().unwrap();
            let of = all.entry(reference).or_default();
            of.retain(|reader| !said.gone.contains(reader));
            of.extend(said.readers);
            axum::Json(())
        };
        let routes = axum::Router::new()
            .route("/v1/live/{reference}/readers", axum::routing::put(say))
            .with_state(self.clone());
        let ending = CancellationToken::new();
        tokio::spawn(listener.serve(routes, ending.clone()));
        (endpoint, ending)
    }

    /// Clone and host, of the reference `live`.
    fn readers(&self) -> Vec<String> {
        let all = self.known.lock().unwrap();
        let readers = all.get("live").into_iter().flatten();
        let shown = readers.map(|reader| format!("{} {}", reader.clone, reader.host));
        shown.collect()
    }
}

/// Who serves a live reference is told which clone may read it, from which host: before it runs there, and no longer than
/// it is there; and a manager that has lost what it knew takes nothing away.
#[tokio::test(flavor = "multi_thread")]
async fn who_serves_a_live_reference_hears_who_may_read_it() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(home.path().join("ca")).unwrap();
    let issued = |role, name: &str| {
        let place = home.path().join(name);
        let day = std::time::Duration::from_secs(86_400);
        let here = ["127.0.0.1".parse().unwrap()];
        let issued = authority.issue(role, name, &here, day).unwrap();
        issued.write_to(&place).unwrap();
        place
    };
    let storage = Credentials::load(issued(Role::Storage, "storage")).unwrap();
    let origin = Origin::default();
    let (endpoint, ending) = origin.serve("127.0.0.1:0", storage.clone()).await;
    let mut world = World::new(2).await;
    world.stop_manager().await;
    world.live = true;
    world.live_origin = endpoint.parse().unwrap();
    world.credentials = Some(issued(Role::Manager, "manager"));
    world.start_manager().await;
    let herd = "{memory_mib: 64, hosts: {plain: , live: {reference: live, address: 10.77.0.101}}}";
    let (done, _) = world.up("d", herd).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let here = world.show("live").await.host;
    let number = if here == host(1) { 1 } else { 2 };
    let on = |number: u8| format!("10.77.0.101 host{number}");
    assert_eq!(origin.readers(), [on(number)]);
    let (moved, _) = world.migrate("live", Some(3 - number)).await.unwrap();
    assert!(matches!(moved, MigrateLine::Done { .. }), "{moved:?}");
    until("its first host may read no more", async || {
        origin.readers() == [on(3 - number)]
    })
    .await;
    // Nobody there: it does not start, and it is said; who runs, runs on.
    world.order("live", DomainState::Stopped).await.unwrap();
    ending.cancel();
    let address = endpoint.trim_start_matches("https://");
    until("it listens no more", async || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
    let failed = world.order("live", DomainState::Running).await.unwrap_err();
    let problem = failed.problem().unwrap();
    assert_eq!(problem.kind, ProblemKind::Unreachable, "{problem}");
    assert!(
        problem.error.contains("the live reference live"),
        "{problem}"
    );
    world.order("plain", DomainState::Stopped).await.unwrap();
    world.order("plain", DomainState::Running).await.unwrap();
    // One that comes back and has forgotten all hears it again.
    origin.known.lock().unwrap().clear();
    let (_, ending) = origin.serve(address, storage).await;
    world.order("live", DomainState::Running).await.unwrap();
    assert_eq!(origin.readers(), [on(3 - number)]);
    // A manager that has lost its store.
    world.stop_manager().await;
    let store = world.home.path().join("manager/store.redb");
    let aside = world.home.path().join("store-aside");
    std::fs::rename(&store, &aside).unwrap();
    let heard = origin.heard.load(Ordering::SeqCst);
    world.start_manager().await;
    // Of `live` and of `default`, whole once.
    until("it has said what it knows", async || {
        origin.heard.load(Ordering::SeqCst) >= heard + 2
    })
    .await;
    assert_eq!(origin.readers(), [on(3 - number)]);
    world.stop_manager().await;
    std::fs::rename(&aside, &store).unwrap();
    world.start_manager().await;
    let (down, _) = world.down("d").await;
    assert!(matches!(down, DownLine::Done), "{down:?}");
    until("nobody may read", async || origin.readers().is_empty()).await;
    world.stop().await;
    ending.cancel();
}
