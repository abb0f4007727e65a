//! What every keeper of volumes must do, as one suite. It panics at the first thing that is not so.
//!
//! Content is written and read through clients, whole MiB of one byte at a time: what counts is who gets in, and what
//! is there afterwards.

use crate::error::VolumeError;
use crate::seam::{By, Volumes};
use async_trait::async_trait;
use estive_api::wire::{ExportPlace, SnapshotName, VolumeExport, VolumeReport, VolumeWish};
use estive_model::{DeploymentName, DomainName, Generation};
use std::sync::Arc;

/// A client that has an export open.
#[async_trait]
pub trait Client: Send {
    /// Writes a MiB of `byte` and waits for the answer.
    async fn write(&mut self, mib: u64, byte: u8) -> Result<(), String>;
    /// Whether that MiB is all `byte`.
    async fn is(&mut self, mib: u64, byte: u8) -> Result<bool, String>;
}

/// A part under test.
#[async_trait]
pub trait Bench: Send {
    /// The keeper.
    fn volumes(&self) -> Arc<dyn Volumes>;
    /// Opens an export as the host `client`, with patience for a server that comes back, or with none.
    async fn client(
        &self,
        place: &ExportPlace,
        client: &str,
        patient: bool,
    ) -> Result<Box<dyn Client>, String>;
    /// Kills what serves this volume, as `kill -9` does.
    async fn kill(&mut self, name: &DomainName);
    /// Kills the keeper and starts it again; what serves the volumes is left alone.
    async fn restart(&mut self);
}

/// Runs everything.
pub async fn suite(bench: &mut dyn Bench) {
    a_volume_is_made_once_and_found_again(bench).await;
    a_generation_writes_until_it_is_cut(bench).await;
    a_fence_holds_over_every_death(bench).await;
    only_hosts_that_asked_get_in(bench).await;
    a_host_does_what_it_was_granted(bench).await;
    who_goes_keeps_no_connection(bench).await;
    a_death_loses_no_answered_write(bench).await;
    it_grows_and_never_shrinks(bench).await;
    snapshots_bring_back_what_was(bench).await;
    what_is_in_use_is_not_removed(bench).await;
}

const MIB: u64 = 1 << 20;
const SIZE_BYTES: u64 = 64 * MIB;

fn name(name: &str) -> DomainName {
    DomainName::new(name).unwrap_or_else(|error| panic!("{error}"))
}

fn wish(owner: &str) -> VolumeWish {
    VolumeWish {
        owner: DeploymentName::new(owner).unwrap_or_else(|error| panic!("{error}")),
        size_bytes: SIZE_BYTES,
    }
}

fn snapshot(name: &str) -> SnapshotName {
    SnapshotName::new(name).unwrap_or_else(|error| panic!("{error}"))
}

fn sure<T, E: std::fmt::Display>(outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error}"))
}

fn generations(report: &VolumeReport) -> Vec<u64> {
    generations_of(&report.exports)
}

fn generations_of(listed: &[VolumeExport]) -> Vec<u64> {
    listed.iter().map(|export| export.generation.0).collect()
}

async fn made(bench: &dyn Bench, called: &str) -> DomainName {
    let name = name(called);
    sure(bench.volumes().create(&name, &wish("web")).await);
    name
}

async fn opened(bench: &dyn Bench, name: &DomainName, generation: u64) -> Box<dyn Client> {
    let place = placed(bench, name, generation, "h1").await;
    sure(bench.client(&place, "h1", false).await)
}

/// Granted to a host, and let in.
async fn placed(bench: &dyn Bench, name: &DomainName, generation: u64, host: &str) -> ExportPlace {
    let (volumes, generation) = (bench.volumes(), Generation(generation));
    sure(volumes.grant(name, generation, host).await);
    sure(volumes.export(name, generation, host).await)
}

async fn a_volume_is_made_once_and_found_again(bench: &mut dyn Bench) {
    let volumes = bench.volumes();
    let missing = volumes.show(&name("once")).await;
    assert!(matches!(missing, Err(VolumeError::Missing(_))));
    for size_bytes in [0, 1 << 20, SIZE_BYTES + 1, 17 << 40, u64::MAX] {
        let odd = VolumeWish {
            size_bytes,
            ..wish("web")
        };
        let refused = volumes.create(&name("once"), &odd).await;
        assert!(
            matches!(refused, Err(VolumeError::Impossible(_))),
            "{size_bytes}"
        );
    }
    let first = sure(volumes.create(&name("once"), &wish("web")).await);
    assert_eq!(first.size_bytes, SIZE_BYTES);
    assert!(first.exports.is_empty() && first.snapshots.is_empty());
    let again = sure(volumes.create(&name("once"), &wish("web")).await);
    assert_eq!(again.name, first.name);
    let others = volumes.create(&name("once"), &wish("other")).await;
    assert!(matches!(others, Err(VolumeError::OthersVolume { .. })));
    drop(volumes);
    bench.restart().await;
    let listed = sure(bench.volumes().list().await);
    assert!(listed.iter().any(|report| report.name == first.name));
}

