//! Writing what is in memory, for as long as it gets less.

use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use crate::console::say;

/// Without any progress for so long, `PATIENCE` times, the disk or the server is given up.
const LOOK: Duration = Duration::from_secs(5);
const PATIENCE: u32 = 4;

/// sync(2), which on a slow disk may take minutes and on a dead one never returns.
pub fn flush() {
    let (sender, receiver) = mpsc::channel();
    let writer = std::thread::Builder::new().spawn(move || {
        rustix::fs::sync();
        sender.send(())
    });
    if writer.is_err() {
        return;
    }
    let (mut least_kib, mut idle) = (unwritten_kib(), 0);
    while receiver.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
        let left_kib = unwritten_kib();
        if left_kib < least_kib {
            (least_kib, idle) = (left_kib, 0);
            continue;
        }
        idle += 1;
        if idle == PATIENCE {
            say(&format!(
                "shutdown: {left_kib} KiB are not written and do not get less: going on without"
            ));
            return;
        }
    }
}

fn unwritten_kib() -> u64 {
    parse(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

/// What waits to be written, and what is being (proc_meminfo(5)).
fn parse(meminfo: &str) -> u64 {
    let line = |name: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    let names = ["Dirty:", "Writeback:", "NFS_Unstable:"];
    names.iter().filter_map(|name| line(name)).sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_not_written_is_added() {
        let text = "MemFree:  9 kB\nDirty:             12 kB\nWriteback:         3 kB\nWritebackTmp:      1 kB\n";
        assert_eq!(super::parse(text), 15);
        assert_eq!(super::parse(""), 0);
    }
}
