//! Live roots and shared directories from a reference to its clones.
//!
//! A clone's kernel mounts NFS from an address of its own host. There the forwarder, in the process of the host's cache,
//! lets that reference's clones in and passes their calls on by mutual TLS; on the reference, `estive storage` answers
//! them ([`origin`]). A link that is cut is made again without the clone noticing: calls that were not answered are sent
//! again.

mod error;
mod forward;
mod notes;
pub mod origin;
mod outstanding;
mod readers;
mod relay;

pub use error::LiveError;
pub use estive_nfs::Memory;
pub use forward::forward;
pub use origin::{Offer, Reserved, router};
