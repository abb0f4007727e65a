//! Questions to a collector, as the paper has them (Dib 2010, section 4.3.2): how long, how long one would wait, whether an
//! approximate answer will do; each window, their mean, or a mean in which the last window counts *i* times the one before
//! it, and so on. Where none of the three ways holds, the question is given back with how to ask it again.
//!
//! A question is about the time from `duration` ago until now. The window that now is in is not over: who waits gets it
//! whole, with as many before it; for who does not, and takes an approximation, what is gone of it is held to be like the window
//! before, and so is one that has ended and is not in yet. An exact answer without waiting there is only at a window's end.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::collected::Collected;
use crate::window::{Party, Volume};

/// A question. Fractions of a window at the beginning count as the whole window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// Over how many milliseconds until now.
    pub duration_ms: u64,
    /// How many milliseconds one would wait for an exact answer.
    pub wait_ms: u64,
    /// Whether an approximate one will do.
    pub approximate: bool,
    /// What is asked for.
    pub kind: Kind,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Each window.
    Detailed,
    /// Their mean.
    Mean,
    /// A mean in which each window counts so many times the one before it; more than 0.
    Weighted(f64),
    /// A mean by weights, the oldest window's first; as many as there are windows.
    Weights(Vec<f64>),
}

/// What comes of a question now.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is this.
    Now(Result),
    /// Ask the same again at this moment, or as soon as what is missing has come: milliseconds since 1970. No longer
    /// than the question would wait.
    Wait {
        /// When.
        until_ms: u64,
    },
    /// It cannot be answered as it was asked.
    Refused(Refusal),
}

/// Why not, and how to ask instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The last window is not in, and neither waiting that long nor an approximation was allowed.
    #[error(
        "the last window is not in: ask again with a wait of {wait_ms} ms, or with an approximation allowed"
    )]
    Rephrase {
        /// A wait that is long enough if sensors send in time.
        wait_ms: u64,
    },
    /// Nothing was kept of so long ago.
    #[error("nothing is kept from before window {oldest}: ask again over {duration_ms} ms")]
    NotKept {
        /// The oldest window.
        oldest: u64,
        /// What can be asked for.
        duration_ms: u64,
    },
    /// The weights are not as many as the windows, or one is no number from 0 to 1e100, or all are 0.
    #[error("weights must be {windows} numbers from 0 to 1e100, and not all 0")]
    Weights {
        /// How many windows there are.
        windows: u64,
    },
    /// There is nothing at all.
    #[error("no window has come yet")]
    Nothing,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Result {
    /// Windows that it is about, the oldest first.
    pub rows: Vec<Row>,
    /// The mean for each pair, in a whole window's time; none where each window was asked for.
    pub mean: Option<BTreeMap<(Party, Party), Mean>>,
}

/// One window of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its number.
    pub number: u64,
    /// What part of it is meant: less than 1 only for the one that is not over.
    pub part: f64,
    /// Whether it is not in, or not over, and is held to be like the one before.
    pub estimated: bool,
    /// Sensors that never sent it.
    pub missing: Vec<Arc<str>>,
    /// What was counted, or is held to have been.
    pub flows: BTreeMap<(Party, Party), Mean>,
}

/// Packets and bytes of a mean.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Mean {
    /// Packets.
    pub messages: f64,
    /// Bytes.
    pub bytes: f64,
}

impl Mean {
    fn of(volume: Volume) -> Self {
        Self {
            messages: volume.messages as f64,
            bytes: volume.bytes as f64,
        }
    }

    fn times(self, by: f64) -> Self {
        Self {
            messages: self.messages * by,
            bytes: self.bytes * by,
        }
    }

    fn add(&mut self, more: Self) {
        self.messages += more.messages;
        self.bytes += more.bytes;
    }
}

impl Query {
    /// What comes of it at a moment, in milliseconds since 1970, when it was `asked_ms`.
    pub fn ask(&self, collected: &Collected, asked_ms: u64, now_ms: u64) -> Answer {
        let period = collected.period();
        let Some(oldest) = collected.oldest() else {
            return Answer::Refused(Refusal::Nothing);
        };
        // The last window, of which some has gone by at the moment of asking; at a window's end that is the one that ended.
        let last = period.window_of(asked_ms.saturating_sub(1));
        let ends_ms = period.ends_ms(last);
        let is_in = |number: u64| {
            now_ms >= period.ends_ms(number)
                && (collected.is_whole(number) || collected.is_closed(number, now_ms))
        };
        let windows = |end_ms: u64| {
            let from = period.window_of(end_ms.saturating_sub(self.duration_ms.max(1)));
            from..=last
        };
        let wanted = windows(ends_ms);
        if *wanted.start() < oldest {
            let span_ms = ends_ms.saturating_sub(period.begins_ms(oldest));
            return Answer::Refused(Refusal::NotKept {
                oldest,
                duration_ms: span_ms,
            });
        }
        if wanted.clone().all(is_in) {
            return self.exact(collected, wanted);
        }
        let until_ms = asked_ms.saturating_add(self.wait_ms);
        if until_ms >= ends_ms && now_ms < until_ms {
            // Until the window ends there is nothing to look at; from then on what is missing may come at any moment.
            let next_ms = if now_ms < ends_ms { ends_ms } else { until_ms };
            return Answer::Wait { until_ms: next_ms };
        }
        if self.approximate {
            let wanted = windows(now_ms.min(ends_ms));
            return self.estimated(collected, wanted, now_ms);
        }
        // One period more than until its end: a sensor has that long to send it.
        let wait_ms = ends_ms.saturating_sub(asked_ms) + period.ms();
        Answer::Refused(Refusal::Rephrase { wait_ms })
    }

