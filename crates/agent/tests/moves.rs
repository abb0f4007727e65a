//! Moves between two agents, ordered by hand, over mutual TLS; with an agent restarted in every phase.

mod common;

use common::*;
use estive_api::ProblemKind;
use estive_api::wire::*;
use estive_hypervisor::simulated::{Fault, Step};
use estive_model::{DomainState, Event, EventKind, Generation};
use estive_moves::{Answer, CommitOutcome, Holding, Refusal};

async fn two_hosts(world: &World) -> (Host, Host) {
    let (mut a, mut b) = (world.host(1), world.host(2));
    a.start().await;
    b.start().await;
    a.define("clone01").await;
    a.ask("clone01", DomainState::Running).await.unwrap();
    (a, b)
}

/// After a start the generation is 2; the first move grants 3.
const GRANTED: u64 = 3;

async fn begin(a: &Host, b: &Host, generation: u64, post_copy: bool) -> OperationReport {
    let stream = b
        .prepare(a, "clone01", generation, post_copy)
        .await
        .unwrap();
    a.send(b, stream, "clone01", generation, post_copy)
        .await
        .unwrap()
}

async fn moved(world: &World, a: &Host, b: &Host, generation: u64) {
    b.holds("clone01", "the destination runs it", |held| {
        held == Holding::Running
    })
    .await;
    a.holds("clone01", "the source has dropped it", |held| {
        held == Holding::Absent
    })
    .await;
    assert_eq!(b.entry("clone01").await.generation, Generation(generation));
    assert_eq!(world.fabric.runs_at(&name("clone01")), [b.address]);
    assert!(world.fabric.ran_twice().is_empty());
    until("the source keeps no files of it", async || {
        count_files(&a.config.state.join("domains")) == 0
    })
    .await;
    let report = a.operation(generation).await;
    assert_eq!(report.phase, OperationPhase::Done, "{report:?}");
}

