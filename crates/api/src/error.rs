//! What goes wrong, in two forms: [`Error`] for this crate's own set-up work (keys, certificates, listening), and
//! [`Problem`], the JSON body every service answers with when it cannot do what it was asked.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// Failures in making or reading keys and certificates, and in listening.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be worked with. `doing` reads as "could not {doing} {path}".
    #[error("could not {doing} {path}", path = path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The authority's directory holds something that cannot be used as it stands. It is never repaired silently:
    /// a new authority would make every certificate already handed out worthless.
    #[error(
        "the authority in {directory} is damaged: {reason}; put it back from a copy, or move the directory away to \
         begin a new authority (every certificate must then be issued again)",
        directory = directory.display()
    )]
    AuthorityDamaged { directory: PathBuf, reason: String },
    /// A credentials directory or one of its files cannot be used.
    #[error("{path} cannot be used: {reason}; issue the credentials again", path = path.display())]
    BadCredentials { path: PathBuf, reason: String },
    /// A certificate was asked for in a name that cannot be carried in one.
    #[error(
        "{name:?} cannot be the name in a certificate: 1 to 56 letters, digits, '-', '_' and '.', the first a letter \
         or digit"
    )]
    BadName { name: String },
    /// A certificate that is to be revoked, and that nobody knows.
    #[error(
        "this authority has issued nothing to {0:?}, and that is no serial number: write a name, as h1 or agent:h1, or \
         the serial of the certificate (openssl x509 -noout -serial -in client-cert.pem)"
    )]
    NotIssued(String),
    /// A role that does not exist.
    #[error("there is no role {0:?}: manager, agent, user or storage")]
    BadRole(String),
    /// An endpoint that cannot be understood.
    #[error("{text:?} is not an endpoint ({reason}): write https://ADDRESS:PORT or unix:/PATH")]
    BadEndpoint { text: String, reason: &'static str },
    /// A certificate could not be made.
    #[error("could not make {what}")]
    Certificate {
        what: &'static str,
        #[source]
        source: rcgen::Error,
    },
    /// TLS could not be set up from these credentials.
    #[error("could not set up TLS from {path}", path = path.display())]
    Tls {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Somebody already listens there.
    #[error("{place} is in use by another process; stop it, or choose another {kind}")]
    InUse { place: String, kind: &'static str },
    /// Listening failed for another reason.
    #[error("could not listen on {place}")]
    Listen {
        place: String,
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }
}

/// The class of a [`Problem`]; decides the HTTP status and the exit code of the command that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// Cannot be done as asked, whoever asks: 409, exit 2.
    Impossible,
    /// The one who asks has no right to it: 403, exit 3.
    Refused,
    /// Somebody further away does not answer: 502, exit 4.
    Unreachable,
    /// No such thing: 404, exit 1.
    NotFound,
    /// The request itself cannot be understood: 400, exit 1.
    Invalid,
    /// It was tried and went wrong: 500, exit 1. Also what an unknown kind from a newer server is read as.
    #[serde(other)]
    Failed,
}

impl ProblemKind {
    /// The HTTP status a service answers with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Impossible => StatusCode::CONFLICT,
            Self::Refused => StatusCode::FORBIDDEN,
            Self::Unreachable => StatusCode::BAD_GATEWAY,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Invalid => StatusCode::BAD_REQUEST,
        }
    }

    /// The kind a status means, for answers whose body says nothing.
    pub fn from_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 | 403 => Self::Refused,
            404 => Self::NotFound,
            409 | 422 => Self::Impossible,
            502 | 504 => Self::Unreachable,
            400..=499 => Self::Invalid,
            _ => Self::Failed,
        }
    }

    /// The exit code of a command that ended in this: 1 failed, 2 impossible, 3 refused, 4 unreachable.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed | Self::NotFound | Self::Invalid => 1,
            Self::Impossible => 2,
            Self::Refused => 3,
            Self::Unreachable => 4,
        }
    }
}

