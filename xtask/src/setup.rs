//! `./x setup`: everything that the demo, the tests and the benchmarks find ready.

use std::path::PathBuf;

use estive_hypervisor::Accel;
use serde::{Deserialize, Serialize};

use crate::apt::Apt;
use crate::cache::{self, Cache};
use crate::failure::{Failure, Result};
use crate::kernel::{self, Flavour, KernelTree};
use crate::kvm;
use crate::machine;
use crate::recipe::{self, Recipe};
use crate::reference;
use crate::virtiofsd;

/// What setup leaves ready.
#[derive(Serialize, Deserialize)]
pub struct Prepared {
    pub kernel: KernelTree,
    pub reference_root: PathBuf,
    /// The EROFS image of the reference, readable by root alone: it holds what the root holds.
    pub sealed: PathBuf,
    pub accel: Accel,
    /// What only tests boot, when it was asked for.
    #[serde(default)]
    pub for_tests: Option<TestRoots>,
    /// A kernel that only tests boot, when it was asked for: the one with drivers of physical machines.
    #[serde(default)]
    pub generic_kernel: Option<KernelTree>,
    /// The root with programs for encrypted disks, volumes and arrays, when it was asked for.
    #[serde(default)]
    pub loaders: Option<Sealed>,
    /// The root that the benchmark `work` works in, likewise.
    #[serde(default)]
    pub work: Option<Sealed>,
    /// The daemon of virtiofs, likewise.
    #[serde(default)]
    pub virtiofsd: Option<PathBuf>,
}

/// What is asked for besides what everything needs.
#[derive(Clone, Copy, Default)]
pub struct Wanted {
    pub test_roots: bool,
    pub generic_kernel: bool,
    pub loaders_root: bool,
    pub work_root: bool,
}

/// Sealed images that only tests boot.
#[derive(Serialize, Deserialize)]
pub struct TestRoots {
    /// What the template sets are tried on: OpenMPI, PostgreSQL, a kernel of its own.
    pub sets: Sealed,
    /// Another init system.
    pub openrc: Sealed,
}

/// A root and the image of it.
#[derive(Serialize, Deserialize)]
pub struct Sealed {
    pub root: PathBuf,
    pub image: PathBuf,
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
        if let Some(TestRoots { sets, openrc }) = &self.for_tests {
            println!("for tests  {}", sets.root.display());
            println!("           {}", openrc.root.display());
        }
        for root in [&self.loaders, &self.work].into_iter().flatten() {
            println!("           {}", root.root.display());
        }
        if let Some(kernel) = &self.generic_kernel {
            println!(
                "           {} in {}",
                kernel.version,
                kernel.directory.display()
            );
        }
    }
}

/// Installs the peer of the benchmark `traffic`, where it is missing.
pub fn install_for_traffic() -> Result<()> {
    if machine::program("gpmetis").is_none() && !machine::is_root() {
        let words = "the benchmark 'traffic' runs METIS: install the package metis, then try again";
        return Err(Failure::Unfit(words.to_owned()));
    }
    Apt::new().install_for_traffic()
}

/// Installs the peer of the benchmark `balance`, where it is missing.
pub fn install_for_balance() -> Result<()> {
    if machine::program("hbal").is_none() && !machine::is_root() {
        let words =
            "the benchmark 'balance' runs hbal: install the package ganeti-htools, then try again";
        return Err(Failure::Unfit(words.to_owned()));
    }
    Apt::new().install_for_balance()
}

/// Installs what is missing and makes kernel, reference and sealed image, or finds them in the cache.
///
/// All of it needs root, and sudo is asked for the whole of it when we are not: the files of a root have many owners.
pub fn setup(wanted: Wanted) -> Result<Prepared> {
    let cache = Cache::open()?;
    if !machine::is_root() {
        let mut words = vec!["setup"];
        words.extend(wanted.test_roots.then_some("--tests"));
        words.extend(wanted.generic_kernel.then_some("--generic-kernel"));
        words.extend(wanted.loaders_root.then_some("--loaders"));
        words.extend(wanted.work_root.then_some("--work"));
        machine::again_as_root(&words, &cache::directory()?)?;
        return cache.prepared();
    }
    let suite = machine::suite()?;
    let _lock = cache.lock()?;
    let mut apt = Apt::new();
    apt.install_missing(&suite)?;
    let kernel = kernel::prepare(&cache, &suite, Flavour::Cloud, &mut apt)?;
    let generic_kernel = match wanted.generic_kernel {
        true => {
            apt.install_for_machines()?;
            let flavour = Flavour::Generic;
            Some(kernel::prepare(&cache, &suite, flavour, &mut apt)?)
        }
        false => None,
    };
    let accel = kvm::verdict(&cache, &kernel.image())?;
    let make = |recipe: &Recipe| {
        reference::prepare(&cache, &suite, recipe, &kernel).map(|made| Sealed {
            root: made.root,
            image: made.sealed,
        })
    };
    let reference = make(&recipe::REFERENCE)?;
    let for_tests = match wanted.test_roots {
        true => Some(TestRoots {
            sets: make(&recipe::SETS)?,
            openrc: make(&recipe::OPENRC)?,
        }),
        false => None,
    };
    let loaders = match wanted.loaders_root {
        true => Some(make(&recipe::LOADERS)?),
        false => None,
    };
    let work = match wanted.work_root {
        true => Some(make(&recipe::WORK)?),
        false => None,
    };
    let virtiofsd = match wanted.loaders_root {
        true => Some(virtiofsd::prepare(&cache, &mut apt, &suite)?),
        false => None,
    };
    let prepared = Prepared {
        kernel,
        reference_root: reference.root,
        sealed: reference.image,
        accel,
        for_tests,
        generic_kernel,
        loaders,
        work,
        virtiofsd,
    };
    cache.write_prepared(&prepared)?;
    Ok(prepared)
}
