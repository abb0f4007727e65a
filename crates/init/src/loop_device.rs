//! Loop devices of the early userspace: they stay until the root's own init runs.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::failure::{Result, While};

/// Puts a loop device over a file; `path` is shown by losetup(8).
pub fn attach(file: &File, path: &Path, read_only: bool) -> Result<PathBuf> {
    let (node, device) = estive_loop_device::attach(file, path, read_only).doing(|| {
        format!(
            "a loop device over {} (has the initramfs the module loop?)",
            path.display()
        )
    })?;
    // The device would go with the last of its descriptors, and the mount is still to come. The start of the root's init
    // closes it.
    std::mem::forget(node);
    Ok(device)
}
