//! `./x setup`: everything that the demo, the tests and the benchmarks find ready.

use std::path::PathBuf;
use std::process::Command;

use estive_exports::Sealed;

use crate::apt::Apt;
use crate::cache::{self, Cache};
use crate::failure::{Failure, Result};
use crate::kernel::{self, KernelTree};
use crate::kvm::{self, Accel};
use crate::machine;
use crate::reference::{self, Reference};

/// What setup leaves ready.
pub struct Prepared {
    pub kernel: KernelTree,
    pub reference_root: PathBuf,
    pub sealed: Sealed,
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
        println!(
            "sealed     {} ({} MiB)",
            self.sealed.path.display(),
            self.sealed.size_bytes >> 20
        );
        println!("guests     run on {}", self.accel.as_str());
    }
}

/// Installs what is missing and makes kernel, reference and sealed image, or finds them in the cache.
///
/// All of it needs root, and sudo is asked for the whole of it when we are not: the files of a root have many owners.
pub fn setup() -> Result<Prepared> {
    if !machine::is_root() {
        elevate()?;
    }
    let cache = Cache::open()?;
    let suite = machine::suite()?;
    let mut apt = Apt::new();
    if !machine::is_root() {
        // Root has just made everything: what follows only finds it.
        return find(&cache, &suite, &mut apt);
    }
    let _lock = cache.lock()?;
    apt.install_missing(&suite)?;
    find(&cache, &suite, &mut apt)
}

/// Each part in turn, made where it is not in the cache.
fn find(cache: &Cache, suite: &str, apt: &mut Apt) -> Result<Prepared> {
    let kernel = kernel::prepare(cache, suite, apt)?;
    let accel = kvm::verdict(cache, &kernel.image())?;
    let Reference { root, sealed } = reference::prepare(cache, suite)?;
    Ok(Prepared {
        kernel,
        reference_root: root,
        sealed,
        accel,
    })
}

fn elevate() -> Result<()> {
    if machine::program("sudo").is_none() {
        return Err(Failure::Unfit(
            "preparing this machine needs root, and there is no sudo: run ./x as root".into(),
        ));
    }
    // Root's own cache would be another: ours is named.
    let cache = cache::directory()?;
    let mut command: Command =
        machine::ourselves_as_root(&[("ESTIVE_CACHE", cache.display().to_string())])?;
    command.arg("setup");
    let doing = "preparing this machine as root".to_string();
    let status = command
        .stdout(std::process::Stdio::null())
        .status()
        .map_err(|source| Failure::Spawn {
            doing: doing.clone(),
            program: "sudo".into(),
            source,
        })?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::Ended {
        doing,
        command: "sudo x setup".into(),
        status,
        tail: "see its message above".into(),
    })
}
