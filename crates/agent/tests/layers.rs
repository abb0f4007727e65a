//! Layers pushed to one agent: what the guest agent is asked, what is kept, what is refused. The guest is played.

mod common;

use common::*;
use estive_api::ClientError;
use estive_api::wire::*;
use estive_archive::LayerArchive;
use estive_boot::PushReport;
use estive_boot::push::WhyLeft;
use estive_hypervisor::guest_exec::GuestExit;
use estive_hypervisor::simulated::{Fault, SimulatedCall, SimulatedGuestAgent, Step};
use estive_hypervisor::{Channels, Hypervisor as _};
use estive_model::{DomainState, Event, EventKind, Generation};
use std::sync::{Arc, Mutex, mpsc};

fn layer(content: &str) -> Vec<u8> {
    let mut layer = LayerArchive::new();
    layer.file("etc/motd", 0o644, 0, 0, content).unwrap();
    layer.finish().unwrap()
}

fn report() -> PushReport {
    let mut report = PushReport::new();
    report.add_written("etc/motd");
    report.add_left("etc/\u{1b}[2Jown", WhyLeft::Own, "changed in the clone");
    report
}

fn ends_well(_: SimulatedCall) -> GuestExit {
    GuestExit {
        code: Some(0),
        output: report().to_json().into_bytes(),
        error: Vec::new(),
    }
}

fn channels(host: &Host) -> Channels {
    let fabric = host.fabric.as_ref().unwrap();
    fabric.hypervisor(host.address).channels(&name("clone01"))
}

/// A host on which clone01 runs, as generation 2.
async fn running(world: &World, number: u8) -> Host {
    world.fabric.channels_below(world.home.path().join("c"));
    let mut host = world.host(number);
    host.start().await;
    host.define("clone01").await;
    host.ask("clone01", DomainState::Running).await.unwrap();
    host
}

/// Has the guest's init say that it has done its part.
async fn boots(host: &Host) {
    let path = channels(host).report;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "{\"phase\":\"switch\",\"uptime_ms\":5}\n").unwrap();
    until("the boot is over", async || {
        let report = host.report("clone01").await;
        report.boot.phases_ms.contains_key("switch")
    })
    .await;
}

async fn lines(host: &Host, query: &str, layer: Vec<u8>) -> Result<Vec<LayerLine>, ClientError> {
    let path = format!("/domain/clone01/layer{query}");
    let mut stream = host
        .client()
        .stream_lines_of(http::Method::PUT, &path, "application/x-cpio", layer, BOUND)
        .await?;
    let mut lines = Vec::new();
    while let Some(line) = stream.next().await {
        lines.push(line?);
    }
    Ok(lines)
}

async fn push(host: &Host, query: &str, layer: Vec<u8>) -> LayerLine {
    lines(host, query, layer).await.unwrap().pop().unwrap()
}

fn failed(line: LayerLine) -> String {
    match line {
        LayerLine::Failed { problem } => problem.error,
        other => panic!("{other:?}"),
    }
}

fn outcome(line: LayerLine) -> LayerOutcome {
    match line {
        LayerLine::Done { outcome } => outcome,
        other => panic!("{other:?}"),
    }
}

