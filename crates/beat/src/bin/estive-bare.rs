//! `estive-bare`: the least that boots a Linux system, as the peer of the `boot` benchmark.
//!
//! As PID 1 of an initramfs it loads the modules listed in `/modules/order`, mounts `/dev/vda` (ext4, read-only unless told
//! `bare_writable=1`) and executes `/sbin/init` there. Without `/modules` it *is* that `/sbin/init`: it says so on the console, and waits.
#![allow(
    clippy::disallowed_methods,
    reason = "a guest program: it has no Clock seam"
)]

use rustix::mount::{MountFlags, mount};
use rustix::system::finit_module;
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn main() {
    if !Path::new("/modules").exists() {
        println!("estive-bare: init");
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    let Err(error) = boot();
    println!("estive-bare: error: {error}");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn boot() -> std::io::Result<Infallible> {
    let _ = std::fs::create_dir_all("/dev");
    mount("dev", "/dev", "devtmpfs", MountFlags::empty(), None)?;
    for name in std::fs::read_to_string("/modules/order")?.lines() {
        let file = std::fs::File::open(format!("/modules/{name}.ko"))?;
        finit_module(&file, c"", 0)?;
    }
    while !Path::new("/dev/vda").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    std::fs::create_dir_all("/root")?;
    // The kernel gives PID 1 the words of its command line that it does not know as environment.
    let flags = if std::env::var_os("bare_writable").is_some() {
        MountFlags::empty()
    } else {
        MountFlags::RDONLY
    };
    mount("/dev/vda", "/root", "ext4", flags, None)?;
    rustix::mount::mount_move("/dev", "/root/dev")?;
    rustix::process::chroot("/root")?;
    std::env::set_current_dir("/")?;
    Err(Command::new("/sbin/init").exec())
}
