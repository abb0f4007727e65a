//! A herd of two Debian clones on two hosts, through everything that must not be felt: daemons that die, a root server
//! that is away, moves under load.
//!
//! One bed and one boot for all, since a Debian guest is dear under emulation. `./x test` says by the environment what
//! it is made of, see `common`.
#![allow(clippy::disallowed_methods)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{
    ShownBed, TOOL, assert_nothing_stays, bed_config, debian_reference, done, herd, listed, name,
    on_guests, run, shown, stdout, told, until, work,
};
use estive_testbed::demo::make_key;
use estive_testbed::trial::{Trial, TrialConfig, ssh};
use estive_testbed::{Load, LoadConfig, load};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const CLONES: [&str; 2] = ["clone01", "clone02"];

/// Reads every program of the directory it runs in.
const SUM: &str = "find . -type f | LC_ALL=C sort | xargs cat | cksum";

#[test]
fn a_herd_lives_through_everything() {
    on_guests("inside_a_herd");
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_a_herd() {
    // What the guest is to read from the root, counted before anything else runs.
    let root = told("ESTIVE_REFERENCE_ROOT");
    let expected = stdout(&run(
        "sh",
        &["-c", &format!("cd {}/usr/bin; {SUM}", root.display())],
    ));
    let mut config = bed_config(2, debian_reference());
    config.boot_timeout_s = 600;
    let mut bed = ShownBed::start(config).await;
    let key = make_key(work()).unwrap();
    let rows = comes_up(&bed, &key).await;
    clones_differ_as_their_layers_say(&bed, &key).await;
    let boots = boots_are_drawn(&bed).await;
    daemons_come_back(&mut bed, &rows).await;
    the_roots_server_comes_back(&mut bed, &key, expected.trim()).await;
    moves_lose_nothing(&bed, &key, &rows).await;
    // They went along, three times.
    let listed = bed.estive_json(&["boot", "clone01", "--list"]).await;
    assert_eq!(listed.unwrap(), boots);
    is_told(&bed).await;
    done(&bed, &["down", "pair"]).await;
    assert_nothing_stays(&bed).await;
    bed.stop().await;
}

/// What `up` said of one clone.
struct Row {
    host: String,
    address: std::net::Ipv4Addr,
}

async fn comes_up(bed: &ShownBed, key: &Path) -> BTreeMap<String, Row> {
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    let yaml = format!(
        "network: 10.77.0.0/24\naddresses: 10.77.0.101-10.77.0.199\nmemory_mib: 384\ncpus: 1\n\
         sets: [base-debian, web, chosen]\nup: [http, ssh]\nssh_authorized_keys: [\"{}\"]\nhosts:\n  clone[01-02]:\n",
        public.trim()
    );
    let folder = herd("pair", &yaml);
    add_a_set_with_a_script(Path::new(&folder));
    let said = bed.estive_json(&["up", &folder]).await.unwrap();
    println!("{said:#}");
    let rows = said.as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let row = |row: &Value| {
        let ms = |key: &str| row[key].as_u64().unwrap_or_else(|| panic!("{key}: {row}"));
        assert!(ms("to_init_ms") <= ms("to_switched_ms"), "{row}");
        assert!(ms("to_switched_ms") < ms("to_answering_ms"), "{row}");
        assert_eq!(row["answered_by"], "http, ssh");
        let (name, host) = (
            row["domain"].as_str().unwrap(),
            row["host"].as_str().unwrap(),
        );
        let address: std::net::Ipv4Addr = row["address"].as_str().unwrap().parse().unwrap();
        assert!((101..=199).contains(&address.octets()[3]), "{address}");
        let host = host.to_owned();
        (name.to_owned(), Row { host, address })
    };
    let rows: BTreeMap<String, Row> = rows.iter().map(row).collect();
    assert_eq!(rows.keys().collect::<Vec<_>>(), CLONES);
    assert_ne!(
        rows["clone01"].host, rows["clone02"].host,
        "spread over the hosts"
    );
    assert_ne!(rows["clone01"].address, rows["clone02"].address);
    let listed = listed(bed).await;
    for (clone, row) in &rows {
        assert_eq!(listed[clone], (row.host.clone(), "running".to_owned()));
        let page = [
            "curl",
            "-sS",
            "-m",
            "60",
            &format!("http://{}/", row.address),
        ];
        let page = stdout(&bed.topology().client.run_in(&page).await.unwrap());
        assert!(page.contains(&format!("<h1>{clone}</h1>")), "{page}");
    }
    // Asked again, there is nothing to do.
    let again = done(
        bed,
        &["up", &work().join("herds/pair").display().to_string()],
    )
    .await;
    assert_eq!(again.lines().count(), 3, "{again}");
    rows
}

/// It runs in the reference's root on the manager's host, before any clone is there.
fn add_a_set_with_a_script(folder: &Path) {
    let script = folder.join("sets/chosen/.scripts/10-logger");
    fs::create_dir_all(script.parent().unwrap()).unwrap();
    let text = "#!/bin/bash
set -eu
for logger in /usr/sbin/rsyslogd /usr/lib/systemd/systemd-journald; do [ -x $logger ] && break; done
name=$(perl -0777 -ne 'print $1 if /\"clone\":\\{\"name\":\"([^\"]*)\"/')
mkdir etc
echo \"$name logs by ${logger##*/}\" > etc/chosen
";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
}

async fn clones_differ_as_their_layers_say(bed: &ShownBed, key: &Path) {
    const OWN: [&str; 5] = [
        "etc/hostname",
        "etc/machine-id",
        "etc/ssh/ssh_host_ed25519_key.pub",
        "var/www/html/index.html",
        "etc/chosen",
    ];
    let mut seen: Vec<Vec<String>> = Vec::new();
    for clone in CLONES {
        // The strict check of the host key against the derived one is part of `estive ssh`.
        let mut script = String::from("hostname; ls /.unions; cat /etc/hosts; echo ===; ");
        for file in OWN {
            script += &format!("cmp /{file} /.unions/layer/{file} && cat /{file}; echo ===; ");
        }
        script += "grep -c . /.unions/root/etc/machine-id; ip -o -4 addr show dev eth0";
        let said = ssh(bed, &name(clone), key, &script).await.unwrap();
        let parts: Vec<String> = said.split("===\n").map(str::to_owned).collect();
        assert_eq!(parts.len(), OWN.len() + 2, "{said}");
        assert!(parts[0].starts_with(&format!("{clone}\n")), "{said}");
        for layer in ["layer", "root"] {
            assert!(parts[0].lines().any(|line| line == layer), "{said}");
        }
        assert_eq!(parts[1].trim(), clone);
        assert_eq!(parts[2].trim().len(), 32, "{said}");
        let address = shown(bed, clone).await["address"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(parts[5], format!("{clone} logs by systemd-journald\n"));
        assert!(parts[6].contains(&format!("inet {address}/24")), "{said}");
        assert!(parts[4].contains(&address), "{said}");
        let known = done(bed, &["host-key", clone]).await;
        let words: Vec<&str> = parts[3].split_whitespace().take(2).collect();
        assert!(known.contains(&words.join(" ")), "{known} is not {words:?}");
        seen.push(parts[1..6].to_vec());
    }
    for (index, file) in OWN.iter().enumerate() {
        assert_ne!(seen[0][index], seen[1][index], "{file}");
    }
}

/// From the request to the answer, in order, with what systemd started; gives what is known of clone01's boots.
async fn boots_are_drawn(bed: &ShownBed) -> Value {
    let drawn = until("systemd has told how it came up", async || {
        let drawn = bed.estive_json(&["boot", "clone01"]).await.ok()?;
        drawn["record"]["system"].is_object().then_some(drawn)
    })
    .await;
    let bars = drawn["timeline"]["bars"].as_array().unwrap();
    let names: Vec<&str> = bars
        .iter()
        .map(|bar| bar["name"].as_str().unwrap())
        .collect();
    let wanted = [
        "archive",
        "request",
        "agent",
        "QEMU",
        "firmware",
        "kernel",
        "estive-init",
    ];
    assert_eq!(names[..7], wanted, "{names:?}");
    assert!(names[7].starts_with("systemd 2"), "{names:?}");
    assert_eq!(names[8..], ["answers (http, ssh)"]);
    let ms = |bar: &Value, key: &str| bar[key].as_i64().unwrap_or_else(|| panic!("{key}: {bar}"));
    // One after the other; what is guest's is placed a moment late at most.
    for pair in bars[..8].windows(2) {
        assert!(
            ms(&pair[0], "began_ms") <= ms(&pair[1], "began_ms"),
            "{pair:?}"
        );
        assert!(
            ms(&pair[0], "ended_ms") <= ms(&pair[1], "ended_ms"),
            "{pair:?}"
        );
    }
    assert!(
        ms(&bars[8], "ended_ms") > ms(&bars[6], "ended_ms"),
        "{bars:#?}"
    );
    let phases: Vec<&str> = parts(&bars[6]).map(|(name, _)| name).collect();
    let wanted = [
        "modules", "identity", "layer", "root", "union", "network", "switch",
    ];
    assert_eq!(phases, wanted);
    for unit in ["nginx.service", "ssh.service", "multi-user.target"] {
        let found = parts(&bars[7]).find(|(name, _)| *name == unit);
        let (_, bar) = found.unwrap_or_else(|| panic!("no {unit}: {bars:#?}"));
        let (began_ms, ended_ms) = (ms(bar, "began_ms"), ms(bar, "ended_ms"));
        assert!(
            ms(&bars[7], "began_ms") <= began_ms && began_ms <= ended_ms,
            "{bar}"
        );
        assert!(
            began_ms < ms(&bars[8], "ended_ms") || unit.ends_with("target"),
            "{bar}"
        );
    }
    let svg = work().join("boot.svg");
    let file = svg.display().to_string();
    let text = done(bed, &["boot", "clone01", "--svg", &file]).await;
    println!("{text}");
    assert!(
        text.contains("nginx.service") && !text.contains('\u{1b}'),
        "{text}"
    );
    assert!(fs::read_to_string(&svg).unwrap().starts_with("<svg "));
    let both = done(bed, &["boot", "clone01", "--compare", "clone02"]).await;
    println!("{both}");
    assert!(
        both.starts_with("1: clone01 on ") && both.contains("\n2: clone02 on "),
        "{both}"
    );
    bed.estive_json(&["boot", "clone01", "--list"])
        .await
        .unwrap()
}

/// The parts of a bar, by name.
fn parts(bar: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let parts = bar["parts"].as_array().into_iter().flatten();
    parts.map(|part| (part["name"].as_str().unwrap_or_default(), part))
}

async fn start_load(bed: &ShownBed, clone: &str, row: &Row) -> Load {
    let config = LoadConfig {
        address: SocketAddr::from((row.address, 80)),
        path: "/".to_owned(),
        expect: clone.to_owned(),
        rate_per_s: 25,
    };
    Load::start(Path::new(TOOL), &bed.topology().client, &config)
        .await
        .unwrap()
}

/// Waits until so many more requests have ended.
async fn some_more(load: &Load, more: u64) {
    let before = load::summary(&load.requests()).requests;
    until("requests end", async || {
        (load::summary(&load.requests()).requests >= before + more).then_some(())
    })
    .await;
}

async fn daemons_come_back(bed: &mut ShownBed, rows: &BTreeMap<String, Row>) {
    let row = &rows["clone01"];
    let host: u8 = row.host.trim_start_matches("host").parse().unwrap();
    let pid = bed.qemu_pid(&name("clone01"), host).expect("it runs");
    let before = listed(bed).await;
    let load = start_load(bed, "clone01", row).await;
    some_more(&load, 25).await;

    bed.kill_agent(host).await.unwrap();
    some_more(&load, 25).await;
    bed.start_agent(host).await.unwrap();
    until("the agent's word is heard", async || {
        (shown(bed, "clone01").await["state"] == "running").then_some(())
    })
    .await;
    some_more(&load, 25).await;
    assert_eq!(
        bed.qemu_pid(&name("clone01"), host),
        Some(pid),
        "adopted, not started"
    );
    let alone = format!("unix:{}", bed.agent_socket(host).display());
    let report = bed
        .estive_json(&["--agent", &alone, "show", "clone01"])
        .await
        .unwrap();
    assert_eq!(
        (&report["state"], &report["pid"]),
        (&"running".into(), &pid.into())
    );

    bed.kill_manager().await;
    some_more(&load, 25).await;
    bed.start_manager().await.unwrap();
    assert_eq!(listed(bed).await, before);
    let figures = load::summary(&load.finish().await.unwrap());
    assert_eq!(figures.lost, 0, "{figures:?}");
    assert!(figures.requests >= 100, "{figures:?}");
    println!("daemons died: {figures:?}");
}

async fn the_roots_server_comes_back(bed: &mut ShownBed, key: &Path, expected: &str) {
    // Three times, so that it is far from done when the server dies; what was read is dropped each time.
    let script = format!(
        "cd /usr/bin; out=/var/www/html/read; nohup sh -c 'for i in 1 2 3; do echo 3 >/proc/sys/vm/drop_caches; {SUM}; \
         done >'$out'.part 2>&1; mv '$out'.part '$out'.txt' >/dev/null 2>&1 </dev/null &"
    );
    let clone = name("clone02");
    ssh(bed, &clone, key, &script).await.unwrap();
    let host = shown(bed, "clone02").await["host"]
        .as_str()
        .unwrap()
        .to_owned();
    let host: u8 = host.trim_start_matches("host").parse().unwrap();
    bed.kill_storage().await;
    bed.kill_cache(host).await;
    let address = shown(bed, "clone02").await["address"]
        .as_str()
        .unwrap()
        .to_owned();
    let answer = async |bed: &ShownBed| {
        let url = format!("http://{address}/read.txt");
        let curl = ["curl", "-sS", "-f", "-m", "10", &url];
        bed.topology()
            .client
            .run_in(&curl)
            .await
            .ok()
            .map(|output| stdout(&output))
    };
    assert_eq!(
        answer(bed).await,
        None,
        "it read everything before the server died: this shows nothing"
    );
    bed.start_cache(host).await.unwrap();
    bed.start_storage().await.unwrap();
    let read = until("the guest has read on", async || answer(bed).await).await;
    let read: Vec<&str> = read.lines().collect();
    assert_eq!(read, [expected; 3], "what is read is what is there");
    let errors = ssh(bed, &clone, key, "dmesg | grep -ci 'i/o error' || true")
        .await
        .unwrap();
    assert_eq!(errors.trim(), "0");
}

async fn moves_lose_nothing(bed: &ShownBed, key: &Path, rows: &BTreeMap<String, Row>) {
    let row = &rows["clone01"];
    let config = TrialConfig {
        clone: name("clone01"),
        address: row.address,
        peer: name("clone02"),
        ssh_key: PathBuf::from(key),
        rate_per_s: 50,
    };
    let mut trial = Trial::start(bed, config).await.unwrap();
    let other = rows["clone02"].host.as_str();
    for to in [other, row.host.as_str(), other] {
        let moved = trial.migrate(to).await.unwrap();
        println!("{moved:?}");
        assert_eq!(shown(bed, "clone01").await["host"], to);
        assert!(
            moved.downtime_ms.is_some() && moved.switch_ms.is_some(),
            "{moved:?}"
        );
        assert!(moved.choice.contains("pre-copy"), "{moved:?}");
    }
    let report = trial.finish().await.unwrap();
    println!("{report:#?}");
    assert_eq!(report.load.lost, 0, "{:?}", report.load);
    assert_eq!(report.download_broken, None);
    assert!(report.stream_alive, "the stream between the clones broke");
    assert_eq!(report.gaps, 0, "of {} lines", report.lines);
    assert!(report.is_clean());
    assert!(
        report.in_flight() > 0,
        "no request met a switch: nothing is shown"
    );
}

async fn is_told(bed: &ShownBed) {
    let events = done(bed, &["events", "--domain", "clone01"]).await;
    for what in ["defined", "started", "move_ordered", "move_released"] {
        assert!(events.contains(what), "{events}");
    }
    let moved = events.matches(" owns it from now on").count();
    assert_eq!(moved, 3, "{events}");
    let logs = done(bed, &["logs", "clone02"]).await;
    assert!(logs.contains("estive-init: phase switch"), "{logs}");

    let mut console = bed
        .estive_command()
        .args(["console", "clone02"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (
        console.stdin.take().unwrap(),
        console.stdout.take().unwrap(),
    );
    let mut text = Vec::new();
    let prompt = async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_secs(2));
        let mut bytes = [0; 1024];
        while !String::from_utf8_lossy(&text).contains("clone02 login:") {
            tokio::select! {
                _ = ticks.tick() => keys.write_all(b"\r").await.unwrap(),
                read = screen.read(&mut bytes) => {
                    let read = read.unwrap();
                    assert_ne!(read, 0, "the console ended");
                    text.extend_from_slice(&bytes[..read]);
                }
            }
        }
    };
    tokio::time::timeout(common::BOUND, prompt)
        .await
        .expect("a login is offered on the console");
    // Ctrl-]
    keys.write_all(&[0x1d]).await.unwrap();
    assert!(console.wait().await.unwrap().success());
}
