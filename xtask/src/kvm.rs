//! How guests run on this machine: as remembered, else proved now.

use std::path::Path;

use estive_hypervisor::{Accel, KvmVerdict};

use crate::cache::Cache;
use crate::failure::{Result, file};
use crate::progress::Step;

const QEMU: &str = "qemu-system-x86_64";

/// The verdict, with the kernel given for its proof.
pub fn verdict(cache: &Cache, kernel: &Path) -> Result<Accel> {
    let (place, emulator) = (cache.acceleration(), Path::new(QEMU));
    let remembered = KvmVerdict::remembered(&place, emulator)
        .map_err(file("asking the version of", emulator))?;
    if let Some(verdict) = remembered {
        return Ok(verdict.accel);
    }
    let step = Step::begin("proving that KVM works");
    let verdict = KvmVerdict::prove(&place, emulator, kernel)
        .map_err(file("proving KVM with the kernel", kernel))?;
    step.done(&format!(
        "{}, since {}",
        verdict.accel.as_str(),
        verdict.reason
    ));
    Ok(verdict.accel)
}
