//! Ending a seal before it is done, in order: no snapshot and nothing half made stays.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ExportError;

/// Asks a seal to end. Clones ask the same one.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on the seal ends at the next file, or piece of a file, that it would read.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// [`ExportError::Stopped`], once it was asked.
    pub(super) fn check(&self) -> Result<(), ExportError> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(ExportError::Stopped),
            false => Ok(()),
        }
    }

    /// The same where a file is read.
    pub(super) fn check_reading(&self) -> io::Result<()> {
        self.check().map_err(io::Error::other)
    }
}
