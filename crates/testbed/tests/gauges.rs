//! Loads, pings and the witness against the guest program, run as a process of a namespace instead of a guest.
#![allow(clippy::disallowed_methods)]

mod inside;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use estive_network::namespace::Namespace;
use estive_testbed::instant::now_us;
use estive_testbed::judge::Twice;
use estive_testbed::{
    Download, DownloadConfig, Load, LoadConfig, Ping, Topology, Witness, clock_offset, judge, load,
};
use inside::{TOOL, inside, is_root};
use tokio::process::Child;

const STORAGE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 5);
const LIMIT: Duration = Duration::from_secs(60);

#[test]
#[ignore = "runs inside namespaces as the guest program of the others"]
fn inside_beat() {
    estive_beat::run();
}

fn beat(namespace: &Namespace) -> Child {
    let mut command = namespace.command(std::env::current_exe().unwrap());
    command
        .args(["inside_beat", "--exact", "--ignored"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.kill_on_drop(true).spawn().unwrap()
}

/// The guest program appends to /tmp/log: /tmp becomes private, as /run is; unless this very program lies there.
fn private_tmp() {
    use rustix::mount::{MountFlags, mount};
    if std::env::current_exe().is_ok_and(|program| program.starts_with("/tmp")) {
        return;
    }
    mount("tmpfs", "/tmp", "tmpfs", MountFlags::NOSUID, None).unwrap();
}

async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(LIMIT, wait).await.is_ok(),
        "{what}: not within {LIMIT:?}"
    );
}

#[test]
fn a_service_that_answers_loses_nothing_and_one_that_stops_does() {
    if is_root() {
        assert_eq!(inside("inside_load"), 0);
    }
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_load() {
    private_tmp();
    let topology = Topology::make(1).await.unwrap();
    let (tool, client) = (Path::new(TOOL), &topology.client);
    let mut service = beat(&topology.storage);
    let address = SocketAddr::from((STORAGE, 80));
    let config = LoadConfig {
        address,
        path: "/".into(),
        expect: "hello from".into(),
        rate_per_s: 100,
    };
    let load = Load::start(tool, client, &config).await.unwrap();
    let pings = Ping::start(tool, client, STORAGE).await.unwrap();
    let config = DownloadConfig {
        address,
        path: "/big".into(),
        rate_bytes_per_s: 400_000,
    };
    let download = Download::start(tool, client, &config).await.unwrap();
    wait_until("two hundred requests ended", || {
        load::summary(&load.requests()).requests >= 200
    })
    .await;
    wait_until("bytes came", || download.progress().bytes > 400_000).await;
    let at_work = load::summary(&load.requests());
    assert_eq!(at_work.lost, 0, "{at_work:?}");
    assert!(!pings.replies().is_empty());
    let offset = clock_offset(tool, client, address).await.unwrap();
    // One machine, one clock: at most the resolution of the answer and the way.
    assert!(
        offset.offset_ms.unsigned_abs() <= 1 + offset.round_trip_ms,
        "{offset:?}"
    );

    // A halted service: requests stay open, then are lost.
    let pid =
        rustix::process::Pid::from_raw(i32::try_from(service.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let halted_us = now_us();
    wait_until("requests are in flight", || {
        load.in_flight(now_us(), now_us()) > 50
    })
    .await;
    wait_until("requests are lost", || {
        load::summary(&load.requests()).lost > 0
    })
    .await;
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let went_on_us = now_us();
    wait_until("it answers again", || {
        load.requests()
            .iter()
            .any(|request| request.due_us > went_on_us && request.end_us.is_some())
    })
    .await;
    // The kernel answers pings for a halted process; the link itself was never cut.
    assert!(pings.longest_gap_us(halted_us, went_on_us) < 4_000_000);

    service.kill().await.unwrap();
    wait_until("the download broke", || {
        download.progress().broken.is_some()
    })
    .await;
    assert!(download.finish().await.unwrap().broken.is_some());
    pings.finish().await.unwrap();
    let all = load.finish().await.unwrap();
    assert!(
        all.iter().all(|request| request.end_us.is_some()),
        "a request has no end"
    );
    assert!(all.iter().any(|request| {
        request
            .lost
            .as_deref()
            .is_some_and(|why| why.contains("refused"))
    }));
}

#[test]
fn the_witness_knows_one_from_two() {
    if is_root() {
        assert_eq!(inside("inside_witness"), 0);
    }
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_witness() {
    private_tmp();
    let topology = Topology::make(1).await.unwrap();
    let ports = ["p-st", "p-mg"].map(str::to_owned);
    let witness = Witness::start_in(Path::new(TOOL), &topology.switch, &ports)
        .await
        .unwrap();
    let mut first = beat(&topology.storage);
    wait_until("fifty beats were heard", || witness.sightings().len() >= 50).await;
    let judgement = witness.judgement();
    assert!(judgement.is_clean(), "{:?}", judgement.twice);
    assert!(witness.sightings().iter().all(|seen| seen.port == "p-st"));

    // The same boot, numbered from 1 again, at another port: as a copy of a guest would.
    let second = beat(&topology.manager);
    wait_until("the other was heard", || {
        witness.sightings().iter().any(|seen| seen.port == "p-mg")
    })
    .await;
    first.kill().await.unwrap();
    drop(second);
    let judgement = judge(&witness.finish().await.unwrap());
    assert!(!judgement.is_clean());
    assert!(
        matches!(judgement.twice[0], Twice::TwoPorts { number: 1, .. }),
        "{:?}",
        judgement.twice[0]
    );
}
