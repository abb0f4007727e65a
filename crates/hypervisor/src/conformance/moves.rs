//! Cases of a move between two hosts, given up or broken at every step.

use super::Side::{Here, There};
use super::{Bench, Stage};
use crate::seam::*;

pub(super) async fn a_guest_moves_there_and_back(bench: &dyn Bench) {
    let stage = Stage::new(bench, "mover");
    let domain = &stage.domain;
    let parameters = MigrationParameters::default();
    stage.started(Here).await;
    let to = stage.awaited(There, &parameters).await;
    let early = stage.on(There).resume(domain).await;
    assert!(
        matches!(early, Err(HypervisorError::Rejected { .. })),
        "{early:?}"
    );
    assert_eq!(stage.state(There).await, InstanceState::AwaitingStream);
    stage.sent(Here, &to, &parameters).await;
    let progress = stage.until_over(Here).await;
    assert_eq!(progress.status, MigrationStatus::Completed, "{progress:?}");
    assert!(
        progress.sent_bytes > 0 && progress.total_bytes > 0,
        "{progress:?}"
    );
    assert!(progress.downtime_ms.is_some(), "{progress:?}");
    assert_eq!(stage.state(Here).await, InstanceState::Sent);
    assert_eq!(stage.state(There).await, InstanceState::Loaded);
    let again = stage.on(Here).migrate(domain, &to, &parameters).await;
    assert!(
        matches!(again, Err(HypervisorError::Rejected { .. })),
        "{again:?}"
    );
    let left_at = stage.stands_still(Here).await;
    assert_eq!(stage.stands_still(There).await, 0);
    // A driver that was not there when the stream came knows it too.
    bench.restart(There).await;
    bench.restart(Here).await;
    assert_eq!(stage.state(Here).await, InstanceState::Sent);
    assert_eq!(stage.state(There).await, InstanceState::Loaded);
    let progress = stage
        .on(There)
        .migration(domain)
        .await
        .expect("it tells of no outgoing one");
    assert_eq!(progress.status, MigrationStatus::None);
    stage
        .on(There)
        .resume(domain)
        .await
        .expect("the destination is started");
    let now = stage.counts(There).await;
    assert!(
        now > left_at,
        "it counts {now} after it had counted {left_at}"
    );
    stage.on(There).pause(domain).await.expect("it is halted");
    bench.restart(There).await;
    assert_eq!(
        stage.state(There).await,
        InstanceState::Paused,
        "it has run there"
    );
    let progress = stage
        .on(There)
        .migration(domain)
        .await
        .expect("it tells of no outgoing one");
    assert_eq!(progress.status, MigrationStatus::None);
    stage.on(There).resume(domain).await.expect("it goes on");
    stage
        .on(Here)
        .kill(domain)
        .await
        .expect("the source is removed");
    let back = stage.awaited(Here, &parameters).await;
    stage.sent(There, &back, &parameters).await;
    let progress = stage.until_over(There).await;
    assert_eq!(progress.status, MigrationStatus::Completed, "{progress:?}");
    assert_eq!(stage.state(Here).await, InstanceState::Loaded);
    stage
        .on(Here)
        .resume(domain)
        .await
        .expect("it is started where it began");
    assert!(stage.counts(Here).await > now);
    stage.stands_still(There).await;
    stage.cleared().await;
}

pub(super) async fn a_halted_guest_moves_halted(bench: &dyn Bench) {
    let stage = Stage::new(bench, "halted");
    let parameters = MigrationParameters::default();
    stage.started(Here).await;
    stage
        .on(Here)
        .pause(&stage.domain)
        .await
        .expect("it is halted");
    let to = stage.awaited(There, &parameters).await;
    stage.sent(Here, &to, &parameters).await;
    assert_eq!(
        stage.until_over(Here).await.status,
        MigrationStatus::Completed
    );
    assert_eq!(stage.state(There).await, InstanceState::Loaded);
    stage
        .on(There)
        .resume(&stage.domain)
        .await
        .expect("it is started there");
    stage.counts(There).await;
    stage.cleared().await;
}

pub(super) async fn a_port_in_use_is_refused(bench: &dyn Bench) {
    let (first, second) = (
        Stage::new(bench, "port-first"),
        Stage::new(bench, "port-second"),
    );
    let parameters = MigrationParameters::default();
    let to = first.awaited(There, &parameters).await;
    let take = async |stage: &Stage<'_>| {
        let there = stage.on(There);
        there
            .create_incoming(&stage.spec(), to.host, to.port, false, &parameters)
            .await
    };
    let refused = take(&second).await;
    assert!(
        matches!(refused, Err(HypervisorError::Rejected { .. })),
        "{refused:?}"
    );
    assert_eq!(second.state(There).await, InstanceState::Gone);
    assert_eq!(first.state(There).await, InstanceState::AwaitingStream);
    first.cleared().await;
    take(&second).await.expect("the port is free again");
    second.cleared().await;
}

