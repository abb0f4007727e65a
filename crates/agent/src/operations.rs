//! Reports of moves that this host sends: the last thousand in memory, each final one on disk.

use estive_api::wire::{OperationPhase, OperationReport};
use estive_model::{DomainName, Generation, OperationId};
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

const KEPT: usize = 1000;

/// See the module.
pub struct Operations {
    directory: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    reports: HashMap<OperationId, OperationReport>,
    order: VecDeque<OperationId>,
}

impl Operations {
    /// Makes the directory; old final reports are read when somebody asks.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        // Only the newest are kept, by the time of their last write.
        let mut files = Vec::new();
        for file in fs::read_dir(&directory)? {
            let file = file?;
            files.push((file.metadata()?.modified()?, file.path()));
        }
        files.sort();
        for (_, path) in files.iter().rev().skip(KEPT) {
            let _ = fs::remove_file(path);
        }
        Ok(Self {
            directory,
            inner: Mutex::default(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a report, unless there is one.
    pub fn begin(
        &self,
        operation: &OperationId,
        domain: &DomainName,
        generation: Generation,
        phase: OperationPhase,
    ) {
        let mut inner = self.inner();
        if inner.reports.contains_key(operation) {
            return;
        }
        let report = OperationReport {
            operation: operation.clone(),
            domain: domain.clone(),
            generation,
            phase,
            sent_bytes: 0,
            remaining_bytes: 0,
            total_bytes: 0,
            dirty_rate_bytes_per_s: 0,
            expected_downtime_ms: 0,
            downtime_ms: None,
            total_ms: 0,
            choice: "pre-copy".into(),
            halted_us: None,
            resumed_us: None,
            error: None,
        };
        inner.reports.insert(operation.clone(), report);
        inner.order.push_back(operation.clone());
        if inner.order.len() > KEPT
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.reports.remove(&oldest);
        }
    }

    /// Changes a report that was begun; a final phase goes to disk.
    pub fn change(&self, operation: &OperationId, change: impl FnOnce(&mut OperationReport)) {
        let mut inner = self.inner();
        let Some(report) = inner.reports.get_mut(operation) else {
            return;
        };
        change(report);
        if matches!(
            report.phase,
            OperationPhase::Done | OperationPhase::Aborted | OperationPhase::Lost
        ) {
            let path = self.path(operation);
            let written = serde_json::to_vec(report)
                .map_err(io::Error::from)
                .and_then(|text| fs::write(&path, text));
            if let Err(error) = written {
                tracing::warn!(%operation, %error, "the report of a move was not kept on disk");
            }
        }
    }

    /// What is known of an operation.
    pub fn get(&self, operation: &OperationId) -> Option<OperationReport> {
        if let Some(report) = self.inner().reports.get(operation) {
            return Some(report.clone());
        }
        let text = fs::read(self.path(operation)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn path(&self, operation: &OperationId) -> PathBuf {
        self.directory.join(format!("{operation}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_report_outlives_the_agent() {
        let home = tempfile::tempdir().unwrap();
        let id = OperationId::new("op-1").unwrap();
        let open = || Operations::open(home.path().join("operations")).unwrap();
        let operations = open();
        operations.begin(
            &id,
            &DomainName::new("a").unwrap(),
            Generation(2),
            OperationPhase::Accepted,
        );
        operations.change(&id, |report| report.sent_bytes = 7);
        assert!(open().get(&id).is_none());
        operations.change(&id, |report| report.phase = OperationPhase::Done);
        assert_eq!(open().get(&id), operations.get(&id));
    }
}
