//! Domains with image files of their own, in no herd, through the manager: simulated ones in every way, and a real one that
//! moves between two agents on one directory.

mod common;

use common::*;
use estive_api::ClientError;
use estive_api::wire::*;
use estive_hypervisor::conformance::counting_disk;
use estive_hypervisor::simulated::{Fault, Step};
use estive_model::{DomainState, Event, EventKind};
use std::path::Path;

const ONE: &str = "{memory_mib: 128, network: 10.77.0.0/24, hosts: {clone01: }}";

fn description(name: &str, memory_mib: u64, disk: &Path) -> Vec<u8> {
    format!(
        "<domain type='kvm'><name>{name}</name><uuid>8d2f0a3e-0000-4000-8000-00000000000a</uuid>
        <memory unit='MiB'>{memory_mib}</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices><disk type='file'>
        <driver name='qemu' type='raw'/><source file='{}'/><target dev='vda' bus='virtio'/></disk></devices></domain>",
        disk.display()
    )
    .into_bytes()
}

impl World {
    async fn define(
        &self,
        name: &str,
        host: Option<u8>,
        description: Vec<u8>,
    ) -> Result<HerdDomain, ClientError> {
        let mut path = format!("/domain/{name}");
        if let Some(number) = host {
            path.push_str(&format!("?host=host{number}"));
        }
        let client = self.client();
        client
            .put_bytes(&path, "application/xml", description, BOUND)
            .await
    }

    async fn delete(&self, name: &str) -> Result<(), ClientError> {
        let path = format!("/domain/{name}");
        self.client().delete_json(&path, BOUND).await
    }

    async fn save(&self, name: &str) -> Result<HerdDomain, ClientError> {
        let path = format!("/domain/{name}/saved");
        let order = SaveOrder::default();
        self.client().put_json(&path, &order, BOUND).await
    }

    async fn restore(&self, name: &str) -> Result<HerdDomain, ClientError> {
        let path = format!("/domain/{name}/restore");
        let order = SaveOrder::default();
        self.client().post_json(&path, &order, BOUND).await
    }

    async fn names(&self) -> Vec<String> {
        let shown = self.ls().await;
        shown.iter().map(|domain| domain.name.to_string()).collect()
    }

    async fn ordered_moves(&self) -> usize {
        let events: Vec<Event> = self.client().get_json("/events", BOUND).await.unwrap();
        let ordered = events
            .iter()
            .filter(|event| event.kind == EventKind::MoveOrdered);
        ordered.count()
    }
}

