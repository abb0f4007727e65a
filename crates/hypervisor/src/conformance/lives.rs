//! Cases of one instance on one host.

use super::Side::{Here, There};
use super::{Bench, Stage};
use crate::seam::*;
use std::os::unix::fs::PermissionsExt as _;
use tokio::sync::broadcast;

pub(super) async fn start_pause_and_kill(bench: &dyn Bench) {
    let stage = Stage::new(bench, "life");
    let domain = &stage.domain;
    assert_eq!(stage.state(Here).await, InstanceState::Gone);
    let none = stage.on(Here).resume(domain).await;
    assert!(
        matches!(none, Err(HypervisorError::NoInstance(_))),
        "{none:?}"
    );
    stage
        .on(Here)
        .create(&stage.spec())
        .await
        .expect("an instance is made");
    assert_eq!(stage.state(Here).await, InstanceState::Prelaunch);
    assert_eq!(stage.stands_still(Here).await, 0);
    let mut events = stage.on(Here).events();
    stage
        .on(Here)
        .resume(domain)
        .await
        .expect("its processors are started");
    assert_eq!(stage.state(Here).await, InstanceState::Running);
    happens(&stage, &mut events, InstanceHappening::Resumed).await;
    stage.counts(Here).await;
    let progress = stage
        .on(Here)
        .migration(domain)
        .await
        .expect("it tells of no migration");
    assert_eq!(progress.status, MigrationStatus::None);
    stage
        .on(Here)
        .pause(domain)
        .await
        .expect("its processors are halted");
    assert_eq!(stage.state(Here).await, InstanceState::Paused);
    happens(&stage, &mut events, InstanceHappening::Halted).await;
    stage.stands_still(Here).await;
    stage
        .on(Here)
        .resume(domain)
        .await
        .expect("its processors are started again");
    stage.counts(Here).await;
    stage.cleared().await;
    stage.cleared().await;
    let none = stage.on(Here).migration(domain).await;
    assert!(
        matches!(none, Err(HypervisorError::NoInstance(_))),
        "{none:?}"
    );
}

pub(super) async fn an_instance_is_made_once(bench: &dyn Bench) {
    let stage = Stage::new(bench, "once");
    stage.started(Here).await;
    let again = stage.on(Here).create(&stage.spec()).await;
    assert!(
        matches!(again, Err(HypervisorError::Exists(_))),
        "{again:?}"
    );
    let port = bench.free_port(Here).await;
    let parameters = MigrationParameters::default();
    let address = bench.address(Here);
    let incoming = stage
        .on(Here)
        .create_incoming(&stage.spec(), address, port, false, &parameters)
        .await;
    assert!(
        matches!(incoming, Err(HypervisorError::Exists(_))),
        "{incoming:?}"
    );
    stage.counts(Here).await;
    // A driver that knows nothing does not make a second one either.
    bench.restart(Here).await;
    let again = stage.on(Here).create(&stage.spec()).await;
    assert!(
        matches!(again, Err(HypervisorError::Exists(_))),
        "{again:?}"
    );
    stage.counts(Here).await;
    stage.cleared().await;
}

pub(super) async fn an_instance_that_dies_at_its_start_leaves_nothing(bench: &dyn Bench) {
    let stage = Stage::new(bench, "stillborn");
    let broken = bench.broken_spec(&stage.domain).into();
    match stage.on(Here).create(&broken).await {
        Err(HypervisorError::DiedAtStart { domain, detail }) => {
            assert_eq!(domain, stage.domain);
            assert!(!detail.is_empty());
        }
        other => panic!("an instance that died at its start was made: {other:?}"),
    }
    assert_eq!(stage.state(Here).await, InstanceState::Gone);
    assert!(!stage.on(Here).channels(&stage.domain).console.exists());
    stage.started(Here).await;
    stage.cleared().await;
}

pub(super) async fn a_crash_is_seen_and_told(bench: &dyn Bench) {
    let stage = Stage::new(bench, "crash");
    let mut events = stage.on(Here).events();
    stage.started(Here).await;
    bench.crash(Here, &stage.domain).await;
    happens(&stage, &mut events, InstanceHappening::Gone).await;
    assert_eq!(stage.state(Here).await, InstanceState::Gone);
    assert!(
        stage
            .on(Here)
            .adopt()
            .await
            .expect("adopting looks")
            .is_empty()
    );
    stage.started(Here).await;
    stage.cleared().await;
}

pub(super) async fn the_power_button_ends_the_guest_and_says_so(bench: &dyn Bench) {
    let stage = Stage::new(bench, "button");
    let mut events = stage.on(Here).events();
    stage.started(Here).await;
    stage
        .on(Here)
        .power_button(&stage.domain)
        .await
        .expect("the button is pressed");
    happens(&stage, &mut events, InstanceHappening::GuestPoweredOff).await;
    stage.until_state(Here, InstanceState::GuestStopped).await;
    // A driver that was not there when it happened can tell it from a crash.
    bench.restart(Here).await;
    assert_eq!(stage.state(Here).await, InstanceState::GuestStopped);
    let refused = stage.on(Here).resume(&stage.domain).await;
    assert!(
        matches!(refused, Err(HypervisorError::Rejected { .. })),
        "{refused:?}"
    );
    stage.cleared().await;
}

