//! The nouns of Estive: names, units, domains, hosts, events. No I/O, no clock.
//!
//! Every other crate imports this one; this one imports none of ours.

mod clock;
mod domain;
mod event;
mod exit;
mod host;
mod image;
mod name;

pub use clock::{Clock, ManualClock};
pub use domain::{
    BlockSource, Checksummed, DomainSpec, DomainState, Interface, LAYER_DISK_BYTES, NbdSource,
    ParseStateError,
};
pub use event::{Event, EventKind};
pub use exit::ExitCode;
pub use host::{Capacity, HostHealth};
pub use image::{ImageDisk, ImageFile, ImageFormat, ImageKernel, ImageSpec, Machine};
pub use name::{
    DeploymentName, Digest, DomainName, Generation, HostName, NameError, OperationId, ReferenceName,
};