/// What an error says, if it has this exit code.
fn said<T: std::fmt::Debug>(answer: Result<T, ClientError>, code: u8) -> String {
    let error = answer.unwrap_err();
    assert_eq!(error.exit_code(), code, "{error}");
    error
        .problem()
        .map_or(String::new(), |said| said.error.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_recorded_and_lives_beside_herds() {
    let mut world = World::new(3).await;
    let disk = world.images().join("shop.raw");
    std::fs::write(&disk, "data").unwrap();
    let text = |memory_mib| description("shop", memory_mib, &disk);

    assert!(said(world.define("shop", None, text(128)).await, 2).contains("which host"));
    assert!(said(world.define("shop", Some(9), text(128)).await, 2).contains("no host host9"));
    assert!(said(world.define("shop", Some(1), text(4096)).await, 2).contains("memory"));
    assert!(said(world.define("other", Some(1), text(128)).await, 1).contains("is of shop"));
    let elsewhere = description("shop", 128, Path::new("/etc/shadow"));
    for (host, text) in [(1, elsewhere), (3, text(128))] {
        let refused = said(world.define("shop", Some(host), text).await, 3);
        assert!(refused.contains("allows images in"), "{refused}");
    }
    let missing = description("shop", 128, &world.images().join("none"));
    said(world.define("shop", Some(1), missing).await, 2);
    assert!(world.ls().await.is_empty() && world.held().await.is_empty());

    let defined = world.define("shop", Some(1), text(64)).await.unwrap();
    assert_eq!((defined.deployment, defined.address.as_str()), (None, ""));
    assert_eq!(
        (
            defined.host,
            defined.state,
            defined.wanted,
            defined.memory_mib
        ),
        (host(1), DomainState::Stopped, DomainState::Stopped, 64)
    );
    // Made anew where it is, and nowhere else.
    assert!(said(world.define("shop", Some(2), text(128)).await, 2).contains("is on host1"));
    let anew = world.define("shop", None, text(128)).await.unwrap();
    assert_eq!((anew.memory_mib, anew.host.clone()), (128, host(1)));
    assert!(anew.generation > defined.generation);
    let gone = description("shop", 256, &world.images().join("none"));
    said(world.define("shop", None, gone).await, 2);
    assert_eq!(world.show("shop").await.memory_mib, 128);

    let runs = world.order("shop", DomainState::Running).await.unwrap();
    assert_eq!(
        (runs.state, runs.wanted),
        (DomainState::Running, DomainState::Running)
    );
    assert!(said(world.define("shop", None, text(64)).await, 2).contains("not stopped"));
    assert!(said(world.delete("shop").await, 2).contains("only a stopped"));
    let key: Result<HostKey, _> = world
        .client()
        .get_json("/domain/shop/host-key", BOUND)
        .await;
    assert!(said(key, 2).contains("disks of its own"));
    let roots: RootsInUse = world.client().get_json("/roots", BOUND).await.unwrap();
    assert_eq!(roots.unknown, [""; 0]);

    // Herds come and go beside it, and neither takes the other's names.
    let named_so = "{memory_mib: 128, network: 10.77.0.0/24, hosts: {shop: }}";
    let (failed, _) = world.up("second", named_so).await;
    let UpLine::Failed { problem } = failed else {
        panic!("{failed:?}");
    };
    assert!(problem.error.contains("of no deployment"), "{problem}");
    let (done, _) = world.up("first", ONE).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    assert_eq!(world.names().await, ["clone01", "shop"]);
    let deployments: Vec<DeploymentReport> = world
        .client()
        .get_json("/deployments", BOUND)
        .await
        .unwrap();
    assert_eq!(deployments.len(), 1);
    let clone = description("clone01", 64, &disk);
    for refused in [
        said(world.define("clone01", Some(2), clone).await, 2),
        said(world.delete("clone01").await, 2),
    ] {
        assert!(refused.contains("of the deployment first"), "{refused}");
    }
    world.down("first").await;
    assert_eq!(world.names().await, ["shop"]);

    // A silent host changes nothing; a manager that comes back knows it.
    world.stop_agent(1).await;
    until("its host is silent", async || {
        world.show("shop").await.state == DomainState::Unknown
    })
    .await;
    said(world.delete("shop").await, 4);
    said(world.order("shop", DomainState::Stopped).await, 4);
    said(world.migrate("shop", Some(2)).await, 4);
    world.start_agent(1).await;
    world.stop_manager().await;
    world.start_manager().await;
    until("its host is known again", async || {
        world.show("shop").await.state == DomainState::Running
    })
    .await;
    world.order("shop", DomainState::Stopped).await.unwrap();
    world.delete("shop").await.unwrap();
    assert!(world.ls().await.is_empty() && world.held().await.is_empty());
    assert_eq!(std::fs::read(&disk).unwrap(), b"data");
    assert!(said(world.delete("shop").await, 1).contains("no domain shop"));
    let again = world.define("shop", Some(2), text(128)).await.unwrap();
    assert!(again.generation > runs.generation);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_moves_only_to_where_its_very_files_are() {
    let mut world = World::new(3).await;
    let disk = world.images().join("shop.raw");
    let other = world.images().join("other.raw");
    for disk in [&disk, &other] {
        std::fs::write(disk, "data").unwrap();
    }
    let text = description("shop", 128, &disk);
    world.define("shop", Some(1), text).await.unwrap();
    assert!(said(world.migrate("shop", Some(2)).await, 2).contains("only a running"));
    world.order("shop", DomainState::Running).await.unwrap();
    let before = world.show("shop").await;

    // Host 3 allows no images; on host 2 lies another file at that path.
    let refused = said(world.migrate("shop", Some(3)).await, 2);
    assert!(refused.contains("allows images in"), "{refused}");
    let aside = world.images().join("aside");
    std::fs::rename(&disk, &aside).unwrap();
    std::fs::copy(&aside, &disk).unwrap();
    for to in [Some(2), None] {
        said(world.migrate("shop", to).await, 2);
    }
    std::fs::rename(&aside, &disk).unwrap();
    assert_eq!(world.ordered_moves().await, 0, "before anything happens");
    let shown = world.show("shop").await;
    assert_eq!(
        (shown.generation, shown.moving, shown.state),
        (before.generation, None, DomainState::Running)
    );
    let (done, _) = world.migrate("shop", Some(2)).await.unwrap();
    assert!(matches!(done, MigrateLine::Done { .. }), "{done:?}");
    let (done, _) = world.migrate("shop", Some(1)).await.unwrap();
    assert!(matches!(done, MigrateLine::Done { .. }), "{done:?}");

    // Of itself it goes to where it can be, though host 3 has more room.
    let text = description("other", 128, &other);
    world.define("other", Some(2), text).await.unwrap();
    let (done, lines) = world.migrate("shop", None).await.unwrap();
    assert!(matches!(done, MigrateLine::Done { .. }), "{done:?}");
    let MigrateLine::Ordered { destination, .. } = &lines[0] else {
        panic!("{lines:?}");
    };
    assert_eq!(*destination, host(2));
    let shown = world.show("shop").await;
    assert_eq!((shown.host, shown.state), (host(2), DomainState::Running));
    assert_eq!(world.fabric.runs_at(&name("shop")), [address(2)]);

    // A stream that fails leaves it; a manager that is killed on the way goes on.
    let fails = Fault::Refuse("the link is cut".into());
    world
        .fabric
        .inject(address(2), &name("shop"), Step::Copying, fails);
    let (failed, _) = world.migrate("shop", Some(1)).await.unwrap();
    assert!(matches!(failed, MigrateLine::Failed { .. }), "{failed:?}");
    assert_eq!(world.fabric.runs_at(&name("shop")), [address(2)]);
    world
        .fabric
        .inject(address(2), &name("shop"), Step::Copying, Fault::Hold);
    let order = MigrateOrder {
        to: Some(host(1)),
        reason: None,
    };
    let path = "/domain/shop/migrate";
    let body = serde_json::to_vec(&order).unwrap();
    let client = world.client();
    let lines = client
        .stream_lines_of::<MigrateLine>(http::Method::POST, path, "application/json", body, BOUND)
        .await
        .unwrap();
    drop(lines);
    until("its memory is copied", async || {
        let shown = world.show("shop").await.moving;
        shown.is_some_and(|moving| moving.waiting_for.contains("copied"))
    })
    .await;
    world.stop_manager().await;
    world.fabric.heal(address(2), &name("shop"));
    world.start_manager().await;
    until("it is on the other host", async || {
        let shown = world.show("shop").await;
        shown.moving.is_none() && shown.host == host(1) && shown.state == DomainState::Running
    })
    .await;
    assert_eq!(world.fabric.runs_at(&name("shop")), [address(1)]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_memory_is_kept_as_long_as_its_image_is_as_it_was() {
    let world = World::new(2).await;
    let disk = world.images().join("shop.raw");
    std::fs::write(&disk, "data").unwrap();
    let text = description("shop", 128, &disk);
    world.define("shop", Some(1), text).await.unwrap();
    world.order("shop", DomainState::Running).await.unwrap();
    let saved = world.save("shop").await.unwrap();
    assert_eq!(
        (saved.state, saved.wanted),
        (DomainState::Saved, DomainState::Saved)
    );
    assert!(said(world.order("shop", DomainState::Running).await, 2).contains("is saved"));
    assert!(said(world.migrate("shop", Some(2)).await, 2).contains("is saved"));
    let restored = world.restore("shop").await.unwrap();
    assert_eq!(restored.state, DomainState::Running);
    assert!(restored.generation > saved.generation);

    world.save("shop").await.unwrap();
    std::fs::write(&disk, "tada").unwrap();
    let refused = said(world.restore("shop").await, 2);
    assert!(refused.contains("since shop was saved"), "{refused}");
    let shown = world.show("shop").await;
    assert_eq!(
        (shown.state, shown.wanted),
        (DomainState::Saved, DomainState::Saved)
    );
    assert!(shown.note.unwrap().contains("since shop was saved"));
    let path = "/domain/shop/saved";
    let dropped: HerdDomain = world.client().delete_json(path, BOUND).await.unwrap();
    assert_eq!(dropped.state, DomainState::Stopped);
    world.order("shop", DomainState::Running).await.unwrap();
    world.save("shop").await.unwrap();
    world.delete("shop").await.unwrap();
    assert!(world.held().await.is_empty() && disk.is_file());
    world.stop().await;
}

/// The highest number on a host's console, once it is above `least`.
async fn shown_past(world: &World, number: u8, least: u64) -> u64 {
    let log = world
        .home
        .path()
        .join(format!("host{number}/run/shop/console.log"));
    until("the machine counts", async || {
        counting_disk::shown(&log) > least
    })
    .await;
    counting_disk::shown(&log)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_machine_moves_and_is_saved_by_the_managers_word() {
    let world = World::with_qemu(2).await;
    let _ender = Ender(world.home.path().to_owned());
    let disk = world.images().join("shop.raw");
    counting_disk::make(&disk).unwrap();
    let text = description("shop", 64, &disk);
    world.define("shop", Some(1), text).await.unwrap();
    world.order("shop", DomainState::Running).await.unwrap();
    let mut counted = shown_past(&world, 1, 3).await;
    for number in [2, 1] {
        let (done, _) = world.migrate("shop", Some(number)).await.unwrap();
        assert!(matches!(done, MigrateLine::Done { .. }), "{done:?}");
        counted = shown_past(&world, number, counted).await;
    }
    world.save("shop").await.unwrap();
    world.restore("shop").await.unwrap();
    counted = shown_past(&world, 1, counted).await;
    world.order("shop", DomainState::Stopped).await.unwrap();
    let held = counting_disk::holds(&disk).unwrap();
    assert!(held >= counted, "{counted} was acknowledged; it has {held}");
    world.delete("shop").await.unwrap();
    assert!(disk.is_file() && world.held().await.is_empty());
    world.stop().await;
}
