//! Other people's programs, run where they can do no harm: the scripts of template sets.
//!
//! ```text
//!   manager, estive ──request in a memfd──► keeper: `estive sandbox script`       (keeper.rs)
//!   (many threads)  ◄──────answer────────   own mount, pid, net, ipc, uts, cgroup namespaces;
//!                                           makes the view of the root             (view.rs)
//!                                             │ fork, own user namespace, no capabilities
//!                                           first process, pid 1: reaps            (first.rs)
//!                                             │ fork, limits, system calls filtered
//!                                           the script, in the reference's root, read-only
//! ```
//!
//! The keeper is our own program executed anew: nothing here forks in a process that has threads.
//! When the script has ended, its first process ends, and with it every process of its namespace;
//! only then the keeper reads what was left in the output. Nothing that the script made is looked
//! at while it lives.

mod asked;
mod cage;
mod cell;
mod collect;
mod command;
mod error;
mod filter;
mod first;
mod keeper;
mod limits;
mod messages;
mod mounts;
mod progress;
mod render;
mod request;
mod root_identity;
mod script_cache;
mod scripts;
mod set_files;
mod view;
mod watch;
mod worker;
mod workshop;

pub use command::hidden_command;
pub use error::SandboxError;
pub use limits::{Limits, RenderLimits};
pub use request::{InputNode, OutputNode, ScriptOutput, ScriptRequest};
pub use script_cache::ScriptCache;
pub use scripts::ScriptRoot;
pub use worker::Worker;
pub use workshop::{RootOf, Workshop};
