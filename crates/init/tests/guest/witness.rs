//! The init of a root made by hand: prints what it finds, one fact a line, and powers off.
//! Compiled by the test itself, statically: its root has nothing else.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

// SAFETY: declared as in reboot(2) of glibc, sync(2) and umask(2); none takes a pointer.
unsafe extern "C" {
    safe fn reboot(command: i32) -> i32;
    safe fn sync();
    safe fn umask(mask: u32) -> u32;
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

fn list(path: &str) -> String {
    match fs::read_dir(path) {
        Ok(entries) => {
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names.join(",")
        }
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Lays the layer that lies at this path over the running clone.
fn push(path: &str) {
    let Ok(layer) = fs::File::open(path) else { return };
    let pushed = std::process::Command::new("/.unions/estive").arg("apply").stdin(layer).output();
    match pushed {
        Ok(pushed) => {
            fact("pushed", String::from_utf8_lossy(&pushed.stdout).trim());
            fact("push error", String::from_utf8_lossy(&pushed.stderr).trim());
        }
        Err(error) => fact("push error", error),
    }
    for path in ["/etc/kept", "/etc/hidden", "/etc/replaced", "/etc/private/key", "/etc/own"] {
        fact(&format!("pushed {path}"), text(path));
    }
    for path in ["/etc/opaque", "/etc/merged"] {
        fact(&format!("pushed {path}"), list(path));
    }
    let inode = |path: &str| fs::metadata(path).map(|found| found.ino()).unwrap_or(0);
    fact("pushed linked", inode("/etc/one") == inode("/etc/three") && inode("/etc/one") != 0);
}

fn main() {
    fact("pid", std::process::id());
    fact("arguments", std::env::args().skip(1).collect::<Vec<_>>().join(","));
    fact("umask", format!("{:03o}", umask(0o22)));
    fact("hostname", text("/proc/sys/kernel/hostname"));
    fact("mac", text("/sys/class/net/eth0/address"));
    fact("up", text("/sys/class/net/eth0/flags"));
    let bound = std::net::UdpSocket::bind("10.0.2.15:0").is_ok();
    fact("address", bound);
    fact("loopback", std::net::UdpSocket::bind("127.0.0.1:0").is_ok());
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    // 10.0.2.2, in the byte order of that file.
    fact("gateway", routes.lines().any(|line| line.starts_with("eth0\t00000000\t0202000A")));
    for path in [
        "/etc/hostname", "/etc/kept", "/etc/hidden", "/etc/replaced", "/.unions/root/etc/hidden",
        "/.unions/root/etc/replaced", "/written",
    ] {
        fact(path, text(path));
    }
    for path in ["/etc/opaque", "/etc/merged", "/.unions", "/"] {
        fact(path, list(path));
    }
    for path in ["/", "/etc/private", "/etc/private/key", "/tmp", "/.unions", "/etc/plain"] {
        let found = fs::metadata(path).unwrap();
        fact(&format!("mode {path}"), format!("{:o} {} {}", found.mode() & 0o7777, found.uid(), found.gid()));
    }
    let inode = |path: &str| fs::metadata(path).map(|found| found.ino()).unwrap_or(0);
    fact("linked", inode("/etc/one") == inode("/etc/two") && inode("/etc/one") != 0);
    let device = fs::metadata("/etc/null").unwrap();
    fact("device", device.file_type().is_char_device() && device.rdev() == 0x103);
    fs::write("/written", "here").unwrap();
    fact("memory", text("/.unions/memory/upper/written"));
    let release = text("/proc/sys/kernel/osrelease");
    let modules = fs::metadata(format!("/lib/modules/{release}/modules.dep"));
    fact("modules", modules.is_ok_and(|found| found.len() > 0));
    fact("lib", fs::read_link("/lib").is_ok());
    let mounts = text("/proc/mounts");
    fact("initramfs", mounts.split('|').any(|mount| mount.contains(" /u/") || mount.contains(" /new")));
    fs::write("/etc/own", "the clone's").unwrap();
    // Its own: the first push takes away what its layer does not have.
    let _ = fs::copy("/push", "/layer");
    push("/layer");
    push("/layer");
    println!("fact end");
    sync();
    // LINUX_REBOOT_CMD_POWER_OFF
    reboot(0x4321_fedc);
    loop {
        std::thread::park();
    }
}