async fn a_generation_writes_until_it_is_cut(bench: &mut dyn Bench) {
    let name = made(bench, "cut").await;
    let volumes = bench.volumes();
    let mut old = opened(bench, &name, 1).await;
    sure(old.write(40, 7).await);
    // During a move there are both.
    let mut new = opened(bench, &name, 2).await;
    assert!(sure(new.is(40, 7).await), "the content is one");
    let fenced = sure(volumes.fence(&name, Generation(2), By::Keeper).await);
    assert_eq!(generations(&fenced), [2]);
    assert!(old.write(40, 8).await.is_err(), "the old one was not cut");
    assert!(sure(new.is(40, 7).await), "a late write came through");
    sure(new.write(41, 9).await);
    let late = volumes.export(&name, Generation(1), "h1").await;
    assert!(matches!(late, Err(VolumeError::OldGeneration { .. })));
    // Again, and a lower one: nothing changes.
    sure(volumes.fence(&name, Generation(2), By::Keeper).await);
    // Who goes on from what was saved under generation 1 is told that somebody has had it since.
    let gone_on = volumes
        .fence_from(&name, &[Generation(1)], Generation(3), By::Keeper)
        .await;
    assert!(
        matches!(gone_on, Err(VolumeError::GoneOn { fenced, .. }) if fenced == Generation(2)),
        "{gone_on:?}"
    );
    let tried = [Generation(1), Generation(2)];
    let fenced = volumes.fence_from(&name, &tried, Generation(2), By::Host("h1"));
    sure(fenced.await);
    let lower = sure(volumes.fence(&name, Generation(1), By::Keeper).await);
    assert_eq!(
        (lower.fenced, generations(&lower)),
        (Generation(2), vec![2])
    );
    sure(new.write(42, 9).await);
    sure(volumes.withdraw(&name, Generation(2), By::Host("h1")).await);
    assert!(new.write(42, 1).await.is_err(), "withdrawn, and it writes");
    let mut again = opened(bench, &name, 2).await;
    assert!(sure(again.is(42, 9).await));
}

async fn a_fence_holds_over_every_death(bench: &mut dyn Bench) {
    let name = made(bench, "holds").await;
    let mut old = opened(bench, &name, 3).await;
    let mut new = opened(bench, &name, 5).await;
    sure(old.write(1, 1).await);
    sure(
        bench
            .volumes()
            .fence(&name, Generation(5), By::Keeper)
            .await,
    );
    for _ in 0..2 {
        bench.restart().await;
        let refused = bench.volumes().export(&name, Generation(4), "h1").await;
        assert!(matches!(refused, Err(VolumeError::OldGeneration { .. })));
        assert!(old.write(1, 2).await.is_err());
        assert!(sure(new.is(1, 1).await), "a restart of the keeper was felt");
        bench.kill(&name).await;
        let report = sure(
            bench
                .volumes()
                .fence(&name, Generation(5), By::Keeper)
                .await,
        );
        assert_eq!(generations(&report), [5]);
        assert!(old.write(1, 2).await.is_err());
        new = opened(bench, &name, 5).await;
    }
}

async fn only_hosts_that_asked_get_in(bench: &mut dyn Bench) {
    let name = made(bench, "hosts").await;
    let place = placed(bench, &name, 1, "h1").await;
    let mut first = sure(bench.client(&place, "h1", false).await);
    sure(first.write(0, 1).await);
    let intruder = bench.client(&place, "h2", false).await;
    let got_in = match intruder {
        Ok(mut client) => client.is(0, 1).await.is_ok(),
        Err(_) => false,
    };
    assert!(!got_in, "a host that has not asked was let in");
    // A generation is one host's.
    let taken = bench.volumes().grant(&name, Generation(1), "h2").await;
    assert!(matches!(taken, Err(VolumeError::Granted { client, .. }) if client == "h1"));
    sure(first.write(0, 1).await);
    let next = placed(bench, &name, 2, "h2").await;
    let mut second = sure(bench.client(&next, "h2", false).await);
    assert!(sure(second.is(0, 1).await));
    let unknown = ExportPlace {
        export: "hosts@9".into(),
        ..place
    };
    let opened = bench.client(&unknown, "h1", false).await;
    let found = match opened {
        Ok(mut client) => client.is(0, 1).await.is_ok(),
        Err(_) => false,
    };
    assert!(!found, "an export that nobody made was found");
}

