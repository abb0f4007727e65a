//! A domain's memory is saved, and it goes on from there: once, or not at all. Simulated hosts, real REST.

mod common;

use common::*;
use estive_hypervisor::simulated::{Fault, Step};
use estive_model::{DomainState, EventKind};
use estive_moves::Holding;
use std::os::unix::fs::PermissionsExt as _;

const CLONE: &str = "clone01";

async fn runs(world: &World) -> Host {
    let mut host = world.host(1);
    host.start().await;
    host.define(CLONE).await;
    host.ask(CLONE, DomainState::Running).await.unwrap();
    until("it counts", async || {
        world.fabric.count(host.address, &name(CLONE)) > 0
    })
    .await;
    host
}

fn file(host: &Host) -> std::path::PathBuf {
    host.config.state.join("domains").join(CLONE).join("saved")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_where_it_was_and_only_once() {
    let world = World::new();
    let mut host = runs(&world).await;
    let report = host.save(CLONE).await.unwrap();
    assert_eq!(report.state, DomainState::Saved);
    let bytes = std::fs::metadata(file(&host)).unwrap();
    assert_eq!(report.saved.unwrap().bytes, bytes.len());
    assert_eq!(bytes.permissions().mode() & 0o777, 0o600);
    assert!(world.fabric.runs_at(&name(CLONE)).is_empty());
    let counted: u64 = std::fs::read_to_string(file(&host))
        .unwrap()
        .parse()
        .unwrap();
    // Again changes nothing; neither does what would make its memory worthless.
    host.save(CLONE).await.unwrap();
    host.ask(CLONE, DomainState::Stopped).await.unwrap();
    let refused = host.ask(CLONE, DomainState::Running).await.unwrap_err();
    let said = refused.problem().unwrap().to_string();
    assert!(said.contains("saved"), "{said}");
    let refused = host.try_define(CLONE, archive(CLONE, 128)).await;
    assert!(refused.is_err());
    host.restart().await;
    assert_eq!(host.report(CLONE).await.state, DomainState::Saved);
    let held = host.entry(CLONE).await;

    let report = host.restore(CLONE).await.unwrap();
    assert_eq!((report.state, report.saved), (DomainState::Running, None));
    assert!(host.entry(CLONE).await.generation > held.generation);
    until("it counts on", async || {
        world.fabric.count(host.address, &name(CLONE)) > counted
    })
    .await;
    assert!(!file(&host).exists());
    let refused = host.restore(CLONE).await.unwrap_err();
    let said = refused.problem().unwrap().error.clone();
    assert!(said.contains("nothing is saved"), "{said}");
    host.ask(CLONE, DomainState::Stopped).await.unwrap();
    assert!(host.restore(CLONE).await.is_err());
    let events: Vec<estive_model::Event> = host.client().get_json("/events", BOUND).await.unwrap();
    for kind in [EventKind::Saved, EventKind::Restored] {
        assert_eq!(events.iter().filter(|told| told.kind == kind).count(), 1);
    }
    assert!(world.fabric.ran_twice().is_empty());
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_fails_leaves_it_running() {
    let world = World::new();
    let mut host = runs(&world).await;
    let full = || Fault::Refuse("no space left on device".into());
    let boot = host.report(CLONE).await.boot;
    for fault in [full(), Fault::AnswerLost, Fault::Silent] {
        world
            .fabric
            .inject(host.address, &name(CLONE), Step::Save, fault);
        let failed = host.save(CLONE).await.unwrap_err();
        assert!(failed.problem().unwrap().error.contains("save"));
        let report = host.report(CLONE).await;
        assert_eq!((report.state, report.saved), (DomainState::Running, None));
        assert_eq!(report.boot, boot, "going on is no boot");
        assert_eq!(world.fabric.runs_at(&name(CLONE)), [host.address]);
        assert!(!file(&host).exists());
    }
    // When it cannot go on either, both are said.
    let silent = || (Step::Resume, Fault::Silent);
    for (step, fault) in [(Step::Save, Fault::AnswerLost), silent(), silent()] {
        world.fabric.inject(host.address, &name(CLONE), step, fault);
    }
    let failed = host.save(CLONE).await.unwrap_err();
    let said = failed.problem().unwrap().error.clone();
    assert!(
        said.contains("could not save") && said.contains("start the processors"),
        "{said}"
    );
    until("it is looked at again, and goes on", async || {
        host.report(CLONE).await.state == DomainState::Running
    })
    .await;
    // Its QEMU dies while it is written: that is a crash, and nothing is left to go on from.
    world
        .fabric
        .inject(host.address, &name(CLONE), Step::Save, Fault::Die);
    host.save(CLONE).await.unwrap_err();
    until("it is shown as crashed", async || {
        host.report(CLONE).await.state == DomainState::Crashed
    })
    .await;
    assert!(host.restore(CLONE).await.is_err());
    host.ask(CLONE, DomainState::Running).await.unwrap();
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_keeps_what_was_saved() {
    let world = World::new();
    let mut host = runs(&world).await;
    host.save(CLONE).await.unwrap();
    let before = std::fs::read(file(&host)).unwrap();
    for fault in [Fault::Refuse("bad section".into()), Fault::Silent] {
        world
            .fabric
            .inject(host.address, &name(CLONE), Step::Restore, fault);
        host.restore(CLONE).await.unwrap_err();
        let report = host.report(CLONE).await;
        assert_eq!(report.state, DomainState::Saved);
        assert!(report.note.is_some(), "the reason is shown");
        assert_eq!(std::fs::read(file(&host)).unwrap(), before);
    }
    // A file that is not the one that was written is not run from.
    std::fs::write(file(&host), [&before[..], b"0"].concat()).unwrap();
    let refused = host.restore(CLONE).await.unwrap_err();
    let said = refused.problem().unwrap().error.clone();
    assert!(said.contains("is not what it was"), "{said}");
    std::fs::write(file(&host), &before).unwrap();
    host.restore(CLONE).await.unwrap();
    assert_eq!(world.fabric.runs_at(&name(CLONE)), [host.address]);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_saved_is_dropped_or_deleted_with_its_domain() {
    let world = World::new();
    let mut host = runs(&world).await;
    host.save(CLONE).await.unwrap();
    let report = host.drop_saved(CLONE).await.unwrap();
    assert_eq!(report.state, DomainState::Stopped);
    assert!(!file(&host).exists());
    assert!(host.restore(CLONE).await.is_err());
    host.ask(CLONE, DomainState::Running).await.unwrap();
    host.save(CLONE).await.unwrap();
    let path = format!("/domain/{CLONE}");
    let _: () = host.client().delete_json(&path, BOUND).await.unwrap();
    assert!(!file(&host).exists());
    let events: Vec<estive_model::Event> = host.client().get_json("/events", BOUND).await.unwrap();
    let deleted = |told: &&estive_model::Event| told.kind == EventKind::Deleted;
    assert_eq!(events.iter().filter(deleted).count(), 1);
    host.holds(CLONE, "nothing is held", |held| held == Holding::Absent)
        .await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_has_no_room_for_is_not_begun() {
    let world = World::new();
    let mut host = world.host(1);
    // 1 TiB of memory.
    host.config.capacity.memory_mib = 1 << 20;
    host.start().await;
    let archive = archive(CLONE, 1 << 20);
    host.try_define(CLONE, archive).await.unwrap();
    host.ask(CLONE, DomainState::Running).await.unwrap();
    let refused = host.save(CLONE).await.unwrap_err();
    let problem = refused.problem().unwrap();
    assert!(problem.error.contains("has room for"), "{problem}");
    assert_eq!(problem.kind, estive_api::ProblemKind::Impossible);
    assert_eq!(host.report(CLONE).await.state, DomainState::Running);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_domain_does_not_move() {
    let world = World::new();
    let (mut a, mut b) = (runs(&world).await, world.host(2));
    b.start().await;
    a.save(CLONE).await.unwrap();
    let stream = b.prepare(&a, CLONE, 7, false).await.unwrap();
    let refused = a.send(&b, stream, CLONE, 7, false).await.unwrap_err();
    let said = refused.problem().unwrap().to_string();
    assert!(said.contains("saved"), "{said}");
    // The grant is given up, and it goes on where it was saved.
    a.grant(CLONE, "abort", 7).await;
    b.grant(CLONE, "discard", 7).await;
    a.restore(CLONE).await.unwrap();
    assert_eq!(world.fabric.runs_at(&name(CLONE)), [a.address]);
    a.stop().await;
    b.stop().await;
}

/// The agent dies, and its journal says what it would say had that been in the middle of a save or a restore.
async fn dies_at(host: &mut Host, from: &str, to: &str) {
    host.stop().await;
    let path = host.config.state.join(format!("journal/{CLONE}.json"));
    let text = std::fs::read_to_string(&path).unwrap();
    let (from, to) = (
        format!("\"holding\":\"{from}\""),
        format!("\"holding\":\"{to}\""),
    );
    assert!(text.contains(&from), "{text}");
    std::fs::write(&path, text.replace(&from, &to)).unwrap();
    host.start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_that_died_had_begun_is_given_up_and_nothing_is_lost() {
    let world = World::new();
    let mut host = runs(&world).await;
    // In the middle of a save: it goes on, and half a file goes.
    std::fs::write(file(&host), "half").unwrap();
    dies_at(&mut host, "running", "saving").await;
    host.holds(CLONE, "it is held as running", |held| {
        held == Holding::Running
    })
    .await;
    until("half a file is gone", async || !file(&host).exists()).await;
    assert_eq!(world.fabric.runs_at(&name(CLONE)), [host.address]);
    host.save(CLONE).await.unwrap();
    let kept = std::fs::read(file(&host)).unwrap();
    // In the middle of a restore, before there was an instance: what was saved is kept.
    dies_at(&mut host, "saved", "restoring").await;
    host.holds(CLONE, "it is saved", |held| held == Holding::Saved)
        .await;
    assert_eq!(std::fs::read(file(&host)).unwrap(), kept);
    // After a restore was written down the file is nothing, though nobody has come to remove it.
    host.restore(CLONE).await.unwrap();
    std::fs::write(file(&host), &kept).unwrap();
    host.restart().await;
    until("it is removed", async || !file(&host).exists()).await;
    assert_eq!(world.fabric.runs_at(&name(CLONE)), [host.address]);
    assert!(world.fabric.ran_twice().is_empty());
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_restored_and_not_started_is_started_by_a_start() {
    let world = World::new();
    let mut host = runs(&world).await;
    host.save(CLONE).await.unwrap();
    for _ in 0..2 {
        world
            .fabric
            .inject(host.address, &name(CLONE), Step::Resume, Fault::Silent);
    }
    host.restore(CLONE).await.unwrap_err();
    let report = host.report(CLONE).await;
    assert_eq!(
        host.entry(CLONE).await.holding,
        Holding::Running,
        "{report:?}"
    );
    host.ask(CLONE, DomainState::Running).await.unwrap();
    assert_eq!(host.report(CLONE).await.state, DomainState::Running);
    assert_eq!(world.fabric.runs_at(&name(CLONE)), [host.address]);
    assert!(world.fabric.ran_twice().is_empty());
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_emulator_saved_is_refused_by_name() {
    let world = World::new();
    let mut host = runs(&world).await;
    host.save(CLONE).await.unwrap();
    host.stop().await;
    let journal = host.config.state.join("journal").join("clone01.json");
    let before = std::fs::read_to_string(&journal).unwrap();
    let mut row: serde_json::Value = serde_json::from_str(&before).unwrap();
    row["saved"]["by"] = "QEMU 7.2.0, kvm".into();
    std::fs::write(&journal, row.to_string()).unwrap();
    host.start().await;
    let refused = host.restore(CLONE).await.unwrap_err();
    let said = refused.problem().unwrap().error.clone();
    assert!(said.contains("saved by QEMU 7.2.0, kvm"), "{said}");
    assert_eq!(host.report(CLONE).await.state, DomainState::Saved);
    host.stop().await;
    std::fs::write(&journal, before).unwrap();
    host.start().await;
    host.restore(CLONE).await.unwrap();
    host.stop().await;
}
