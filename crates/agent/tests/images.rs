//! Ordinary machines, with disks in image files: what an agent takes, and a real one that moves between two agents on one
//! directory. Its disk boots by the firmware and counts on itself, so that no kernel is needed.

mod common;

use common::*;
use estive_api::ProblemKind;
use estive_api::wire::*;
use estive_hypervisor::conformance::counting_disk;
use estive_model::{DomainState, ImageFormat};
use estive_moves::Holding;
use std::fs;
use std::path::{Path, PathBuf};

/// As `virsh dumpxml` gives it.
fn description(disk: &Path, format: ImageFormat) -> String {
    format!(
        "<domain type='kvm'>
  <name>shop</name>
  <uuid>8d2f0a3e-0000-4000-8000-00000000000a</uuid>
  <memory unit='KiB'>65536</memory>
  <vcpu placement='static'>1</vcpu>
  <os><type arch='x86_64' machine='pc-q35-8.2'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><apic/></features>
  <clock offset='utc'/>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='{}'/>
      <source file='{}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='pci' index='0'/>
    <console type='pty'/>
    <memballoon model='virtio'/>
  </devices>
</domain>
",
        format.word(),
        disk.display()
    )
}

/// A world whose hosts share a directory of images; the path is as the system knows it.
fn shared(world: &World) -> PathBuf {
    let images = world.home.path().join("images");
    fs::create_dir_all(&images).unwrap();
    images.canonicalize().unwrap()
}

