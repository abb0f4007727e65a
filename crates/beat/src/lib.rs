//! The whole user space of a test guest: one static program as `/sbin/init`.
//!
//! It sends a numbered beat every 20 ms (so that a witness sees who runs it, and whether twice), answers HTTP, echoes
//! TCP, and appends numbered lines to a file with fsync. The network was set before by `estive-init`. It never ends:
//! whatever fails is said on the console and tried again.
//!
//! | port | what |
//! |---|---|
//! | 80 | `/` hello, `/estive/time` seconds.milliseconds, `/big` numbered lines without end, `/log` what the file holds, `/file/PATH` a file, `/nfs/ADDRESS:PORT` whether an NFS server answers |
//! | 7 | echo |
//! | to 7007/udp | `ESTIVE-BEAT <name> <boot id> <number> <uptime_ms>`, broadcast, or to `beat.to=` of the kernel command line |
#![allow(clippy::disallowed_methods)]

mod beat;
mod log;
mod service;

use std::fs;
use std::time::Duration;

/// Never returns.
pub fn run() -> ! {
    mount_what_is_missing();
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = match name.trim() {
        "" => "nameless".to_owned(),
        name => name.to_owned(),
    };
    println!("estive-beat: {name} is up");
    for_ever("log", log::append);
    for_ever("http", {
        let name = name.clone();
        move || service::http(&name)
    });
    for_ever("echo", service::echo);
    let mut number = 0;
    loop {
        // The number goes on after a failure: no beat is sent twice.
        if let Err(error) = beat::send(&name, &mut number) {
            eprintln!("estive-beat: beat: {error}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Runs `work` on a thread, again after each failure.
fn for_ever(what: &'static str, work: impl Fn() -> std::io::Result<()> + Send + 'static) {
    let run = move || {
        loop {
            if let Err(error) = work() {
                eprintln!("estive-beat: {what}: {error}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name(what.to_owned())
        .stack_size(128 << 10)
        .spawn(run)
    {
        eprintln!("estive-beat: {what}: no thread: {error}");
    }
}

/// A root made by hand holds this program and nothing else.
fn mount_what_is_missing() {
    use rustix::mount::{MountFlags, mount};
    for directory in ["/proc", "/tmp"] {
        let _ = fs::create_dir(directory);
    }
    if !fs::exists("/proc/self").unwrap_or(false) {
        let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        if let Err(error) = mount("proc", "/proc", "proc", safe, None) {
            eprintln!("estive-beat: mounting /proc: {error}");
        }
    }
}
