//! The outer namespace and the topology on the real kernel: hosts reach each other, and nothing is left.
#![allow(clippy::disallowed_methods)]

mod inside;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use estive_testbed::{Kept, Outer, Topology, outer};
use inside::{TOOL, inside, is_root};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn three_hosts_reach_each_other() {
    if is_root() {
        assert_eq!(inside("inside_three_hosts"), 0);
    }
}

#[tokio::test]
#[ignore = "runs inside the outer namespace of three_hosts_reach_each_other"]
async fn inside_three_hosts() {
    assert!(outer::is_inside());
    let topology = Topology::make(3).await.unwrap();
    assert_eq!(topology.host_ports(), ["p-h1", "p-h2", "p-h3"]);
    for (from, to) in [
        (&topology.hosts[0], "10.77.0.13"),
        (&topology.hosts[2], "10.77.0.5"),
        (&topology.client, "10.77.0.12"),
        (&topology.manager, "10.77.0.11"),
        (&topology.storage, "10.77.0.100"),
    ] {
        from.run_in(&["ping", "-c", "1", "-W", "10", to])
            .await
            .unwrap();
    }
    topology.set_cable(2, false).await.unwrap();
    assert!(
        topology
            .client
            .run_in(&["ping", "-c", "1", "-W", "1", "10.77.0.12"])
            .await
            .is_err()
    );
    // Only what was made is there: the tmpfs over /run is private.
    let names: Vec<_> = std::fs::read_dir("/run/netns")
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 7, "{names:?}");
}

#[test]
fn the_programs_exit_code_comes_back() {
    if is_root() {
        assert_eq!(
            Outer::new(["sh", "-c", "exit 7"])
                .through(Path::new(TOOL))
                .run()
                .unwrap(),
            7
        );
    }
}

/// Processes (as seen from here) whose environment holds `mark`.
fn marked(mark: &str) -> Vec<u32> {
    let has = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
            environment
                .split(|byte| *byte == 0)
                .any(|line| line == mark.as_bytes())
        })
    };
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(has).collect()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nothing_is_left_after_kill_9_of_the_caller() {
    if !is_root() {
        return;
    }
    let name = format!("left{}", std::process::id());
    let mark = format!("ESTIVE_TEST_MARK={name}");
    // Orphans in sessions of their own are what an agent's QEMUs are.
    let script = format!(
        "ip netns add {name}; setsid sleep 1000 & nsenter --net=/run/netns/{name} setsid sleep 1000 & \
         mount -t tmpfs {name} /mnt; echo up; exec sleep 1000"
    );
    let mut caller = Command::new(TOOL)
        .args(["outer", "--", "bash", "-c", &script])
        .env("ESTIVE_TEST_MARK", &name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(caller.stdout.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    assert_eq!(said, "up\n");
    // Caller, holder, first process, program and two orphans.
    wait_until("all are there", || marked(&mark).len() >= 6);
    caller.kill().unwrap();
    caller.wait().unwrap();
    wait_until("all are gone", || marked(&mark).is_empty());
    assert!(!Path::new("/run/netns").join(&name).exists());
    assert!(
        !std::fs::read_to_string("/proc/self/mounts")
            .unwrap()
            .contains(&name)
    );
}

#[test]
fn a_wish_to_end_reaches_the_program() {
    if !is_root() {
        return;
    }
    let mut caller = Command::new(TOOL)
        .args([
            "outer",
            "--",
            "bash",
            "-c",
            "trap 'echo gently; exit 3' TERM; echo up; while :; do read -t 1; done < <(sleep 1000)",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(caller.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    let pid = rustix::process::Pid::from_child(&caller);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "gently");
    assert_eq!(caller.wait().unwrap().code(), Some(3));
}

#[test]
fn what_is_kept_outlives_its_caller_and_is_taken_down() {
    if is_root() {
        // Within an outer namespace of its own: the record of what is kept is the machine's.
        assert_eq!(inside("inside_keep"), 0);
    }
}

#[test]
#[ignore = "runs inside an outer namespace"]
fn inside_keep() {
    // Only /run is private inside.
    let said = format!("/tmp/estive-keep-{}", std::process::id());
    let script = format!(
        "touch /run/estive/here; trap 'echo gently > {said}; exit' TERM; echo ready >&0; \
         while :; do read -t 1; done < <(exec sleep 1000)"
    );
    let mut caller = Command::new(TOOL)
        .args(["outer", "--keep", "--", "bash", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(caller.wait().unwrap().code(), Some(0));
    let mut kept = Kept::find().unwrap().unwrap();
    let here = Path::new("/run/estive/here");
    assert!(kept.outside_path(here).exists() && !here.exists());
    kept.link(here).unwrap();
    assert!(here.exists());
    let second = Outer::new(["true"]).through(Path::new(TOOL)).run_to_keep();
    assert!(second.is_err(), "a second one was kept");
    kept.down().unwrap();
    assert_eq!(std::fs::read_to_string(&said).unwrap(), "gently\n");
    std::fs::remove_file(&said).unwrap();
    assert!(std::fs::symlink_metadata(here).is_err());
    assert_eq!(Kept::find().unwrap(), None);
}

#[test]
fn a_program_that_ends_before_it_is_ready_is_not_kept() {
    if is_root() {
        assert_eq!(inside("inside_not_kept"), 0);
    }
}

#[test]
#[ignore = "runs inside an outer namespace"]
fn inside_not_kept() {
    let outer = Outer::new(["sh", "-c", "exit 5"]).through(Path::new(TOOL));
    assert_eq!(outer.run_to_keep().unwrap().unwrap_err(), 5);
    assert_eq!(Kept::find().unwrap(), None);
}
