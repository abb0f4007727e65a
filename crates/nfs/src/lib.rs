//! A user-space NFSv3 server: directories as guests' own kernels mount them, over any byte stream.
//!
//! Programs NFS and MOUNT (RFC 1813) and NFSACL, on one port. No NLM: clients mount with `nolock`, and locks hold
//! within one client. What an export is stands in [`export`], why its handles open nothing else in [`handle`].
#![deny(missing_debug_implementations)]

mod acl;
mod attributes;
mod caller;
mod error;
mod export;
mod handle;
mod hidden;
mod memory;
mod mount;
mod procedures;
mod quota;
pub mod record;
mod replies;
mod rpc;
mod serve;
mod service;
mod status;
mod turns;
mod xdr;

pub use error::NfsError;
pub use export::{Access, Export, ExportConfig};
pub use handle::Key;
pub use hidden::Hidden;
pub use memory::{Memory, Room, Share};
pub use procedures::answer_bytes_at_most;
pub use quota::{Held, Quota};
pub use rpc::MOST_DATA_BYTES;
pub use serve::{Limits, listen, serve};
pub use service::Service;
