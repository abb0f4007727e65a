//! The fault point of a push, in the words of the daemons' ones: `ESTIVE_FAULT=push.step:before:N`
//! makes the program end itself by SIGKILL before its N-th step, `push.step:stop:N` halt itself there by
//! SIGSTOP, so that the clone can be changed under its hands. Kept in what is shipped, so that what is
//! tested is what runs.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

const PREFIX: &str = "push.step:";

static WANTED: OnceLock<Option<(Signal, u64)>> = OnceLock::new();
static PASSED: AtomicU64 = AtomicU64::new(0);

/// Called before each change that can be seen from outside.
pub fn step() {
    let wanted = WANTED.get_or_init(|| {
        let fault = std::env::var("ESTIVE_FAULT").ok()?;
        let (word, number) = fault.strip_prefix(PREFIX)?.split_once(':')?;
        let signal = match word {
            "before" => Signal::KILL,
            "stop" => Signal::STOP,
            _ => return None,
        };
        Some((signal, number.parse().ok()?))
    });
    let Some((signal, wanted)) = *wanted else {
        return;
    };
    if PASSED.fetch_add(1, Ordering::SeqCst) + 1 == wanted {
        let _ = kill_process(getpid(), signal);
    }
}
