//! Whatever dies: after the outer namespace's holder nothing of a running bed is left.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{
    self, ShownBed, TOOL, bed_config, done, herd, is_root, run, tiny_herd, tiny_reference, told,
};

/// Every process that lives in the namespace of which `/proc/PID/ns/KIND` is this.
fn living_in(kind: &str, namespace: u64) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| inode(*pid, kind) == Some(namespace))
        .map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!(
                "{pid} {}",
                String::from_utf8_lossy(&line).replace('\0', " ")
            )
        })
        .collect()
}

fn inode(pid: u32, kind: &str) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok()?.ino())
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

#[test]
fn kill_9_of_the_holder_leaves_nothing() {
    if !is_root() {
        return;
    }
    told("ESTIVE_BIN");
    let before = (
        outside("ip", &["-o", "link"]),
        outside("ip", &["netns"]),
        sockets(),
    );
    let up = std::env::temp_dir().join(format!("estive-up-{}", std::process::id()));
    let mut caller = Command::new(TOOL)
        .args(["outer", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "clean_up::inside_stays_up",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env("ESTIVE_TEST_UP", &up)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let holder = wait("the holder starts", || {
        children(caller.id()).first().copied()
    });
    let first = wait("the first process starts", || {
        children(holder).first().copied()
    });
    wait("a guest runs", || {
        assert!(
            caller.try_wait().unwrap().is_none(),
            "it ended before the guest was up"
        );
        up.exists().then_some(())
    });
    fs::remove_file(&up).unwrap();
    let (pids, mounts) = (inode(first, "pid").unwrap(), inode(first, "mnt").unwrap());
    let inside = living_in("pid", pids);
    assert!(
        inside.iter().any(|line| line.contains("qemu-system")),
        "{inside:?}"
    );
    assert!(
        inside
            .iter()
            .filter(|line| line.contains(" agent "))
            .count()
            >= 2,
        "{inside:?}"
    );

    let holder = rustix::process::Pid::from_raw(holder.try_into().unwrap()).unwrap();
    rustix::process::kill_process(holder, rustix::process::Signal::KILL).unwrap();
    caller.wait().unwrap();
    wait("every process is gone", || {
        living_in("pid", pids).is_empty().then_some(())
    });
    assert_eq!(living_in("mnt", mounts), [""; 0]);
    let all_mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(
        !all_mounts.contains("/run/bed") && !all_mounts.contains("/run/netns/h1"),
        "{all_mounts}"
    );
    for path in ["/run/bed", "/run/netns/h1", "/run/netns/sw"] {
        assert!(!Path::new(path).exists(), "{path} is left");
    }
    let after = (
        outside("ip", &["-o", "link"]),
        outside("ip", &["netns"]),
        sockets(),
    );
    let is_new = |line: &&String| {
        !before.0.contains(*line) && !before.1.contains(*line) && !before.2.contains(*line)
    };
    let new = [after.0, after.1, after.2].concat();
    let ours: Vec<_> = new
        .iter()
        .filter(is_new)
        .filter(|line| {
            [
                "br0",
                "swbr",
                "p-h",
                "manager.sock",
                "agent.sock",
                "qmp.sock",
            ]
            .iter()
            .any(|word| line.contains(word))
        })
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
}

fn outside(program: &str, arguments: &[&str]) -> Vec<String> {
    let output = run(program, arguments);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Paths of the unix sockets of our own network namespace.
fn sockets() -> Vec<String> {
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7))
        .map(str::to_owned)
        .collect()
}

fn wait<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(began.elapsed() < 2 * common::BOUND, "{what}: in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
#[ignore = "runs inside an outer namespace, which is killed"]
async fn inside_stays_up() {
    let Some(up) = std::env::var_os("ESTIVE_TEST_UP") else {
        panic!("this is run by kill_9_of_the_holder_leaves_nothing alone");
    };
    let bed = ShownBed::start(bed_config(2, tiny_reference("tiny", |_| {}))).await;
    done(
        &bed,
        &[
            "up",
            &herd("pair", &tiny_herd(&[("one", None), ("two", None)])),
        ],
    )
    .await;
    fs::write(up, "").unwrap();
    std::future::pending::<()>().await;
}
