//! The fault point of a push, in the words of the daemons' ones: `ESTIVE_FAULT=push.step:before:N`
//! makes the program end itself by SIGKILL before its N-th step. Kept in what is shipped, so that what
//! is tested is what runs.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

const PREFIX: &str = "push.step:before:";

static WANTED: OnceLock<Option<u64>> = OnceLock::new();
static PASSED: AtomicU64 = AtomicU64::new(0);

/// Called before each change that can be seen from outside.
pub fn step() {
    let wanted = WANTED.get_or_init(|| {
        let fault = std::env::var("ESTIVE_FAULT").ok()?;
        fault.strip_prefix(PREFIX)?.parse().ok()
    });
    if wanted.is_some_and(|wanted| PASSED.fetch_add(1, Ordering::SeqCst) + 1 == wanted) {
        let _ = kill_process(getpid(), Signal::KILL);
    }
}
