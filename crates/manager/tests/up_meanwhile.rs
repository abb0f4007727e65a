//! What others do to a herd's clones while an `up` waits for them: they are moved, stopped, crashed and taken down. The
//! real manager and real agents over a simulated hypervisor.

mod common;

use common::*;
use estive_api::wire::*;
use estive_hypervisor::simulated::{Fault, Step};
use estive_model::{DomainState, Generation};

const PAIR: &str = "{memory_mib: 128, hosts: {a: {host: host1}, b: {host: host1}}}";

fn add(set: &std::sync::Mutex<std::collections::BTreeSet<String>>, clones: &[&str]) {
    let mut set = set.lock().unwrap();
    set.extend(clones.iter().map(|clone| (*clone).to_owned()));
}

/// Every one of them runs and is being waited for.
async fn waited_for(world: &World, clones: &[&str]) {
    until("all are waited for", async || {
        clones.iter().all(|clone| world.asked(clone) > 0)
    })
    .await;
}

/// The `up` has looked at this clone a few times more.
async fn looked_again(world: &World, clone: &str) {
    let before = world.asked(clone);
    until("it is looked at again", async || {
        world.asked(clone) > before + 3
    })
    .await;
}

fn rows(done: UpLine) -> Vec<(String, String)> {
    let UpLine::Done { clones } = done else {
        panic!("{done:?}")
    };
    let row = |row: UpRow| (row.domain.to_string(), row.host.to_string());
    clones.into_iter().map(row).collect()
}

