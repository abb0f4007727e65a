//! `./x setup`: everything that the demo, the tests and the benchmarks find ready.

use std::path::PathBuf;

use estive_hypervisor::Accel;
use serde::{Deserialize, Serialize};

use crate::apt::Apt;
use crate::cache::{self, Cache};
use crate::failure::Result;
use crate::kernel::{self, KernelTree};
use crate::kvm;
use crate::machine;
use crate::reference::{self, Reference};

/// What setup leaves ready.
#[derive(Serialize, Deserialize)]
pub struct Prepared {
    pub kernel: KernelTree,
    pub reference_root: PathBuf,
    /// The EROFS image of the reference, readable by root alone: it holds what the root holds.
    pub sealed: PathBuf,
    pub accel: Accel,
}

impl Prepared {
    pub fn print(&self) {
        println!(
            "kernel     {} in {}",
            self.kernel.version,
            self.kernel.directory.display()
        );
        println!("reference  {}", self.reference_root.display());
        println!("sealed     {}", self.sealed.display());
        println!("guests     run on {}", self.accel.as_str());
    }
}

/// Installs what is missing and makes kernel, reference and sealed image, or finds them in the cache.
///
/// All of it needs root, and sudo is asked for the whole of it when we are not: the files of a root have many owners.
pub fn setup() -> Result<Prepared> {
    let cache = Cache::open()?;
    if !machine::is_root() {
        machine::again_as_root(&["setup"], &cache::directory()?)?;
        return cache.prepared();
    }
    let suite = machine::suite()?;
    let _lock = cache.lock()?;
    let mut apt = Apt::new();
    apt.install_missing(&suite)?;
    let kernel = kernel::prepare(&cache, &suite, &mut apt)?;
    let accel = kvm::verdict(&cache, &kernel.image())?;
    let Reference { root, sealed } = reference::prepare(&cache, &suite)?;
    let prepared = Prepared {
        kernel,
        reference_root: root,
        sealed,
        accel,
    };
    cache.write_prepared(&prepared)?;
    Ok(prepared)
}
