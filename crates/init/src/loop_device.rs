//! Loop devices of the early userspace: they stay until the root's own init runs, or a boot begins again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::failure::{Result, While};

/// The device would go with the last of its descriptors, and the mount is still to come. The start of the root's init
/// closes them.
static KEPT_OPEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Puts a loop device over a file; `path` is shown by losetup(8).
pub fn attach(file: &File, path: &Path, read_only: bool) -> Result<PathBuf> {
    let (node, device) = estive_loop_device::attach(file, path, read_only).doing(|| {
        format!(
            "a loop device over {} (has the initramfs the module loop?)",
            path.display()
        )
    })?;
    let mut kept = KEPT_OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    kept.push(node);
    Ok(device)
}

/// Lets go of every device of this boot: one that nothing else uses goes, and its file with it.
pub fn let_go() {
    let mut kept = KEPT_OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    kept.clear();
}
