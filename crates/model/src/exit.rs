//! What a command's exit code means, the same for every command.

use serde::{Deserialize, Serialize};

/// Exit codes of every `estive` command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCode {
    /// 0: what was asked is so.
    Done,
    /// 1: tried and failed.
    Failed,
    /// 2: cannot be done as asked; nothing was changed.
    Impossible,
    /// 3: not allowed for who asked.
    Refused,
    /// 4: a manager, agent or host that is needed does not answer.
    Unreachable,
}

impl ExitCode {
    /// The process exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Impossible => 2,
            Self::Refused => 3,
            Self::Unreachable => 4,
        }
    }
}
