//! Watching a prefix.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

/// A watcher that falls this many changes behind is ended: it must list anyway.
const MAX_CHANGES_BEHIND: usize = 4_096;

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    pub version: u64,
    /// `None`: deleted.
    pub value: Option<Vec<u8>>,
}

/// The changes below one prefix.
#[derive(Debug)]
pub struct Watch {
    changes: mpsc::Receiver<Change>,
}

impl Watch {
    /// The next change. `None`: the reader fell too far behind or the store is closed; watch and
    /// list anew.
    pub async fn next(&mut self) -> Option<Change> {
        self.changes.recv().await
    }
}

/// Who watches what.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<Vec<(String, mpsc::Sender<Change>)>>);

impl Watchers {
    pub fn watch(&self, prefix: &str) -> Watch {
        let (sender, changes) = mpsc::channel(MAX_CHANGES_BEHIND);
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.push((prefix.to_owned(), sender));
        Watch { changes }
    }

    /// Called in the order of versions.
    pub fn publish(&self, change: &Change) {
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is gone or full drops out; what a full one has already it still reads.
        watchers.retain(|(prefix, sender)| {
            if sender.is_closed() {
                return false;
            }
            !change.key.starts_with(prefix.as_str()) || sender.try_send(change.clone()).is_ok()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_falls_behind_is_ended_after_what_it_has() {
        let watchers = Watchers::default();
        let mut watch = watchers.watch("a/");
        for version in 0..=MAX_CHANGES_BEHIND as u64 {
            let key = "a/x".to_owned();
            watchers.publish(&Change {
                key,
                version,
                value: None,
            });
        }
        for version in 0..MAX_CHANGES_BEHIND as u64 {
            assert_eq!(watch.next().await.unwrap().version, version);
        }
        assert_eq!(watch.next().await, None);
    }
}