/// The body of every unsuccessful answer:
/// `{"error":"...","try":"...","kind":"failed|impossible|refused|unreachable|not_found|invalid","details":{...}}`;
/// `try` and `details` are left out when there is nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What was being done, with what, and what went wrong.
    pub error: String,
    /// What to try.
    #[serde(rename = "try", default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    pub kind: ProblemKind,
    /// Counts and names for programs; any JSON. (Boxed to keep every `Result` that carries a problem small.)
    #[serde(default, skip_serializing_if = "is_null")]
    pub details: Box<serde_json::Value>,
}

fn is_null(value: &serde_json::Value) -> bool {
    value.is_null()
}

impl Problem {
    pub fn new(kind: ProblemKind, error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            advice: None,
            kind,
            details: Box::default(),
        }
    }

    pub fn failed(error: impl Into<String>) -> Self {
        Self::new(ProblemKind::Failed, error)
    }

    pub fn impossible(error: impl Into<String>) -> Self {
        Self::new(ProblemKind::Impossible, error)
    }

    pub fn refused(error: impl Into<String>) -> Self {
        Self::new(ProblemKind::Refused, error)
    }

    pub fn unreachable(error: impl Into<String>) -> Self {
        Self::new(ProblemKind::Unreachable, error)
    }

    pub fn not_found(error: impl Into<String>) -> Self {
        Self::new(ProblemKind::NotFound, error)
    }

    pub fn invalid(error: impl Into<String>) -> Self {
        Self::new(ProblemKind::Invalid, error)
    }

    /// A problem from an error and all its sources: "outer: inner: innermost".
    pub fn from_error(kind: ProblemKind, error: &dyn std::error::Error) -> Self {
        Self::new(kind, chain(error))
    }

    /// Says what to try.
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Adds details for programs. What cannot be written as JSON is left out: a problem must never fail to be told.
    pub fn details(mut self, details: impl Serialize) -> Self {
        self.details = Box::new(serde_json::to_value(details).unwrap_or_default());
        self
    }
}

/// An error and all its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        // Some libraries repeat their source in their own message.
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        if let Some(advice) = &self.advice {
            write!(f, "; try: {advice}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.kind.status(), axum::Json(self)).into_response()
    }
}

macro_rules! problem_from_rejection {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for Problem {
            fn from(rejection: $rejection) -> Self {
                Problem::new(ProblemKind::from_status(rejection.status()), rejection.body_text()).into_invalid()
            }
        }
    )*};
}
problem_from_rejection!(JsonRejection, BytesRejection, PathRejection, QueryRejection);

impl Problem {
    /// A request that does not parse is "invalid" whichever 4xx axum chose for it (it answers 422 for wrong types).
    fn into_invalid(mut self) -> Self {
        if self.kind != ProblemKind::Failed {
            self.kind = ProblemKind::Invalid;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_has_the_agreed_fields() {
        let problem = Problem::impossible("no host has 4096 MiB left")
            .advice("stop a clone")
            .details(serde_json::json!({"hosts": 3}));
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"error":"no host has 4096 MiB left","try":"stop a clone","kind":"impossible","details":{"hosts":3}}"#
        );
        assert_eq!(
            serde_json::to_string(&Problem::not_found("x")).unwrap(),
            r#"{"error":"x","kind":"not_found"}"#
        );
    }

    #[test]
    fn a_kind_of_the_future_reads_as_failed() {
        let problem: Problem = serde_json::from_str(r#"{"error":"x","kind":"haunted"}"#).unwrap();
        assert_eq!(problem.kind, ProblemKind::Failed);
    }

    #[test]
    fn every_kind_comes_back_from_its_status() {
        use ProblemKind::*;
        for kind in [Failed, Impossible, Refused, Unreachable, NotFound, Invalid] {
            assert_eq!(ProblemKind::from_status(kind.status()), kind);
        }
    }
}