pub(super) async fn nobody_listens(bench: &dyn Bench) {
    let stage = Stage::new(bench, "nobody-listens");
    stage.started(Here).await;
    let (host, port) = (bench.address(There), bench.free_port(There).await);
    let to = StreamAddress {
        host,
        port,
        tls_name: None,
    };
    stage.sent(Here, &to, &MigrationParameters::default()).await;
    let progress = stage.until_over(Here).await;
    assert_eq!(progress.status, MigrationStatus::Failed);
    assert!(progress.error.is_some());
    goes_on_and_can_move(&stage).await;
}

pub(super) async fn nobody_answers(bench: &dyn Bench) {
    let stage = Stage::new(bench, "nobody-answers");
    stage.started(Here).await;
    let parameters = MigrationParameters {
        setup_deadline_ms: 200,
        ..MigrationParameters::default()
    };
    for mute in bench.mute().await {
        stage.sent(Here, &mute, &parameters).await;
        let progress = stage.until_over(Here).await;
        assert_eq!(progress.status, MigrationStatus::Failed);
        let error = progress.error.expect("a failure has its words");
        assert!(error.contains("took longer than 200 ms"), "{error}");
        stage.until_state(Here, InstanceState::Running).await;
    }
    goes_on_and_can_move(&stage).await;
}

pub(super) async fn given_up_while_connecting(bench: &dyn Bench) {
    let stage = Stage::new(bench, "given-up-early");
    stage.started(Here).await;
    stage
        .on(Here)
        .cancel_migration(&stage.domain)
        .await
        .expect("there is nothing to give up");
    let parameters = MigrationParameters {
        setup_deadline_ms: 600_000,
        ..MigrationParameters::default()
    };
    for mute in bench.mute().await {
        stage.sent(Here, &mute, &parameters).await;
        let progress = stage
            .on(Here)
            .migration(&stage.domain)
            .await
            .expect("it tells");
        assert_eq!(progress.status, MigrationStatus::Setup);
        let second = stage
            .on(Here)
            .migrate(&stage.domain, &mute, &parameters)
            .await;
        assert!(
            matches!(second, Err(HypervisorError::Rejected { .. })),
            "{second:?}"
        );
        stage
            .on(Here)
            .cancel_migration(&stage.domain)
            .await
            .expect("it is given up");
        let progress = stage
            .on(Here)
            .migration(&stage.domain)
            .await
            .expect("it tells");
        assert_eq!(progress.status, MigrationStatus::Cancelled);
        stage.until_state(Here, InstanceState::Running).await;
    }
    goes_on_and_can_move(&stage).await;
}

pub(super) async fn a_destination_of_another_name_gets_nothing(bench: &dyn Bench) {
    if bench.tls_name(There).is_none() {
        return;
    }
    let stage = Stage::new(bench, "other-name");
    let parameters = MigrationParameters::default();
    stage.started(Here).await;
    for tls_name in [Some("someone-else".to_owned()), None] {
        let to = stage.awaited(There, &parameters).await;
        stage
            .sent(Here, &StreamAddress { tls_name, ..to }, &parameters)
            .await;
        let progress = stage.until_over(Here).await;
        assert_eq!(progress.status, MigrationStatus::Failed, "{progress:?}");
        assert!(progress.error.is_some_and(|error| !error.is_empty()));
        stage.until_state(Here, InstanceState::Running).await;
        let there = stage.state(There).await;
        assert!(
            matches!(there, InstanceState::AwaitingStream | InstanceState::Gone),
            "{there:?}"
        );
        stage
            .on(There)
            .kill(&stage.domain)
            .await
            .expect("the destination is removed");
    }
    goes_on_and_can_move(&stage).await;
}

pub(super) async fn given_up_in_pre_copy(bench: &dyn Bench) {
    let stage = Stage::new(bench, "given-up");
    stage.copying().await;
    assert_eq!(stage.state(There).await, InstanceState::AwaitingStream);
    stage.counts(Here).await;
    stage
        .on(Here)
        .cancel_migration(&stage.domain)
        .await
        .expect("it is given up");
    assert_eq!(
        stage.until_over(Here).await.status,
        MigrationStatus::Cancelled
    );
    stage.until_state(There, InstanceState::Gone).await;
    goes_on_and_can_move(&stage).await;
}

pub(super) async fn given_up_after_completion(bench: &dyn Bench) {
    let stage = Stage::new(bench, "given-up-late");
    stage.moved().await;
    stage
        .on(Here)
        .cancel_migration(&stage.domain)
        .await
        .expect("it had ended by itself");
    assert_eq!(stage.state(Here).await, InstanceState::Sent);
    stage
        .on(There)
        .kill(&stage.domain)
        .await
        .expect("the destination is removed");
    stage
        .on(Here)
        .resume(&stage.domain)
        .await
        .expect("the source runs again");
    goes_on_and_can_move(&stage).await;
}