async fn kept(host: &Host) -> Vec<u8> {
    let path = "/domain/clone01/layer";
    let bytes = host.client().get_bytes(path, 64 << 20, BOUND).await;
    bytes.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_laid_over_the_guest_and_kept() {
    let world = World::new();
    let mut host = running(&world, 1).await;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = calls.clone();
    let _guest = SimulatedGuestAgent::listen(&channels(&host).guest_agent, move |call| {
        seen.lock().unwrap().push(call.clone());
        ends_well(call)
    })
    .unwrap();
    // Padding is not the layer's.
    let mut padded = layer("one");
    padded.resize(padded.len() + 4096, 0);
    let told = lines(&host, "?generation=2", padded).await.unwrap();
    assert_eq!(told[0], LayerLine::Laying);
    let LayerOutcome::Laid { report: said } = outcome(told[1].clone()) else {
        panic!("{told:?}");
    };
    assert_eq!(said.written, ["etc/motd"]);
    // Nothing that a guest says moves a terminal's cursor.
    assert_eq!(said.left[0].path, "etc/ [2Jown");
    let call = calls.lock().unwrap().pop().unwrap();
    assert_eq!(call.path, "/.unions/estive");
    assert_eq!(
        (call.arguments, call.input),
        (vec!["apply".to_owned()], layer("one"))
    );
    assert_eq!(kept(&host).await, layer("one"));

    // What an agent that was killed before its journal knew has left is nobody's.
    let place = host.config.state.join("domains/clone01");
    std::fs::write(
        place.join(format!("layer-{}", digest(b"other").hex())),
        "other",
    )
    .unwrap();
    std::fs::write(place.join("layer-partial"), "half").unwrap();
    host.restart().await;
    assert_eq!(kept(&host).await, layer("one"));
    // The same again, another, and an agent that comes back.
    push(&host, "", layer("one")).await;
    push(&host, "", layer("another")).await;
    host.restart().await;
    assert_eq!(kept(&host).await, layer("another"));
    let names = std::fs::read_dir(&place).unwrap();
    let layers: Vec<_> = names
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("layer"))
        .collect();
    assert_eq!(layers.len(), 1, "{layers:?}");
    let size = layers[0].metadata().unwrap().len();
    assert_eq!(size, estive_model::LAYER_DISK_BYTES);

    // It starts with it again, and moves with it.
    host.ask("clone01", DomainState::Stopped).await.unwrap();
    host.ask("clone01", DomainState::Running).await.unwrap();
    let archive = host
        .client()
        .get_bytes("/domain/clone01", 64 << 20, BOUND)
        .await;
    let archive = archive.unwrap();
    let layer_of_archive = tar::Archive::new(&archive[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap())
        .find(|entry| entry.path().unwrap().ends_with("layer"))
        .map(|mut entry| {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            bytes
        });
    assert_eq!(layer_of_archive, Some(layer("another")));
    let events: Vec<Event> = host.client().get_json("/events", BOUND).await.unwrap();
    let reasons: Vec<&str> = events
        .iter()
        .filter(|event| event.kind == EventKind::LayerPushed)
        .map(|event| event.reason.as_str())
        .collect();
    assert_eq!(reasons.len(), 3);
    assert!(
        reasons[0].contains("1 written, 0 removed, 1 left"),
        "{reasons:?}"
    );

    // Defined anew it has the layer of its definition.
    host.ask("clone01", DomainState::Stopped).await.unwrap();
    let client = host.client();
    let gone = client.delete_json::<()>("/domain/clone01", BOUND).await;
    gone.unwrap();
    host.define("clone01").await;
    assert!(kept(&host).await == vec![7; 1000]);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_run_takes_it_at_its_next_start() {
    let world = World::new();
    let mut host = running(&world, 1).await;
    // Its layer disk may be half read: nothing is touched.
    let error = failed(push(&host, "", layer("early")).await);
    assert!(error.contains("still starting"), "{error}");
    assert_eq!(kept(&host).await, vec![7; 1000]);
    boots(&host).await;
    let LayerOutcome::Unreached { reason } = outcome(push(&host, "", layer("one")).await) else {
        panic!("there is no guest agent");
    };
    assert_eq!(
        reason,
        "no guest agent answers in clone01: taken at its next start"
    );
    assert_eq!(kept(&host).await, layer("one"));

    host.ask("clone01", DomainState::Paused).await.unwrap();
    let paused = outcome(push(&host, "", layer("two")).await);
    assert!(
        matches!(paused, LayerOutcome::Unreached { .. }),
        "{paused:?}"
    );
    host.ask("clone01", DomainState::Stopped).await.unwrap();
    let stopped = outcome(push(&host, "", layer("three")).await);
    assert!(
        matches!(stopped, LayerOutcome::NextStart { .. }),
        "{stopped:?}"
    );
    assert_eq!(kept(&host).await, layer("three"));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_changes_nothing() {
    let world = World::new();
    let mut host = running(&world, 1).await;
    boots(&host).await;
    let guest = SimulatedGuestAgent::listen(&channels(&host).guest_agent, |call| GuestExit {
        code: Some(i64::from(call.arguments.len() == 1)),
        output: report().to_json().into_bytes(),
        error: b"the layer has files in lib,\nwhich is a symbolic link".to_vec(),
    })
    .unwrap();
    let error = failed(push(&host, "", layer("one")).await);
    assert!(error.contains("files in lib, which is a"), "{error}");
    // With --dry-run it ends well, and nothing is kept either.
    let foretold = outcome(push(&host, "?dry_run=true", layer("one")).await);
    assert!(
        matches!(foretold, LayerOutcome::Laid { .. }),
        "{foretold:?}"
    );
    let old = failed(push(&host, "?generation=1", layer("one")).await);
    assert!(old.contains("generation 2 here"), "{old}");
    for garbage in [
        b"no layer".to_vec(),
        layer("x")[..200].to_vec(),
        vec![0; 20 << 20],
    ] {
        assert!(lines(&host, "", garbage).await.is_err());
    }
    let client = host.client();
    let nobody = client.stream_lines_of::<LayerLine>(
        http::Method::PUT,
        "/domain/other/layer",
        "application/x-cpio",
        layer("x"),
        BOUND,
    );
    assert!(nobody.await.err().unwrap().is_not_found());
    drop(guest);
    let _guest = SimulatedGuestAgent::listen(&channels(&host).guest_agent, |_| GuestExit {
        code: Some(0),
        output: b"hello".to_vec(),
        error: Vec::new(),
    });
    let error = failed(push(&host, "", layer("one")).await);
    assert!(error.contains("it gave no report"), "{error}");
    assert_eq!(kept(&host).await, vec![7; 1000]);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_pushed_to_what_moves() {
    let world = World::new();
    let mut a = running(&world, 1).await;
    boots(&a).await;
    let _guest = SimulatedGuestAgent::listen(&channels(&a).guest_agent, ends_well);
    push(&a, "", layer("one")).await;
    let mut b = world.host(2);
    b.start().await;
    let strike = (a.address, name("clone01"));
    world
        .fabric
        .inject(strike.0, &strike.1, Step::Copying, Fault::Hold);
    let stream = b.prepare(&a, "clone01", 3, false).await.unwrap();
    a.send(&b, stream, "clone01", 3, false).await.unwrap();
    for host in [&a, &b] {
        let error = failed(push(host, "", layer("two")).await);
        assert!(error.contains("is being moved"), "{error}");
    }
    world.fabric.heal(strike.0, &strike.1);
    until("it runs there", async || {
        world.fabric.runs_at(&name("clone01")) == [b.address]
    })
    .await;
    // The kept layer came along, and the next one is the destination's matter.
    assert_eq!(kept(&b).await, layer("one"));
    let _there = SimulatedGuestAgent::listen(&channels(&b).guest_agent, ends_well);
    let generation = Generation(3);
    push(&b, &format!("?generation={generation}"), layer("two")).await;
    assert_eq!(kept(&b).await, layer("two"));
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_push_at_a_time() {
    let world = World::new();
    let mut host = running(&world, 1).await;
    let (begun, mut wait_begun) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let _guest = SimulatedGuestAgent::listen(&channels(&host).guest_agent, move |call| {
        begun.send(()).unwrap();
        tokio::task::block_in_place(|| wait.lock().unwrap().recv().unwrap());
        ends_well(call)
    });
    let first = push(&host, "", layer("one"));
    let second = async {
        wait_begun.recv().await.unwrap();
        let second = push(&host, "", layer("two")).await;
        go_on.send(()).unwrap();
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert!(failed(second).contains("already"));
    outcome(first);
    assert_eq!(kept(&host).await, layer("one"));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_images_is_not_asked_to_take_any() {
    let world = World::new();
    let mut host = world.host(1);
    let images = world.home.path().canonicalize().unwrap();
    std::fs::write(images.join("disk"), "data").unwrap();
    host.config.images = vec![images.clone()];
    host.start().await;
    let text = format!(
        "<domain type='qemu'><name>clone01</name><uuid>8d2f0a3e-0000-4000-8000-00000000000a</uuid>
        <memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices><disk type='file'>
        <driver name='qemu' type='raw'/><source file='{}/disk'/><target dev='vda' bus='virtio'/></disk></devices></domain>",
        images.display()
    );
    host.try_define("clone01", text.trim_start().as_bytes().to_vec())
        .await
        .unwrap();
    for state in [DomainState::Stopped, DomainState::Running] {
        host.ask("clone01", state).await.unwrap();
        for query in ["?dry_run=true", ""] {
            let error = failed(push(&host, query, layer("one")).await);
            assert!(error.contains("image files"), "{error}");
        }
    }
    host.stop().await;
}