async fn stayed(world: &World, a: &Host) {
    a.holds("clone01", "the source keeps it", |held| {
        held == Holding::Running
    })
    .await;
    until("it runs on the source", async || {
        world.fabric.runs_at(&name("clone01")) == [a.address]
    })
    .await;
    assert!(world.fabric.ran_twice().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_goes_there_and_comes_back() {
    let world = World::new();
    let (mut a, mut b) = two_hosts(&world).await;
    let report = begin(&a, &b, GRANTED, false).await;
    assert_eq!(report.operation, operation(GRANTED));
    moved(&world, &a, &b, GRANTED).await;
    let report = a.operation(GRANTED).await;
    assert!(
        report.halted_us.is_some() && report.resumed_us >= report.halted_us,
        "{report:?}"
    );
    assert_eq!(report.choice, "pre-copy");
    assert!(
        report.total_bytes > 0 && report.downtime_ms.is_some(),
        "{report:?}"
    );
    // Late and repeated orders of that grant change nothing.
    assert_eq!(
        a.grant("clone01", "abort", GRANTED).await,
        Answer::AlreadyReleased
    );
    assert_eq!(
        b.grant("clone01", "commit", GRANTED).await,
        Answer::Committed(CommitOutcome::Taken)
    );
    assert_eq!(
        b.grant("clone01", "discard", GRANTED).await,
        Answer::Refused(Refusal::NotHeldSo)
    );
    assert!(b.prepare(&b, "clone01", GRANTED, false).await.is_err());

    begin(&b, &a, GRANTED + 1, false).await;
    moved(&world, &b, &a, GRANTED + 1).await;
    let events: Vec<Event> = a.client().get_json("/events", BOUND).await.unwrap();
    let kinds: Vec<EventKind> = events.iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds[2..],
        [
            EventKind::MoveOrdered,
            EventKind::MoveReleased,
            EventKind::MoveCommitted,
            EventKind::MovePrepared,
            EventKind::MoveTaken
        ]
    );
    assert!(events.iter().all(|event| !event.reason.is_empty()));
    // The report of the first move outlives the agent.
    a.restart().await;
    assert_eq!(a.operation(GRANTED).await.phase, OperationPhase::Done);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_given_up_leaves_it_where_it_was() {
    let world = World::new();
    let (mut a, mut b) = two_hosts(&world).await;
    world
        .fabric
        .inject(a.address, &name("clone01"), Step::Copying, Fault::Hold);
    begin(&a, &b, GRANTED, false).await;
    assert_eq!(
        a.report("clone01").await.operation,
        Some(operation(GRANTED))
    );
    assert_eq!(a.grant("clone01", "abort", GRANTED).await, Answer::Aborted);
    stayed(&world, &a).await;
    assert_eq!(a.operation(GRANTED).await.phase, OperationPhase::Aborted);
    world.fabric.heal(a.address, &name("clone01"));
    assert_eq!(b.grant("clone01", "discard", GRANTED).await, Answer::Done);
    assert_eq!(count_files(&b.config.state.join("domains")), 0);
    let about: AgentAbout = b.client().get_json("/about", BOUND).await.unwrap();
    assert_eq!(about.used_memory_mib, 0);
    // The next one works.
    begin(&a, &b, GRANTED + 1, false).await;
    moved(&world, &a, &b, GRANTED + 1).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fails_leaves_it_where_it_was_and_says_why() {
    let world = World::new();
    let (mut a, mut b) = two_hosts(&world).await;
    for (offset, (step, fault)) in [
        (Step::Connecting, Fault::Refuse("no way".into())),
        (Step::Copying, Fault::Refuse("no way".into())),
        (Step::Copying, Fault::PeerDies),
        (Step::Switching, Fault::PeerDies),
        (Step::Completing, Fault::Refuse("no way".into())),
    ]
    .into_iter()
    .enumerate()
    {
        let generation = GRANTED + offset as u64;
        world
            .fabric
            .inject(a.address, &name("clone01"), step, fault.clone());
        begin(&a, &b, generation, false).await;
        until("it is given up", async || {
            a.operation(generation).await.phase == OperationPhase::Aborted
        })
        .await;
        stayed(&world, &a).await;
        let report = a.operation(generation).await;
        assert!(report.error.is_some(), "{step:?} {fault:?}: {report:?}");
        assert_eq!(
            b.grant("clone01", "discard", generation).await,
            Answer::Done
        );
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_cannot_make_it_keeps_nothing() {
    let world = World::new();
    let (mut a, mut b) = two_hosts(&world).await;
    world.fabric.inject(
        b.address,
        &name("clone01"),
        Step::CreateIncoming,
        Fault::Die,
    );
    let error = b.prepare(&a, "clone01", GRANTED, false).await.unwrap_err();
    assert!(error.to_string().contains("ended at start"), "{error}");
    assert_eq!(b.entry("clone01").await.holding, Holding::Absent);
    assert_eq!(count_files(&b.config.state.join("domains")), 0);
    b.config.capacity.memory_mib = 100;
    b.restart().await;
    let error = b
        .prepare(&a, "clone01", GRANTED + 1, false)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("100 MiB left"), "{error}");
    stayed(&world, &a).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_agent_restarted_while_memory_is_copied() {
    let world = World::new();
    let (mut a, mut b) = two_hosts(&world).await;
    world
        .fabric
        .inject(a.address, &name("clone01"), Step::Copying, Fault::Hold);
    begin(&a, &b, GRANTED, false).await;
    a.restart().await;
    assert_eq!(a.report("clone01").await.state, DomainState::Running);
    assert_eq!(a.operation(GRANTED).await.phase, OperationPhase::Copying);
    world.fabric.heal(a.address, &name("clone01"));
    moved(&world, &a, &b, GRANTED).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_agent_away_while_the_stream_ends() {
    let world = World::new();
    let (mut a, mut b) = two_hosts(&world).await;
    for step in [Step::Switching, Step::Completing] {
        let generation = a.entry("clone01").await.floor.0 + 1;
        world
            .fabric
            .inject(a.address, &name("clone01"), step, Fault::Hold);
        begin(&a, &b, generation, false).await;
        until("the processors are halted", async || {
            world.fabric.runs_at(&name("clone01")).is_empty()
        })
        .await;
        a.stop().await;
        world.fabric.heal(a.address, &name("clone01"));
        until("the stream is loaded", async || {
            let seen = b.report("clone01").await.journal.seen;
            seen == "loaded"
        })
        .await;
        a.start().await;
        moved(&world, &a, &b, generation).await;
        std::mem::swap(&mut a, &mut b);
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_agent_restarted_after_the_release() {
    let world = World::new();
    let (mut a, mut b) = two_hosts(&world).await;
    // The destination's journal says "running", its processors do not start, the source gets no answer.
    world
        .fabric
        .inject(b.address, &name("clone01"), Step::Resume, Fault::Silent);
    begin(&a, &b, GRANTED, false).await;
    a.holds("clone01", "it is released", |held| {
        matches!(held, Holding::Released(_))
    })
    .await;
    a.restart().await;
    moved(&world, &a, &b, GRANTED).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_destination_agent_restarted_in_every_phase() {
    let world = World::new();
    let (mut a, mut b) = two_hosts(&world).await;
    // Standing ready.
    let stream = b.prepare(&a, "clone01", GRANTED, false).await.unwrap();
    b.restart().await;
    // The same order again is answered the same.
    assert_eq!(
        b.prepare(&a, "clone01", GRANTED, false).await.unwrap(),
        stream
    );
    // Receiving.
    world
        .fabric
        .inject(a.address, &name("clone01"), Step::Copying, Fault::Hold);
    a.send(&b, stream, "clone01", GRANTED, false).await.unwrap();
    b.restart().await;
    // Written down as taken, and not resumed.
    world
        .fabric
        .inject(b.address, &name("clone01"), Step::Resume, Fault::Silent);
    world.fabric.heal(a.address, &name("clone01"));
    b.holds("clone01", "it is written down as taken", |held| {
        held == Holding::Running
    })
    .await;
    b.restart().await;
    moved(&world, &a, &b, GRANTED).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_away_at_the_switch_gets_nothing() {
    let world = World::new();
    let (mut a, mut b) = two_hosts(&world).await;
    world
        .fabric
        .inject(a.address, &name("clone01"), Step::Completing, Fault::Hold);
    begin(&a, &b, GRANTED, false).await;
    b.stop().await;
    world.fabric.heal(a.address, &name("clone01"));
    until("it is given up", async || {
        a.operation(GRANTED).await.phase == OperationPhase::Aborted
    })
    .await;
    stayed(&world, &a).await;
    b.start().await;
    // It has the whole stream, and is never told to run it.
    assert_eq!(b.report("clone01").await.state, DomainState::Incoming);
    assert_eq!(b.grant("clone01", "discard", GRANTED).await, Answer::Done);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_whose_instance_died_says_lost_and_shows_it_as_crashed() {
    let world = World::new();
    let (mut a, mut b) = two_hosts(&world).await;
    b.prepare(&a, "clone01", GRANTED, false).await.unwrap();
    assert_eq!(b.grant("clone01", "commit", GRANTED).await, Answer::NotYet);
    assert!(world.fabric.crash(b.address, &name("clone01")));
    assert_eq!(b.report("clone01").await.state, DomainState::Incoming);
    assert_eq!(
        b.grant("clone01", "ready", GRANTED).await,
        Answer::Ready(false)
    );
    let lost = Answer::Committed(CommitOutcome::Lost);
    assert_eq!(b.grant("clone01", "commit", GRANTED).await, lost);
    assert_eq!(b.report("clone01").await.state, DomainState::Crashed);
    // Never heard of there: a commit cannot be answered, and is not.
    let unknown = Answer::Refused(Refusal::Unknown);
    assert_eq!(b.grant("clone02", "commit", 7).await, unknown);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_instance_dies_under_the_stream() {
    let world = World::new();
    let (mut a, mut b) = two_hosts(&world).await;
    world
        .fabric
        .inject(a.address, &name("clone01"), Step::Copying, Fault::Die);
    begin(&a, &b, GRANTED, false).await;
    until("the crash is shown", async || {
        a.report("clone01").await.state == DomainState::Crashed
    })
    .await;
    a.holds("clone01", "the move is over", |held| {
        held == Holding::Running
    })
    .await;
    assert!(world.fabric.runs_at(&name("clone01")).is_empty());
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pre_copy_that_does_not_converge_goes_on_as_post_copy_where_that_is_allowed() {
    let world = World::new();
    let (mut a, mut b) = two_hosts(&world).await;
    world
        .fabric
        .inject(a.address, &name("clone01"), Step::Copying, Fault::Hold);
    begin(&a, &b, GRANTED, true).await;
    moved(&world, &a, &b, GRANTED).await;
    let report = a.operation(GRANTED).await;
    assert!(report.choice.starts_with("post-copy"), "{report:?}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_host_neither_commits_nor_reads_what_moves() {
    let world = World::new();
    let (mut a, mut b) = two_hosts(&world).await;
    let c = world.host(3);
    world
        .fabric
        .inject(a.address, &name("clone01"), Step::Completing, Fault::Hold);
    begin(&a, &b, GRANTED, false).await;
    until("the processors are halted", async || {
        world.fabric.runs_at(&name("clone01")).is_empty()
    })
    .await;
    // Loaded there, and not released here: whoever has it committed now has it run twice.
    a.stop().await;
    world.fabric.heal(a.address, &name("clone01"));
    until("the stream is loaded", async || {
        b.report("clone01").await.journal.seen == "loaded"
    })
    .await;
    let order = GrantOrder {
        generation: Generation(GRANTED),
    };
    let stranger = b.seen_by(&c);
    for verb in ["ready", "commit"] {
        let path = format!("/domain/clone01/{verb}");
        let said = stranger
            .post_json::<GrantAnswer>(&path, &order, BOUND)
            .await;
        let refused = said.expect_err(verb);
        let problem = refused.problem().unwrap();
        assert_eq!(problem.kind, ProblemKind::Refused, "{verb}: {problem}");
        assert!(problem.error.contains("agent:host3"), "{verb}: {problem}");
    }
    assert!(world.fabric.runs_at(&name("clone01")).is_empty());
    assert_eq!(b.report("clone01").await.state, DomainState::Incoming);
    // Nor does another agent read what a clone is made of, its host keys among it.
    for part in [
        "",
        "?whole=true",
        "/layer",
        "/console.log",
        "/config.xml",
        "/identity.json",
    ] {
        let path = format!("/domain/clone01{part}");
        let read = stranger.get_bytes(&path, 64 << 20, BOUND).await;
        let refused = read.expect_err(part);
        let kind = refused.problem().map(|problem| problem.kind);
        assert_eq!(kind, Some(ProblemKind::Refused), "{part}: {refused}");
    }
    // The source may.
    a.start().await;
    moved(&world, &a, &b, GRANTED).await;
    a.stop().await;
    b.stop().await;
}
