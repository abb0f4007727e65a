//! Ending what still runs.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use super::patience::Deadline;
use crate::console::say;

/// Who is not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spare {
    Nobody,
    /// Programs that serve the root itself begin their name with `@` (systemd's "Storage Daemons
    /// for the Root File System").
    Storage,
    /// Whoever asked for this, and waits for it.
    Ancestors,
}

const TERM_SECONDS: u64 = 5;
const KILL_SECONDS: u64 = 5;
const POLL: Duration = Duration::from_millis(20);

/// Asks every other process to end, then makes it.
pub fn end(spare: Spare) {
    for (signal, seconds) in [(Signal::TERM, TERM_SECONDS), (Signal::KILL, KILL_SECONDS)] {
        let deadline = Deadline::in_seconds(seconds);
        let mut told = BTreeSet::new();
        loop {
            reap();
            let others = others(spare);
            if others.is_empty() {
                return;
            }
            for (pid, _) in &others {
                // Again only when killing: what ends itself is not to be asked twice.
                if told.insert(*pid) || signal == Signal::KILL {
                    // It may be gone by now.
                    let _ = Pid::from_raw(*pid).map(|pid| kill_process(pid, signal));
                }
            }
            if deadline.is_over() {
                if signal == Signal::KILL {
                    let names: Vec<&str> = others.iter().map(|(_, name)| name.as_str()).collect();
                    say(&format!("these programs do not end: {}", names.join(", ")));
                }
                break;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Of PID 1, every process whose parent is gone.
fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Numbers and names.
fn others(spare: Spare) -> Vec<(i32, String)> {
    let ancestors = ancestors();
    let mut others = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let first_words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // Threads of the kernel have no words, nor do those that have ended.
        let is_spared = pid == 1
            || pid == std::process::id().cast_signed()
            || first_words.is_empty()
            || (spare == Spare::Storage && first_words.starts_with(b"@"))
            || (spare == Spare::Ancestors && ancestors.contains(&pid));
        if !is_spared {
            let program = first_words.split(|byte| *byte == 0).next();
            let program = String::from_utf8_lossy(program.unwrap_or_default()).into_owned();
            others.push((pid, program));
        }
    }
    others
}

fn ancestors() -> BTreeSet<i32> {
    let mut ancestors = BTreeSet::new();
    let mut pid = std::process::id().cast_signed();
    while pid > 1 && ancestors.insert(pid) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        pid = parent
            .and_then(|parent| parent.trim().parse().ok())
            .unwrap_or(0);
    }
    ancestors
}
