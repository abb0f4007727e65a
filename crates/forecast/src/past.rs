//! Which method is believed: each is asked at several moments of the past for what came after them.

use serde::{Deserialize, Serialize};

use crate::Shape;
use crate::model::{Method, TRIED, most};

/// No horizon is longer, in windows.
pub(crate) const LONGEST: usize = 2016;
/// At so many moments of the past.
const MOMENTS: usize = 6;
/// Fewer windows than this before a moment say nothing.
const LEAST: usize = 12;
/// A method must be off by this share of what "as now" is off, or less.
const BETTER: f64 = 0.9;

/// How far off a forecast was on a past that it had not seen.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Held {
    /// Mean distance between what was foreseen and what came, in the kind's unit.
    pub error: f64,
    /// The same for "as now".
    pub as_now: f64,
    /// At how many moments; 0: the past is too short to say.
    pub moments: u32,
}

/// The method that was off least, with how far; "as now" unless another was clearly better.
pub(crate) fn best(series: &[f64], shape: Shape) -> (Method, Held) {
    let moments = moments(series.len(), shape.horizon);
    let Some(as_now) = error(Method::AsNow, series, shape, &moments) else {
        return (Method::AsNow, Held::default());
    };
    let held = |error| Held {
        error,
        as_now,
        moments: moments.len() as u32,
    };
    let mut best = (Method::AsNow, held(as_now));
    if as_now == 0.0 {
        return best;
    }
    for method in TRIED {
        let tried = error(method, series, shape, &moments);
        if let Some(error) = tried.filter(|&error| error <= BETTER * as_now && error < best.1.error)
        {
            best = (method, held(error));
        }
    }
    best
}

/// Ends of what is known at each moment, over the later half of the past, the horizon after each being past too.
fn moments(length: usize, horizon: usize) -> Vec<usize> {
    let Some(last) = length.checked_sub(horizon) else {
        return Vec::new();
    };
    let first = (length / 2).max(LEAST);
    if last < first {
        return Vec::new();
    }
    let count = MOMENTS.min(last - first + 1);
    let mut moments: Vec<usize> = (0..count)
        .map(|nth| last - nth * (last - first) / count)
        .collect();
    moments.dedup();
    moments
}

fn error(method: Method, series: &[f64], shape: Shape, moments: &[usize]) -> Option<f64> {
    if moments.is_empty() {
        return None;
    }
    let mut sum = 0.0;
    for &moment in moments {
        let foreseen = most(method, &series[..moment], shape)?;
        let after = &series[moment..moment + shape.horizon];
        let came = after.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        sum += (foreseen - came).abs();
    }
    Some(sum / moments.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_leave_room_for_what_came_after() {
        assert_eq!(moments(20, 8), [12]);
        assert!(moments(10, 1).is_empty());
        assert!(moments(5, 9).is_empty());
        let many = moments(288, 12);
        assert_eq!(many.len(), MOMENTS);
        assert!(many.iter().all(|&moment| (144..=276).contains(&moment)));
    }

    #[test]
    fn a_method_is_believed_only_where_it_was_off_less() {
        // A generator of noise without memory (Park and Miller 1988): nothing can be foreseen of it but its mean.
        let mut state = 7u64;
        let series: Vec<f64> = (0..96)
            .map(|_| {
                state = state * 48_271 % 2_147_483_647;
                (state % 1000) as f64
            })
            .collect();
        let shape = Shape {
            horizon: 1,
            day: 24,
        };
        let (method, held) = best(&series, shape);
        assert_eq!(held.moments, 6);
        assert_eq!(method != Method::AsNow, held.error < held.as_now);
        assert!(method == Method::AsNow || held.error <= BETTER * held.as_now);
    }
}
