//! How far a guest's clock is from ours, asked through `GET /estive/time`, which answers `SECONDS.MILLISECONDS`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use estive_network::namespace::Namespace;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::gauge::{Gauge, say, say_ready};
use crate::http_get::get;
use crate::instant::now_us;

const SAMPLES: usize = 5;
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The guest's clock less ours, from the quickest of some samples (Cristian's method).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffset {
    /// Positive: the guest is ahead. In ms; the guest's answer has whole milliseconds.
    pub offset_ms: i64,
    /// Time of that question and answer, in ms: the offset is not surer than half of it.
    pub round_trip_ms: u64,
}

/// Asks the guest at `address` from `namespace`.
pub async fn clock_offset(
    tool: &Path,
    namespace: &Namespace,
    address: SocketAddr,
) -> Result<ClockOffset, Error> {
    let gauge: Gauge<ClockOffset> =
        Gauge::start("clock", tool, namespace, &[format!("--address={address}")]).await?;
    let none = || Error::Gauge {
        what: format!("clock of {address}"),
        problem: "it gave no answer".to_owned(),
    };
    gauge.finish().await?.pop().ok_or_else(none)
}

/// In the measuring process.
pub async fn run(address: SocketAddr) -> Result<(), Error> {
    say_ready()?;
    let mut best: Option<ClockOffset> = None;
    for _ in 0..SAMPLES {
        let before_us = now_us();
        let asked = tokio::time::timeout(ANSWER_LIMIT, ask(address)).await;
        let after_us = now_us();
        let what = || format!("http://{address}/estive/time");
        let guest_us = asked
            .map_err(|_| Error::TooSlow {
                what: what(),
                limit_s: ANSWER_LIMIT.as_secs(),
            })?
            .map_err(|problem| Error::Gauge {
                what: what(),
                problem,
            })?;
        let sample = offset(guest_us, before_us, after_us);
        if best.is_none_or(|best| sample.round_trip_ms < best.round_trip_ms) {
            best = Some(sample);
        }
    }
    best.map_or(Ok(()), |best| say(&best))
}

fn offset(guest_us: u64, before_us: u64, after_us: u64) -> ClockOffset {
    let middle_us = before_us + after_us.saturating_sub(before_us) / 2;
    let difference_us =
        i64::try_from(i128::from(guest_us) - i128::from(middle_us)).unwrap_or(i64::MAX);
    ClockOffset {
        offset_ms: difference_us / 1000,
        round_trip_ms: after_us.saturating_sub(before_us) / 1000,
    }
}

async fn ask(address: SocketAddr) -> Result<u64, String> {
    let body = get(address, "/estive/time").await?;
    let text = String::from_utf8_lossy(&body);
    let shown: String = text.trim().chars().take(80).collect();
    microseconds(text.trim()).ok_or_else(|| format!("{shown:?} is not SECONDS.MILLISECONDS"))
}

fn microseconds(text: &str) -> Option<u64> {
    let (seconds, milliseconds) = text.split_once('.')?;
    let digits = milliseconds.len() == 3 && milliseconds.bytes().all(|byte| byte.is_ascii_digit());
    let milliseconds: u64 = digits.then(|| milliseconds.parse().ok())??;
    seconds
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000)?
        .checked_add(milliseconds * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_read_exactly() {
        assert_eq!(microseconds("1763700000.042"), Some(1_763_700_000_042_000));
        for bad in [
            "",
            "1",
            "1.",
            "1.5",
            "1.0421",
            "x.042",
            "1.+42",
            "99999999999999999999.000",
        ] {
            assert_eq!(microseconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_offset_counts_from_the_middle_of_the_round_trip() {
        let ahead = offset(1_030_000, 1_000_000, 1_020_000);
        assert_eq!(
            ahead,
            ClockOffset {
                offset_ms: 20,
                round_trip_ms: 20
            }
        );
        assert_eq!(offset(990_000, 1_000_000, 1_020_000).offset_ms, -20);
    }
}
