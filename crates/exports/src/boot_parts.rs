//! What boots a reference: kernel, initial RAM file system, modules. The reference's own where it has a kernel with
//! its modules, else another, with the modules as one more read-only disk.

use std::fs;
use std::path::{Path, PathBuf};

use estive_boot::{KernelTree, Root, initramfs};

use crate::ExportError;
use crate::line_programs::line_programs;
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
    let archive = archive(line, programs, &init, &tree)?;
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
) -> Result<Vec<u8>, ExportError> {
    let making = ExportError::boot("making the initial RAM file system");
    let Some(line) = line else {
        return initramfs::build(init, tree).map_err(making);
    };
    let needs = line.needs();
    let programs = line_programs(programs, &needs)?;
    initramfs::build_for(init, tree, &needs, programs.members()).map_err(making)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lines_programs_come_from_the_references_directory() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        for directory in ["kernel/boot", "kernel/lib/modules/6.1", "reference"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        fs::write(path("kernel/boot/vmlinuz-6.1"), "kernel").unwrap();
        fs::write(path("kernel/lib/modules/6.1/modules.dep"), "").unwrap();
        fs::write(path("init"), "init").unwrap();
        let text = "luks+block:/dev/vda";
        let line = Root::parse(text).unwrap();
        let (kernel, reference) = (path("kernel"), path("reference"));
        let fails = |programs: Option<&Path>| {
            let (init, out) = (path("init"), path("out"));
            let made = boot_parts_for(Some(&line), programs, None, Some(&kernel), &init, &out);
            let error = made.unwrap_err();
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", cause.unwrap_or_default())
        };
        let error = fails(None);
        for part in [text, "cryptsetup", "as a directory"] {
            assert!(error.contains(part), "{error}");
        }
        let error = fails(Some(&reference));
        for part in [text, "cryptsetup", "package cryptsetup-bin"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
