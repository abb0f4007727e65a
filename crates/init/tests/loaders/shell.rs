//! The shell of a root that a boot is rescued in: a few commands, a line each, answered by `done LINE`. Compiled by the
//! test itself, statically.

use std::ffi::{CString, c_char, c_int, c_ulong, c_void};
use std::io::BufRead;
use std::{fs, ptr};

const MS_REMOUNT: c_ulong = 32;

// SAFETY: declared as in mount(2); it takes pointers and is not safe to call.
unsafe extern "C" {
    fn mount(source: *const c_char, target: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_void)
    -> c_int;
}

/// Makes a mount writable.
fn writable(path: &str) -> std::io::Result<()> {
    let path = CString::new(path).unwrap();
    // SAFETY: a string that lives through the call; a remount takes null for the others.
    match unsafe { mount(ptr::null(), path.as_ptr(), ptr::null(), MS_REMOUNT, ptr::null()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn main() {
    println!("shell ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let done = match words[..] {
            ["exit"] => break,
            ["writable", path] => writable(path),
            ["rename", from, to] => fs::rename(from, to),
            ["write", path] => fs::write(path, "written"),
            _ => Err(std::io::Error::other("what?")),
        };
        println!("done {line}: {done:?}");
    }
}
