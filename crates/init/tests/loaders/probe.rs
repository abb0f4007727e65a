//! The init of roots made by hand: prints what it finds, one fact a line, and powers off.
//! Compiled by the test itself, statically: its root has nothing else.
//!
//! Words of the command line say what it looks at, each a list with commas: `probe.read=PATH,…` prints files,
//! `probe.list=PATH,…` directories, `probe.mode=PATH,…` their mode and owner,
//! `probe.write=PATH,…` writes to files (the text `written`) and prints how that went.
//! `probe.hold=1`: it does not power off. Files `/etc/layer-*` are printed unasked: each layer of a test has one.

use std::fs;
use std::os::unix::fs::MetadataExt;

// SAFETY: declared as in reboot(2) of glibc and sync(2); neither takes a pointer.
unsafe extern "C" {
    safe fn reboot(command: i32) -> i32;
    safe fn sync();
}

fn fact(name: &str, value: impl std::fmt::Display) {
    println!("fact {name}={value}");
}

fn text(path: &str) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().replace('\n', "|"),
        Err(error) => format!("{:?}", error.kind()),
    }
}

fn names(path: &str) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The paths of a word.
fn asked(word: &str) -> Vec<String> {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_ascii_whitespace()
        .filter_map(|found| found.strip_prefix(word)?.strip_prefix('='))
        .flat_map(|paths| paths.split(','))
        .map(str::to_owned)
        .collect()
}

fn main() {
    for name in names("/etc").iter().filter(|name| name.starts_with("layer-")) {
        let path = format!("/etc/{name}");
        fact(&path, text(&path));
    }
    for path in asked("probe.read") {
        fact(&path, text(&path));
    }
    for path in asked("probe.list").iter().map(String::as_str).chain(["/.unions"]) {
        fact(path, names(path).join(","));
    }
    for path in asked("probe.write") {
        let written = match fs::write(&path, "written") {
            Ok(()) => "written".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
        fact(&format!("write {path}"), written);
    }
    for path in asked("probe.mode").iter().map(String::as_str).chain(["/"]) {
        let mode = match fs::metadata(path) {
            Ok(found) => format!("{:o} {} {}", found.mode() & 0o7777, found.uid(), found.gid()),
            Err(error) => format!("{:?}", error.kind()),
        };
        fact(&format!("mode {path}"), mode);
    }
    let mounts = text("/proc/mounts");
    let root = mounts.split('|').filter_map(|mount| {
        let mut words = mount.split(' ');
        let (_, at, kind) = (words.next()?, words.next()?, words.next()?);
        (at == "/").then(|| kind.to_owned())
    });
    fact("root is", root.last().unwrap_or_default());
    // A machine that stays, for another one to meet.
    if !asked("probe.hold").is_empty() {
        fact("held", true);
        loop {
            std::thread::park();
        }
    }
    println!("fact end");
    sync();
    // LINUX_REBOOT_CMD_POWER_OFF
    reboot(0x4321_fedc);
    loop {
        std::thread::park();
    }
}
