//! Clients that others wrote read the same: qemu-img, qemu-io and qemu-nbd, and libnbd's nbdinfo.

use std::process::Command;

use crate::bed::Bed;

async fn run(program: &'static str, arguments: Vec<String>) -> std::process::Output {
    tokio::task::spawn_blocking(move || Command::new(program).args(arguments).output())
        .await
        .unwrap()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn qemus_programs_read_the_roots_bytes() {
    let bed = Bed::new();
    let image = bed.image("images", 6);
    let origin = bed.origin("images").await;
    let host = bed.cache("h1").await;
    host.may_read(&image.name, &[&origin.endpoint]);
    let socket = host.directory.socket().display().to_string();
    let url = format!("nbd+unix:///{}?socket={socket}", image.name.hex());
    let out = bed.path("out").display().to_string();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let done = run("qemu-img", words(&["convert", "-O", "raw", &url, &out])).await;
    assert!(done.status.success(), "{done:?}");
    assert!(std::fs::read(&out).unwrap() == image.bytes);
    let done = run("qemu-nbd", words(&["--list", "-k", &socket])).await;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.contains(image.name.hex()), "{said}");
    assert!(
        said.contains("readonly") && said.contains("multi"),
        "{said}"
    );
    let pattern = image.bytes[4096];
    let read = format!("read -P {pattern} 4096 1");
    let done = run("qemu-io", words(&["-r", "-f", "raw", "-c", &read, &url])).await;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.contains("read 1/1 bytes"), "{said}");
    let other = url.replace(image.name.hex(), &"0".repeat(64));
    let done = run("qemu-img", words(&["info", &other])).await;
    assert!(!done.status.success());
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains("has not been told of the root"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdinfo_understands_what_is_offered() {
    let bed = Bed::new();
    let image = bed.image("images", 2);
    let origin = bed.origin("images").await;
    let host = bed.cache("h1").await;
    host.may_read(&image.name, &[&origin.endpoint]);
    let socket = host.directory.socket().display().to_string();
    let url = format!("nbd+unix:///{}?socket={socket}", image.name.hex());
    let done = run("nbdinfo", vec!["--json".into(), url]).await;
    assert!(done.status.success(), "{done:?}");
    let said: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let export = &said["exports"][0];
    assert_eq!(said["structured"], true, "{said}");
    assert_eq!(export["export-size"], image.bytes.len(), "{said}");
    assert_eq!(export["is_read_only"], true, "{said}");
    assert_eq!(export["can_multi_conn"], true, "{said}");
    assert_eq!(export["can_write"], serde_json::Value::Null, "{said}");
}
