//! What cannot be as asked: herd files, names, strangers, daemons that cannot start.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::common::{
    self, ShownBed, assert_nothing_stays, bed_config, done, fails, herd, on_guests, said,
    tiny_herd, tiny_reference, work,
};
use crate::{FAILED, IMPOSSIBLE, REFUSED, UNREACHABLE};

#[test]
fn what_cannot_be_is_said_and_leaves_nothing() {
    on_guests("input::inside_what_cannot_be");
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
