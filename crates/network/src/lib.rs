//! Bridges and taps of a host, driven through iproute2's `ip`, who may send from them through `nft`; namespaces for tests and the demo.
//!
//! Policy stays out: callers say which tap belongs to which bridge, this crate makes it so, and making it
//! so twice changes nothing.

mod door;
mod error;
mod ip;
mod link;
mod names;
pub mod namespace;
mod sender;

pub use door::door_ensure;
pub use error::Error;
pub use link::{Tap, TrafficCount, bridge_ensure, loopback_up, tap_ensure, tap_remove, taps};
pub use names::{MacAddress, NAME_BYTES_MAX, bridge_mac, tap_name};
pub use sender::{Sender, sender_ensure, sender_remove};
