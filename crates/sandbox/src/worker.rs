//! Asking: our own program is executed anew for each run, and its answer read within limits.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::command::{COMMAND, SCRIPT};
use crate::error::SandboxError;
use crate::messages;
use crate::request::{Answer, ScriptOutput, ScriptRequest};

/// More than the largest output with its names.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// How much of the keeper's own last words goes into an error.
const LAST_WORDS_BYTES: u64 = 4096;

/// A program that calls [`crate::hidden_command`] first in its `main`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    pub program: PathBuf,
}

impl Worker {
    /// The program that runs now, also when its file was replaced meanwhile.
    pub fn this_program() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
        }
    }

    /// Runs a script to its end; blocks. When this thread ends, everything of the run is killed.
    pub fn run_script(&self, request: &ScriptRequest) -> Result<ScriptOutput, SandboxError> {
        let start = |source| SandboxError::Start {
            script: request.script.clone(),
            program: self.program.clone(),
            source,
        };
        // To a directory of another program's choice the keeper must not depend on ours.
        let root = std::path::absolute(&request.root).map_err(start)?;
        let request = ScriptRequest {
            root,
            ..request.clone()
        };
        let asked = in_memory("request", &request).map_err(start)?;
        let words = memfd("words").map_err(start)?;
        let mut child = Command::new(&self.program)
            .args([COMMAND, SCRIPT, &std::process::id().to_string()])
            .env_clear()
            .current_dir(Path::new("/"))
            .stdin(Stdio::from(asked))
            .stdout(Stdio::piped())
            .stderr(Stdio::from(words.try_clone().map_err(start)?))
            .spawn()
            .map_err(start)?;
        let mut answer = Vec::new();
        let read = match child.stdout.take() {
            Some(pipe) => pipe
                .take(MAX_ANSWER_BYTES)
                .read_to_end(&mut answer)
                .map(drop),
            None => Ok(()),
        };
        if read.is_err() {
            // Nothing more can be learned of it.
            let _ = child.kill();
        }
        let status = child.wait().map_err(start)?;
        let script = request.script;
        match rmp_serde::from_slice(&answer) {
            Ok(Answer::Done(output)) if status.success() => Ok(output),
            Ok(Answer::Failed(what)) => Err(SandboxError::Script { script, what }),
            Ok(Answer::Unmade(what)) => Err(SandboxError::Unmade { script, what }),
            _ => Err(SandboxError::NoAnswer {
                script,
                status: status.to_string(),
                words: last_words(words),
            }),
        }
    }
}

fn memfd(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC)?))
}

fn in_memory(name: &str, value: &impl serde::Serialize) -> io::Result<File> {
    let bytes = rmp_serde::to_vec_named(value).map_err(io::Error::other)?;
    let mut file = memfd(name)?;
    file.write_all(&bytes)?;
    Ok(file)
}

fn last_words(mut file: File) -> String {
    let mut bytes = Vec::new();
    let read = file
        .seek(SeekFrom::Start(0))
        .and_then(|_| file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(0) => "it said nothing".to_owned(),
        Ok(_) => messages::one_line(&bytes),
        Err(error) => format!("what it said could not be read: {error}"),
    }
}
