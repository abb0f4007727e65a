//! The manager's log: its own acts and what the agents tell of theirs, each with its reason, in one order.

use crate::manager::lock;
use crate::records::Records;
use estive_api::Problem;
use estive_model::{Clock, DomainName, Event, EventKind, Generation, HostName, OperationId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Events kept.
const KEPT: usize = 10_000;

/// What an event is about; see [`Event`].
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub domain: Option<DomainName>,
    pub host: Option<HostName>,
    pub generation: Option<Generation>,
    pub operation: Option<OperationId>,
}

/// The newest events in memory; each is written to the store right behind, so that no act waits for its log.
pub(crate) struct EventLog {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
    to_write: Mutex<Option<mpsc::UnboundedSender<Event>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    events: VecDeque<Event>,
    next: u64,
}

impl EventLog {
    /// Reads what was kept and goes on counting.
    pub async fn open(records: Records, clock: Arc<dyn Clock>) -> Result<Self, Problem> {
        let mut events: VecDeque<Event> = records.all("event/").await?.into();
        while events.len() > KEPT {
            if let Some(event) = events.pop_front() {
                records.remove(&key(event.sequence)).await?;
            }
        }
        let next = events.back().map_or(1, |event| event.sequence + 1);
        let (to_write, written) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write(records, written));
        Ok(Self {
            clock,
            inner: Mutex::new(Inner { events, next }),
            to_write: Mutex::new(Some(to_write)),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Adds an act of the manager.
    pub fn tell(&self, kind: EventKind, about: About, reason: impl Into<String>) {
        self.add(Event {
            sequence: 0,
            time_ms: self.clock.now_ms(),
            kind,
            domain: about.domain,
            host: about.host,
            generation: about.generation,
            operation: about.operation,
            reason: reason.into(),
        });
    }

    /// Adds an event with its own time; its sequence number is given here.
    pub fn add(&self, mut event: Event) {
        let mut inner = lock(&self.inner);
        event.sequence = inner.next;
        inner.next += 1;
        tracing::info!(
            kind = ?event.kind,
            domain = event.domain.as_ref().map(|name| name.as_str()),
            host = event.host.as_ref().map(|name| name.as_str()),
            generation = event.generation.map(|generation| generation.0),
            "{}",
            event.reason
        );
        inner.events.push_back(event.clone());
        if inner.events.len() > KEPT {
            inner.events.pop_front();
        }
        if let Some(to_write) = &*lock(&self.to_write) {
            // Fails only when the writer is gone, and then the process is ending.
            let _ = to_write.send(event);
        }
    }

    /// Waits until everything is written; nothing is after this.
    pub async fn close(&self) {
        drop(lock(&self.to_write).take());
        let writer = lock(&self.writer).take();
        if let Some(writer) = writer {
            let _ = writer.await;
        }
    }

    /// Those after a sequence number, of one domain if one is named.
    pub fn after(&self, sequence: u64, domain: Option<&DomainName>) -> Vec<Event> {
        let inner = lock(&self.inner);
        let first = inner
            .events
            .partition_point(|event| event.sequence <= sequence);
        inner
            .events
            .range(first..)
            .filter(|event| domain.is_none() || event.domain.as_ref() == domain)
            .cloned()
            .collect()
    }
}

async fn write(records: Records, mut events: mpsc::UnboundedReceiver<Event>) {
    while let Some(event) = events.recv().await {
        let written = async {
            records.put(&key(event.sequence), &event).await?;
            match event.sequence.checked_sub(KEPT as u64) {
                Some(old) if old > 0 => records.remove(&key(old)).await,
                _ => Ok(()),
            }
        };
        if let Err(problem) = written.await {
            tracing::warn!(%problem, sequence = event.sequence, "an event was not written to the store");
        }
    }
}

/// Keys in the order of their numbers.
fn key(sequence: u64) -> String {
    format!("event/{sequence:020}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_model::ManualClock;
    use estive_store::MemoryStore;

    #[tokio::test]
    async fn a_new_manager_goes_on_where_the_last_one_ended() {
        let records = Records::new(Arc::new(MemoryStore::default()));
        let clock = Arc::new(ManualClock::default());
        let log = EventLog::open(records.clone(), clock.clone())
            .await
            .unwrap();
        let about = |name: &str| About {
            domain: Some(DomainName::new(name).unwrap()),
            ..About::default()
        };
        for name in ["a", "b", "a"] {
            log.tell(EventKind::Started, about(name), "why");
        }
        assert_eq!(log.after(1, Some(&DomainName::new("a").unwrap())).len(), 1);
        let all = async {
            while records.all::<Event>("event/").await.unwrap().len() < 3 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), all)
            .await
            .expect("events are not written");
        let log = EventLog::open(records, clock).await.unwrap();
        assert_eq!(log.after(0, None).len(), 3);
        log.tell(EventKind::Stopped, about("b"), "why");
        assert_eq!(log.after(3, None)[0].sequence, 4);
    }
}
