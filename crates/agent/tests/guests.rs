//! Two agents with real QEMUs and the smallest guest: it counts on its console.
//!
//! `ESTIVE_KERNEL_TREE`: a directory with `boot/vmlinuz-*`; without it the cases are ignored.

mod common;

use common::*;
use estive_api::domain_xml::{DiskSource, DomainXml};
use estive_api::wire::*;
use estive_archive::{Kind, Member, Writer};
use estive_model::DomainState;
use estive_moves::{Answer, Holding};
use libtest_mimic::{Arguments, Failed, Trial};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const KERNEL_TREE: &str = "ESTIVE_KERNEL_TREE";
/// A guest takes some 2 s to count by emulation on a quiet machine.
const BOOT: Duration = Duration::from_secs(120);

fn main() {
    let mut arguments = Arguments::from_args();
    // One guest at a time: they share few processors.
    arguments.test_threads = Some(1);
    let tree = std::env::var_os(KERNEL_TREE).map(PathBuf::from);
    let ignored = tree.is_none();
    let init = std::env::var_os("ESTIVE_INIT").map(PathBuf::from);
    let no_init = ignored || init.is_none();
    let (kernel_tree, other_tree, dirty_tree) = (tree.clone(), tree.clone(), tree.clone());
    let saved_tree = tree;
    let trials = vec![
        Trial::test("a_real_guest_moves_and_outlives_its_agents", move || {
            run(moves_and_restarts(&kernel_tree.unwrap_or_default()))
        })
        .with_ignored_flag(ignored),
        Trial::test(
            "a_guest_too_busy_for_pre_copy_moves_by_post_copy",
            move || run(post_copy(&dirty_tree.unwrap_or_default())),
        )
        .with_ignored_flag(ignored),
        Trial::test("a_real_guest_is_saved_and_goes_on", move || {
            run(saved_and_goes_on(&saved_tree.unwrap_or_default()))
        })
        .with_ignored_flag(ignored),
        Trial::test("a_clone_gets_its_identity_by_its_port", move || {
            let (tree, init) = (other_tree.unwrap_or_default(), init.unwrap_or_default());
            run(identity_by_port(&tree, &init))
        })
        .with_ignored_flag(no_init),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn run(case: impl Future<Output = ()>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(case);
    Ok(())
}

fn counter(home: &Path) -> Vec<u8> {
    let program = home.join("counter");
    let built = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "-O", "-Cpanic=abort", "-Cstrip=symbols"])
        .args([
            "-Ctarget-feature=+crt-static",
            "--target=x86_64-unknown-linux-gnu",
            "-o",
        ])
        .arg(&program)
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../hypervisor/tests/counter/counter.rs"
        ))
        .status()
        .unwrap();
    assert!(built.success(), "rustc could not build the guest's program");
    fs::read(program).unwrap()
}

fn guest(tree: &Path, home: &Path, command_line: &str) -> Vec<u8> {
    let program = counter(home);
    let console = Kind::CharacterDevice { major: 5, minor: 1 };
    let mut archive = Writer::new(Vec::new());
    for member in [
        Member::directory("dev", 0o755),
        Member::new("dev/console", 0o600, console),
        Member::file("init", 0o755, &program),
    ] {
        archive.add(&member).unwrap();
    }
    let initramfs = archive.finish().unwrap();
    let kernel = fs::read_dir(tree.join("boot"))
        .unwrap()
        .flatten()
        .find(|file| file.file_name().to_string_lossy().starts_with("vmlinuz-"))
        .expect("a kernel");
    let kernel = fs::read(kernel.path()).unwrap();
    let disk = vec![0; 1 << 20];
    let layer = vec![7; 1000];
    archive_of(
        kernel,
        initramfs,
        disk.clone(),
        disk,
        layer,
        true,
        command_line,
    )
}