    fn exact(&self, collected: &Collected, wanted: std::ops::RangeInclusive<u64>) -> Answer {
        let rows = wanted.map(|number| counted(collected, number)).collect();
        self.of_rows(rows)
    }

    fn estimated(
        &self,
        collected: &Collected,
        wanted: std::ops::RangeInclusive<u64>,
        now_ms: u64,
    ) -> Answer {
        let period = collected.period();
        let mut rows: Vec<Row> = Vec::new();
        // Like the window before, even where that is before what was asked for.
        let mut like = (wanted.start().checked_sub(1)).map(|before| counted(collected, before));
        for number in wanted {
            let is_over = now_ms >= period.ends_ms(number);
            let is_in =
                is_over && (collected.is_whole(number) || collected.is_closed(number, now_ms));
            let row = if is_in {
                counted(collected, number)
            } else {
                let gone_ms = now_ms.saturating_sub(period.begins_ms(number));
                let part = (gone_ms as f64 / period.ms() as f64).min(1.0);
                let before = like.as_ref().map(|row| (row.part, &row.flows));
                let flows = before.map_or_else(BTreeMap::new, |(of, flows)| {
                    (flows.iter())
                        .map(|(pair, &mean)| (pair.clone(), mean.times(part / of)))
                        .collect()
                });
                Row {
                    number,
                    part,
                    estimated: true,
                    missing: Vec::new(),
                    flows,
                }
            };
            if row.part > 0.0 {
                like = Some(row.clone());
                rows.push(row);
            }
        }
        self.of_rows(rows)
    }

    fn of_rows(&self, rows: Vec<Row>) -> Answer {
        let count = rows.len();
        let weights: Vec<f64> = match &self.kind {
            Kind::Detailed => return Answer::Now(Result { rows, mean: None }),
            Kind::Mean => vec![1.0; count],
            Kind::Weighted(by) => {
                // The one that counts most counts 1, the others a part of that: so nothing grows beyond all bounds.
                let power = |at: usize| i32::try_from(at).unwrap_or(i32::MAX);
                (0..count)
                    .map(|at| match *by < 1.0 {
                        true => by.powi(power(at)),
                        false => by.powi(-power(count - 1 - at)),
                    })
                    .collect()
            }
            Kind::Weights(weights) => weights.clone(),
        };
        let ratio_is_sound = match &self.kind {
            Kind::Weighted(by) => by.is_finite() && *by > 0.0,
            _ => true,
        };
        let are_sound = weights.len() == count
            && weights.iter().all(|weight| (0.0..=1e100).contains(weight))
            && weights.iter().any(|weight| *weight > 0.0);
        if !ratio_is_sound || !are_sound {
            return Answer::Refused(Refusal::Weights {
                windows: count as u64,
            });
        }
        // A window of which only a part has gone by counts as that part of one.
        let all: f64 = (rows.iter().zip(&weights))
            .map(|(row, weight)| row.part * weight)
            .sum();
        let mut mean: BTreeMap<(Party, Party), Mean> = BTreeMap::new();
        for (row, weight) in rows.iter().zip(&weights) {
            for (pair, flow) in &row.flows {
                let sum = mean.entry(pair.clone()).or_default();
                sum.add(flow.times(*weight));
            }
        }
        for sum in mean.values_mut() {
            *sum = Mean {
                messages: sum.messages / all,
                bytes: sum.bytes / all,
            };
        }
        Answer::Now(Result {
            rows,
            mean: Some(mean),
        })
    }
}

fn counted(collected: &Collected, number: u64) -> Row {
    let flows = collected.window(number).map(|global| {
        (global.flows())
            .map(|(from, to, volume)| ((from.clone(), to.clone()), Mean::of(volume)))
            .collect()
    });
    Row {
        number,
        part: 1.0,
        estimated: false,
        missing: collected.missing(number),
        flows: flows.unwrap_or_default(),
    }
}
