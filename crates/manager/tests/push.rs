//! Layers pushed to a herd: simulated guests on three hosts, the real manager and agents.

mod common;

use common::*;
use estive_api::wire::*;
use estive_hypervisor::guest_exec::GuestExit;
use estive_hypervisor::simulated::{Fault, SimulatedGuestAgent, Step};
use estive_model::{DomainState, Event, EventKind};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const HERD: &str =
    "network: 10.77.1.0/24\naddresses: 10.77.1.101-10.77.1.199\nmemory_mib: 64\nsets: [own]\n";

/// What guests were sent, by clone.
type Seen = Arc<Mutex<BTreeMap<String, Vec<Vec<u8>>>>>;

fn herd(hosts: &str, page: &str) -> Vec<u8> {
    folder_with(
        &format!("{HERD}hosts: {{{hosts}}}\n"),
        &[
            ("sets/own/srv/page", page),
            (
                "sets/own/set.yaml",
                "services: [{files: [\"srv/**\"], restart: [pages]}]\n",
            ),
        ],
    )
}

/// Has the guests of these clones, by the number of their host, answer.
async fn guests(world: &World, seen: &Seen) -> Vec<SimulatedGuestAgent> {
    let domains: Vec<HerdDomain> = world.client().get_json("/domains", BOUND).await.unwrap();
    domains
        .into_iter()
        .map(|domain| {
            let seen = seen.clone();
            let name = domain.name.to_string();
            let socket = world.guest_agent(&domain.host, &domain.name);
            SimulatedGuestAgent::listen(&socket, move |call| {
                let mut seen = seen.lock().unwrap();
                let before = seen.entry(name.clone()).or_default();
                let mut report = PushReport::new();
                if before.last() != Some(&call.input) {
                    report.add_written("srv/page");
                }
                if call.arguments == ["apply"] {
                    before.push(call.input);
                }
                GuestExit {
                    code: Some(0),
                    output: report.to_json().into_bytes(),
                    error: Vec::new(),
                }
            })
            .unwrap()
        })
        .collect()
}

async fn push(world: &World, query: &str, body: Vec<u8>) -> PushLine {
    let path = format!("/deployment/pair/layers{query}");
    let lines = world
        .client()
        .stream_lines_of(http::Method::PUT, &path, "application/x-tar", body, BOUND)
        .await
        .unwrap();
    last(lines).await.0
}

fn rows(line: PushLine) -> BTreeMap<String, PushOutcome> {
    let PushLine::Done { clones } = line else {
        panic!("{line:?}");
    };
    clones
        .into_iter()
        .map(|row| (row.domain.to_string(), row.outcome))
        .collect()
}

fn written(outcome: &PushOutcome) -> u64 {
    match outcome {
        PushOutcome::Laid { report } => report.written_count(),
        other => panic!("{other:?}"),
    }
}

