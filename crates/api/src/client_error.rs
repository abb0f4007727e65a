//! Why a request to a service brought no answer that can be used.

use std::io;

use http::StatusCode;

use crate::endpoint::Endpoint;
use crate::error::{Problem, ProblemKind};

/// Why a request brought no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody was reached: nothing was asked, so nothing was done.
    #[error("cannot reach {endpoint}; is the service running there, and is the network up?")]
    Unreachable {
        endpoint: Endpoint,
        #[source]
        source: BoxError,
    },
    /// The request was sent and no whole answer came: it may or may not have been done.
    #[error(
        "{endpoint} was asked to {what} and gave no whole answer; it may or may not have been done, look before asking again"
    )]
    Interrupted {
        endpoint: Endpoint,
        what: String,
        #[source]
        source: BoxError,
    },
    /// The other side does not accept who we are or gives us no right (401, 403, or a TLS alert about our
    /// certificate), or it is not of our authority.
    #[error("{endpoint} refused: {problem}")]
    Refused {
        endpoint: Endpoint,
        problem: Problem,
    },
    /// It cannot be done as asked (409, 422).
    #[error("{problem}")]
    Impossible {
        endpoint: Endpoint,
        problem: Problem,
    },
    /// Every other unsuccessful answer.
    #[error("{problem}")]
    Failed {
        endpoint: Endpoint,
        status: StatusCode,
        problem: Problem,
    },
    /// The other side does not speak as agreed; often another version of Estive, or not Estive at all.
    #[error("{endpoint} does not speak as expected: {reason}; is it the same version of Estive?")]
    Protocol { endpoint: Endpoint, reason: String },
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl ClientError {
    /// 1 failed, 2 impossible as asked, 3 refused, 4 unreachable.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } | Self::Interrupted { .. } => 4,
            Self::Refused { .. } => 3,
            Self::Impossible { .. } => 2,
            Self::Failed { problem, .. } if problem.kind == ProblemKind::Unreachable => 4,
            Self::Failed { .. } | Self::Protocol { .. } => 1,
        }
    }

    /// What the other side said, when it said something.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused { problem, .. }
            | Self::Impossible { problem, .. }
            | Self::Failed { problem, .. } => Some(problem),
            _ => None,
        }
    }

    /// Whether the other side answered that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.problem()
            .is_some_and(|problem| problem.kind == ProblemKind::NotFound)
    }
}

/// Whether TLS ended because one side does not accept the other's certificate: no retry helps then.
pub(crate) fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<Problem> {
    use rustls::AlertDescription as Alert;
    let mut next = Some(error);
    while let Some(error) = next {
        // An io::Error's own source is its inner error's source: look at the inner one itself.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let tls = error
            .downcast_ref::<rustls::Error>()
            .or_else(|| inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()));
        match tls {
            Some(rustls::Error::AlertReceived(
                alert @ (Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::DecryptError
                | Alert::AccessDenied),
            )) => {
                return Some(
                    Problem::refused(format!("it does not accept our certificate ({alert:?})"))
                        .advice("use credentials issued by its authority, and look at their dates"),
                );
            }
            Some(rustls::Error::InvalidCertificate(reason)) => {
                return Some(
                    Problem::refused(format!(
                        "its certificate is not one we accept there ({reason})"
                    ))
                    .advice(
                        "check the address, and that both sides have credentials of one authority",
                    ),
                );
            }
            _ => {}
        }
        next = error.source();
    }
    None
}
