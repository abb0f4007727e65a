//! What a script may take.

use serde::{Deserialize, Serialize};

/// Limits of one run of a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// From start to end, whatever it does.
    pub wall_ms: u64,
    /// Of each process.
    pub cpu_s: u64,
    /// Of each process.
    pub address_space_bytes: u64,
    /// Of all processes together; looked at every few milliseconds, so a fast one may pass it for a moment.
    pub memory_bytes: u64,
    /// At the same time.
    pub processes: u64,
    /// Of each process.
    pub open_files: u64,
    /// Of each file it writes.
    pub file_size_bytes: u64,
    /// What it may hold in its output at any time, and as much again in its `/tmp`.
    pub output_bytes: u64,
    /// Files and directories of its output, and as many again in its `/tmp`.
    pub output_files: u64,
    /// Levels of directories in what it leaves.
    pub output_depth: usize,
    /// What it may print.
    pub messages_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_ms: 30_000,
            cpu_s: 10,
            address_space_bytes: 512 << 20,
            memory_bytes: 1 << 30,
            processes: 64,
            open_files: 256,
            file_size_bytes: 16 << 20,
            output_bytes: 16 << 20,
            output_files: 10_000,
            output_depth: 32,
            messages_bytes: 1 << 20,
        }
    }
}

/// What rendering may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderLimits {
    /// Of each process that renders.
    pub memory_bytes: u64,
    /// Of each process that renders.
    pub cpu_s: u64,
    /// Of one template for one clone.
    pub template_ms: u64,
}

impl Default for RenderLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            cpu_s: 300,
            template_ms: 10_000,
        }
    }
}

/// `16 MiB`, or bytes where it is not a whole number of them.
pub(crate) fn shown_bytes(bytes: u64) -> String {
    if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{bytes} bytes")
    }
}
