//! How a command ends when it does not end well: one clear message and an exit code that means something.

use estive_api::{ClientError, Problem, ProblemKind};
use estive_model::ExitCode;

/// What went wrong, what to try, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// What (and where) went wrong.
    pub message: String,
    /// What to try.
    pub advice: Option<String>,
    /// The exit code.
    pub code: ExitCode,
}

impl Failure {
    /// A failure with exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            advice: None,
            code: ExitCode::Failed,
        }
    }

    /// A failure with exit code 2.
    pub fn impossible(message: impl Into<String>) -> Self {
        Self {
            code: ExitCode::Impossible,
            ..Self::failed(message)
        }
    }

    /// A failure with exit code 3.
    pub fn refused(message: impl Into<String>) -> Self {
        Self {
            code: ExitCode::Refused,
            ..Self::failed(message)
        }
    }

    /// Says what to try.
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Prints it on standard error.
    pub fn print(&self) {
        eprintln!("estive: {}", self.message);
        if let Some(advice) = &self.advice {
            eprintln!("  try: {advice}");
        }
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = inner.source();
    }
    text
}

/// Any error of a library, as a failure with exit code 1.
pub fn failed<E: std::error::Error>(error: E) -> Failure {
    Failure::failed(chain(&error))
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let code = match problem.kind {
            ProblemKind::Impossible => ExitCode::Impossible,
            ProblemKind::Refused => ExitCode::Refused,
            ProblemKind::Unreachable => ExitCode::Unreachable,
            ProblemKind::Failed | ProblemKind::NotFound | ProblemKind::Invalid => ExitCode::Failed,
        };
        Self {
            message: problem.error,
            advice: problem.advice,
            code,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match error.exit_code() {
            4 => ExitCode::Unreachable,
            3 => ExitCode::Refused,
            2 => ExitCode::Impossible,
            _ => ExitCode::Failed,
        };
        match error.problem() {
            Some(problem) => {
                let mut failure = Self {
                    code,
                    ..Self::from(problem.clone())
                };
                // Who refuses is half of what is to be mended.
                if let ClientError::Refused { endpoint, .. } = &error {
                    failure.message = format!("{endpoint} refused: {}", failure.message);
                }
                failure
            }
            None => Self {
                message: chain(&error),
                advice: None,
                code,
            },
        }
    }
}
