//! A herd comes up, is moved and goes down: the real manager and real agents over a simulated hypervisor.

mod common;

use common::*;
use estive_api::ProblemKind;
use estive_api::wire::*;
use estive_hypervisor::simulated::{Fault, Step};
use estive_manager::ManagerError;
use estive_model::{DomainState, Event, EventKind, Generation, HostHealth};

const FOUR: &str = "{memory_mib: 128, network: 10.77.0.0/24, hosts: {\"clone[01-04]\": }}";

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_comes_up_once_and_goes_down_whole() {
    let world = World::new(3).await;
    let (done, steps) = world.up("first", FOUR).await;
    let UpLine::Done { clones } = done else {
        panic!("{done:?}")
    };
    let rows: Vec<(&str, &str)> = clones
        .iter()
        .map(|row| (row.domain.as_str(), row.host.as_str()))
        .collect();
    assert_eq!(
        rows,
        [
            ("clone01", "host1"),
            ("clone02", "host2"),
            ("clone03", "host3"),
            ("clone04", "host1")
        ]
    );
    assert!(
        clones
            .iter()
            .all(|row| row.to_switched_ms.is_some() && row.answered_by == "ping")
    );
    for wanted in ["defined", "started", "init", "switched", "answering"] {
        let told = steps
            .iter()
            .filter(|line| matches!(line, UpLine::Step { step, .. } if step == wanted))
            .count();
        assert_eq!(told, 4, "{wanted}: {steps:?}");
    }
    assert_eq!(
        world.held().await,
        ["clone01", "clone02", "clone03", "clone04"]
    );
    assert!(
        world
            .ls()
            .await
            .iter()
            .all(|domain| domain.state == DomainState::Running && domain.note.is_none())
    );
    let generation = world.show("clone01").await.generation;
    assert_eq!(generation, Generation(2));

    // Again: nothing is made anew, what crashed is started.
    assert!(world.fabric.crash(address(2), &name("clone02")));
    until("the crash is seen", async || {
        world.show("clone02").await.state == DomainState::Crashed
    })
    .await;
    assert!(
        world
            .show("clone02")
            .await
            .note
            .unwrap()
            .contains("estive start clone02")
    );
    let (done, _) = world.up("first", FOUR).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    assert_eq!(world.show("clone01").await.generation, generation);
    let second = world.show("clone02").await;
    assert_eq!(
        (second.state, second.generation),
        (DomainState::Running, Generation(3))
    );

    // Another memory is not what is up.
    let (failed, _) = world.up("first", &FOUR.replace("128", "64")).await;
    let UpLine::Failed { problem } = failed else {
        panic!("{failed:?}")
    };
    assert_eq!(problem.kind, ProblemKind::Impossible);
    assert!(
        problem.error.contains("memory_mib 128, not 64"),
        "{problem}"
    );
    // What its kernel was started with does not change while it runs.
    let (failed, _) = world
        .up("first", &FOUR.replacen('{', "{words: quiet, ", 1))
        .await;
    let UpLine::Failed { problem } = failed else {
        panic!("{failed:?}")
    };
    assert!(
        problem
            .error
            .contains("init:, root: and words: none, not \"quiet\""),
        "{problem}"
    );

    let deployments: Vec<DeploymentReport> = world
        .client()
        .get_json("/deployments", BOUND)
        .await
        .unwrap();
    assert_eq!((deployments.len(), deployments[0].domains.len()), (1, 4));
    let (done, gone) = world.down("first").await;
    assert_eq!((done, gone.len()), (DownLine::Done, 4));
    assert!(world.held().await.is_empty());
    assert!(world.ls().await.is_empty());
    assert!(world.fabric.runs_at(&name("clone01")).is_empty());
    // Names that were used before go on above what was ever granted.
    let (done, _) = world.up("first", FOUR).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    assert_eq!(world.show("clone02").await.generation, Generation(5));
    let events: Vec<Event> = world
        .client()
        .get_json("/events?domain=clone02", BOUND)
        .await
        .unwrap();
    for wanted in [
        EventKind::Defined,
        EventKind::Started,
        EventKind::Crashed,
        EventKind::Deleted,
    ] {
        assert!(
            events.iter().any(|event| event.kind == wanted),
            "{wanted:?}: {events:?}"
        );
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_that_grows_leaves_its_clones_their_addresses() {
    let world = World::new(2).await;
    let herd = |hosts: &str| {
        format!("{{memory_mib: 128, addresses: 10.77.0.10-10.77.0.13, hosts: {{{hosts}}}}}")
    };
    let (few, many) = (herd("c: , d: "), herd("a: , b: , c: , d: "));
    // By names alone one of the two would have to give way.
    let by_names = |text: &str| {
        let plan = estive_layers::herd::parse("herd.yaml", text, "grown").unwrap();
        plan.addresses()
    };
    let (before, after) = (by_names(&few), by_names(&many));
    assert!(before.iter().any(|(name, at)| after[name] != *at));
    let (done, _) = world.up("grown", &few).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let (done, _) = world.up("grown", &many).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    assert_eq!(world.held().await, ["a", "b", "c", "d"]);
    for (name, address) in before {
        assert_eq!(world.show(&name).await.address, address.to_string());
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_nothing_reads_is_warned_of_and_stops_nothing() {
    let world = World::new(1).await;
    let herd = "memory_mib: 128\ngreeting: hi\nhosts: {a: }\n";
    let (done, steps) = world.up("x", herd).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    let text = "herd.yaml:2:1: no chosen set reads the variable \"greeting\"; the set web reads it, and is not among sets:";
    assert_eq!(
        steps[0],
        UpLine::Warning {
            text: text.to_owned()
        }
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_said_and_leaves_nothing() {
    let mut world = World::new(2).await;
    for (herd, wanted) in [
        (
            "{memory_mib: 400, hosts: {\"c[1-3]\": }}",
            "c3 needs 400 MiB",
        ),
        ("{hosts: {a: {host: nowhere}}}", "no such host"),
        ("{hosts: {a: {reference: other}}}", "there are 1: default"),
        ("{hosts: {a: {memory: 3}}, memry_mib: 3}", "herd.yaml:1:"),
        ("{hosts: {a: {sets: [nothing-like-it]}}}", "nothing-like-it"),
        ("{hosts: {../a: }}", "../a"),
    ] {
        let (failed, _) = world.up("x", herd).await;
        let UpLine::Failed { problem } = failed else {
            panic!("{herd}: {failed:?}")
        };
        assert_eq!(problem.kind, ProblemKind::Impossible, "{problem}");
        assert!(problem.error.contains(wanted), "{problem}");
        assert!(
            world.held().await.is_empty() && world.ls().await.is_empty(),
            "{herd}"
        );
    }
    // A start that fails takes back what its neighbours have got as well.
    let refuse = Fault::Refuse("no such machine".into());
    world
        .fabric
        .inject(address(1), &name("clone01"), Step::Create, refuse);
    let (failed, _) = world.up("x", FOUR).await;
    let UpLine::Failed { problem } = failed else {
        panic!("{failed:?}")
    };
    assert!(
        problem.error.contains("no such machine") && problem.error.contains("host1"),
        "{problem}"
    );
    assert!(world.held().await.is_empty() && world.ls().await.is_empty());

    // A guest that never reports, and one that dies.
    world.stop_manager().await;
    world.boot_timeout_s = 2;
    world.start_manager().await;
    world.silent.lock().unwrap().insert("clone03".into());
    let (failed, _) = world.up("x", FOUR).await;
    let UpLine::Failed { problem } = failed else {
        panic!("{failed:?}")
    };
    assert!(
        problem
            .error
            .contains("clone03 on host1 has not reported its boot within 2 s"),
        "{problem}"
    );
    assert!(world.held().await.is_empty() && world.ls().await.is_empty());
    let missing: Result<HerdDomain, _> = world.client().get_json("/domain/clone01", BOUND).await;
    assert!(missing.unwrap_err().is_not_found());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_moves_and_comes_back_and_the_log_says_why() {
    let world = World::new(3).await;
    world.up("first", FOUR).await;
    for (to, generation) in [(Some(2), 3), (Some(1), 4), (None, 5)] {
        let (done, lines) = world.migrate("clone01", to).await.unwrap();
        let MigrateLine::Done { report, .. } = done else {
            panic!("{done:?}")
        };
        assert_eq!(report.phase, OperationPhase::Done);
        let Some(MigrateLine::Ordered {
            destination,
            generation: granted,
            ..
        }) = lines.first()
        else {
            panic!("{lines:?}")
        };
        assert_eq!(*granted, Generation(generation));
        let view = world.show("clone01").await;
        assert_eq!(
            (view.state, &view.host),
            (DomainState::Running, destination)
        );
        assert!(view.moving.is_none());
        assert_eq!(world.fabric.runs_at(&name("clone01")).len(), 1);
    }
    let events: Vec<Event> = world
        .client()
        .get_json("/events?domain=clone01", BOUND)
        .await
        .unwrap();
    for wanted in [
        EventKind::MoveOrdered,
        EventKind::MovePrepared,
        EventKind::MoveReleased,
        EventKind::MoveTaken,
        EventKind::MoveCommitted,
    ] {
        assert!(
            events
                .iter()
                .any(|event| event.kind == wanted && !event.reason.is_empty()),
            "{wanted:?}"
        );
    }
    assert!(
        events
            .windows(2)
            .all(|pair| pair[0].sequence < pair[1].sequence)
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_cannot_be_is_refused_with_counts() {
    let mut world = World::new(3).await;
    world.up("first", FOUR).await;
    let (done, _) = world
        .up(
            "second",
            "{memory_mib: 384, network: 10.78.0.0/24, hosts: {big: {host: host2}}}",
        )
        .await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    for (domain, to, kind, wanted) in [
        (
            "clone01",
            2,
            ProblemKind::Impossible,
            "needs 128 MiB and 0 MiB are free",
        ),
        ("clone01", 1, ProblemKind::Impossible, "already"),
        ("clone01", 9, ProblemKind::Impossible, "there are 3"),
        ("nobody", 1, ProblemKind::NotFound, "no domain nobody"),
    ] {
        let problem = world.migrate(domain, Some(to)).await.unwrap_err();
        let problem = problem.problem().unwrap();
        assert_eq!(problem.kind, kind, "{problem}");
        assert!(problem.error.contains(wanted), "{problem}");
    }
    world.order("clone01", DomainState::Stopped).await.unwrap();
    let error = world.migrate("clone01", Some(3)).await.unwrap_err();
    assert!(
        error.to_string().contains("stopped") && error.exit_code() == 2,
        "{error}"
    );
    world.order("clone01", DomainState::Running).await.unwrap();

    // A destination that cannot make the instance: it stays, and the next move works.
    let refuse = Fault::Refuse("no memory for it".into());
    world
        .fabric
        .inject(address(3), &name("clone01"), Step::CreateIncoming, refuse);
    let (failed, _) = world.migrate("clone01", Some(3)).await.unwrap();
    let MigrateLine::Failed { problem } = failed else {
        panic!("{failed:?}")
    };
    assert!(
        problem.error.contains("no memory for it") && problem.error.contains("stays on host1"),
        "{problem}"
    );
    assert_eq!(world.show("clone01").await.state, DomainState::Running);

    // A stream that fails says so too.
    world.fabric.inject(
        address(1),
        &name("clone01"),
        Step::Migrate,
        Fault::Refuse("cable cut".into()),
    );
    let (failed, _) = world.migrate("clone01", Some(3)).await.unwrap();
    let MigrateLine::Failed { problem } = failed else {
        panic!("{failed:?}")
    };
    assert!(problem.error.contains("stays on host1"), "{problem}");

    world.stop_agent(3).await;
    until("the silence is noticed", async || {
        let hosts: Vec<HostReport> = world.client().get_json("/hosts", BOUND).await.unwrap();
        hosts[2].health == HostHealth::Unknown
    })
    .await;
    let error = world.migrate("clone01", Some(3)).await.unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
    world.start_agent(3).await;
    until("it is back", async || {
        let hosts: Vec<HostReport> = world.client().get_json("/hosts", BOUND).await.unwrap();
        hosts[2].health == HostHealth::Up
    })
    .await;
    let (done, _) = world.migrate("clone01", Some(3)).await.unwrap();
    assert!(matches!(done, MigrateLine::Done { .. }), "{done:?}");
    // The move is done when the destination runs it; the source hears of that a moment later and forgets.
    until("one host alone holds it", async || {
        let held = world.held().await;
        held.iter().filter(|held| *held == "clone01").count() == 1
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_host_is_unknown_and_nothing_of_it_starts_elsewhere() {
    let mut world = World::new(2).await;
    world.up("first", FOUR).await;
    world.stop_agent(1).await;
    until("it is unknown", async || {
        world.show("clone01").await.state == DomainState::Unknown
    })
    .await;
    let view = world.show("clone01").await;
    assert!(view.note.unwrap().contains("may well run on"));
    for state in [
        DomainState::Running,
        DomainState::Stopped,
        DomainState::Paused,
    ] {
        let error = world.order("clone01", state).await.unwrap_err();
        assert_eq!(error.exit_code(), 4, "{error}");
    }
    let error = world.migrate("clone01", Some(2)).await.unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
    assert_eq!(world.fabric.runs_at(&name("clone01")), [address(1)]);
    assert_eq!(world.show("clone02").await.state, DomainState::Running);

    // What is there cannot be taken down, and is named; later it can.
    let (failed, gone) = world.down("first").await;
    let DownLine::Failed { problem } = failed else {
        panic!("{failed:?}")
    };
    assert_eq!((problem.kind, gone.len()), (ProblemKind::Unreachable, 2));
    assert!(
        problem.error.contains("clone01") && problem.error.contains("clone03"),
        "{problem}"
    );
    assert_eq!(world.ls().await.len(), 2);
    world.start_agent(1).await;
    until("it is back", async || {
        world.show("clone01").await.state == DomainState::Running
    })
    .await;
    let (done, _) = world.down("first").await;
    assert_eq!(done, DownLine::Done);
    assert!(world.held().await.is_empty());
    let events: Vec<Event> = world.client().get_json("/events", BOUND).await.unwrap();
    for wanted in [EventKind::HostUnknown, EventKind::HostUp] {
        assert_eq!(
            events.iter().filter(|event| event.kind == wanted).count(),
            1,
            "{wanted:?}"
        );
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_lost_its_journal_cannot_tell_and_nothing_starts_twice() {
    let mut world = World::new(2).await;
    world.up("first", FOUR).await;
    world.stop_agent(1).await;
    std::fs::remove_dir_all(world.home.path().join("host1/state/journal")).unwrap();
    world.start_agent(1).await;
    until("it is unknown", async || {
        let view = world.show("clone01").await;
        view.state == DomainState::Unknown && view.note.unwrap().contains("--forget")
    })
    .await;
    let before = world.show("clone01").await;
    for state in [DomainState::Running, DomainState::Stopped] {
        let error = world.order("clone01", state).await.unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
    }
    assert!(world.migrate("clone01", Some(2)).await.is_err());
    let (failed, _) = world.up("first", FOUR).await;
    assert!(matches!(failed, UpLine::Failed { .. }), "{failed:?}");
    let (failed, gone) = world.down("first").await;
    assert!(matches!(failed, DownLine::Failed { .. }), "{failed:?}");
    assert_eq!(gone.len(), 2);
    // Not even what is wanted, nor any generation.
    let after = world.show("clone01").await;
    assert_eq!(
        (after.wanted, after.generation, after.host),
        (before.wanted, before.generation, before.host)
    );
    for clone in ["clone01", "clone03"] {
        assert_eq!(world.fabric.runs_at(&name(clone)), [address(1)]);
    }
    let hosts: Vec<HostReport> = world.client().get_json("/hosts", BOUND).await.unwrap();
    let note = hosts[0].note.as_ref().unwrap();
    assert!(note.ends_with("clone01, clone03"), "{note}");

    // A person looks, and has one forgotten: it is made again.
    let path = format!("/domain/clone01?forget=true&floor={}", after.generation);
    let agent = world.agent(1);
    agent.delete_json::<()>(&path, BOUND).await.unwrap();
    assert!(world.fabric.runs_at(&name("clone01")).is_empty());
    let alone = "{memory_mib: 128, network: 10.77.0.0/24, hosts: {clone01: }}";
    let (done, _) = world.up("first", alone).await;
    assert!(matches!(done, UpLine::Done { .. }), "{done:?}");
    assert_eq!(world.fabric.runs_at(&name("clone01")), [address(1)]);
    assert!(world.show("clone01").await.generation > after.generation);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_manager_goes_on_with_a_move() {
    let mut world = World::new(2).await;
    world
        .up("first", "{memory_mib: 128, hosts: {a: {host: host1}}}")
        .await;
    world
        .fabric
        .inject(address(1), &name("a"), Step::Copying, Fault::Hold);
    let order = MigrateOrder {
        to: Some(host(2)),
        reason: None,
    };
    let body = serde_json::to_vec(&order).unwrap();
    let mut lines = world
        .client()
        .stream_lines_of::<MigrateLine>(
            http::Method::POST,
            "/domain/a/migrate",
            "application/json",
            body,
            BOUND,
        )
        .await
        .unwrap();
    assert!(matches!(
        lines.next().await,
        Some(Ok(MigrateLine::Ordered { .. }))
    ));
    until("the source sends", async || {
        let view = world.show("a").await;
        view.moving
            .is_some_and(|moving| moving.waiting_for.contains("memory"))
    })
    .await;
    let error = world.order("a", DomainState::Stopped).await.unwrap_err();
    assert!(
        error.to_string().contains("is being moved") && error.exit_code() == 2,
        "{error}"
    );
    drop(lines);
    world.stop_manager().await;
    world.fabric.heal(address(1), &name("a"));
    world.start_manager().await;
    until("it is over there", async || {
        let view = world.show("a").await;
        view.host == host(2) && view.moving.is_none() && view.state == DomainState::Running
    })
    .await;
    let (done, _) = world.migrate("a", Some(1)).await.unwrap();
    assert!(matches!(done, MigrateLine::Done { .. }), "{done:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_can_be_given_up_and_what_was_prepared_goes() {
    let world = World::new(2).await;
    world
        .up("first", "{memory_mib: 128, hosts: {a: {host: host1}}}")
        .await;
    world
        .fabric
        .inject(address(1), &name("a"), Step::Copying, Fault::Hold);
    let client = world.client();
    let moved = world.migrate("a", Some(2));
    let given_up = async {
        until("the source sends", async || {
            world
                .show("a")
                .await
                .moving
                .is_some_and(|moving| moving.waiting_for.contains("memory"))
        })
        .await;
        client
            .delete_json::<HerdDomain>("/domain/a/migrate", BOUND)
            .await
            .unwrap();
    };
    let (moved, ()) = tokio::join!(moved, given_up);
    let (failed, _) = moved.unwrap();
    let MigrateLine::Failed { problem } = failed else {
        panic!("{failed:?}")
    };
    assert!(
        problem.error.contains("given up") && problem.error.contains("stays on host1"),
        "{problem}"
    );
    assert_eq!(world.show("a").await.state, DomainState::Running);
    until("nothing is left there", async || {
        world.held().await == ["a"]
    })
    .await;
    world.fabric.heal(address(1), &name("a"));
    let (done, _) = world.migrate("a", Some(2)).await.unwrap();
    assert!(matches!(done, MigrateLine::Done { .. }), "{done:?}");
    let (done, _) = world.down("first").await;
    assert_eq!(done, DownLine::Done);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_managers_cannot_share_a_state() {
    let mut world = World::new(1).await;
    let mut config = world.manager_config();
    config.socket = world.home.path().join("second.sock");
    let second = |config, parts| estive_manager::run_with(config, parts, Default::default());
    let error = second(config.clone(), world.manager_parts())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("in use by another manager"),
        "{error}"
    );
    config.state = world.home.path().join("other");
    config.socket = world.home.path().join("manager.sock");
    let error = second(config.clone(), world.manager_parts())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("in use by another process"),
        "{error}"
    );
    config.credentials = Some("/nonexistent/credentials".into());
    let error = second(config.clone(), world.manager_parts())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ManagerError::NoCredentials { .. }) && error.to_string().contains("issue"),
        "{error}"
    );
    world.stop_manager().await;
    std::fs::remove_file(world.home.path().join("kernel")).unwrap();
    config.credentials = None;
    let error = second(config, world.manager_parts()).await.unwrap_err();
    assert!(
        error.to_string().contains("kernel") && error.to_string().contains("default"),
        "{error}"
    );
    world.stop().await;
}
