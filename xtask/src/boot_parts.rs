//! What boots a reference: kernel, initial RAM file system, modules. The reference's own where it has a kernel with its
//! modules, else Estive's, with the modules as one more read-only disk.

use std::path::{Path, PathBuf};

use estive_boot::{KernelTree, initramfs};

use crate::failure::{Failure, Result};
use crate::machine;

/// Files that a manager's configuration names.
pub struct BootParts {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    pub modules: PathBuf,
    /// Whose kernel it is, for people.
    pub whose: String,
}

/// Makes them for `reference`, in the target directory.
pub fn prepare(reference: &Path, ours: &Path, init: &Path) -> Result<BootParts> {
    let own = KernelTree::find(reference).ok();
    let whose = match &own {
        Some(tree) => format!("the reference's own, {}", tree.release),
        None => "Estive's".to_owned(),
    };
    let is_own = own.is_some();
    let tree = match own {
        Some(tree) => tree,
        None => KernelTree::find(ours).map_err(|error| {
            Failure::Unfit(format!("the kernel in {}: {error}", ours.display()))
        })?,
    };
    let directory = machine::target_directory().join("boot");
    let made = |path: &Path| {
        let path = path.to_owned();
        move |source| Failure::File {
            doing: "writing",
            path,
            source,
        }
    };
    std::fs::create_dir_all(&directory).map_err(made(&directory))?;
    let bytes = std::fs::read(init).map_err(|source| Failure::File {
        doing: "reading",
        path: init.to_owned(),
        source,
    })?;
    let archive = initramfs::build(&bytes, &tree)
        .map_err(|error| Failure::Unfit(format!("the initial RAM file system: {error}")))?;
    let file = directory.join(format!("initramfs-{}", tree.release));
    let aside = directory.join(format!(".initramfs-{}", std::process::id()));
    std::fs::write(&aside, archive).map_err(made(&aside))?;
    std::fs::rename(&aside, &file).map_err(made(&file))?;
    // A reference with modules of its own needs no more of them: the disk is there and empty, as every clone's.
    let modules_directory = tree.modules.parent().map(Path::to_owned);
    let layer = if is_own {
        None
    } else {
        modules_directory.as_deref()
    };
    let modules =
        estive_exports::modules::image(layer, &directory).map_err(|error| Failure::Seal {
            root: layer.unwrap_or(&directory).to_owned(),
            source: Box::new(error),
        })?;
    Ok(BootParts {
        kernel: tree.vmlinuz,
        initramfs: file,
        modules: modules.path,
        whose,
    })
}
