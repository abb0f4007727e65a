//! Running a program in a guest by its agent, with bytes in and bytes out.
//!
//! Source: QEMU's `docs/interop/qemu-ga-ref`, `guest-exec` and `guest-exec-status`. The agent keeps what the program
//! printed until it has ended; it is asked for until then.

use crate::guest_agent::{GuestAgent, GuestAgentError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// For one question while the program runs.
const QUESTION: Duration = Duration::from_secs(10);
/// Between two questions, from the first on.
const PAUSES_MS: [u64; 5] = [10, 20, 50, 100, 200];
/// Beside what the program prints.
const ANSWER_MARGIN_BYTES: u64 = 16 << 10;

/// A program to run in a guest.
#[derive(Debug, Clone)]
pub struct GuestProgram<'a> {
    /// Where it lies in the guest.
    pub path: &'a str,
    /// Its arguments.
    pub arguments: &'a [&'a str],
    /// What it reads on standard input.
    pub input: &'a [u8],
    /// The most that is taken of what it prints, in bytes: a guest is hostile.
    pub output_limit_bytes: usize,
}

/// How a program in a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestExit {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i64>,
    /// What it wrote to standard output.
    pub output: Vec<u8>,
    /// What it wrote to standard error.
    pub error: Vec<u8>,
}

impl GuestAgent {
    /// Runs a program to its end, all within `deadline`. One that is not done by then is left to itself.
    pub async fn exec(
        &self,
        program: &GuestProgram<'_>,
        deadline: Duration,
    ) -> Result<GuestExit, GuestAgentError> {
        let until = Instant::now() + deadline;
        let arguments = json!({
            "path": program.path,
            "arg": program.arguments,
            "input-data": STANDARD.encode(program.input),
            "capture-output": true,
        });
        let started = self.call("guest-exec", arguments, deadline).await?;
        let pid = started["pid"]
            .as_i64()
            .ok_or_else(|| refused("guest-exec", "it gave no number of a process"))?;
        let limit_bytes = program.output_limit_bytes as u64 * 4 / 3 + ANSWER_MARGIN_BYTES;
        let mut pauses = PAUSES_MS.into_iter();
        let mut pause_ms = 0;
        loop {
            pause_ms = pauses.next().unwrap_or(pause_ms);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            let status = self
                .call_limited(
                    "guest-exec-status",
                    json!({ "pid": pid }),
                    QUESTION,
                    limit_bytes,
                )
                .await?;
            if status["exited"] == true {
                return exit(&status, program.output_limit_bytes);
            }
            if Instant::now() > until {
                return Err(GuestAgentError::Silent {
                    command: format!("how {} ended", program.path),
                    waited_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
                });
            }
        }
    }
}

fn exit(status: &Value, limit_bytes: usize) -> Result<GuestExit, GuestAgentError> {
    let bytes = |field: &str| match status[field].as_str() {
        None => Ok(Vec::new()),
        Some(text) => STANDARD
            .decode(text)
            .ok()
            .filter(|bytes| bytes.len() <= limit_bytes)
            .ok_or_else(|| refused("guest-exec-status", "it gave no base64, or too much")),
    };
    Ok(GuestExit {
        code: status["exitcode"]
            .as_i64()
            .filter(|_| status["signal"].is_null()),
        output: bytes("out-data")?,
        error: bytes("err-data")?,
    })
}

fn refused(command: &str, detail: &str) -> GuestAgentError {
    GuestAgentError::Refused {
        command: command.to_owned(),
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated::SimulatedGuestAgent;

    const BOUND: Duration = Duration::from_secs(20);

    fn program<'a>(input: &'a [u8], arguments: &'a [&'a str]) -> GuestProgram<'a> {
        GuestProgram {
            path: "/bin/program",
            arguments,
            input,
            output_limit_bytes: 100_000,
        }
    }

    #[tokio::test]
    async fn a_program_reads_and_writes() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("qga");
        let _agent = SimulatedGuestAgent::listen(&socket, |call| {
            assert_eq!(call.path, "/bin/program");
            let mut output = call.input.clone();
            output.reverse();
            GuestExit {
                code: Some(call.arguments.len() as i64),
                output,
                error: b"said".to_vec(),
            }
        })
        .unwrap();
        let guest = GuestAgent::new(&socket);
        let input: Vec<u8> = (0..90_000u32).map(|byte| byte as u8).collect();
        let exit = guest
            .exec(&program(&input, &["a", "b"]), BOUND)
            .await
            .unwrap();
        assert_eq!((exit.code, exit.error.as_slice()), (Some(2), &b"said"[..]));
        assert!(exit.output.iter().rev().eq(input.iter()));
        // Printed without end.
        let much = vec![0; 200_000];
        let error = guest.exec(&program(&much, &[]), BOUND).await.unwrap_err();
        assert!(matches!(error, GuestAgentError::Channel { .. }), "{error}");
    }
}
