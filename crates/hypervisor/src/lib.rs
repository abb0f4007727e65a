//! The seam `Hypervisor`, its real driver (QEMU over QMP) and its simulated one, and the conformance suite both pass.
//!
//! **Architecture invariant:** no policy here. A hypervisor does what it is told and reports what it sees; which
//! domain may run where is decided by the journal of the agent (`estive-moves`).
//!
//! **Architecture invariant:** a domain's processors never start by themselves: every instance is made halted
//! (`-S`), and only [`Hypervisor::resume`] starts them. A source whose migration *fails* goes on running by itself
//! (that is QEMU's own behaviour); a source whose migration *completed* stays halted for ever unless resumed.

pub mod conformance;
pub mod guest_agent;
pub mod guest_exec;
mod image_files;
pub mod qemu;
pub mod qmp;
mod seam;
pub mod simulated;

pub use image_files::{FileId, Grip, is_written_when_opened};
pub use qemu::{Accel, KvmVerdict, QemuConfig, QemuHypervisor, UserNetwork, arguments};
pub use seam::*;
pub use simulated::{SimulatedFabric, SimulatedHypervisor};
