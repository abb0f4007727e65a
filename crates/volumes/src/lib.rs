//! Volumes: the state of stateful clones, on a storage host.
//!
//! A volume is a qcow2 image in a directory of its own, opened by one `qemu-storage-daemon` of its own, which serves it
//! raw by NBD and mutual TLS. Its exports are named `VOLUME@GENERATION`: during a move there are two, and before the
//! domain runs under the newer generation the older is cut ([`Volumes::fence`]), clients and all.
//!
//! ```text
//!   ROOT/NAME/record.json     what is so: size, owner, generations granted and let in    (written first, always)
//!             disk.qcow2      the image
//!             qmp.sock, pid, log      of the daemon
//!   ROOT/.new-…, ROOT/.gone-…         half made, half removed: swept at the next start
//! ```
//!
//! **Architecture invariant:** an agent opens, fences and closes nothing but the generation that the manager has granted
//! its host ([`Volumes::grant`]); what is granted is in the record, so a manager that is dead is not missed by who has it.
//!
//! **Architecture invariant:** the daemons do not depend on this service. It may be killed at any time; when it comes
//! back it adopts those that run, starts those that do not, and makes each serve what its record says, no more.
//!
//! **Architecture invariant:** a write that was answered is on disk (`writethrough`): a client that reconnects to a
//! daemon that was killed does not know that it was another, and would take what only that one held for written.

pub mod conformance;
mod daemon;
mod error;
mod image;
mod record;
mod rest;
mod seam;
pub mod simulated;
mod slot;
mod storage_host;

pub use error::VolumeError;
pub use rest::router;
pub use seam::{By, Volumes};
pub use simulated::SimulatedVolumes;
pub use storage_host::{StorageHost, StorageHostConfig};
