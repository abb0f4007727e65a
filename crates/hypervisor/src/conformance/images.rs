//! Cases of an ordinary machine, which writes to a disk of its own in an image file that both hosts see.

use super::Side::{Here, There};
use super::{Bench, Side, Stage};
use crate::image_files::{FileId, Grip};
use crate::seam::InstanceState;
use estive_model::Machine;
use std::fs::{File, Metadata};

/// The disk's file, as it lies there now.
fn disk(stage: &Stage) -> (FileId, Metadata) {
    let Machine::Images(spec) = stage.spec() else {
        panic!("a machine with an image has one");
    };
    let file = &spec.disks[0].file;
    let file = File::open(file.top.join(&file.path)).expect("the image is there");
    let id = FileId::of(&file).expect("it can be looked at");
    (id, file.metadata().expect("it can be looked at"))
}

async fn grip(stage: &Stage<'_>, side: Side, file: FileId) -> Grip {
    let grip = stage.on(side).grip(&stage.domain, file).await;
    grip.expect("what it has is told")
}

pub(super) async fn a_machine_with_an_image_moves_and_its_disk_has_all(bench: &dyn Bench) {
    let stage = Stage::with_image(bench, "image-mover");
    let (file, _) = disk(&stage);
    assert_eq!(grip(&stage, Here, file).await, Grip::None);
    stage.started(Here).await;
    assert_eq!(grip(&stage, Here, file).await, Grip::Locked);
    stage.left().await;
    // Given away, and not yet taken over.
    assert_eq!(grip(&stage, Here, file).await, Grip::Open);
    assert_eq!(grip(&stage, There, file).await, Grip::Open);
    let left_at = stage.stands_still(Here).await;
    stage
        .on(There)
        .resume(&stage.domain)
        .await
        .expect("a loaded instance runs");
    let there = stage.counts(There).await;
    assert!(there > left_at, "{there} after {left_at}");
    assert_eq!(grip(&stage, There, file).await, Grip::Locked);
    let back = stage.on(Here).kill(&stage.domain).await;
    back.expect("a source that is done can be ended");
    let last = stage.counts(There).await;
    stage.cleared().await;
    if let Some(held) = bench.image_holds(&stage.domain) {
        assert!(held >= last, "{last} was acknowledged; it has {held}");
    }
}

pub(super) async fn a_machine_with_an_image_goes_on_where_it_was_after_the_stream(
    bench: &dyn Bench,
) {
    let stage = Stage::with_image(bench, "image-stays");
    stage.moved().await;
    // The destination stands, has the whole stream, and has not taken the disk.
    stage
        .on(Here)
        .resume(&stage.domain)
        .await
        .expect("the source has its disk back");
    stage.counts(Here).await;
    let last = stage.counts(Here).await;
    // While it runs here, what waits there cannot run: the image is held.
    let refused = stage.on(There).resume(&stage.domain).await;
    assert!(refused.is_err(), "the image is held by the source");
    stage.cleared().await;
    if let Some(held) = bench.image_holds(&stage.domain) {
        assert!(held >= last, "{last} was acknowledged; it has {held}");
    }
}

pub(super) async fn a_saved_machine_with_an_image_leaves_it_be_and_takes_it_again(
    bench: &dyn Bench,
) {
    let stage = Stage::with_image(bench, "image-saved");
    let file = bench.saved_state();
    stage.started(Here).await;
    let saved = stage.on(Here).save(&stage.domain, &file).await;
    saved.expect("the state is saved");
    let saved_at = stage.stands_still(Here).await;
    let (id, left) = disk(&stage);
    assert_eq!(grip(&stage, Here, id).await, Grip::Open);
    let ended = stage.on(Here).kill(&stage.domain).await;
    ended.expect("the instance is killed");

    // Somebody else has the image: all of it is loaded, and it cannot be started.
    let other = Stage::with_the_image_of(&stage, "image-other");
    let begun = other.on(There).create(&other.spec()).await;
    begun.expect("nobody has the image");
    let refused = other.on(Here).create(&other.spec()).await;
    assert!(refused.is_err(), "two would write to one image");
    let restored = stage.on(Here).restore(&stage.spec(), &file).await;
    if restored.is_ok() {
        assert_ne!(grip(&stage, Here, id).await, Grip::Locked);
        let refused = stage.on(Here).resume(&stage.domain).await;
        assert!(refused.is_err(), "the image is held by another");
    }
    other.cleared().await;
    stage.cleared().await;

    let restored = stage.on(Here).restore(&stage.spec(), &file).await;
    restored.expect("the state is restored");
    assert_eq!(stage.state(Here).await, InstanceState::Loaded);
    assert_eq!(grip(&stage, Here, id).await, Grip::Locked);
    let (_, now) = disk(&stage);
    assert_eq!(
        (now.len(), now.modified().ok()),
        (left.len(), left.modified().ok()),
        "nobody has written to it"
    );
    let resumed = stage.on(Here).resume(&stage.domain).await;
    resumed.expect("its processors are started");
    let last = stage.counts(Here).await;
    assert!(last > saved_at, "{last} after {saved_at}");
    stage.cleared().await;
    if let Some(held) = bench.image_holds(&stage.domain) {
        assert!(held >= last, "{last} was acknowledged; it has {held}");
    }
}
