//! See ARCHITECTURE.md.
pub mod authority;
pub mod client;
mod client_error;
pub mod clock;
pub mod credentials;
pub mod domain_xml;
pub mod endpoint;
pub mod error;
pub mod fault;
pub mod identity;
mod issued;
mod lines;
mod revocation;
pub mod server;
pub mod upgrade;
pub mod wire;

pub use client::{Client, ClientError};
pub use credentials::Credentials;
pub use endpoint::Endpoint;
pub use error::{Error, Problem, ProblemKind};
pub use identity::{Peer, Role};
pub use issued::{IssuedCertificate, IssuedHolder, RevokedCertificate};

#[cfg(test)]
mod transport_tests;
