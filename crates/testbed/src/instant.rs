//! Time of measurements: microseconds since the epoch, from a clock that never steps back.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock is read once for each process; from there the monotonic clock counts. Processes of one machine agree
/// unless the wall clock is set between their starts.
fn origin() -> (u64, Instant) {
    static ORIGIN: OnceLock<(u64, Instant)> = OnceLock::new();
    *ORIGIN.get_or_init(|| {
        let epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        (
            u64::try_from(epoch.as_micros()).unwrap_or(u64::MAX),
            Instant::now(),
        )
    })
}

/// Microseconds since the epoch.
#[must_use]
pub fn now_us() -> u64 {
    let (epoch_us, began) = origin();
    epoch_us.saturating_add(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// Waits until `at_us`; returns at once if that has passed.
pub(crate) async fn sleep_until_us(at_us: u64) {
    let left = at_us.saturating_sub(now_us());
    if left > 0 {
        tokio::time::sleep(Duration::from_micros(left)).await;
    }
}
