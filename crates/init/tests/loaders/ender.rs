//! The init of roots that are shut down while somebody writes. Compiled by the test itself, statically.
//!
//! The word `ender=` says how: `systemd` as systemd does it (a root of its own in `/run/initramfs`, and `shutdown`
//! there as PID 1), `stay` as an init that stays, `none` without any care.

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{fs, ptr, thread, time::Duration};

const MS_BIND: c_ulong = 1 << 12;
const MS_REC: c_ulong = 1 << 14;
const MS_PRIVATE: c_ulong = 1 << 18;
const MS_SHARED: c_ulong = 1 << 20;
const SYS_PIVOT_ROOT: c_long = 155;
const POWER_OFF: c_int = 0x4321_fedc;
const ENOUGH_BYTES: u64 = 1 << 20;

// SAFETY: declared as in mount(2), pivot_root(2), chroot(2), reboot(2) and sync(2); those that take pointers are not
// safe to call.
unsafe extern "C" {
    fn mount(source: *const c_char, target: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_void)
    -> c_int;
    fn syscall(number: c_long, first: *const c_char, second: *const c_char) -> c_long;
    fn chroot(path: *const c_char) -> c_int;
    safe fn reboot(command: c_int) -> c_int;
    safe fn sync();
}

fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn check(what: &str, result: c_long) {
    if result != 0 {
        println!("fact error={what}: {}", std::io::Error::last_os_error());
    }
}

fn change(source: &str, target: &str, flags: c_ulong) {
    let (from, to) = (text(source), text(target));
    // SAFETY: all pointers are to strings that live through the call, or null where mount(2) takes that.
    let result = unsafe { mount(from.as_ptr(), to.as_ptr(), ptr::null(), flags, ptr::null()) };
    check(target, result.into());
}

/// Writes without end, and never asks whether it is on disk.
fn write() -> ! {
    let mut file = fs::OpenOptions::new().create(true).append(true).open("/busy").unwrap();
    let mut number = 0_u64;
    loop {
        number += 1;
        let _ = writeln!(file, "{number:1023}");
        let _ = fs::write(format!("/made-{}", number % 50), "again");
        let _ = fs::remove_file(format!("/made-{}", (number + 25) % 50));
        if number % 4000 == 0 {
            let _ = file.set_len(ENOUGH_BYTES);
        }
    }
}

/// As systemd 252 does in its src/shutdown/shutdown.c and src/shared/switch-root.c.
fn exit_as_systemd() {
    let place = "/run/initramfs";
    change(place, place, MS_BIND);
    change("", "/", MS_REC | MS_PRIVATE);
    for name in ["dev", "proc", "sys", "run"] {
        let target = format!("{place}/{name}");
        fs::create_dir_all(&target).unwrap();
        change(&format!("/{name}"), &target, MS_BIND);
    }
    fs::create_dir_all(format!("{place}/oldroot")).unwrap();
    std::env::set_current_dir(place).unwrap();
    let (here, old) = (text("."), text("oldroot"));
    // SAFETY: strings that live through the calls.
    unsafe {
        check("pivot_root", syscall(SYS_PIVOT_ROOT, here.as_ptr(), old.as_ptr()));
        check("chroot", chroot(here.as_ptr()).into());
    }
    let _ = std::env::set_current_dir("/");
    let error = Command::new("/shutdown").args(["poweroff", "--log-level", "6"]).exec();
    println!("fact error=/shutdown: {error}");
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("write") {
        write();
    }
    let line = fs::read_to_string("/proc/cmdline").unwrap();
    let how = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("ender=")).unwrap_or("none");
    change("", "/", MS_REC | MS_SHARED);
    Command::new("/bin/ender").arg("write").spawn().unwrap();
    while fs::metadata("/busy").map_or(0, |busy| busy.len()) < ENOUGH_BYTES {
        thread::sleep(Duration::from_millis(10));
    }
    println!("fact ending={how}");
    match how {
        "systemd" => exit_as_systemd(),
        "stay" => {
            let ended = Command::new("/.unions/estive").args(["shutdown", "poweroff"]).status();
            println!("fact error=shutdown: {ended:?}");
        }
        _ => {}
    }
    sync();
    reboot(POWER_OFF);
}
