//! What the rendering process is at, where the asking one finds it after a sudden death: at the start of the file that
//! is its standard input, which both hold open. One small write for each template.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use estive_layers::RenderProgress;

/// The request begins here.
pub(crate) const RECORD_BYTES: u64 = 512;
/// A number, and the length of the text that follows.
const HEAD_BYTES: usize = 10;
const MAX_TEXT_BYTES: usize = RECORD_BYTES as usize - HEAD_BYTES;

/// Writes the record.
pub(crate) struct Progress {
    number: AtomicU64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            number: AtomicU64::new(0),
        }
    }

    fn write(&self, text: &str) {
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let length = text.len().min(MAX_TEXT_BYTES);
        let mut record = Vec::with_capacity(HEAD_BYTES + length);
        record.extend_from_slice(&number.to_le_bytes());
        // At most 502.
        record.extend_from_slice(&(length as u16).to_le_bytes());
        record.extend_from_slice(&text.as_bytes()[..length]);
        // It only serves messages.
        let _ = rustix::io::pwrite(std::io::stdin().as_fd(), &record, 0);
    }
}

impl RenderProgress for Progress {
    fn begin(&self, template: &str, clone: &str) {
        self.write(&format!("sets/{template} for {clone}"));
    }

    fn end(&self) {
        self.write("");
    }
}

/// What a record says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct At {
    /// Another one each time.
    pub number: u64,
    /// `sets/web/x.j2 for clone03`; nothing between templates.
    pub what: Option<String>,
}

impl At {
    pub(crate) fn read(file: &File) -> io::Result<Self> {
        let mut record = [0; RECORD_BYTES as usize];
        file.read_exact_at(&mut record, 0)?;
        let (head, text) = record.split_at(HEAD_BYTES);
        let (number, length) = head.split_at(8);
        let length = u16::from_le_bytes([length[0], length[1]]);
        let text = text.get(..usize::from(length)).unwrap_or_default();
        let mut bytes = [0; 8];
        bytes.copy_from_slice(number);
        Ok(Self {
            number: u64::from_le_bytes(bytes),
            what: (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned()),
        })
    }
}