async fn a_host_does_what_it_was_granted(bench: &mut dyn Bench) {
    let name = made(bench, "granted").await;
    let volumes = bench.volumes();
    let not_granted = |refused: Result<(), VolumeError>| {
        assert!(
            matches!(refused, Err(VolumeError::NotGranted { .. })),
            "{refused:?}"
        );
    };
    let opens = async |generation, host| {
        let opened = volumes.export(&name, Generation(generation), host).await;
        not_granted(opened.map(drop));
    };
    let fences = async |generation, host| {
        let fenced = volumes.fence(&name, Generation(generation), By::Host(host));
        not_granted(fenced.await.map(drop));
    };
    opens(1, "h1").await;
    fences(1, "h1").await;
    let place = placed(bench, &name, 3, "h1").await;
    let mut client = sure(bench.client(&place, "h1", false).await);
    sure(client.write(2, 2).await);
    // Neither another's generation, nor one above its own.
    opens(3, "h2").await;
    opens(4, "h1").await;
    fences(3, "h2").await;
    for generation in [2, 4, u64::MAX] {
        fences(generation, "h1").await;
    }
    let shut = volumes.withdraw(&name, Generation(3), By::Host("h2")).await;
    not_granted(shut);
    sure(client.write(2, 3).await);
    // Not even who may grant can bring it to the end of the numbers.
    for generation in [u64::MAX, 1 << 40] {
        let far = volumes.fence(&name, Generation(generation), By::Keeper);
        assert!(matches!(far.await, Err(VolumeError::Impossible(_))));
        let far = volumes.grant(&name, Generation(generation), "h1").await;
        assert!(matches!(far, Err(VolumeError::Impossible(_))));
    }
    // What is granted is known over a restart, and again when it is said again; grants go up.
    drop(volumes);
    bench.restart().await;
    let volumes = bench.volumes();
    sure(volumes.fence(&name, Generation(3), By::Host("h1")).await);
    sure(volumes.grant(&name, Generation(5), "h2").await);
    let again = sure(volumes.grant(&name, Generation(3), "h1").await);
    assert_eq!(generations_of(&again.granted), [3, 5]);
    let late = volumes.grant(&name, Generation(4), "h1").await;
    assert!(matches!(late, Err(VolumeError::OldGrant { .. })));
    sure(client.write(2, 4).await);
    sure(volumes.export(&name, Generation(5), "h2").await);
    sure(volumes.fence(&name, Generation(5), By::Host("h2")).await);
    assert!(client.write(2, 5).await.is_err());
    // Fenced off, it does not hear that it may run.
    let old = volumes.fence(&name, Generation(3), By::Host("h1")).await;
    assert!(matches!(old, Err(VolumeError::OldGeneration { .. })));
    let old = volumes.grant(&name, Generation(3), "h1").await;
    assert!(matches!(old, Err(VolumeError::OldGeneration { .. })));
    // Given back, it is nobody's: opened again only when it was granted again.
    let back = By::Host("h2");
    sure(volumes.withdraw(&name, Generation(5), back).await);
    sure(volumes.withdraw(&name, Generation(5), back).await);
    let opened = volumes.export(&name, Generation(5), "h2").await;
    not_granted(opened.map(drop));
    // One that was granted and never opened goes with the next.
    sure(volumes.grant(&name, Generation(6), "h1").await);
    let next = sure(volumes.grant(&name, Generation(7), "h2").await);
    assert_eq!(generations_of(&next.granted), [7]);
}

/// The source of a move opens what the destination was granted, and is fenced off.
async fn who_goes_keeps_no_connection(bench: &mut dyn Bench) {
    let name = made(bench, "goes").await;
    let old = placed(bench, &name, 1, "h1").await;
    let mut old = sure(bench.client(&old, "h1", false).await);
    sure(old.write(0, 1).await);
    let new = placed(bench, &name, 2, "h2").await;
    let mut rightly = sure(bench.client(&new, "h2", true).await);
    let mut wrongly = sure(bench.client(&new, "h1", false).await);
    assert!(sure(wrongly.is(0, 1).await), "it was never in");
    let volumes = bench.volumes();
    sure(volumes.fence(&name, Generation(2), By::Host("h2")).await);
    assert!(old.write(0, 2).await.is_err());
    assert!(wrongly.write(0, 3).await.is_err(), "it writes on");
    let anew = bench.client(&new, "h1", false).await;
    let got_in = match anew {
        Ok(mut client) => client.is(0, 1).await.is_ok(),
        Err(_) => false,
    };
    assert!(!got_in, "it was let in again");
    assert!(sure(rightly.is(0, 1).await));
    sure(rightly.write(0, 4).await);
}

