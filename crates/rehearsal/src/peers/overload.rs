//! When a peer takes a host for overloaded.

/// The rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Overload {
    /// THR: more is asked than this share of the host.
    Threshold(f64),
    /// IQR: more than 1 less so many times the interquartile range of the host's past loads.
    InterQuartile(f64),
    /// MAD: more than 1 less so many times the median absolute deviation of the host's past loads.
    MedianDeviation(f64),
    /// LR: a straight line through the last ten loads, at the end of the longest move, times this, reaches 1.
    LocalRegression(f64),
}

/// What the rules fall back to where too little is remembered.
const FALLBACK: f64 = 0.7;
/// Samples that the two rules of spread want.
const SPREAD_SAMPLES: usize = 12;
/// Samples that the regression wants.
const REGRESSION_SAMPLES: usize = 10;

impl Overload {
    /// Whether a host is overloaded. `asked` is the share of it that is asked now, `history` the sums of its present
    /// guests' past loads as shares of it, the newest first; `longest_move` the longest move of one of them in ticks,
    /// rounded up.
    pub fn test(self, asked: f64, history: &[f64], longest_move: f64) -> bool {
        let known = history
            .iter()
            .rposition(|&load| load != 0.0)
            .map_or(1, |at| at + 1);
        let history = &history[..known.min(history.len())];
        match self {
            Self::Threshold(bound) => asked > bound,
            Self::InterQuartile(times) if known >= SPREAD_SAMPLES => {
                asked > 1.0 - times * inter_quartile_range(history)
            }
            Self::MedianDeviation(times) if known >= SPREAD_SAMPLES => {
                asked > 1.0 - times * median_deviation(history)
            }
            Self::LocalRegression(times) if known >= REGRESSION_SAMPLES => {
                let (at_0, slope) = line(&history[..REGRESSION_SAMPLES]);
                (at_0 + slope * (REGRESSION_SAMPLES as f64 + longest_move)) * times >= 1.0
            }
            _ => asked > FALLBACK,
        }
    }

    /// Its name in tables.
    pub fn name(self) -> String {
        match self {
            Self::Threshold(bound) => format!("THR-MMT-{bound}"),
            Self::InterQuartile(times) => format!("IQR-MMT-{times}"),
            Self::MedianDeviation(times) => format!("MAD-MMT-{times}"),
            Self::LocalRegression(times) => format!("LR-MMT-{times}"),
        }
    }
}

/// Quartiles by nearest rank of (n + 1) parts.
fn inter_quartile_range(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = |share: f64| (share * (sorted.len() + 1) as f64 + 0.5).floor() as usize - 1;
    sorted[rank(0.75)] - sorted[rank(0.25)]
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[half]
    } else {
        sorted[half - 1] + (sorted[half] - sorted[half - 1]) * 0.5
    }
}

fn median_deviation(values: &[f64]) -> f64 {
    let middle = median(values);
    let distances: Vec<f64> = values.iter().map(|value| (middle - value).abs()).collect();
    median(&distances)
}

/// Least squares through values at 1, 2, …, the newest first in `newest_first`: value at 0, and slope.
fn line(newest_first: &[f64]) -> (f64, f64) {
    let count = newest_first.len() as f64;
    let mean_x = (count + 1.0) / 2.0;
    let mean_y = newest_first.iter().sum::<f64>() / count;
    let (mut xy, mut xx) = (0.0, 0.0);
    for (place, value) in newest_first.iter().rev().enumerate() {
        let from_mean = place as f64 + 1.0 - mean_x;
        xy += from_mean * (value - mean_y);
        xx += from_mean * from_mean;
    }
    let slope = xy / xx;
    (mean_y - slope * mean_x, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_through_a_line_is_that_line() {
        // 3, 5, 7, …: at 0 it is 1, and it rises by 2.
        let newest_first: Vec<f64> = (1..=10).rev().map(|x| 1.0 + 2.0 * f64::from(x)).collect();
        let (at_0, slope) = line(&newest_first);
        assert!((at_0 - 1.0).abs() < 1e-12 && (slope - 2.0).abs() < 1e-12);
    }

    #[test]
    fn regression_looks_to_the_end_of_the_longest_move() {
        // 0.50, 0.52, …, 0.68, and 0.70 one tick later: 1.2 × 0.70 = 0.84; two more ticks of 0.10 make it 1 and more.
        let newest_first: Vec<f64> = (0..10).rev().map(|x| 0.5 + 0.02 * f64::from(x)).collect();
        let rule = Overload::LocalRegression(1.2);
        assert!(!rule.test(0.68, &newest_first, 1.0));
        assert!(rule.test(0.68, &newest_first, 8.0));
    }

    #[test]
    fn too_little_remembered_falls_back_to_seven_tenths() {
        let nine = [0.1; 9];
        assert!(Overload::LocalRegression(1.2).test(0.71, &nine, 1.0));
        assert!(!Overload::LocalRegression(1.2).test(0.69, &nine, 1.0));
        assert!(Overload::InterQuartile(1.5).test(0.71, &[0.1; 11], 1.0));
        assert!(!Overload::InterQuartile(1.5).test(0.71, &[0.1; 12], 1.0));
    }

    #[test]
    fn spreads_of_one_to_twelve() {
        let values: Vec<f64> = (1..=12).map(f64::from).collect();
        // Ranks round(0.25 × 13) = 3 and round(0.75 × 13) = 10.
        assert_eq!(inter_quartile_range(&values), 7.0);
        // Median 6.5; distances 0.5, 0.5, 1.5, 1.5, …, 5.5, 5.5.
        assert_eq!(median_deviation(&values), 3.0);
    }
}
