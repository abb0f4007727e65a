//! Bridges and taps of a host, driven through iproute2's `ip`; namespaces for tests and the demo.
//!
//! Policy stays out: callers say which tap belongs to which bridge, this crate makes it so, and making it
//! so twice changes nothing.

mod door;
mod error;
mod ip;
mod link;
mod names;
pub mod namespace;

pub use door::door_ensure;
pub use error::Error;
pub use link::{Tap, TrafficCount, bridge_ensure, loopback_up, tap_ensure, tap_remove, taps};
pub use names::{MacAddress, NAME_BYTES_MAX, bridge_mac, tap_name};
