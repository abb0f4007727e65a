//! PID 1 of the smallest guest that shows whether it runs: it counts on the console, and powers off when the power
//! button is pressed. With `dirty_mib=N` on the kernel's command line it also writes to N MiB without a pause, and says
//! `torn` when a page does not hold what it wrote there. Built by `tests/guest.rs` with `rustc` alone, static.

use std::ffi::{c_int, c_long};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

// SAFETY: the C library's own signatures of syscall(2) and reboot(2).
unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn reboot(command: c_int) -> c_int;
}

const SYS_FINIT_MODULE: c_long = 313;
const MODULE_INIT_COMPRESSED_FILE: c_int = 4;
const RB_POWER_OFF: c_int = 0x4321_fedc;
/// `struct input_event`: time (16 bytes), type, code, value.
const EVENT_BYTES: usize = 24;
const KEY_POWER: u16 = 116;

fn main() {
    for name in ["/button.ko", "/evdev.ko", "/button.ko.xz", "/evdev.ko.xz"] {
        let Ok(file) = File::open(name) else { continue };
        let flags = if name.ends_with(".xz") { MODULE_INIT_COMPRESSED_FILE } else { 0 };
        // SAFETY: finit_module(fd, parameters, flags) with a descriptor and a string that outlive the call.
        unsafe { syscall(SYS_FINIT_MODULE, file.as_raw_fd(), c"".as_ptr(), flags) };
    }
    for number in 0..4 {
        let Ok(mut events) = File::open(format!("/dev/event{number}")) else { continue };
        std::thread::spawn(move || {
            let mut event = [0; EVENT_BYTES];
            while events.read_exact(&mut event).is_ok() {
                if u16::from_ne_bytes([event[18], event[19]]) == KEY_POWER {
                    // SAFETY: takes no pointer.
                    unsafe { reboot(RB_POWER_OFF) };
                }
            }
        });
    }
    // The kernel hands what it does not know of its command line to PID 1 as its environment.
    if let Some(dirty_mib) = std::env::var("dirty_mib").ok().and_then(|text| text.parse().ok()) {
        std::thread::spawn(move || dirty(dirty_mib));
    }
    let mut console = std::io::stdout();
    for number in 1u64.. {
        // A console that takes nothing is no reason to stop.
        let _ = writeln!(console, "count {number}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Writes a word into every page, round after round; each must still be there one round later.
fn dirty(dirty_mib: usize) {
    const WORDS_IN_A_PAGE: usize = 512;
    let mut words = vec![0u64; (dirty_mib << 20) / 8];
    for round in 1u64.. {
        for (page, word) in words.iter_mut().step_by(WORDS_IN_A_PAGE).enumerate() {
            // Another value in every page: a page in the wrong place is seen too.
            let before = (round - 1) * (page as u64 + 1);
            if std::hint::black_box(*word) != before {
                println!("torn: page {page} holds {word}, not {before}");
            }
            *word = before + page as u64 + 1;
        }
        if round.is_power_of_two() {
            println!("round {round}");
        }
    }
}
