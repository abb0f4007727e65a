//! Bad input and trouble: one clear message with the right exit code, and nothing half-made stays.
//!
//! The clones are tiny (one static program as their whole system), so that many cases cost little. `./x test` says by the
//! environment what they are made of, see `common`.
#![allow(clippy::disallowed_methods)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{
    ShownBed, TOOL, assert_nothing_stays, bed_config, done, fails, herd, is_root, listed, name,
    on_guests, qemus, run, said, shown, tiny_herd, tiny_reference, told, until, work,
};
use estive_testbed::Witness;

const FAILED: i32 = 1;
const IMPOSSIBLE: i32 = 2;
const REFUSED: i32 = 3;
const UNREACHABLE: i32 = 4;

#[test]
fn what_cannot_be_is_said_and_leaves_nothing() {
    on_guests("inside_what_cannot_be");
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_what_cannot_be() {
    let bed = ShownBed::start(bed_config(2, tiny_reference("tiny", |_| {}))).await;
    herd_files(&bed).await;
    names_of_nothing(&bed).await;
    strangers(&bed).await;
    daemons_that_cannot_start(&bed).await;
    assert_nothing_stays(&bed).await;
    bed.stop().await;
}

async fn herd_files(bed: &ShownBed) {
    let good = tiny_herd(&[("clone01", None), ("clone02", None)]);
    let mut number = 0;
    let mut up = async |yaml: String, code: i32, words: &[&str]| {
        number += 1;
        let folder = herd(&format!("bad{number}"), &yaml);
        fails(bed, code, &["up", &folder], words).await
    };
    let slip = good.replace("memory_mib:", "memory_mb:");
    up(
        slip,
        IMPOSSIBLE,
        &["herd.yaml:3:1", "memory_mb", "did you mean memory_mib?"],
    )
    .await;
    let path = good.replace("clone02", "../../etc/passwd");
    up(
        path,
        IMPOSSIBLE,
        &["herd.yaml:9:3", "../../etc/passwd", "no name for a host"],
    )
    .await;
    let nowhere = format!("reference: nothere\n{good}");
    up(
        nowhere,
        IMPOSSIBLE,
        &["clone01", "\"nothere\"", "default", "try:"],
    )
    .await;
    let no_set = good.replace("sets: []", "sets: [nosuchset]");
    up(no_set, IMPOSSIBLE, &["nosuchset", "try:"]).await;
    let no_host = tiny_herd(&[("clone01", Some("host9"))]);
    up(no_host, IMPOSSIBLE, &["clone01", "host9", "host1", "host2"]).await;
    up("hosts: [".into(), IMPOSSIBLE, &["herd.yaml"]).await;
    // One clone would fit and the other not: none is made.
    let large = good.replace("clone02:", "clone02: {memory_mib: 5000}");
    let counts = [
        "clone02 needs 5000 MiB",
        "host1",
        "host2",
        "1024 MiB",
        "5160 MiB",
        "2048 MiB",
        "try:",
    ];
    up(large, IMPOSSIBLE, &counts).await;
    let many: Vec<String> = (1..=13).map(|n| format!("clone{n:02}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), None)).collect();
    up(
        tiny_herd(&many),
        IMPOSSIBLE,
        &["13 clones together need 2080 MiB of 2048 MiB free"],
    )
    .await;

    let empty = work().join("herds/empty");
    fs::create_dir_all(&empty).unwrap();
    let empty = empty.display().to_string();
    fails(
        bed,
        IMPOSSIBLE,
        &["up", &empty],
        &["no herd.yaml", &empty, "try:"],
    )
    .await;
    fails(
        bed,
        IMPOSSIBLE,
        &["up", "/nowhere/herd"],
        &["/nowhere/herd", "try:"],
    )
    .await;
    assert_nothing_stays(bed).await;
}

async fn names_of_nothing(bed: &ShownBed) {
    for command in ["show", "start", "stop", "migrate", "console", "logs"] {
        fails(
            bed,
            IMPOSSIBLE,
            &[command, "../../etc/passwd"],
            &["../../etc/passwd"],
        )
        .await;
        fails(bed, FAILED, &[command, "clone77"], &["clone77"]).await;
    }
    fails(bed, FAILED, &["down", "no-such"], &["no-such", "try:"]).await;
    fails(bed, IMPOSSIBLE, &["frobnicate"], &["frobnicate"]).await;
    let nowhere = ["--manager", "http://10.77.0.2:7600", "ls"];
    fails(bed, FAILED, &nowhere, &["http://10.77.0.2:7600"]).await;
}

/// Issues a certificate of the authority in `authority`; gives its directory.
async fn issue(bed: &ShownBed, authority: &Path, role: &str, name: &str) -> String {
    let (authority, out) = (
        authority.display().to_string(),
        work().join("strangers").join(name),
    );
    let out = out.display().to_string();
    let issue = [
        "authority",
        "issue",
        "--authority",
        &authority,
        "--role",
        role,
        "--name",
        name,
        "--out",
        &out,
    ];
    done(bed, &issue).await;
    out
}

async fn strangers(bed: &ShownBed) {
    let manager = "https://10.77.0.2:7600";
    let own = bed.user_credentials().display().to_string();
    done(bed, &["--manager", manager, "--credentials", &own, "ls"]).await;
    // A certificate of another authority is no certificate.
    let stranger = issue(bed, &work().join("other"), "user", "mallory").await;
    let output = bed
        .estive(&["--manager", manager, "--credentials", &stranger, "ls"])
        .await
        .unwrap();
    let code = output.status.code().unwrap();
    assert!([REFUSED, UNREACHABLE].contains(&code));
    said(
        &output,
        code,
        "ls as a stranger",
        &["10.77.0.2:7600", "authority"],
    );
    // One of ours, of a role that may not.
    let storage = issue(bed, &work().join("authority"), "storage", "wrong-role").await;
    let down = [
        "--manager",
        manager,
        "--credentials",
        &storage,
        "down",
        "anything",
    ];
    fails(bed, REFUSED, &down, &["storage"]).await;
    let agent = "https://10.77.0.11:7601";
    let delete = [
        "--agent",
        agent,
        "--credentials",
        &storage,
        "delete",
        "clone01",
    ];
    fails(bed, REFUSED, &delete, &["storage"]).await;
    let nothing = work().join("strangers/none").display().to_string();
    let none = ["--manager", manager, "--credentials", &nothing, "ls"];
    fails(bed, FAILED, &none, &[&nothing]).await;
    // Nobody at that port, nobody at that address.
    let closed = [
        "--manager",
        "https://10.77.0.2:7",
        "--credentials",
        &own,
        "ls",
    ];
    fails(bed, UNREACHABLE, &closed, &["10.77.0.2:7"]).await;
    let absent = work().join("absent.sock");
    let absent = format!("unix:{}", absent.display());
    fails(
        bed,
        UNREACHABLE,
        &["--manager", &absent, "ls"],
        &["absent.sock"],
    )
    .await;
}

async fn daemons_that_cannot_start(bed: &ShownBed) {
    let daemon = async |kind: &str, text: String, words: &[&str]| {
        let file = work().join(format!("second-{kind}.yaml"));
        fs::write(&file, text).unwrap();
        let estive = &bed.config().estive;
        let namespace = match kind {
            "agent" => &bed.topology().hosts[0],
            _ => &bed.topology().manager,
        };
        let ending = namespace
            .command(estive)
            .args([kind, "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(common::BOUND, ending)
            .await
            .expect("it ends by itself")
            .unwrap();
        said(
            &output,
            FAILED,
            &format!("estive {kind} ({})", words[0]),
            words,
        );
    };
    let agent = fs::read_to_string(work().join("host1/agent.yaml")).unwrap();
    let elsewhere = agent
        .replace("host1/state", "second/state")
        .replace("host1/q", "second/q")
        .replace("host1/agent.sock", "second/agent.sock");
    daemon("agent", elsewhere.clone(), &["10.77.0.11:7601", "in use"]).await;
    let same_state = agent
        .replace(":7601", ":7701")
        .replace("host1/agent.sock", "second/agent.sock");
    daemon("agent", same_state, &["host1/state", "agent"]).await;
    let slip = elsewhere.replace("\"accel\"", "\"acel\"");
    daemon("agent", slip, &["second-agent.yaml", "acel"]).await;
    let keyless = elsewhere.replace("credentials/host1", "credentials/nobody");
    daemon("agent", keyless, &["credentials/nobody"]).await;

    let manager = fs::read_to_string(work().join("manager/manager.yaml")).unwrap();
    let second = manager
        .replace("manager/state", "second/manager")
        .replace("/run/estive/manager.sock", "/run/bed/second/manager.sock");
    daemon("manager", second.clone(), &["10.77.0.2:7600", "in use"]).await;
    let kernel = bed.config().references["default"]
        .kernel
        .display()
        .to_string();
    daemon(
        "manager",
        second
            .replace(&kernel, "/nowhere/vmlinuz")
            .replace(":7600", ":7700"),
        &["/nowhere/vmlinuz", "kernel"],
    )
    .await;
    assert!(!Path::new("/run/bed/second/manager.sock").exists());
    // Those that were there are not disturbed.
    done(bed, &["hosts"]).await;
}

#[test]
fn guests_that_do_not_come_up_are_taken_back() {
    on_guests("inside_guests_that_do_not_come_up");
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
    no_root.image = work().join("parts/no-root");
    fs::write(&no_root.image, vec![0; 1 << 20]).unwrap();
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
    // The root's server is down: QEMU has nothing to start with.
    bed.kill_storage().await;
    up(&bed, "default", &["10.77.0.5", "try:"]).await;
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

#[test]
fn silence_is_unknown_and_nothing_starts_elsewhere() {
    on_guests("inside_silence");
}

async fn wait_for_state(bed: &ShownBed, domain: &str, state: &str) {
    until(&format!("{domain} is {state}"), async || {
        (shown(bed, domain).await["state"] == state).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "runs inside an outer namespace"]
async fn inside_silence() {
    let mut bed = ShownBed::start(bed_config(2, tiny_reference("tiny", |_| {}))).await;
    let witness = Witness::start(Path::new(TOOL), bed.topology())
        .await
        .unwrap();
    let folder = herd(
        "pair",
        &tiny_herd(&[("one", Some("host1")), ("two", Some("host2"))]),
    );
    done(&bed, &["up", &folder]).await;
    let two = name("two");
    let pid = bed.qemu_pid(&two, 2).expect("it runs on host2");

    an_agent_is_down(&mut bed).await;
    assert_eq!(bed.qemu_pid(&two, 2), Some(pid));
    all_agents_are_down(&mut bed).await;
    assert_eq!(bed.qemu_pid(&two, 2), Some(pid), "nobody touched it");
    a_cable_is_cut(&bed).await;
    assert_eq!(
        bed.qemu_pid(&two, 2),
        Some(pid),
        "it was there all the time"
    );
    let judgement = witness.judgement();
    assert_eq!(judgement.guests["two"].len(), 1, "one boot");
    assert_eq!(judgement.guests["two"][0].ports, ["p-h2"]);

    // A QEMU that dies is shown, and started only when somebody asks.
    assert!(bed.kill_qemu(&two, 2));
    wait_for_state(&bed, "two", "crashed").await;
    fails(
        &bed,
        IMPOSSIBLE,
        &["migrate", "two", "--to", "host1"],
        &["two", "crashed", "try:"],
    )
    .await;
    done(&bed, &["start", "two"]).await;
    boots_are_heard(&witness, 2).await;
    wait_for_state(&bed, "two", "running").await;

    the_power_goes(&mut bed).await;
    boots_are_heard(&witness, 3).await;

    bed.kill_manager().await;
    for command in [
        &["ls"][..],
        &["hosts"],
        &["show", "one"],
        &["up", &folder],
        &["down", "pair"],
    ] {
        fails(&bed, UNREACHABLE, command, &["/run/estive/manager.sock"]).await;
    }
    bed.start_manager().await.unwrap();
    assert_eq!(listed(&bed).await.len(), 2);
    let judgement = witness.judgement();
    assert!(judgement.is_clean(), "{:?}", judgement.twice);
    for boot in &judgement.guests["two"] {
        assert_eq!(boot.ports, ["p-h2"], "never elsewhere");
    }
    done(&bed, &["down", "pair"]).await;
    assert_nothing_stays(&bed).await;
    bed.stop().await;
}

async fn boots_are_heard(witness: &Witness, count: usize) {
    until(&format!("boot {count} of two is heard"), async || {
        (witness.judgement().guests["two"].len() == count).then_some(())
    })
    .await;
}

async fn an_agent_is_down(bed: &mut ShownBed) {
    bed.kill_agent(2).await.unwrap();
    wait_for_state(bed, "two", "unknown").await;
    let show = shown(bed, "two").await;
    let note = show["note"].as_str().unwrap();
    assert!(
        note.contains("host2") && note.contains("may well run on"),
        "{note}"
    );
    assert_eq!(show["host"], "host2");
    let hosts = bed.estive_json(&["hosts"]).await.unwrap();
    let health: Vec<_> = hosts
        .as_array()
        .unwrap()
        .iter()
        .map(|host| &host["health"])
        .collect();
    assert_eq!(health, ["up", "unknown"]);
    fails(
        bed,
        UNREACHABLE,
        &["migrate", "one", "--to", "host2"],
        &["host2", "try:"],
    )
    .await;
    fails(
        bed,
        UNREACHABLE,
        &["migrate", "two", "--to", "host1"],
        &["host2", "try:"],
    )
    .await;
    for command in ["start", "stop", "pause"] {
        fails(bed, UNREACHABLE, &[command, "two"], &["host2"]).await;
    }
    let pinned = herd("pinned", &tiny_herd(&[("three", Some("host2"))]));
    fails(
        bed,
        UNREACHABLE,
        &["up", &pinned],
        &["three", "host2", "try:"],
    )
    .await;
    let listed = listed(bed).await;
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(listed["one"], ("host1".to_owned(), "running".to_owned()));
    assert_eq!(listed["two"], ("host2".to_owned(), "unknown".to_owned()));
}

async fn all_agents_are_down(bed: &mut ShownBed) {
    bed.kill_agent(1).await.unwrap();
    wait_for_state(bed, "one", "unknown").await;
    let third = herd("third", &tiny_herd(&[("three", None)]));
    fails(
        bed,
        UNREACHABLE,
        &["up", &third],
        &["no host answers", "try:"],
    )
    .await;
    fails(
        bed,
        UNREACHABLE,
        &["down", "pair"],
        &["one", "two", "stay on record", "try:"],
    )
    .await;
    assert_eq!(qemus(Some("one")).len(), 1);
    assert_eq!(qemus(Some("two")).len(), 1);
    for host in [1, 2] {
        bed.start_agent(host).await.unwrap();
    }
    for domain in ["one", "two"] {
        wait_for_state(bed, domain, "running").await;
    }
    assert_eq!(listed(bed).await.len(), 2);
}

async fn a_cable_is_cut(bed: &ShownBed) {
    bed.topology().set_cable(2, false).await.unwrap();
    wait_for_state(bed, "two", "unknown").await;
    fails(
        bed,
        UNREACHABLE,
        &["migrate", "two", "--to", "host1"],
        &["host2"],
    )
    .await;
    assert_eq!(qemus(Some("two")).len(), 1);
    bed.topology().set_cable(2, true).await.unwrap();
    wait_for_state(bed, "two", "running").await;
    until("two answers again", async || {
        let ping = ["ping", "-c", "1", "-W", "1", &address(bed, "two").await];
        bed.topology().client.run_in(&ping).await.ok()
    })
    .await;
}

async fn address(bed: &ShownBed, domain: &str) -> String {
    shown(bed, domain).await["address"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn the_power_goes(bed: &mut ShownBed) {
    bed.kill_host(2).await.unwrap();
    wait_for_state(bed, "two", "unknown").await;
    assert!(qemus(Some("two")).is_empty(), "it is started nowhere");
    bed.start_agent(2).await.unwrap();
    // Its host says now that it is gone; still nobody was asked to start it.
    wait_for_state(bed, "two", "crashed").await;
    assert!(qemus(Some("two")).is_empty());
    let note = shown(bed, "two").await["note"].as_str().unwrap().to_owned();
    assert!(note.contains("estive start two"), "{note}");
    done(bed, &["start", "two"]).await;
    wait_for_state(bed, "two", "running").await;
}

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
        .args(["inside_stays_up", "--exact", "--ignored", "--nocapture"])
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
