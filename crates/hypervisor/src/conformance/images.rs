//! Cases of an ordinary machine, which writes to a disk of its own in an image file that both hosts see.

use super::Side::{Here, There};
use super::{Bench, Stage};

pub(super) async fn a_machine_with_an_image_moves_and_its_disk_has_all(bench: &dyn Bench) {
    let stage = Stage::with_image(bench, "image-mover");
    stage.moved().await;
    let left_at = stage.stands_still(Here).await;
    stage
        .on(There)
        .resume(&stage.domain)
        .await
        .expect("a loaded instance runs");
    let there = stage.counts(There).await;
    assert!(there > left_at, "{there} after {left_at}");
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
    if bench.image_holds(&stage.domain).is_some() {
        let refused = stage.on(There).resume(&stage.domain).await;
        assert!(refused.is_err(), "the image is held by the source");
    }
    stage.cleared().await;
    if let Some(held) = bench.image_holds(&stage.domain) {
        assert!(held >= last, "{last} was acknowledged; it has {held}");
    }
}