fn archive_of(
    kernel: Vec<u8>,
    initramfs: Vec<u8>,
    root: Vec<u8>,
    modules: Vec<u8>,
    layer: Vec<u8>,
    identity_by_fw_cfg: bool,
    command_line: &str,
) -> Vec<u8> {
    let description = DomainXml {
        kernel: digest(&kernel),
        initramfs: digest(&initramfs),
        command_line: format!("console=ttyS0 quiet net.ifnames=0{command_line}"),
        root: DiskSource::File(digest(&root)),
        modules: DiskSource::File(digest(&modules)),
        volume: None,
        mac: None,
        identity_by_fw_cfg,
        ..description("clone01", 192)
    };
    let mut members = vec![
        ("config.xml".to_owned(), description.to_xml().into_bytes()),
        ("layer".to_owned(), layer),
        ("identity.json".to_owned(), identity("clone01").into_bytes()),
    ];
    let mut files = vec![kernel, initramfs, root, modules];
    files.sort();
    files.dedup();
    for content in files {
        members.push((format!("files/{}", digest(&content).hex()), content));
    }
    tar_of(&members)
}

/// No fw_cfg: the guest waits at its virtio-serial port until the agent has written its identity there.
async fn identity_by_port(tree: &Path, init: &Path) {
    let world = World::new();
    let home = world.home.path();
    let _ender = Ender(home);
    let kernel = estive_boot::KernelTree::find(tree).unwrap();
    let initramfs = estive_boot::initramfs::build(&fs::read(init).unwrap(), &kernel).unwrap();
    let root = home.join("root");
    fs::create_dir_all(root.join("sbin")).unwrap();
    for directory in ["dev", "proc", "sys", "run", "tmp", "etc"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let program = root.join("sbin/init");
    fs::write(&program, counter(home)).unwrap();
    fs::set_permissions(
        &program,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let image = |name: &str, from: &Path| {
        let image = home.join(name);
        let made = Command::new("mkfs.erofs")
            .arg(&image)
            .arg(from)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        fs::read(image).unwrap()
    };
    let root = image("root.erofs", &root);
    let modules = image("modules.erofs", kernel.modules.parent().unwrap());
    let layer = estive_archive::LayerArchive::new().finish().unwrap();
    let kernel = fs::read(&kernel.vmlinuz).unwrap();

    let mut host = world.host(13);
    host.fabric = None;
    host.start().await;
    let archive = archive_of(kernel, initramfs, root, modules, layer, false, "");
    host.try_define("clone01", archive).await.unwrap();
    host.ask("clone01", DomainState::Running).await.unwrap();
    let mut boot = BootTimes::default();
    let booting = async {
        while boot.error.is_none() && !boot.phases_ms.contains_key("switch") {
            tokio::time::sleep(Duration::from_millis(50)).await;
            boot = host.report("clone01").await.boot;
        }
    };
    let booted = tokio::time::timeout(BOOT, booting).await;
    println!("{boot:#?}");
    booted.expect("the guest says nothing final");
    assert!(boot.phases_ms.contains_key("identity"), "{boot:?}");
    assert!(
        boot.asked_ms <= boot.phases_ms.get("init").copied(),
        "{boot:?}"
    );
    // Without an interface it stops at the network and says so; all before that is done.
    assert!(boot.phases_ms.contains_key("union"), "{boot:?}");
    // What was seen outlives the agent.
    host.restart().await;
    assert_eq!(host.report("clone01").await.boot, boot);
    host.ask("clone01", DomainState::Stopped).await.unwrap();
    host.stop().await;
}

async fn count(host: &Host) -> u64 {
    let log = host
        .client()
        .get_bytes("/domain/clone01/console.log", 16 << 20, BOUND)
        .await;
    let log = log.unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .filter_map(|line| line.trim().strip_prefix("count ")?.parse().ok())
        .max()
        .unwrap_or(0)
}

async fn counts_past(host: &Host, number: u64) -> u64 {
    let counting = async {
        loop {
            match count(host).await {
                seen if seen > number => return seen,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(BOOT, counting)
        .await
        .expect("the guest does not count on")
}

async fn saved_and_goes_on(tree: &Path) {
    let world = World::new();
    let _ender = Ender(world.home.path());
    let mut host = world.host(16);
    host.fabric = None;
    host.start().await;
    let archive = guest(tree, world.home.path(), "");
    host.try_define("clone01", archive).await.unwrap();
    host.ask("clone01", DomainState::Running).await.unwrap();
    let mut counted = counts_past(&host, 10).await;
    // Nothing can be written where its file should be: it runs on as if nothing had been asked.
    let place = host.config.state.join("domains/clone01");
    let file = place.join("saved");
    fs::create_dir(&file).unwrap();
    host.save("clone01").await.unwrap_err();
    fs::remove_dir(&file).unwrap();
    assert_eq!(host.report("clone01").await.state, DomainState::Running);
    counted = counts_past(&host, counted).await;
    for _ in 0..2 {
        let report = host.save("clone01").await.unwrap();
        assert_eq!((report.state, report.pid), (DomainState::Saved, None));
        let bytes = fs::metadata(&file).unwrap();
        assert_eq!(bytes.permissions().mode() & 0o777, 0o600);
        println!("saved in {} bytes", bytes.len());
        let before = console(&host).await;
        let saved_at = counts(&before).last().copied().unwrap_or(0);
        assert!(saved_at >= counted);
        host.restart().await;
        assert_eq!(host.report("clone01").await.state, DomainState::Saved);
        // What is no state of a guest is not run from, and what was saved is kept.
        let kept = fs::read(&file).unwrap();
        fs::write(&file, vec![7; kept.len()]).unwrap();
        host.restore("clone01").await.unwrap_err();
        assert_eq!(host.report("clone01").await.state, DomainState::Saved);
        fs::write(&file, &kept).unwrap();
        host.restore("clone01").await.unwrap();
        assert!(!file.exists());
        counted = counts_past(&host, saved_at + 2).await;
        // It may have been in the middle of a line.
        let said = counts(&format!("{before}{}", console(&host).await));
        let goes_on = said.windows(2).all(|pair| pair[1] == pair[0] + 1);
        assert!(
            goes_on,
            "it repeats itself, or left something out: {said:?}"
        );
    }
    host.ask("clone01", DomainState::Stopped).await.unwrap();
    host.stop().await;
}

/// The numbers in a console's whole lines.
fn counts(log: &str) -> Vec<u64> {
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines();
    lines
        .filter_map(|line| line.trim().strip_prefix("count ")?.parse().ok())
        .collect()
}

async fn moves_and_restarts(tree: &Path) {
    let world = World::new();
    let _ender = Ender(world.home.path());
    let (mut a, mut b) = (world.host(11), world.host(12));
    (a.fabric, b.fabric) = (None, None);
    a.start().await;
    b.start().await;
    a.try_define("clone01", guest(tree, world.home.path(), ""))
        .await
        .unwrap();
    let report = a.ask("clone01", DomainState::Running).await.unwrap();
    assert_eq!(report.state, DomainState::Running);
    let mut counted = counts_past(&a, 10).await;

    // A restart of the agent disturbs nothing.
    let pid = a.report("clone01").await.pid;
    a.restart().await;
    assert_eq!(a.report("clone01").await.pid, pid);
    assert!(pid.is_some());
    counted = counts_past(&a, counted).await;

    // Nor does the loss of its journal: the QEMU that stands is named, and left.
    a.stop().await;
    let (journal, aside) = (a.config.state.join("journal"), a.config.state.join("aside"));
    fs::rename(&journal, &aside).unwrap();
    a.start().await;
    let report = a.report("clone01").await;
    assert_eq!((report.state, report.pid), (DomainState::Unknown, pid));
    for state in [DomainState::Running, DomainState::Stopped] {
        let refused = a.ask("clone01", state).await.unwrap_err();
        assert!(refused.to_string().contains("--forget"), "{refused}");
    }
    counted = counts_past(&a, counted).await;
    a.stop().await;
    fs::remove_dir_all(&journal).unwrap();
    fs::rename(&aside, &journal).unwrap();
    a.start().await;
    assert_eq!(a.report("clone01").await.pid, pid);

    // There and back, over TLS.
    for generation in 3..7 {
        let stream = b.prepare(&a, "clone01", generation, false).await.unwrap();
        assert!(stream.tls_name.is_some());
        a.send(&b, stream, "clone01", generation, false)
            .await
            .unwrap();
        until("the move is over", async || {
            let report = a.operation(generation).await;
            assert_ne!(report.phase, OperationPhase::Aborted, "{report:?}");
            report.phase == OperationPhase::Done
        })
        .await;
        b.holds("clone01", "the destination runs it", |held| {
            held == Holding::Running
        })
        .await;
        a.holds("clone01", "the source has dropped it", |held| {
            held == Holding::Absent
        })
        .await;
        let report = a.operation(generation).await;
        assert_eq!(report.phase, OperationPhase::Done, "{report:?}");
        let interruption_us = report.resumed_us.unwrap() - report.halted_us.unwrap();
        println!(
            "move {generation}: whole {} ms, QEMU's downtime {:?} ms, halted to confirmed {interruption_us} us, {} bytes",
            report.total_ms, report.downtime_ms, report.sent_bytes
        );
        counted = counts_past(&b, counted).await;
        std::mem::swap(&mut a, &mut b);
    }

    // Given up half-way it runs on; then its QEMU is killed: shown, and not restarted.
    let stream = b.prepare(&a, "clone01", 7, false).await.unwrap();
    a.send(&b, stream, "clone01", 7, false).await.unwrap();
    let answer = a.grant("clone01", "abort", 7).await;
    if answer == Answer::Aborted {
        counted = counts_past(&a, counted).await;
        assert_eq!(b.grant("clone01", "discard", 7).await, Answer::Done);
    } else {
        assert_eq!(answer, Answer::AlreadyReleased);
        std::mem::swap(&mut a, &mut b);
    }
    let console = a.client().upgrade("/domain/clone01/console", BOUND).await;
    drop(console.expect("the console is reached"));
    let pid = a.report("clone01").await.pid.expect("it runs");
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("the crash is shown", async || {
        a.report("clone01").await.state == DomainState::Crashed
    })
    .await;
    // Asked for, it starts from the beginning; and a stop ends it.
    a.ask("clone01", DomainState::Running).await.unwrap();
    counts_past(&a, 3).await;
    println!("counted {counted}");
    let report = a.ask("clone01", DomainState::Stopped).await.unwrap();
    assert_eq!((report.state, report.pid), (DomainState::Stopped, None));
    a.client()
        .delete_json::<()>("/domain/clone01", BOUND)
        .await
        .unwrap();
    for host in [&a, &b] {
        assert_eq!(
            count_files(&host.config.runtime),
            0,
            "something is left in the runtime directory"
        );
    }
    a.stop().await;
    b.stop().await;
}

/// Half of the guest's memory changes faster than it can be sent: pre-copy never comes to its end.
const DIRTY: &str = " dirty_mib=96";

async fn console(host: &Host) -> String {
    let log = host
        .client()
        .get_bytes("/domain/clone01/console.log", 16 << 20, BOUND)
        .await;
    String::from_utf8_lossy(&log.unwrap_or_default()).into_owned()
}

async fn post_copy(tree: &Path) {
    let world = World::new();
    let _ender = Ender(world.home.path());
    let (mut a, mut b) = (world.host(14), world.host(15));
    (a.fabric, b.fabric) = (None, None);
    a.start().await;
    b.start().await;
    a.try_define("clone01", guest(tree, world.home.path(), DIRTY))
        .await
        .unwrap();
    a.ask("clone01", DomainState::Running).await.unwrap();
    let counted = counts_past(&a, 10).await;
    until("the guest is busy", async || {
        console(&a).await.contains("round 4\r\n")
    })
    .await;

    let stream = b.prepare(&a, "clone01", 3, true).await.unwrap();
    a.send(&b, stream, "clone01", 3, true).await.unwrap();
    until("the move is over", async || {
        let report = a.operation(3).await;
        assert_ne!(report.phase, OperationPhase::Aborted, "{report:?}");
        report.phase == OperationPhase::Done
    })
    .await;
    let report = a.operation(3).await;
    assert!(report.choice.starts_with("post-copy"), "{report:?}");
    b.holds("clone01", "the destination runs it", |held| {
        held == Holding::Running
    })
    .await;
    a.holds("clone01", "the source has dropped it", |held| {
        held == Holding::Absent
    })
    .await;
    println!(
        "{}: whole {} ms, QEMU's downtime {:?} ms, {} bytes",
        report.choice, report.total_ms, report.downtime_ms, report.sent_bytes
    );
    // It goes on where it was, and every page holds what was written into it.
    counts_past(&b, counted + 50).await;
    let said = console(&b).await;
    assert!(!said.contains("torn"), "{said}");
    b.ask("clone01", DomainState::Stopped).await.unwrap();
    a.stop().await;
    b.stop().await;
}