async fn a_death_loses_no_answered_write(bench: &mut dyn Bench) {
    let name = made(bench, "death").await;
    let place = placed(bench, &name, 1, "h1").await;
    let mut client = sure(bench.client(&place, "h1", true).await);
    for round in 0..4u8 {
        for mib in 0..8 {
            sure(client.write(mib * 5, 10 + round).await);
        }
        // No flush: an answer is enough, since the client does not see that another one serves it.
        bench.kill(&name).await;
        for mib in 0..8 {
            assert!(sure(client.is(mib * 5, 10 + round).await), "MiB {mib}");
        }
    }
    let report = sure(bench.volumes().show(&name).await);
    assert_eq!(report.note, None);
}

async fn it_grows_and_never_shrinks(bench: &mut dyn Bench) {
    let name = made(bench, "grows").await;
    let volumes = bench.volumes();
    let mut client = opened(bench, &name, 1).await;
    sure(client.write(63, 5).await);
    assert!(client.write(64, 5).await.is_err(), "beyond its quota");
    let used = volumes.resize(&name, 2 * SIZE_BYTES).await;
    assert!(matches!(used, Err(VolumeError::InUse { .. })));
    sure(volumes.fence(&name, Generation(2), By::Keeper).await);
    let larger = sure(volumes.resize(&name, 2 * SIZE_BYTES).await);
    assert_eq!(larger.size_bytes, 2 * SIZE_BYTES);
    let smaller = volumes.resize(&name, SIZE_BYTES).await;
    assert!(matches!(smaller, Err(VolumeError::Impossible(_))));
    let mut next = opened(bench, &name, 2).await;
    sure(next.write(127, 6).await);
    assert!(sure(next.is(63, 5).await));
}

async fn snapshots_bring_back_what_was(bench: &mut dyn Bench) {
    let name = made(bench, "snap").await;
    let volumes = bench.volumes();
    let mut client = opened(bench, &name, 1).await;
    sure(client.write(50, 1).await);
    let taken = sure(volumes.snapshot(&name, &snapshot("before")).await);
    assert_eq!(taken.snapshots, [snapshot("before")]);
    assert_eq!(taken.note, None);
    sure(client.write(50, 2).await);
    // The answer may have been lost: what is there stays, of then, and that is said.
    let again = sure(volumes.snapshot(&name, &snapshot("before")).await);
    assert_eq!(again.snapshots, taken.snapshots);
    assert!(again.note.is_some_and(|note| note.contains("already")));
    sure(volumes.snapshot(&name, &snapshot("after")).await);
    let used = volumes.restore(&name, &snapshot("before")).await;
    assert!(matches!(used, Err(VolumeError::InUse { .. })));
    sure(volumes.fence(&name, Generation(2), By::Keeper).await);
    let unknown = volumes.restore(&name, &snapshot("never")).await;
    assert!(matches!(unknown, Err(VolumeError::Impossible(_))));
    sure(volumes.restore(&name, &snapshot("before")).await);
    let mut client = opened(bench, &name, 2).await;
    assert!(sure(client.is(50, 1).await));
    sure(volumes.fence(&name, Generation(3), By::Keeper).await);
    drop(volumes);
    bench.restart().await;
    let volumes = bench.volumes();
    sure(volumes.restore(&name, &snapshot("after")).await);
    let mut client = opened(bench, &name, 3).await;
    assert!(sure(client.is(50, 2).await));
    sure(volumes.drop_snapshot(&name, &snapshot("before")).await);
    let left = sure(volumes.drop_snapshot(&name, &snapshot("before")).await);
    assert_eq!(left.snapshots, [snapshot("after")]);
}

async fn what_is_in_use_is_not_removed(bench: &mut dyn Bench) {
    let name = made(bench, "used").await;
    let volumes = bench.volumes();
    let mut client = opened(bench, &name, 1).await;
    sure(client.write(0, 3).await);
    let used = volumes.remove(&name).await;
    assert!(matches!(used, Err(VolumeError::InUse { .. })));
    sure(client.write(0, 4).await);
    sure(volumes.fence(&name, Generation(2), By::Keeper).await);
    sure(volumes.remove(&name).await);
    sure(volumes.remove(&name).await);
    assert!(matches!(
        volumes.show(&name).await,
        Err(VolumeError::Missing(_))
    ));
    // A new one of that name holds nothing of the old.
    sure(volumes.create(&name, &wish("other")).await);
    let mut client = opened(bench, &name, 1).await;
    assert!(!sure(client.is(0, 4).await));
}
