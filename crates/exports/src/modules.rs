//! The modules disk: kernel modules as one more read-only layer, always attached.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::ExportError;
use crate::seal::{self, SealOptions, Sealed};

/// Makes the modules disk into `out_dir`.
///
/// `modules_dir` is a directory as /lib/modules is: `<kernel version>/modules.dep` and the rest;
/// that directory becomes the top of the image. `None`: the reference has its own kernel and
/// modules, the disk is empty (a few KiB).
pub fn image(modules_dir: Option<&Path>, out_dir: &Path) -> Result<Sealed, ExportError> {
    let Some(dir) = modules_dir else {
        return empty(out_dir);
    };
    let dir = seal::canonical_root(dir).map_err(|_| ExportError::Modules {
        dir: dir.to_path_buf(),
        what: "there is no such directory".to_owned(),
    })?;
    let has_list = fs::read_dir(&dir)
        .map_err(ExportError::io("reading", &dir))?
        .flatten()
        .any(|entry| entry.path().join("modules.dep").is_file());
    if !has_list {
        return Err(ExportError::Modules {
            dir,
            what:
                "no <kernel version>/modules.dep in it; run depmod -b on the tree the kernel package was unpacked into"
                    .to_owned(),
        });
    }
    seal::image_of(&dir, out_dir, &still())
}

fn empty(out_dir: &Path) -> Result<Sealed, ExportError> {
    // Inside out_dir: on the same disk, private to us, and gone with it if we are killed here.
    let nothing = out_dir.join(".no-modules");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&nothing)
        .map_err(ExportError::io("making", &nothing))?;
    let nothing_there = fs::canonicalize(&nothing).map_err(ExportError::io("finding", &nothing))?;
    seal::image_of(&nothing_there, out_dir, &still())
}

/// Modules come and go with packages: no snapshot is worth its while.
fn still() -> SealOptions {
    SealOptions {
        no_snapshot: true,
        ..SealOptions::default()
    }
}
