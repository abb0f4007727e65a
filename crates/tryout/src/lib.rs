//! One clone, booted here to be watched: no agent, no manager, nothing left when it is over.
//!
//! It has the devices that it would have under an agent (the same command line of QEMU, made by the same code), but
//! for the back end of its network: QEMU itself answers for the router, so that no right on this host is needed.
//! Everything it has on disk is in one private directory.

mod error;
mod guest;
mod network;
mod parts;

pub use error::TryoutError;
pub use guest::{End, Guest, Trial};
pub use parts::{Parts, PartsOptions, Prepared};
