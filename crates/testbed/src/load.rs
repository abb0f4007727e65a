//! An open-loop load of HTTP requests, each on a connection of its own.
//!
//! Request `k` is due at `t0 + k / rate` whatever became of the others, and its latency counts from then, so that a
//! stall is paid by every request that was due in it (no coordinated omission). *Lost*: no complete, correct answer
//! within [`LOST_AFTER`] of its due time, or a reset; nothing is tried twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use estive_network::namespace::Namespace;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::gauge::{Gauge, asked_to_end, say, say_ready};
use crate::http_get::get;
use crate::instant::{now_us, sleep_until_us};
use crate::statistics::percentile;

/// A request without its answer by then is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(5);

/// How long the service may take to answer at all, before the load begins.
const FIRST_ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// What to ask for, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadConfig {
    /// The service.
    pub address: SocketAddr,
    /// The path asked for.
    pub path: String,
    /// What the first answer's body must contain; every later body must equal the first.
    pub expect: String,
    /// New connections a second, 1 to 10,000.
    pub rate_per_s: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Opened {
        request: u64,
        due_us: u64,
        start_us: u64,
    },
    Ended {
        request: u64,
        end_us: u64,
        lost: Option<String>,
    },
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When it was due, in microseconds since the epoch.
    pub due_us: u64,
    /// When it was begun: later than due only if the generator itself was short of processor time.
    pub start_us: u64,
    /// When it ended; `None`: still open.
    pub end_us: Option<u64>,
    /// Why it is lost.
    pub lost: Option<String>,
}

/// A load, in figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LoadSummary {
    /// Requests that ended.
    pub requests: u64,
    /// Of these, lost ones.
    pub lost: u64,
    /// Why, with counts.
    pub reasons: BTreeMap<String, u64>,
    /// Median latency of the others, from their due time, in ms.
    pub p50_ms: f64,
    /// Latency that 99 of 100 stay within, in ms.
    pub p99_ms: f64,
    /// The longest, in ms.
    pub worst_ms: f64,
}

/// A running load.
#[derive(Debug)]
pub struct Load(Gauge<Line>);

impl Load {
    /// Starts the load from `namespace`, after the service answered once.
    pub async fn start(
        tool: &Path,
        namespace: &Namespace,
        config: &LoadConfig,
    ) -> Result<Self, Error> {
        let arguments = [
            format!("--address={}", config.address),
            format!("--path={}", config.path),
            format!("--expect={}", config.expect),
            format!("--rate={}", config.rate_per_s),
        ];
        Gauge::start("load", tool, namespace, &arguments)
            .await
            .map(Self)
    }

    /// Every request so far, by due time.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.0.look(merge)
    }

    /// As [`in_flight`], of the requests so far.
    #[must_use]
    pub fn in_flight(&self, from_us: u64, to_us: u64) -> usize {
        in_flight(&self.requests(), from_us, to_us)
    }

    /// Ends the load, waits for the requests that are open, gives all.
    pub async fn finish(self) -> Result<Vec<Request>, Error> {
        self.0.finish().await.map(|lines| merge(&lines))
    }
}

fn merge(lines: &[Line]) -> Vec<Request> {
    let mut requests = BTreeMap::new();
    for line in lines {
        match line {
            Line::Opened {
                request,
                due_us,
                start_us,
            } => {
                requests.insert(
                    *request,
                    Request {
                        due_us: *due_us,
                        start_us: *start_us,
                        end_us: None,
                        lost: None,
                    },
                );
            }
            Line::Ended {
                request,
                end_us,
                lost,
            } => {
                if let Some(request) = requests.get_mut(request) {
                    request.end_us = Some(*end_us);
                    request.lost.clone_from(lost);
                }
            }
        }
    }
    requests.into_values().collect()
}

/// Requests that were under way at some moment from `from_us` to `to_us`: due by its end, and without an end at its
/// beginning. At a move's switch these are the ones that the guest could not answer where it stood.
#[must_use]
pub fn in_flight(requests: &[Request], from_us: u64, to_us: u64) -> usize {
    requests
        .iter()
        .filter(|request| {
            request.due_us <= to_us && request.end_us.is_none_or(|end_us| end_us > from_us)
        })
        .count()
}

/// The figures of requests; those still open do not count.
#[must_use]
pub fn summary(requests: &[Request]) -> LoadSummary {
    let mut figures = LoadSummary::default();
    let mut latencies_us = Vec::with_capacity(requests.len());
    for request in requests {
        let Some(end_us) = request.end_us else {
            continue;
        };
        figures.requests += 1;
        match &request.lost {
            Some(reason) => {
                figures.lost += 1;
                *figures.reasons.entry(reason.clone()).or_default() += 1;
            }
            None => latencies_us.push(end_us.saturating_sub(request.due_us)),
        }
    }
    latencies_us.sort_unstable();
    let ms = |share| percentile(&latencies_us, share).map_or(0.0, |us| us as f64 / 1000.0);
    (figures.p50_ms, figures.p99_ms, figures.worst_ms) = (ms(0.5), ms(0.99), ms(1.0));
    figures
}

