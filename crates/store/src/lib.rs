//! The store: who owns what, changed only by compare-and-swap. The seam [`Store`] has an embedded
//! part (one file, for one manager) and one in memory (for simulation); both pass [`conformance`].

pub mod conformance;
mod embedded;
mod memory;
mod store;
mod typed;
mod watch;

pub use embedded::EmbeddedStore;
pub use memory::MemoryStore;
pub use store::{Store, StoreError, Versioned};
pub use typed::{Typed, TypedValue};
pub use watch::{Change, Watch};