async fn kept(world: &World, number: u8, clone: &str) -> Vec<u8> {
    let path = format!("/domain/{clone}/layer");
    let agent = world.agent(number);
    agent
        .get_bytes(&path, 64 << 20, BOUND)
        .await
        .unwrap()
        .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_clones_that_run_and_those_that_do_not() {
    let world = World::new(3).await;
    let three = "a: {host: host1}, b: {host: host2}, c: {host: host3}";
    let (up, _) = world.up_folder("pair", herd(three, "one")).await;
    assert!(matches!(up, UpLine::Done { .. }), "{up:?}");
    let seen = Seen::default();
    let mut guests = guests(&world, &seen).await;
    let stopped = world.order("b", DomainState::Stopped).await.unwrap();
    assert_eq!(stopped.state, DomainState::Stopped);
    drop(guests.remove(2));
    std::fs::remove_file(world.guest_agent(&host(3), &name("c"))).unwrap();

    // c runs on without a guest agent; d is in the file and not up.
    let body = herd(
        "a: {host: host1}, b: {host: host2}, c: {host: host3}, d: {}",
        "two",
    );
    let foretold = rows(push(&world, "?dry_run=true", body.clone()).await);
    assert_eq!(written(&foretold["a"]), 1);
    assert!(seen.lock().unwrap().values().all(Vec::is_empty));
    let before = kept(&world, 1, "a").await;
    let done = rows(push(&world, "", body.clone()).await);
    assert_eq!(written(&done["a"]), 1);
    assert!(
        matches!(&done["b"], PushOutcome::NextStart { reason } if reason.contains("stopped")),
        "{done:?}"
    );
    assert!(
        matches!(&done["c"], PushOutcome::Unreached { reason } if reason.contains("no guest agent answers in c")),
        "{done:?}"
    );
    assert!(
        matches!(&done["d"], PushOutcome::NextStart { reason } if reason.contains("not up")),
        "{done:?}"
    );
    let sent = seen.lock().unwrap()["a"].last().cloned().unwrap();
    for (number, clone) in [(1, "a"), (2, "b"), (3, "c")] {
        let now = kept(&world, number, clone).await;
        assert!(
            now != before && String::from_utf8_lossy(&now).contains("two"),
            "{clone}"
        );
    }
    assert_eq!(kept(&world, 1, "a").await, sent);
    let text = String::from_utf8_lossy(&sent).into_owned();
    assert!(
        text.contains(r#""restart":["pages"]"#),
        "its services travel with it"
    );

    // Again, for one: nothing to do.
    let again = rows(push(&world, "?clones=a", body).await);
    assert_eq!((again.len(), written(&again["a"])), (1, 0));
    let events: Vec<Event> = world.client().get_json("/events", BOUND).await.unwrap();
    let of = |kind: EventKind| events.iter().filter(move |event| event.kind == kind);
    assert_eq!(of(EventKind::LayerPushed).count(), 4);
    let told = of(EventKind::Deployment).any(|event| {
        event.reason
            == "layers of pair pushed to 4 clones: 1 have them now, 3 take them at their next start"
    });
    assert!(told, "{events:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pushed_is_said() {
    let mut world = World::new(2).await;
    world
        .up_folder("pair", herd("a: {host: host1}, b: {host: host2}", "one"))
        .await;
    let seen = Seen::default();
    let _guests = guests(&world, &seen).await;
    let body = |hosts: &str| herd(hosts, "two");
    let both = "a: {host: host1}, b: {host: host2}";
    let PushLine::Failed { problem } = push(&world, "?clones=a,x", body(both)).await else {
        panic!("there is no x");
    };
    assert!(problem.error.contains("no clone \"x\""), "{problem}");
    let broken = folder_with("hosts: [", &[]);
    assert!(matches!(
        push(&world, "", broken).await,
        PushLine::Failed { .. }
    ));
    // Another size is no change of a layer.
    let other = rows(
        push(
            &world,
            "",
            body("a: {host: host1, memory_mib: 96}, b: {host: host2}"),
        )
        .await,
    );
    assert!(
        matches!(&other["a"], PushOutcome::Failed { problem } if problem.error.contains("memory_mib 64, not 96")),
        "{other:?}"
    );
    assert_eq!(written(&other["b"]), 1);
    // A host that is away fails its clones and no others.
    world.stop_agent(1).await;
    let away = rows(push(&world, "", body(both)).await);
    assert!(
        matches!(&away["a"], PushOutcome::Failed { problem } if problem.error.contains("does not answer")),
        "{away:?}"
    );
    assert_eq!(written(&away["b"]), 0);
    world.start_agent(1).await;
    let back = rows(push(&world, "", body(both)).await);
    assert_eq!(written(&back["a"]), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_waits_for_a_move() {
    let world = World::new(2).await;
    world
        .up_folder("pair", herd("a: {host: host1}", "one"))
        .await;
    world
        .fabric
        .inject(address(1), &name("a"), Step::Copying, Fault::Hold);
    let moved = world.migrate("a", Some(2));
    let pushed = async {
        until("the source sends", async || {
            let moving = world.show("a").await.moving;
            moving.is_some_and(|moving| moving.waiting_for.contains("memory"))
        })
        .await;
        let mut lines = world
            .client()
            .stream_lines_of::<PushLine>(
                http::Method::PUT,
                "/deployment/pair/layers",
                "application/x-tar",
                herd("a: {host: host1}", "two"),
                BOUND,
            )
            .await
            .unwrap();
        let planned = lines.next().await.unwrap().unwrap();
        assert!(matches!(planned, PushLine::Planned { .. }), "{planned:?}");
        world.fabric.heal(address(1), &name("a"));
        until("it runs there", async || {
            world.show("a").await.host == host(2)
        })
        .await;
        rows(last(lines).await.0)
    };
    let (moved, pushed) = tokio::join!(moved, pushed);
    assert!(matches!(moved.unwrap().0, MigrateLine::Done { .. }));
    assert!(
        !matches!(pushed["a"], PushOutcome::Failed { .. }),
        "{pushed:?}"
    );
    let there = kept(&world, 2, "a").await;
    assert!(String::from_utf8_lossy(&there).contains("two"));
    world.stop().await;
}
