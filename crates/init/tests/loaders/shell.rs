//! The shell of a root that a boot is rescued in: a few commands, a line each, answered by `done LINE`. Compiled by the
//! test itself, statically.

use std::ffi::{CString, c_char, c_int, c_ulong, c_void};
use std::io::{BufRead, Error};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::{fs, ptr, thread};

const MS_REMOUNT: c_ulong = 32;

// SAFETY: declared as in mount(2); it takes pointers and is not safe to call.
unsafe extern "C" {
    fn mount(source: *const c_char, target: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_void)
    -> c_int;
    safe fn kill(process: c_int, signal: c_int) -> c_int;
}

/// A program in the background, called so, that has a file open for writing and does not end by itself.
fn hold(name: &str, path: &str) -> std::io::Result<()> {
    let holding = fs::OpenOptions::new().append(true).open(path)?;
    // Of a group of its own, it does not hear of the shell's end.
    Command::new("/bin/sh").arg0(name).arg("hold").process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(holding).spawn()?;
    Ok(())
}

/// Kills a program by its name.
fn end(name: &str) -> std::io::Result<()> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let process = entry.file_name().to_string_lossy().parse();
        if let (Ok(process), true) = (process, words.split(|byte| *byte == 0).next() == Some(name.as_bytes())) {
            // SIGKILL
            kill(process, 9);
            return Ok(());
        }
    }
    Err(Error::other("no such program"))
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
    if std::env::args().nth(1).as_deref() == Some("hold") {
        loop {
            thread::park();
        }
    }
    println!("shell ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let done = match words[..] {
            ["exit"] => break,
            ["writable", path] => writable(path),
            ["rename", from, to] => fs::rename(from, to),
            ["write", path] => fs::write(path, "written"),
            ["hold", name, path] => hold(name, path),
            ["end", name] => end(name),
            _ => Err(Error::other("what?")),
        };
        println!("done {line}: {done:?}");
    }
}
