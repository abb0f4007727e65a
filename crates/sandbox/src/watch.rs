//! Watching a script from outside: its time, what it prints, and the memory of all its processes.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::time::{ClockId, clock_gettime};

use crate::limits::{Limits, shown_bytes};

/// Between two looks at its memory, in milliseconds.
const LOOK_MS: u64 = 20;

/// Processes looked at in one look: more than it may have.
const MAX_PROCESSES: usize = 4096;

/// What was seen.
pub(crate) struct Watched {
    /// Why we killed it, if we did.
    pub killed: Option<String>,
    pub printed: Vec<u8>,
}

/// Watches until the first process has ended; kills it when it takes too much. Does not reap it.
pub(crate) fn watch(
    first: Pid,
    printed: &OwnedFd,
    processes: &OwnedFd,
    limits: &Limits,
) -> Result<Watched, String> {
    let held = pidfd_open(first, PidfdFlags::empty())
        .map_err(|error| format!("watching its first process: {error}"))?;
    rustix::io::ioctl_fionbio(printed, true)
        .map_err(|error| format!("reading what it prints: {error}"))?;
    let deadline_ms = now_ms() + limits.wall_ms;
    let mut next_look_ms = now_ms() + LOOK_MS;
    let mut watched = Watched {
        killed: None,
        printed: Vec::new(),
    };
    let mut listening = true;
    loop {
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: (LOOK_MS * 1_000_000).cast_signed(),
        };
        let mut ends = [
            PollFd::new(&held, PollFlags::IN),
            PollFd::new(printed, PollFlags::IN),
        ];
        // A pipe that has ended is always ready: it is not asked again.
        let asked = if listening { 2 } else { 1 };
        match poll(&mut ends[..asked], Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("watching it: {error}")),
        }
        let over = !ends[0].revents().is_empty();
        let heard = listening && !ends[1].revents().is_empty();
        if heard || over {
            listening = hear(printed, &mut watched, limits);
        }
        if over {
            return Ok(watched);
        }
        if watched.killed.is_none() {
            if watched.printed.len() > limits.messages_bytes {
                let most = shown_bytes(limits.messages_bytes as u64);
                watched.killed = Some(format!("printed more than {most}"));
            } else if now_ms() >= deadline_ms {
                watched.killed = Some(format!("did not end within {} ms", limits.wall_ms));
            } else if now_ms() >= next_look_ms {
                if memory_bytes(processes, first) > limits.memory_bytes {
                    let most = shown_bytes(limits.memory_bytes);
                    watched.killed = Some(format!(
                        "its processes took more than {most} of memory together"
                    ));
                }
                next_look_ms = now_ms() + LOOK_MS;
            }
            if watched.killed.is_some() {
                end(first);
            }
        }
    }
}

/// Ends the first process, and with it all.
pub(crate) fn end(first: Pid) {
    // Not reaped yet, so the number is its own; it may have ended by itself.
    let _ = kill_process(first, Signal::KILL);
}

pub(crate) fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1000 + now.tv_nsec.cast_unsigned() / 1_000_000
}

/// Takes what there is, and a little more than the limit at most; false when nothing will come any more.
fn hear(printed: &OwnedFd, watched: &mut Watched, limits: &Limits) -> bool {
    let mut buffer = [0; 16 << 10];
    while watched.printed.len() <= limits.messages_bytes {
        match rustix::io::read(printed, &mut buffer) {
            Ok(0) => return false,
            Ok(count) => watched.printed.extend_from_slice(&buffer[..count]),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return true,
            Err(_) => return false,
        }
    }
    // Too much, and it will be killed for it.
    false
}

/// Anonymous and shared memory of `first` and all that came from it. A process that ends while we look counts nothing.
fn memory_bytes(processes: &OwnedFd, first: Pid) -> u64 {
    let mut waiting = vec![first.as_raw_nonzero().get()];
    let mut seen = 0;
    let mut sum_kib = 0_u64;
    while let Some(pid) = waiting.pop() {
        seen += 1;
        if seen > MAX_PROCESSES {
            break;
        }
        let status = text_of(processes, &format!("{pid}/status"));
        for line in status.lines() {
            let value = line
                .strip_prefix("RssAnon:")
                .or_else(|| line.strip_prefix("RssShmem:"));
            let kib = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            sum_kib += kib.unwrap_or_default();
        }
        for thread in threads(processes, pid) {
            let children = text_of(processes, &format!("{pid}/task/{thread}/children"));
            waiting.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|number| number.parse::<i32>().ok()),
            );
        }
    }
    sum_kib << 10
}

/// Any of them may have children of its own.
fn threads(processes: &OwnedFd, pid: i32) -> Vec<i32> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(processes, format!("{pid}/task"), flags, Mode::empty());
    let Ok(entries) = directory.and_then(rustix::fs::Dir::new) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str().ok()?.parse().ok())
        .collect()
}

fn text_of(processes: &OwnedFd, path: &str) -> String {
    let mut bytes = Vec::new();
    let Ok(file) = openat(
        processes,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return String::new();
    };
    let file = std::fs::File::from(file);
    let _ = std::io::Read::read_to_end(&mut std::io::Read::take(file, 64 << 10), &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
