//! `estive-beat`: the one static program of a test guest's root. It is `/sbin/init` there.
//!
//! Every 20 ms it sends a numbered beat by UDP (`ESTIVE-BEAT <name> <boot-id> <number> <uptime_ms>`), so that a witness
//! on the switch can tell on which host the guest's processors run. It answers HTTP on port 80 (`/`, `/estive/time`,
//! `/big`, `/log`), echoes on port 7, and appends a numbered line with fsync every 20 ms to `/tmp/log`.
//!
//! Built like `estive-init`: static, profile `init`. Its network is set by `estive-init` before it starts.
#![allow(
    clippy::disallowed_methods,
    reason = "a guest program: it has no Clock seam"
)]

mod http;
mod log;

use rustix::mount::{MountFlags, mount};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Port that beats are sent to.
const BEAT_PORT: u16 = 7007;
/// Time between two beats, and between two lines of the log.
const PERIOD: Duration = Duration::from_millis(20);

fn main() {
    // Mounted already when estive-init moved them along.
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp")] {
        let _ = std::fs::create_dir_all(place);
        if kind == "tmpfs"
            || std::fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_none())
        {
            let _ = mount(kind, place, kind, MountFlags::empty(), None);
        }
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_owned();
    println!("estive-beat: {name} is up");

    for (port, serve) in [
        (80u16, http::serve as fn(std::net::TcpStream, &str)),
        (7, echo),
    ] {
        let name = name.clone();
        thread::spawn(move || listen(port, &name, serve));
    }
    thread::spawn(log::write);
    beat(&name);
}

/// Sends beats for ever. A beat that cannot be sent (no route yet) is skipped, its number too.
fn beat(name: &str) {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot = boot.trim();
    let started = Instant::now();
    let to = target();
    let mut number = 0u64;
    let mut socket = None;
    loop {
        if socket.is_none() {
            socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
                .and_then(|socket| socket.set_broadcast(true).map(|()| socket))
                .ok();
        }
        if let Some(open) = &socket {
            let line = format!(
                "ESTIVE-BEAT {name} {boot} {number} {}",
                started.elapsed().as_millis()
            );
            let _ = open.send_to(line.as_bytes(), (to, BEAT_PORT));
        }
        number += 1;
        thread::sleep(PERIOD);
    }
}

/// `beat.to=ADDRESS` of the kernel command line, else everybody on the link.
fn target() -> Ipv4Addr {
    std::fs::read_to_string("/proc/cmdline")
        .unwrap_or_default()
        .split_whitespace()
        .find_map(|word| word.strip_prefix("beat.to=")?.parse().ok())
        .unwrap_or(Ipv4Addr::BROADCAST)
}

fn listen(port: u16, name: &str, serve: fn(std::net::TcpStream, &str)) {
    loop {
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
            Ok(listener) => {
                for stream in listener.incoming().flatten() {
                    let name = name.to_owned();
                    let _ = thread::Builder::new()
                        .stack_size(128 * 1024)
                        .spawn(move || serve(stream, &name));
                }
            }
            Err(error) => eprintln!("estive-beat: port {port}: {error}"),
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn echo(mut stream: std::net::TcpStream, _name: &str) {
    use std::io::{Read, Write};
    let _ = stream.set_nodelay(true);
    let mut buffer = [0u8; 4096];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 || stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