pub(super) async fn the_source_dies_in_pre_copy(bench: &dyn Bench) {
    let stage = Stage::new(bench, "source-dies");
    stage.copying().await;
    bench.crash(Here, &stage.domain).await;
    stage.until_state(Here, InstanceState::Gone).await;
    stage
        .until("the destination's end", async || {
            match stage.state(There).await {
                InstanceState::Gone => Some(()),
                InstanceState::AwaitingStream => None,
                other => panic!("half a stream made the destination {other:?}"),
            }
        })
        .await;
    stage.cleared().await;
}

pub(super) async fn the_destination_dies_in_pre_copy(bench: &dyn Bench) {
    let stage = Stage::new(bench, "dest-dies");
    stage.copying().await;
    bench.crash(There, &stage.domain).await;
    assert_eq!(stage.until_over(Here).await.status, MigrationStatus::Failed);
    goes_on_and_can_move(&stage).await;
}

pub(super) async fn the_destination_dies_before_the_stream(bench: &dyn Bench) {
    let stage = Stage::new(bench, "dest-dies-early");
    let parameters = MigrationParameters::default();
    stage.started(Here).await;
    let to = stage.awaited(There, &parameters).await;
    bench.crash(There, &stage.domain).await;
    stage.until_state(There, InstanceState::Gone).await;
    stage.sent(Here, &to, &parameters).await;
    assert_eq!(stage.until_over(Here).await.status, MigrationStatus::Failed);
    goes_on_and_can_move(&stage).await;
}

pub(super) async fn the_destination_dies_after_completion(bench: &dyn Bench) {
    let stage = Stage::new(bench, "dest-dies-late");
    stage.moved().await;
    bench.crash(There, &stage.domain).await;
    stage.until_state(There, InstanceState::Gone).await;
    assert_eq!(stage.state(Here).await, InstanceState::Sent);
    stage.stands_still(Here).await;
    stage
        .on(Here)
        .resume(&stage.domain)
        .await
        .expect("the source runs again");
    goes_on_and_can_move(&stage).await;
}

pub(super) async fn the_source_dies_after_completion(bench: &dyn Bench) {
    let stage = Stage::new(bench, "source-dies-late");
    stage.moved().await;
    bench.crash(Here, &stage.domain).await;
    stage.until_state(Here, InstanceState::Gone).await;
    assert_eq!(stage.state(There).await, InstanceState::Loaded);
    assert_eq!(stage.stands_still(There).await, 0);
    stage
        .on(There)
        .resume(&stage.domain)
        .await
        .expect("the destination is started");
    stage.counts(There).await;
    stage.cleared().await;
}

pub(super) async fn the_driver_restarts_in_pre_copy(bench: &dyn Bench) {
    let stage = Stage::new(bench, "restarts");
    stage.copying().await;
    bench.restart(Here).await;
    bench.restart(There).await;
    stage.until_copying(Here).await;
    assert_eq!(stage.state(There).await, InstanceState::AwaitingStream);
    stage.counts(Here).await;
    stage
        .on(Here)
        .cancel_migration(&stage.domain)
        .await
        .expect("it is given up");
    stage.until_state(There, InstanceState::Gone).await;
    goes_on_and_can_move(&stage).await;
}

pub(super) async fn post_copy_lets_the_destination_run_first(bench: &dyn Bench) {
    let stage = Stage::new(bench, "post-copy");
    let parameters = MigrationParameters {
        post_copy: true,
        ..bench.slow()
    };
    stage.started(Here).await;
    let to = stage.awaited(There, &parameters).await;
    stage.sent(Here, &to, &parameters).await;
    stage.until_copying(Here).await;
    stage
        .on(Here)
        .start_post_copy(&stage.domain)
        .await
        .expect("post-copy is switched to");
    stage.until_state(There, InstanceState::Loaded).await;
    let left_at = stage.stands_still(Here).await;
    stage
        .on(There)
        .resume(&stage.domain)
        .await
        .expect("the destination is started");
    let now = stage.counts(There).await;
    assert!(
        now > left_at,
        "it counts {now} after it had counted {left_at}"
    );
    assert_eq!(
        stage.until_over(Here).await.status,
        MigrationStatus::Completed
    );
    assert_eq!(stage.state(Here).await, InstanceState::Sent);
    stage.counts(There).await;
    stage.cleared().await;
}

/// After a move that came to nothing: the guest runs here, and the next move succeeds.
async fn goes_on_and_can_move(stage: &Stage<'_>) {
    stage.until_state(Here, InstanceState::Running).await;
    stage.counts(Here).await;
    let parameters = MigrationParameters::default();
    let to = stage.awaited(There, &parameters).await;
    stage.sent(Here, &to, &parameters).await;
    let progress = stage.until_over(Here).await;
    assert_eq!(progress.status, MigrationStatus::Completed, "{progress:?}");
    stage
        .on(There)
        .resume(&stage.domain)
        .await
        .expect("the destination is started");
    stage.counts(There).await;
    stage.cleared().await;
}