async fn kind(host: &Host, xml: &str) -> (ProblemKind, String) {
    let error = host
        .try_define("shop", xml.as_bytes().to_vec())
        .await
        .unwrap_err();
    (error.problem().unwrap().kind, error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_an_image_is_defined_run_archived_and_removed() {
    let world = World::new();
    let images = shared(&world);
    let disk = images.join("shop.raw");
    fs::write(&disk, "data").unwrap();
    fs::write(world.home.path().join("outside"), "data").unwrap();
    std::os::unix::fs::symlink(&disk, images.join("link")).unwrap();
    let mut host = world.host(31);
    host.config.images = vec![images.clone()];
    host.start().await;
    let raw = |path: &Path| description(path, ImageFormat::Raw);

    for path in [
        world.home.path().join("outside"),
        "/etc/shadow".into(),
        images.with_extension("more").join("disk"),
    ] {
        let (kind, words) = kind(&host, &raw(&path)).await;
        assert_eq!(kind, ProblemKind::Refused, "{words}");
        assert!(words.contains("allows images in"), "{words}");
    }
    for path in [
        images.join("link"),
        images.join("none"),
        world.home.path().join("images"),
    ] {
        let (kind, words) = kind(&host, &raw(&path)).await;
        let refused = matches!(kind, ProblemKind::Impossible | ProblemKind::Refused);
        assert!(refused, "{words}");
    }
    let (wrong, words) = kind(&host, &raw(&images.join("../outside"))).await;
    assert_eq!(wrong, ProblemKind::Invalid, "{words}");
    assert_eq!(count_files(&host.config.state.join("domains")), 0);
    let layered = tar_of(&[
        ("config.xml".into(), raw(&disk).into_bytes()),
        ("layer".into(), vec![7]),
    ]);
    let error = host.try_define("shop", layered).await.unwrap_err();
    assert!(error.to_string().contains("it has layer"), "{error}");

    // By itself, or in an archive.
    let text = raw(&disk).into_bytes();
    let report = host.try_define("shop", text.clone()).await.unwrap();
    assert_eq!((report.memory_mib, report.cpus), (64, 1));
    let archive = tar_of(&[("config.xml".into(), text)]);
    host.try_define("shop", archive).await.unwrap();
    host.ask("shop", DomainState::Running).await.unwrap();
    host.restart().await;
    assert_eq!(host.report("shop").await.state, DomainState::Running);
    let saved = host.save("shop").await.unwrap_err();
    assert!(saved.to_string().contains("image files"), "{saved}");
    let client = host.client();
    let archive = client.get_bytes("/domain/shop", 1 << 20, BOUND).await;
    let archive = archive.unwrap();
    host.ask("shop", DomainState::Stopped).await.unwrap();

    // What another host would be given defines it again, and nothing shows that it is open here.
    let mut other = world.host(32);
    other.config.images = vec![images.clone()];
    other.start().await;
    other.try_define("shop", archive.to_vec()).await.unwrap();
    let gone = client.delete_json::<()>("/domain/shop", BOUND).await;
    gone.unwrap();
    assert_eq!(fs::read(&disk).unwrap(), b"data");
    assert_eq!(count_files(&host.config.state.join("domains")), 0);
    host.stop().await;
    other.stop().await;
}

/// The highest number on a host's console, once it is above `least`.
async fn shown_past(host: &Host, least: u64) -> u64 {
    let log = host.config.runtime.join("shop/console.log");
    until("the machine counts", async || {
        counting_disk::shown(&log) > least
    })
    .await;
    counting_disk::shown(&log)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_machine_moves_with_its_image_and_never_to_another_file() {
    let world = World::new();
    let images = shared(&world);
    let _ender = Ender(world.home.path());
    let disk = images.join("shop.raw");
    counting_disk::make(&disk).unwrap();
    let (mut a, mut b) = (world.host(33), world.host(34));
    for host in [&mut a, &mut b] {
        host.fabric = None;
        host.config.images = vec![images.clone()];
        host.start().await;
    }
    let text = description(&disk, ImageFormat::Raw).into_bytes();
    a.try_define("shop", text.clone()).await.unwrap();

    // Nothing shows what it has while it does not run.
    let refused = b.prepare(&a, "shop", 2, false).await.unwrap_err();
    assert_eq!(refused.exit_code(), 2, "{refused}");
    a.ask("shop", DomainState::Running).await.unwrap();
    let mut counted = shown_past(&a, 3).await;

    // QEMU's own lock: it runs once, whatever anybody has defined.
    b.try_define("shop", text).await.unwrap();
    let second = b.ask("shop", DomainState::Running).await.unwrap_err();
    assert!(second.to_string().contains("lock"), "{second}");
    b.ask("shop", DomainState::Stopped).await.unwrap();
    b.client()
        .delete_json::<()>("/domain/shop", BOUND)
        .await
        .unwrap();

    // The destination sees a copy at this path, though the source has shown what it has.
    let shown = a.client().get_bytes("/domain/shop", 1 << 20, BOUND).await;
    assert!(String::from_utf8_lossy(&shown.unwrap()).contains("lock_offset"));
    let aside = images.join("aside");
    fs::rename(&disk, &aside).unwrap();
    fs::copy(&aside, &disk).unwrap();
    let refused = b.prepare(&a, "shop", 3, false).await.unwrap_err();
    assert_eq!(refused.exit_code(), 2, "{refused}");
    assert!(refused.to_string().contains("not, or cannot"), "{refused}");
    fs::rename(&aside, &disk).unwrap();

    // There and back; an agent that comes back in between knows it.
    for generation in 4..6 {
        let stream = b.prepare(&a, "shop", generation, false).await.unwrap();
        let sent = a.send(&b, stream, "shop", generation, false).await;
        sent.unwrap();
        b.holds("shop", "the destination runs it", |held| {
            held == Holding::Running
        })
        .await;
        a.holds("shop", "the source has dropped it", |held| {
            held == Holding::Absent
        })
        .await;
        let report = a.operation(generation).await;
        assert_eq!(report.phase, OperationPhase::Done, "{report:?}");
        let now = shown_past(&b, counted).await;
        assert!(now > counted);
        counted = now;
        b.restart().await;
        std::mem::swap(&mut a, &mut b);
    }
    counted = shown_past(&a, counted).await;
    a.ask("shop", DomainState::Stopped).await.unwrap();
    let held = counting_disk::holds(&disk).unwrap();
    assert!(held >= counted, "{counted} was acknowledged; it has {held}");
    a.client()
        .delete_json::<()>("/domain/shop", BOUND)
        .await
        .unwrap();
    assert!(disk.is_file());
    a.stop().await;
    b.stop().await;
}
