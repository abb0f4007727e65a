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
    let trial = Trial::test("a_real_guest_moves_and_outlives_its_agents", move || {
        let tree = tree.ok_or(format!("set {KERNEL_TREE}"))?;
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        runtime.block_on(moves_and_restarts(&tree));
        Ok::<(), Failed>(())
    });
    libtest_mimic::run(&arguments, vec![trial.with_ignored_flag(ignored)]).exit();
}

/// Ends what QEMUs a failed case has left.
struct Ender<'a>(&'a Path);

impl Drop for Ender<'_> {
    fn drop(&mut self) {
        for host in fs::read_dir(self.0).into_iter().flatten().flatten() {
            for domain in fs::read_dir(host.path().join("run"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let pid = fs::read_to_string(domain.path().join("pid")).unwrap_or_default();
                let pid = pid
                    .trim()
                    .parse()
                    .ok()
                    .and_then(rustix::process::Pid::from_raw);
                let command = pid.map(|pid| format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
                let command = command
                    .and_then(|path| fs::read(path).ok())
                    .unwrap_or_default();
                if let Some(pid) = pid
                    && String::from_utf8_lossy(&command).contains(&*self.0.to_string_lossy())
                {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
    }
}

fn guest(tree: &Path, home: &Path) -> Vec<u8> {
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
    let program = fs::read(program).unwrap();
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
    let description = DomainXml {
        kernel: digest(&kernel),
        initramfs: digest(&initramfs),
        command_line: "console=ttyS0 quiet".into(),
        root: DiskSource::File(digest(&disk)),
        modules: DiskSource::File(digest(&disk)),
        mac: None,
        ..description("clone01", 128)
    };
    let mut members = vec![
        ("config.xml".to_owned(), description.to_xml().into_bytes()),
        ("layer".to_owned(), vec![7; 1000]),
        ("identity.json".to_owned(), identity("clone01").into_bytes()),
    ];
    for content in [kernel, initramfs, disk] {
        members.push((format!("files/{}", digest(&content).hex()), content));
    }
    tar_of(&members)
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

async fn moves_and_restarts(tree: &Path) {
    let world = World::new();
    let _ender = Ender(world.home.path());
    let (mut a, mut b) = (world.host(11), world.host(12));
    (a.fabric, b.fabric) = (None, None);
    a.start().await;
    b.start().await;
    a.try_define("clone01", guest(tree, world.home.path()))
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
    a.stop().await;
    b.stop().await;
}
