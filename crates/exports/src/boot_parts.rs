//! What boots a reference: kernel, initial RAM file system, modules. The reference's own where it has a kernel with
//! its modules, else another, with the modules as one more read-only disk.

use std::fs;
use std::path::{Path, PathBuf};

use estive_boot::{KernelTree, Root, initramfs, programs};

use crate::ExportError;
use crate::modules;

/// Files that a clone is booted from, beside its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootParts {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    /// An image, empty where the root has the modules itself.
    pub modules: PathBuf,
    /// Whose kernel it is, for people.
    pub whose: String,
}

/// Makes them in `out_dir`: with the kernel of `reference` (a root as a directory) if it has one, else with that of
/// the tree `other`. `init` is `estive-init`.
pub fn boot_parts(
    reference: Option<&Path>,
    other: Option<&Path>,
    init: &Path,
    out_dir: &Path,
) -> Result<BootParts, ExportError> {
    boot_parts_for(None, None, reference, other, init, out_dir)
}

/// Likewise, for clones whose root is made as `line` says. Programs that it needs are those of `programs`, a root as a
/// directory.
pub fn boot_parts_for(
    line: Option<&Root>,
    programs: Option<&Path>,
    reference: Option<&Path>,
    other: Option<&Path>,
    init: &Path,
    out_dir: &Path,
) -> Result<BootParts, ExportError> {
    let own = reference.map(KernelTree::find);
    let (tree, is_own) = match (own, other) {
        (Some(Ok(tree)), _) => (tree, true),
        (_, Some(other)) => {
            let found = KernelTree::find(other);
            (found.map_err(ExportError::boot("finding a kernel"))?, false)
        }
        (Some(Err(error)), None) => return Err(ExportError::boot("finding a kernel")(error)),
        (None, None) => return Err(ExportError::NoKernel),
    };
    fs::create_dir_all(out_dir).map_err(ExportError::io("making the directory", out_dir))?;
    let init = fs::read(init).map_err(ExportError::io("reading estive-init,", init))?;
    let archive = archive(line, programs, &init, &tree)
        .map_err(ExportError::boot("making the initial RAM file system"))?;
    let file = out_dir.join(format!("initramfs-{}", tree.release));
    let aside = out_dir.join(format!(".initramfs-{}", std::process::id()));
    fs::write(&aside, archive).map_err(ExportError::io("writing", &aside))?;
    fs::rename(&aside, &file).map_err(ExportError::io("writing", &file))?;
    // A reference with modules of its own needs no more of them: the disk is there and empty, as every clone's.
    let layer = if is_own { None } else { tree.modules.parent() };
    let modules = modules::image(layer, out_dir)?;
    Ok(BootParts {
        kernel: tree.vmlinuz,
        initramfs: file,
        modules: modules.path,
        whose: if is_own {
            format!("the reference's own, {}", tree.release)
        } else {
            format!("Estive's, {}", tree.release)
        },
    })
}

fn archive(
    line: Option<&Root>,
    programs: Option<&Path>,
    init: &[u8],
    tree: &KernelTree,
) -> Result<Vec<u8>, estive_boot::Error> {
    let Some(line) = line else {
        return initramfs::build(init, tree);
    };
    let needs = line.needs();
    let programs = match programs {
        Some(root) => programs::collect(root, &needs.programs)?,
        None => programs::Programs::default(),
    };
    initramfs::build_for(init, tree, &needs, programs.members())
}