fn problem(failed: UpLine) -> estive_api::Problem {
    match failed {
        UpLine::Failed { problem } => problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_is_moved_before_it_answers_is_followed() {
    let world = World::new(2).await;
    // It boots and says nothing of it; where it is moved to, its boot is not looked at.
    add(&world.silent, &["a"]);
    add(&world.deaf, &["b"]);
    let meanwhile = async {
        waited_for(&world, &["b"]).await;
        until("a runs", async || {
            world.fabric.runs_at(&name("a")) == [address(1)]
        })
        .await;
        // While memory is copied both hosts hold a part of it.
        world
            .fabric
            .inject(address(1), &name("a"), Step::Copying, Fault::Hold);
        let held = async {
            until("the source sends", async || {
                let moving = world.show("a").await.moving;
                moving.is_some_and(|moving| moving.waiting_for.contains("memory"))
            })
            .await;
            looked_again(&world, "b").await;
            world.fabric.heal(address(1), &name("a"));
        };
        let (moved, ()) = tokio::join!(world.migrate("a", Some(2)), held);
        let (done, _) = moved.unwrap();
        assert!(matches!(done, MigrateLine::Done { .. }), "{done:?}");
        looked_again(&world, "b").await;
        world.deaf.lock().unwrap().clear();
    };
    let ((done, _), ()) = tokio::join!(world.up("pair", PAIR), meanwhile);
    let expected = [("a", "host2"), ("b", "host1")];
    assert_eq!(
        rows(done),
        expected.map(|(a, b)| (a.to_owned(), b.to_owned()))
    );
    assert_eq!(world.fabric.runs_at(&name("a")), [address(2)]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_left_as_it_is_is_taken_back() {
    let world = World::new(2).await;
    add(&world.deaf, &["a", "b", "c", "d"]);
    let herd = "{memory_mib: 64, hosts: {a: {host: host1}, b: {host: host1}, c: {host: host1}, d: {host: host1}}}";
    let meanwhile = async {
        waited_for(&world, &["a", "b", "c", "d"]).await;
        let (done, _) = world.migrate("a", Some(2)).await.unwrap();
        assert!(matches!(done, MigrateLine::Done { .. }), "{done:?}");
        world.order("c", DomainState::Stopped).await.unwrap();
        assert!(world.fabric.crash(address(1), &name("b")));
    };
    let ((failed, _), ()) = tokio::join!(world.up("four", herd), meanwhile);
    let problem = problem(failed);
    assert!(
        problem.error.contains("b on host1 is crashed")
            && problem
                .error
                .ends_with("stopped or paused them meanwhile: a, c"),
        "{problem}"
    );
    assert_eq!(world.fabric.runs_at(&name("a")), [address(2)]);
    let left = world.ls().await;
    let left: Vec<(&str, DomainState)> = left
        .iter()
        .map(|domain| (domain.name.as_str(), domain.state))
        .collect();
    assert_eq!(
        left,
        [("a", DomainState::Running), ("c", DomainState::Stopped)]
    );
    until("the hosts hold no more", async || {
        world.held().await == ["a", "c"]
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_somebody_stops_costs_the_others_nothing() {
    let world = World::new(1).await;
    add(&world.deaf, &["a", "b"]);
    let meanwhile = async {
        waited_for(&world, &["a", "b"]).await;
        world.order("a", DomainState::Stopped).await.unwrap();
        looked_again(&world, "b").await;
        world.deaf.lock().unwrap().clear();
    };
    let ((failed, _), ()) = tokio::join!(world.up("pair", PAIR), meanwhile);
    assert_eq!(
        problem(failed).error,
        "a was stopped by somebody else before it answered; nothing was taken back, and the other clones answer"
    );
    assert_eq!(world.show("a").await.state, DomainState::Stopped);
    assert_eq!(world.show("b").await.state, DomainState::Running);
    let again = world.up("pair", PAIR).await.0;
    assert_eq!(rows(again).len(), 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_somebody_pauses_is_said_and_left() {
    let world = World::new(1).await;
    add(&world.deaf, &["a", "b"]);
    let meanwhile = async {
        waited_for(&world, &["a", "b"]).await;
        world.order("a", DomainState::Paused).await.unwrap();
        looked_again(&world, "b").await;
        world.deaf.lock().unwrap().clear();
    };
    let ((failed, _), ()) = tokio::join!(world.up("pair", PAIR), meanwhile);
    assert_eq!(
        problem(failed).error,
        "a was paused before it answered; nothing was taken back, and the other clones answer"
    );
    assert_eq!(world.show("a").await.state, DomainState::Paused);
    // Nor is it taken back for the sake of another one that fails.
    world.order("a", DomainState::Running).await.unwrap();
    let (done, _) = world.down("pair").await;
    assert_eq!(done, DownLine::Done);
    add(&world.deaf, &["a", "b"]);
    let before = world.asked("b");
    let meanwhile = async {
        until("both are waited for", async || world.asked("b") > before).await;
        world.order("a", DomainState::Paused).await.unwrap();
        looked_again(&world, "b").await;
        assert!(world.fabric.crash(address(1), &name("b")));
    };
    let ((failed, _), ()) = tokio::join!(world.up("pair", PAIR), meanwhile);
    let error = problem(failed).error;
    assert!(error.ends_with("or paused them meanwhile: a"), "{error}");
    assert_eq!(world.show("a").await.state, DomainState::Paused);
    assert_eq!(world.ls().await.len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_down_ends_an_up_and_takes_all_of_it() {
    let world = World::new(2).await;
    let (done, _) = world
        .up("pair", "{memory_mib: 128, hosts: {z: {host: host2}}}")
        .await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    // Of two new clones one never boots and one never answers.
    add(&world.silent, &["a"]);
    add(&world.deaf, &["b"]);
    let herd = PAIR.replace("hosts: {", "hosts: {z: {host: host2}, ");
    let meanwhile = async {
        waited_for(&world, &["b"]).await;
        world.down("pair").await
    };
    let ((failed, _), (done, gone)) = tokio::join!(world.up("pair", &herd), meanwhile);
    let problem = problem(failed);
    assert!(problem.error.contains("is being taken down"), "{problem}");
    assert_eq!((done, gone.len()), (DownLine::Done, 3));
    assert!(world.held().await.is_empty() && world.ls().await.is_empty());
    for clone in ["a", "b", "z"] {
        assert!(world.fabric.runs_at(&name(clone)).is_empty());
    }
    world.silent.lock().unwrap().clear();
    world.deaf.lock().unwrap().clear();
    let (done, _) = world.up("pair", &herd).await;
    assert_eq!(rows(done).len(), 3);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_driven_past_the_manager_is_up() {
    let world = World::new(1).await;
    let herd = "{memory_mib: 128, hosts: {a: }}";
    let (done, _) = world.up("one", herd).await;
    assert_eq!(rows(done).len(), 1);
    world.order("a", DomainState::Stopped).await.unwrap();
    // Started again by its host's own root.
    let order = StatusOrder {
        state: DomainState::Running,
        generation: None,
        grace_ms: 0,
    };
    let agent = world.agent(1);
    let report: DomainReport = agent
        .put_json("/domain/a/status", &order, BOUND)
        .await
        .unwrap();
    assert_eq!(report.state, DomainState::Running);
    let (done, _) = world.up("one", herd).await;
    assert_eq!(rows(done).len(), 1);
    let shown = world.show("a").await;
    assert_eq!(
        (shown.state, shown.wanted),
        (DomainState::Running, DomainState::Running)
    );
    assert!(shown.generation >= Generation(2));
    world.stop().await;
}
