//! What went otherwise than it should have while a root was read, in lines for people.

use std::sync::{Arc, Mutex, PoisonError};

/// Lines that come with a sealed image. Clones add to the same ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub fn add(&self, line: String) {
        // Where sealing fails nobody reads them but in a log.
        tracing::warn!("{line}");
        self.lines().push(line);
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines())
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
