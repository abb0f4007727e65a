//! Guests that do not come up: QEMU that dies at start, a root without an init, one that never reports.

use std::fs;
use std::path::{Path, PathBuf};

use estive_chunks::{Manifest, SignedManifest};
use estive_exports::seal::put_manifest;

use crate::FAILED;
use crate::common::{
    ShownBed, assert_nothing_stays, bed_config, done, fails, herd, on_guests, tiny_herd,
    tiny_reference, work,
};

#[test]
fn guests_that_do_not_come_up_are_taken_back() {
    on_guests("boots::inside_guests_that_do_not_come_up");
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_guests_that_do_not_come_up() {
    let good = tiny_reference("tiny", |_| {});
    let mut config = bed_config(2, good.clone());
    let garbage = work().join("parts/garbage");
    fs::write(&garbage, vec![b'?'; 100_000]).unwrap();
    let mut bad_kernel = good.clone();
    bad_kernel.kernel.clone_from(&garbage);
    let mut bad_initramfs = good.clone();
    bad_initramfs.initramfs = garbage;
    let no_init = tiny_reference("no-init", |root| {
        fs::rename(root.join("sbin/init"), root.join("sbin/other")).unwrap();
    });
    let mut no_root = good;
    no_root.image = image_of_nothing(&work().join("parts/no-root"));
    for (name, reference) in [
        ("bad-kernel", bad_kernel),
        ("bad-initramfs", bad_initramfs),
        ("no-init", no_init),
        ("no-root", no_root),
    ] {
        config.references.insert(name.to_owned(), reference);
    }
    let mut bed = ShownBed::start(config).await;
    let up = async |bed: &ShownBed, reference: &str, words: &[&str]| {
        // Beside a good one, which is taken back too.
        let yaml = tiny_herd(&[("good", Some("host2")), ("bad", Some("host1"))])
            .replace("bad: {", &format!("bad: {{reference: {reference}, "));
        let folder = herd(&format!("with-{reference}"), &yaml);
        fails(bed, FAILED, &["up", &folder], words).await;
        assert_nothing_stays(bed).await;
    };
    up(&bed, "bad-kernel", &["bad", "host1", "kernel", "try:"]).await;
    up(&bed, "no-init", &["bad", "host1", "init", "try:"]).await;
    up(&bed, "no-root", &["bad", "host1", "root", "try:"]).await;
    bed = with_boot_timeout(bed, 8).await;
    let words = [
        "bad",
        "host1",
        "not reported its boot within 8 s",
        "console",
        "try:",
    ];
    up(&bed, "bad-initramfs", &words).await;
    bed = with_boot_timeout(bed, 300).await;
    // The host's cache is down: there is nothing to read the root from. A dead server of roots alone is not even seen:
    // both hosts have read this one before.
    bed.kill_storage().await;
    bed.kill_cache(1).await;
    let words = ["bad", "host1", "cache", "does not answer", "try:"];
    up(&bed, "default", &words).await;
    bed.start_cache(1).await.unwrap();
    bed.start_storage().await.unwrap();
    // And what failed before keeps nobody from coming up.
    let good = tiny_herd(&[("good", Some("host2")), ("bad", Some("host1"))]);
    let folder = herd("at-last", &good);
    done(&bed, &["up", &folder]).await;
    let events = done(&bed, &["events"]).await;
    assert!(events.contains("could not be brought up"), "{events}");
    done(&bed, &["down", "at-last"]).await;
    assert_nothing_stays(&bed).await;
    bed.stop().await;
}

/// A signed root may hold anything: 1 MiB of zeros.
fn image_of_nothing(directory: &Path) -> PathBuf {
    fs::create_dir_all(directory).unwrap();
    let bytes = vec![0; 1 << 20];
    let manifest = Manifest::read(&mut &bytes[..]).unwrap();
    let image = directory.join(format!("{}.erofs", manifest.name().hex()));
    fs::write(&image, bytes).unwrap();
    put_manifest(directory, &SignedManifest::unsigned(manifest)).unwrap();
    image
}

/// The manager again, with another patience.
async fn with_boot_timeout(mut bed: ShownBed, boot_timeout_s: u64) -> ShownBed {
    let file = work().join("manager/manager.yaml");
    let mut text: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    text["boot_timeout_s"] = boot_timeout_s.into();
    fs::write(&file, text.to_string()).unwrap();
    bed.kill_manager().await;
    bed.start_manager().await.unwrap();
    bed
}