pub(super) async fn a_new_driver_adopts_without_disturbing(bench: &dyn Bench) {
    let (run, halted) = (
        Stage::new(bench, "adopted"),
        Stage::new(bench, "adopted-halted"),
    );
    run.started(Here).await;
    halted
        .on(Here)
        .create(&halted.spec())
        .await
        .expect("an instance is made");
    let before = run
        .on(Here)
        .adopt()
        .await
        .expect("adopting what is known is harmless");
    bench.restart(Here).await;
    let after = run.on(Here).adopt().await.expect("a new driver adopts");
    assert_eq!(before, after);
    let remains = run.on(Here).remains().await.expect("a new driver looks");
    // Others may have left something too.
    assert!(remains.contains(&run.domain) && remains.contains(&halted.domain));
    let states: Vec<_> = after
        .iter()
        .map(|found| (found.domain.as_str(), found.state))
        .collect();
    assert_eq!(
        states,
        [
            ("adopted", Some(InstanceState::Running)),
            ("adopted-halted", Some(InstanceState::Prelaunch)),
        ]
    );
    run.counts(Here).await;
    assert_eq!(halted.stands_still(Here).await, 0);
    let mut events = run.on(Here).events();
    run.on(Here)
        .pause(&run.domain)
        .await
        .expect("an adopted instance obeys");
    happens(&run, &mut events, InstanceHappening::Halted).await;
    bench.crash(Here, &run.domain).await;
    happens(&run, &mut events, InstanceHappening::Gone).await;
    assert!(
        run.on(There)
            .adopt()
            .await
            .expect("the other host has none")
            .is_empty()
    );
    // Also what was never adopted can be killed.
    bench.restart(Here).await;
    halted.cleared().await;
    run.cleared().await;
    assert!(
        run.on(Here)
            .adopt()
            .await
            .expect("nothing is left")
            .is_empty()
    );
}

pub(super) async fn a_saved_guest_counts_on_when_restored(bench: &dyn Bench) {
    let stage = Stage::new(bench, "saved");
    let file = bench.saved_state();
    stage.started(Here).await;
    stage
        .on(Here)
        .save(&stage.domain, &file)
        .await
        .expect("the state is saved");
    let mode = std::fs::metadata(&file)
        .expect("it is a file")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600, "it holds the guest's memory");
    assert_eq!(stage.state(Here).await, InstanceState::Sent);
    let saved_at = stage.stands_still(Here).await;
    stage
        .on(Here)
        .kill(&stage.domain)
        .await
        .expect("the instance is killed");
    stage
        .on(Here)
        .restore(&stage.spec(), &file)
        .await
        .expect("the state is restored");
    assert_eq!(stage.state(Here).await, InstanceState::Loaded);
    stage.stands_still(Here).await;
    // A driver that was not there knows that it has not run.
    bench.restart(Here).await;
    assert_eq!(stage.state(Here).await, InstanceState::Loaded);
    stage
        .on(Here)
        .resume(&stage.domain)
        .await
        .expect("its processors are started");
    let now = stage.counts(Here).await;
    assert!(
        now > saved_at,
        "it counts {now} after it had counted {saved_at}"
    );
    stage
        .on(Here)
        .pause(&stage.domain)
        .await
        .expect("its processors are halted");
    assert_eq!(stage.state(Here).await, InstanceState::Paused, "it has run");
    stage.cleared().await;
}

pub(super) async fn a_saved_guest_may_go_on_where_it_was(bench: &dyn Bench) {
    let stage = Stage::new(bench, "saved-on");
    stage.started(Here).await;
    stage
        .on(Here)
        .save(&stage.domain, &bench.saved_state())
        .await
        .expect("the state is saved");
    stage
        .on(Here)
        .resume(&stage.domain)
        .await
        .expect("it goes on");
    stage.counts(Here).await;
    stage.cleared().await;
}

pub(super) async fn a_state_that_cannot_be_restored_leaves_nothing(bench: &dyn Bench) {
    let stage = Stage::new(bench, "no-state");
    let missing = stage
        .on(Here)
        .restore(&stage.spec(), &bench.saved_state())
        .await;
    assert!(missing.is_err(), "{missing:?}");
    assert_eq!(stage.state(Here).await, InstanceState::Gone);
    let garbage = bench.saved_state();
    std::fs::write(&garbage, [7; 4096]).expect("a file is written");
    let refused = stage.on(Here).restore(&stage.spec(), &garbage).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(stage.state(Here).await, InstanceState::Gone);
    stage.started(Here).await;
    stage.cleared().await;
}

/// Waits for an event of the stage's domain.
async fn happens(
    stage: &Stage<'_>,
    events: &mut broadcast::Receiver<InstanceEvent>,
    what: InstanceHappening,
) {
    let wait = async {
        loop {
            let event = events.recv().await.expect("events are told");
            if event.domain == stage.domain && event.what == what {
                return;
            }
        }
    };
    let bound = stage.bench.bound();
    assert!(
        tokio::time::timeout(bound, wait).await.is_ok(),
        "{what:?} was not told in {bound:?}"
    );
}
