//! Asking for a script to be run.

use std::path::PathBuf;

use crate::asked::{Asked, Go, written};
use crate::command::SCRIPT;
use crate::error::SandboxError;
use crate::limits::RenderLimits;
use crate::request::{Answer, ScriptOutput, ScriptRequest};

/// More than the largest output with its names.
const MAX_ANSWER_BYTES: usize = 64 << 20;
const LOOK_MS: u32 = 10_000;

/// A program that calls [`crate::hidden_command`] first in its `main`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    pub program: PathBuf,
    pub render_limits: RenderLimits,
}

impl Worker {
    pub fn of(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            render_limits: RenderLimits::default(),
        }
    }

    /// The program that runs now, also when its file was replaced meanwhile.
    pub fn this_program() -> Self {
        Self::of("/proc/self/exe")
    }

    /// Runs a script to its end; blocks. When this thread ends, everything of the run is killed.
    pub fn run_script(&self, request: &ScriptRequest) -> Result<ScriptOutput, SandboxError> {
        let start = |source| SandboxError::Start {
            doing: request.script.clone(),
            program: self.program.clone(),
            source,
        };
        // The keeper has another working directory.
        let root = std::path::absolute(&request.root).map_err(start)?;
        let asked = ScriptRequest {
            root,
            ..request.clone()
        };
        let asked = written(&asked, 0).map_err(start)?;
        let no_more: [&str; 0] = [];
        // The keeper itself sees to its time.
        let answered = Asked::start(&self.program, SCRIPT, &no_more, asked)
            .and_then(|asked| asked.answer(MAX_ANSWER_BYTES, LOOK_MS, || Go::On))
            .map_err(start)?;
        let script = request.script.clone();
        match rmp_serde::from_slice(&answered.bytes) {
            Ok(Answer::Done(output)) if answered.status.success() => Ok(output),
            Ok(Answer::Failed(what)) => Err(SandboxError::Script { script, what }),
            Ok(Answer::Unmade(what)) => Err(SandboxError::Unmade {
                doing: script,
                what,
            }),
            _ => Err(SandboxError::NoAnswer {
                doing: script,
                status: answered.status.to_string(),
                words: answered.words,
            }),
        }
    }
}
