//! The real clock: the one place where services read the wall clock.

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl estive_model::Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the real part behind the Clock seam"
    )]
    fn now_ms(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            })
    }
}
