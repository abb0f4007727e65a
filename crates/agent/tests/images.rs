//! Ordinary machines, with disks in image files: what an agent takes, and a real one that moves between two agents on one
//! directory. Its disk boots by the firmware and counts on itself, so that no kernel is needed.

mod common;

use common::*;
use estive_api::ProblemKind;
use estive_api::wire::*;
use estive_hypervisor::conformance::counting_disk;
use estive_hypervisor::simulated::{Fault, Step};
use estive_model::{DomainState, ImageFormat};
use estive_moves::Holding;
use std::fs;
use std::path::{Path, PathBuf};

/// As `virsh dumpxml` gives it.
fn description(disk: &Path, format: ImageFormat) -> String {
    description_of("shop", disk, format)
}

fn description_of(name: &str, disk: &Path, format: ImageFormat) -> String {
    format!(
        "<domain type='kvm'>
  <name>{name}</name>
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

/// The bytes that QEMU locks of an image that it writes to.
fn lock_as_qemu(file: &fs::File) {
    use std::os::fd::AsRawFd as _;
    for byte in [100, 101, 201] {
        let lock = libc::flock {
            l_type: libc::F_RDLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        // SAFETY: the descriptor is open and the structure outlives the call, which only reads it.
        let locked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
        assert_eq!(locked, 0);
    }
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
    // Somebody else's QEMU has the copy: that shows nothing of this one's.
    a.restart().await;
    let copy = fs::File::open(&disk).unwrap();
    lock_as_qemu(&copy);
    let shown = a.client().get_bytes("/domain/shop", 1 << 20, BOUND).await;
    assert!(!String::from_utf8_lossy(&shown.unwrap()).contains("lock_offset"));
    drop(copy);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_real_machine_is_saved_and_goes_on_beside_its_qcow2() {
    let world = World::new();
    let images = shared(&world);
    let _ender = Ender(world.home.path());
    let (raw, disk) = (images.join("shop.raw"), images.join("shop.qcow2"));
    counting_disk::make(&raw).unwrap();
    convert(&raw, &disk);
    let mut host = world.host(35);
    host.fabric = None;
    host.config.images = vec![images.clone()];
    host.start().await;
    let text = description(&disk, ImageFormat::Qcow2).into_bytes();
    host.try_define("shop", text).await.unwrap();
    host.ask("shop", DomainState::Running).await.unwrap();
    shown_past(&host, 3).await;
    host.save("shop").await.unwrap();
    let saved = fs::metadata(&disk).unwrap().modified().unwrap();
    let counted = counting_disk::shown(&host.config.runtime.join("shop/console.log"));
    host.restart().await;
    host.restore("shop").await.unwrap();
    // One number may have been written, and not shown yet, when it was saved.
    let counted = shown_past(&host, counted + 2).await;
    assert!(fs::metadata(&disk).unwrap().modified().unwrap() > saved);

    // Used meanwhile, by whatever has its own QEMU: the memory knows another disk.
    host.save("shop").await.unwrap();
    let file = fs::File::options().write(true).open(&disk).unwrap();
    file.set_modified(saved).unwrap();
    drop(file);
    let refused = host.restore("shop").await.unwrap_err();
    assert_eq!(refused.exit_code(), 2, "{refused}");
    assert_eq!(host.report("shop").await.state, DomainState::Saved);
    host.drop_saved("shop").await.unwrap();
    host.ask("shop", DomainState::Running).await.unwrap();
    shown_past(&host, 3).await;
    host.ask("shop", DomainState::Stopped).await.unwrap();
    convert(&disk, &raw);
    let held = counting_disk::holds(&raw).unwrap();
    assert!(held >= counted, "{counted} was acknowledged; it has {held}");
    host.stop().await;
}

/// By `qemu-img`; which format is which is said by the names.
fn convert(from: &Path, to: &Path) {
    let format = |path: &Path| path.extension().unwrap().to_owned();
    let done = std::process::Command::new("qemu-img")
        .args(["convert", "-f"])
        .arg(format(from))
        .arg("-O")
        .arg(format(to))
        .args([from, to])
        .status()
        .expect("qemu-img is installed (package qemu-utils)");
    assert!(done.success());
}

/// A simulated machine that runs on `host` with this image.
async fn runs(host: &Host, name: &str, disk: &Path) {
    let text = description_of(name, disk, ImageFormat::Raw).into_bytes();
    host.try_define(name, text).await.unwrap();
    host.ask(name, DomainState::Running).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_memory_goes_on_only_beside_images_that_nobody_has_used() {
    let world = World::new();
    let images = shared(&world);
    let disk = images.join("shop.raw");
    fs::write(&disk, "data").unwrap();
    let (mut host, mut other) = (world.host(36), world.host(37));
    for host in [&mut host, &mut other] {
        host.config.images = vec![images.clone()];
        host.start().await;
    }
    runs(&host, "shop", &disk).await;
    host.save("shop").await.unwrap();
    host.restart().await;
    host.restore("shop").await.unwrap();
    host.save("shop").await.unwrap();

    // Another machine has the image just now, and has written nothing.
    runs(&other, "guest", &disk).await;
    let refused = host.restore("shop").await.unwrap_err();
    assert_eq!(refused.exit_code(), 2, "{refused}");
    assert!(refused.to_string().contains("to itself"), "{refused}");
    assert_eq!(host.report("shop").await.state, DomainState::Saved);
    assert!(world.fabric.runs_at(&name("shop")).is_empty());
    other.ask("guest", DomainState::Stopped).await.unwrap();
    host.restore("shop").await.unwrap();
    host.save("shop").await.unwrap();

    // The same bytes in another file, then other bytes in this one.
    let aside = images.join("aside");
    fs::copy(&disk, &aside).unwrap();
    fs::rename(&aside, &disk).unwrap();
    for text in [None, Some("tada")] {
        if let Some(text) = text {
            fs::write(&disk, text).unwrap();
        }
        let refused = host.restore("shop").await.unwrap_err();
        assert_eq!(refused.exit_code(), 2, "{refused}");
        let said = refused.problem().unwrap();
        assert!(said.error.contains("since shop was saved"), "{said}");
        let advice = said.advice.as_ref().unwrap();
        assert!(advice.contains("--drop"), "{advice}");
        assert_eq!(host.report("shop").await.state, DomainState::Saved);
    }
    host.drop_saved("shop").await.unwrap();
    host.ask("shop", DomainState::Running).await.unwrap();

    // What stands at its path when it is saved must be what it has.
    fs::rename(&disk, images.join("elsewhere")).unwrap();
    fs::write(&disk, "another").unwrap();
    let refused = host.save("shop").await.unwrap_err();
    assert!(refused.to_string().contains("replaced"), "{refused}");
    assert_eq!(host.report("shop").await.state, DomainState::Running);

    // A qcow2 with bitmaps is written to by whoever opens it.
    let qcow2 = images.join("more.qcow2");
    let mut header = vec![0_u8; 112];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    header[95] = 1;
    fs::write(&qcow2, header).unwrap();
    let text = description_of("more", &qcow2, ImageFormat::Qcow2).into_bytes();
    host.try_define("more", text).await.unwrap();
    host.ask("more", DomainState::Running).await.unwrap();
    let refused = host.save("more").await.unwrap_err();
    assert_eq!(refused.exit_code(), 2, "{refused}");
    assert!(refused.to_string().contains("bitmaps"), "{refused}");
    assert!(world.fabric.ran_twice().is_empty());
    host.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_an_image_that_is_on_its_way() {
    let world = World::new();
    let images = shared(&world);
    let disk = images.join("shop.raw");
    fs::write(&disk, "data").unwrap();
    let (mut a, mut b, mut c) = (world.host(38), world.host(39), world.host(40));
    for host in [&mut a, &mut b, &mut c] {
        host.config.images = vec![images.clone()];
        host.start().await;
    }
    runs(&a, "shop", &disk).await;
    let text = description_of("thief", &disk, ImageFormat::Raw).into_bytes();
    c.try_define("thief", text).await.unwrap();
    // The destination has it all and does not get to run it.
    for _ in 0..10_000 {
        let refused = Fault::Refuse("not yet".into());
        world
            .fabric
            .inject(b.address, &name("shop"), Step::Resume, refused);
    }
    let stream = b.prepare(&a, "shop", 3, false).await.unwrap();
    a.send(&b, stream, "shop", 3, false).await.unwrap();
    a.holds("shop", "the source has released it", |held| {
        matches!(held, Holding::Released(_))
    })
    .await;
    assert!(world.fabric.runs_at(&name("shop")).is_empty());
    for restart in [false, true] {
        if restart {
            a.restart().await;
            until("its images are claimed again", async || {
                let claimed = c.ask("thief", DomainState::Running).await;
                claimed.is_err_and(|error| error.to_string().contains("on its way"))
            })
            .await;
        }
        let refused = c.ask("thief", DomainState::Running).await.unwrap_err();
        assert!(refused.to_string().contains("on its way"), "{refused}");
        let report = c.report("thief").await;
        assert_eq!((report.state, report.pid), (DomainState::Stopped, None));
    }
    world.fabric.heal(b.address, &name("shop"));
    b.holds("shop", "the destination runs it", |held| {
        held == Holding::Running
    })
    .await;
    until("it runs there", async || {
        world.fabric.runs_at(&name("shop")) == [b.address]
    })
    .await;
    // One that has crashed claims nothing.
    let again = b.client().get_bytes("/domain/shop", 1 << 20, BOUND).await;
    assert!(String::from_utf8_lossy(&again.unwrap()).contains("lock_offset"));
    world.fabric.crash(b.address, &name("shop"));
    until("that it crashed is known", async || {
        b.report("shop").await.state == DomainState::Crashed
    })
    .await;
    until("somebody else may have the image", async || {
        c.ask("thief", DomainState::Running).await.is_ok()
    })
    .await;
    assert!(world.fabric.ran_twice().is_empty());
    for host in [&mut a, &mut b, &mut c] {
        host.stop().await;
    }
}
