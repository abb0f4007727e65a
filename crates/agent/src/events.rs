//! The host's log of acts: in memory for who asks, and a line each in `state/events.jsonl`.

use crate::AgentError;
use estive_model::{Clock, Event};
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Events kept.
const KEPT: usize = 10_000;

/// See the module.
pub struct EventLog {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

struct Inner {
    file: fs::File,
    events: VecDeque<Event>,
    next: u64,
}

impl EventLog {
    /// Reads what was kept, cuts the file to it and goes on counting.
    pub fn open(path: PathBuf, clock: Arc<dyn Clock>) -> Result<Self, AgentError> {
        let failed = |source| AgentError::file("open the event log", &path, source);
        let mut events = VecDeque::new();
        let mut cut = false;
        match fs::File::open(&path) {
            Ok(file) => {
                for line in std::io::BufReader::new(file).split(b'\n') {
                    // A last line that a crash cut short is passed over.
                    match serde_json::from_slice::<Event>(&line.map_err(failed)?) {
                        Ok(event) => events.push_back(event),
                        Err(_) => cut = true,
                    }
                    if events.len() > KEPT {
                        events.pop_front();
                        cut = true;
                    }
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        if cut {
            let mut text = Vec::new();
            for event in &events {
                let _ = serde_json::to_writer(&mut text, event);
                text.push(b'\n');
            }
            crate::journal::write_durably(&path, &text).map_err(failed)?;
        }
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(failed)?;
        let next = events.back().map_or(1, |event| event.sequence + 1);
        Ok(Self {
            clock,
            inner: Mutex::new(Inner { file, events, next }),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event; its sequence number and time are given here.
    pub fn add(&self, mut event: Event) {
        let mut inner = self.inner();
        event.sequence = inner.next;
        event.time_ms = self.clock.now_ms();
        inner.next += 1;
        tracing::info!(
            domain = event.domain.as_ref().map(|name| name.as_str()),
            kind = ?event.kind,
            generation = event.generation.map(|generation| generation.0),
            "{}",
            event.reason
        );
        if let Ok(mut line) = serde_json::to_vec(&event) {
            line.push(b'\n');
            if let Err(error) = inner.file.write_all(&line) {
                tracing::warn!(%error, "an event was not written to the log's file");
            }
        }
        inner.events.push_back(event);
        if inner.events.len() > KEPT {
            inner.events.pop_front();
        }
    }

    /// Those after a sequence number.
    pub fn after(&self, sequence: u64) -> Vec<Event> {
        let inner = self.inner();
        let first = inner
            .events
            .partition_point(|event| event.sequence <= sequence);
        inner.events.range(first..).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use estive_model::{EventKind, ManualClock};

    fn event(reason: &str) -> Event {
        Event {
            sequence: 0,
            time_ms: 0,
            kind: EventKind::Started,
            domain: None,
            host: None,
            generation: None,
            operation: None,
            reason: reason.into(),
        }
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_a_cut_line_is_passed_over() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("events.jsonl");
        let open = || EventLog::open(path.clone(), Arc::new(ManualClock::default())).unwrap();
        let log = open();
        log.add(event("a"));
        log.add(event("b"));
        drop(log);
        let mut text = fs::read(&path).unwrap();
        text.extend(b"{\"sequence\":3,");
        fs::write(&path, text).unwrap();
        open().add(event("c"));
        let log = open();
        let told: Vec<_> = log
            .after(1)
            .into_iter()
            .map(|event| (event.sequence, event.reason))
            .collect();
        assert_eq!(told, [(2, "b".to_owned()), (3, "c".to_owned())]);
    }
}
