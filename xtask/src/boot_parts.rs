//! What boots a reference, made in the target directory: its own kernel where it has one, else Estive's.

use std::path::Path;

use estive_exports::BootParts;

use crate::failure::{Failure, Result};
use crate::machine;

/// Makes kernel, initramfs and modules for `reference`.
pub fn prepare(reference: &Path, ours: &Path, init: &Path) -> Result<BootParts> {
    let directory = machine::target_directory().join("boot");
    estive_exports::boot_parts(Some(reference), Some(ours), init, &directory).map_err(|error| {
        Failure::Boot {
            root: reference.to_owned(),
            source: Box::new(error),
        }
    })
}
