//! Which clones read which live reference, and from which host: said to whoever serves it before a clone is started or
//! received there, and taken away once it is there no more.
//!
//! The store keeps what may have been said, so that a manager that dies takes away what the one before it has said, and one
//! that has lost its store takes away nothing.

use crate::agents::{self, chain};
use crate::manager::{Manager, lock};
use crate::records::DomainRecord;
use estive_api::wire::{LiveReader, LiveReaders, live_readers_path};
use estive_api::{Client, Credentials, Endpoint, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

const QUESTION: Duration = Duration::from_secs(5);
/// How often it is said again: an origin may have been away.
const PERIOD: Duration = Duration::from_secs(10);

const PREFIX: &str = "live-readers/";

/// What this manager needs for it.
pub(crate) struct Readers {
    /// Without any there is nobody to be known as.
    credentials: Option<Credentials>,
    /// One says something at a time.
    saying: tokio::sync::Mutex<()>,
    /// Somebody may read no more.
    changed: Notify,
    /// What is wrong with an origin, told once.
    troubles: Mutex<BTreeMap<String, String>>,
}

impl Readers {
    pub fn new(credentials: Option<&Credentials>) -> Self {
        Self {
            credentials: credentials.cloned(),
            saying: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            troubles: Mutex::default(),
        }
    }

    /// A clone is gone from a host: that is said soon.
    pub fn change(&self) {
        self.changed.notify_one();
    }
}

/// Of one reference.
#[derive(Default)]
struct Wanted {
    origins: Vec<Endpoint>,
    readers: BTreeSet<LiveReader>,
}

impl Wanted {
    fn add(&mut self, origins: &[Endpoint]) {
        for origin in origins {
            if !self.origins.contains(origin) {
                self.origins.push(origin.clone());
            }
        }
    }
}

impl Manager {
    /// Before a host is told to run a clone, or to stand ready for it: an error where the clone reads a live reference and
    /// nobody who serves that has heard of it.
    pub(crate) async fn let_read(&self, record: &DomainRecord) -> Result<(), Problem> {
        let reads = |made_of: &crate::made_of::MadeOf| made_of.route.is_some();
        if !record.made_of.as_ref().is_some_and(reads) {
            return Ok(());
        }
        let problem = |problem: Problem| Problem {
            error: format!(
                "{} reads the live reference {}: {}",
                record.name, record.reference, problem.error
            ),
            ..problem
        };
        self.say_readers(Some(&record.reference))
            .await
            .map_err(problem)
    }

    /// Says it again and again, and when somebody may read no more, until the shutdown.
    pub fn watch_readers(self: &Arc<Self>) {
        if self.readers.credentials.is_none() {
            return;
        }
        let manager = self.clone();
        self.spawn(async move {
            let mut ticks = tokio::time::interval(PERIOD);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = manager.shutdown.cancelled() => return,
                    _ = ticks.tick() => {}
                    () = manager.readers.changed.notified() => {}
                }
                // Each trouble was told where it was met.
                let _ = manager.say_readers(None).await;
            }
        });
    }

    /// Of one reference, or of all. The error is of one that nobody could be told of.
    async fn say_readers(&self, only: Option<&str>) -> Result<(), Problem> {
        let Some(credentials) = &self.readers.credentials else {
            return Ok(());
        };
        let _one = self.readers.saying.lock().await;
        let mut outcome = Ok(());
        for (reference, wanted) in self.wanted_readers().await? {
            if only.is_some_and(|only| only != reference) {
                continue;
            }
            let said = self.say(credentials, &reference, &wanted).await;
            outcome = outcome.and(said);
        }
        outcome
    }

    /// By reference.
    async fn wanted_readers(&self) -> Result<BTreeMap<String, Wanted>, Problem> {
        let mut all: BTreeMap<String, Wanted> = BTreeMap::new();
        for (name, route) in self.references.routes() {
            all.entry(name).or_default().add(&route);
        }
        for record in self.records.domains().await? {
            let route = record.made_of.as_ref().and_then(|made| made.route.as_ref());
            let (Some(route), Ok(clone)) = (route, record.address.parse::<IpAddr>()) else {
                continue;
            };
            let wanted = all.entry(record.reference.clone()).or_default();
            wanted.add(&route.origins);
            let ownership = &record.ownership;
            let to = ownership.moving.iter().map(|moving| &moving.destination);
            for host in to.chain([&ownership.host]) {
                let host = host.clone();
                wanted.readers.insert(LiveReader { clone, host });
            }
        }
        Ok(all)
    }

    async fn say(
        &self,
        credentials: &Credentials,
        reference: &str,
        wanted: &Wanted,
    ) -> Result<(), Problem> {
        let key = format!("{PREFIX}{reference}");
        let before = self.records.get::<BTreeSet<LiveReader>>(&key).await?;
        let before = before.unwrap_or_default();
        let may_be_said: BTreeSet<_> = before.union(&wanted.readers).cloned().collect();
        if may_be_said != before {
            self.records.put(&key, &may_be_said).await?;
        }
        let said = LiveReaders {
            readers: wanted.readers.clone(),
            gone: before.difference(&wanted.readers).cloned().collect(),
        };
        let (mut heard, mut trouble) = (0, None);
        for origin in &wanted.origins {
            match tell(credentials, origin, reference, &said).await {
                Ok(()) => {
                    heard += 1;
                    lock(&self.readers.troubles).remove(&of(origin, reference));
                }
                Err(problem) => {
                    let mut troubles = lock(&self.readers.troubles);
                    let known = troubles.insert(of(origin, reference), problem.error.clone());
                    if known.as_ref() != Some(&problem.error) {
                        tracing::warn!(%problem, "who may read a live reference was not heard there");
                    }
                    trouble = Some(problem);
                }
            }
        }
        if heard == wanted.origins.len() && may_be_said != wanted.readers {
            self.records.put(&key, &wanted.readers).await?;
        }
        match trouble {
            Some(problem) if heard == 0 => Err(problem),
            // One that was away hears it later; clones ask the others.
            _ => Ok(()),
        }
    }
}

fn of(origin: &Endpoint, reference: &str) -> String {
    format!("{reference} at {origin}")
}

async fn tell(
    credentials: &Credentials,
    origin: &Endpoint,
    reference: &str,
    said: &LiveReaders,
) -> Result<(), Problem> {
    let place = of(origin, reference);
    let client = Client::new(origin.clone(), Some(credentials))
        .map_err(|error| Problem::failed(format!("{place}: {}", chain(&error))))?;
    let path = live_readers_path(reference);
    let told: Result<(), _> = client.put_json(&path, said, QUESTION).await;
    told.map_err(|error| match error.problem() {
        Some(problem) => Problem {
            error: format!("{place}: {}", problem.error),
            ..problem.clone()
        },
        None if agents::is_silence(&error) => {
            Problem::unreachable(format!("{place} does not answer ({})", chain(&error)))
                .advice("is estive storage running there, with --live or --share?")
        }
        None => Problem::failed(format!("{place}: {}", chain(&error))),
    })
}
