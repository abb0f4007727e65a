//! Waiting that ends: calls to a dead server or disk may never return.

use std::sync::mpsc;
use std::time::Duration;

use crate::console::uptime_ms;

/// A point in time after which nothing is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    uptime_ms: u64,
}

impl Deadline {
    pub fn in_seconds(seconds: u64) -> Deadline {
        Deadline {
            uptime_ms: uptime_ms() + seconds * 1000,
        }
    }

    pub fn is_over(self) -> bool {
        uptime_ms() > self.uptime_ms
    }
}

/// What `call` gives, or `None` when it has not returned in time; it is then left behind.
pub fn bounded<T: Send + 'static>(
    seconds: u64,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .spawn(move || sender.send(call()))
        .ok()?;
    receiver.recv_timeout(Duration::from_secs(seconds)).ok()
}
