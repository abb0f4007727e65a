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
mod lines;
pub mod server;
pub mod upgrade;
pub mod wire;

pub use client::{Client, ClientError};
pub use credentials::Credentials;
pub use endpoint::Endpoint;
pub use error::{Error, Problem, ProblemKind};
pub use identity::{Peer, Role};

#[cfg(test)]
mod transport_tests;