/// In the measuring process.
pub async fn run(config: LoadConfig) -> Result<(), Error> {
    if !(1..=10_000).contains(&config.rate_per_s) {
        let given = u64::from(config.rate_per_s);
        return Err(Error::Limit {
            what: "connections a second",
            given,
            least: 1,
            most: 10_000,
        });
    }
    let body = Rc::new(first_answer(&config).await?);
    let config = Rc::new(config);
    say_ready()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.run_until(send(config, body)).await
}

async fn send(config: Rc<LoadConfig>, body: Rc<Vec<u8>>) -> Result<(), Error> {
    let end = asked_to_end();
    tokio::pin!(end);
    let began_us = now_us();
    let mut open = tokio::task::JoinSet::new();
    for request in 0_u64.. {
        let due_us = began_us + request * 1_000_000 / u64::from(config.rate_per_s);
        loop {
            tokio::select! {
                biased;
                ended = &mut end => {
                    ended?;
                    while open.join_next().await.is_some() {}
                    return Ok(());
                }
                () = sleep_until_us(due_us) => break,
                Some(_) = open.join_next() => {}
            }
        }
        say(&Line::Opened {
            request,
            due_us,
            start_us: now_us(),
        })?;
        let (config, body) = (Rc::clone(&config), Rc::clone(&body));
        open.spawn_local(async move {
            let left =
                LOST_AFTER.saturating_sub(Duration::from_micros(now_us().saturating_sub(due_us)));
            let lost = match tokio::time::timeout(left, get(config.address, &config.path)).await {
                Err(_) => Some(format!(
                    "no complete answer within {} s",
                    LOST_AFTER.as_secs()
                )),
                Ok(Err(problem)) => Some(problem),
                Ok(Ok(answer)) => {
                    (answer != *body).then(|| "another answer than the first".to_owned())
                }
            };
            if say(&Line::Ended {
                request,
                end_us: now_us(),
                lost,
            })
            .is_err()
            {
                std::process::exit(1);
            }
        });
    }
    Ok(())
}

async fn first_answer(config: &LoadConfig) -> Result<Vec<u8>, Error> {
    let deadline = tokio::time::Instant::now() + FIRST_ANSWER_LIMIT;
    loop {
        let problem =
            match tokio::time::timeout(LOST_AFTER, get(config.address, &config.path)).await {
                Err(_) => "no answer".to_owned(),
                Ok(Err(problem)) => problem,
                Ok(Ok(body)) if contains(&body, config.expect.as_bytes()) => return Ok(body),
                Ok(Ok(body)) => {
                    let seen: String = String::from_utf8_lossy(&body).chars().take(200).collect();
                    format!(
                        "the answer does not contain {:?} but is {seen:?}",
                        config.expect
                    )
                }
            };
        if tokio::time::Instant::now() > deadline {
            let what = format!("http://{}{}", config.address, config.path);
            return Err(Error::Gauge { what, problem });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || body.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(due_us: u64, end_us: Option<u64>, lost: Option<&str>) -> Request {
        Request {
            due_us,
            start_us: due_us,
            end_us,
            lost: lost.map(str::to_owned),
        }
    }

    #[test]
    fn in_flight_counts_what_is_open_at_some_moment_of_the_switch() {
        let requests = [
            request(10, Some(20), None),
            request(15, Some(30), None),
            request(25, None, None),
        ];
        let counted = [
            (5, 5),
            (5, 12),
            (10, 10),
            (17, 17),
            (20, 24),
            (26, 26),
            (5, 40),
            (40, 50),
        ]
        .map(|(from, to)| in_flight(&requests, from, to));
        assert_eq!(counted, [0, 1, 1, 2, 1, 2, 3, 1]);
    }

    #[test]
    fn figures_count_latency_from_the_due_time_and_lost_apart() {
        let mut requests: Vec<_> = (0..99)
            .map(|n| request(n * 1000, Some(n * 1000 + 2000), None))
            .collect();
        requests.push(Request {
            due_us: 0,
            start_us: 90_000,
            end_us: Some(100_000),
            lost: None,
        });
        requests.push(request(
            0,
            Some(5_000_000),
            Some("receive: connection reset"),
        ));
        requests.push(request(0, None, None));
        let figures = summary(&requests);
        assert_eq!((figures.requests, figures.lost), (101, 1));
        assert_eq!(
            (figures.p50_ms, figures.p99_ms, figures.worst_ms),
            (2.0, 2.0, 100.0)
        );
        assert_eq!(figures.reasons["receive: connection reset"], 1);
    }

    #[test]
    fn lines_merge_into_requests() {
        let lines = [
            Line::Opened {
                request: 1,
                due_us: 7,
                start_us: 8,
            },
            Line::Opened {
                request: 0,
                due_us: 5,
                start_us: 5,
            },
            Line::Ended {
                request: 1,
                end_us: 9,
                lost: None,
            },
        ];
        let merged = merge(&lines);
        assert_eq!(
            merged,
            [
                request(5, None, None),
                Request {
                    due_us: 7,
                    start_us: 8,
                    end_us: Some(9),
                    lost: None
                }
            ]
        );
    }
}
