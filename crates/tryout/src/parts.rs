//! What a clone is booted from: as given, else as the last `./x setup` left it, else made.

use std::path::{Path, PathBuf};

use estive_boot::Root;
use estive_exports::{BootParts, SealOptions, boot_parts_for};
use estive_hypervisor::Accel;
use serde::Deserialize;

use crate::error::TryoutError;

/// As people give them; what is missing is found or made.
#[derive(Debug, Clone, Default)]
pub struct PartsOptions {
    /// A directory, which is sealed first, or a sealed image.
    pub root: Option<PathBuf>,
    pub kernel: Option<PathBuf>,
    pub initramfs: Option<PathBuf>,
    pub modules: Option<PathBuf>,
    /// `estive-init`, where an initramfs is to be made.
    pub init: Option<PathBuf>,
    /// The clone's own `root:`, which an initramfs that is made will do for.
    pub line: Option<Root>,
}

/// Files to boot from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The sealed image.
    pub root: PathBuf,
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    pub modules: PathBuf,
}

/// What `./x setup` left in its cache.
#[derive(Debug, Clone, Deserialize)]
pub struct Prepared {
    kernel: PreparedKernel,
    reference_root: PathBuf,
    sealed: PathBuf,
    /// Proved for the machine as it was then.
    pub accel: Accel,
}

#[derive(Debug, Clone, Deserialize)]
struct PreparedKernel {
    directory: PathBuf,
}

impl Prepared {
    /// The root as a directory.
    pub fn reference_root(&self) -> &Path {
        &self.reference_root
    }

    /// Reads `prepared.json` of a cache; `None` when there is none, or of another kind.
    pub fn load(cache: &Path) -> Option<Self> {
        let bytes = std::fs::read(cache.join("prepared.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

impl Parts {
    /// Finds what is given or prepared, makes the rest in `directory`. Blocks, for seconds when a root is sealed.
    pub fn find(
        options: &PartsOptions,
        prepared: Option<&Prepared>,
        directory: &Path,
    ) -> Result<Self, TryoutError> {
        let (image, tree) = match &options.root {
            Some(root) if root.is_dir() => (None, Some(root.clone())),
            Some(root) => (Some(present(root)?), None),
            None => {
                let prepared = prepared.ok_or(TryoutError::Missing {
                    what: "root to boot from",
                    option: "--root",
                })?;
                (
                    Some(present(&prepared.sealed)?),
                    Some(prepared.reference_root.clone()),
                )
            }
        };
        let (kernel, initramfs, modules) =
            match (&options.kernel, &options.initramfs, &options.modules) {
                (Some(kernel), Some(initramfs), Some(modules)) if !kernel.is_dir() => {
                    (present(kernel)?, present(initramfs)?, present(modules)?)
                }
                (kernel, initramfs, modules) => {
                    let made = make(
                        options,
                        kernel.as_deref(),
                        tree.as_deref(),
                        prepared,
                        directory,
                    )?;
                    let given = |part: &Option<PathBuf>, made: PathBuf| match part {
                        Some(path) => present(path),
                        None => Ok(made),
                    };
                    (
                        made.kernel,
                        given(initramfs, made.initramfs)?,
                        given(modules, made.modules)?,
                    )
                }
            };
        let root = match (image, tree) {
            (Some(image), _) => image,
            (None, Some(tree)) => {
                // A trial may be ended at any moment, and then no snapshot may stay.
                let options = SealOptions {
                    no_snapshot: true,
                    ..SealOptions::default()
                };
                estive_exports::seal_with(&tree, directory, &options)?.path
            }
            // One of both was found above.
            (None, None) => return Err(missing_kernel()),
        };
        Ok(Self {
            root,
            kernel,
            initramfs,
            modules,
        })
    }
}

/// Kernel, initramfs and modules that fit each other: of the kernel's tree that was given, else of the root, else of
/// the cache.
fn make(
    options: &PartsOptions,
    kernel: Option<&Path>,
    tree: Option<&Path>,
    prepared: Option<&Prepared>,
    directory: &Path,
) -> Result<BootParts, TryoutError> {
    let init = options.init.as_deref().ok_or(TryoutError::Missing {
        what: "estive-init, the program that the clone's initial RAM file system starts",
        option: "--init (or --kernel, --initramfs and --modules together)",
    })?;
    let init = present(init)?;
    let line = options.line.as_ref().filter(|line| !line.is_of_clones());
    let cached = prepared.map(|prepared| prepared.kernel.directory.as_path());
    Ok(match kernel {
        Some(kernel) if kernel.is_dir() => {
            boot_parts_for(line, tree, None, Some(kernel), &init, directory)?
        }
        // A bare kernel says nothing of its modules.
        Some(_) => {
            return Err(TryoutError::Missing {
                what: "modules for this kernel",
                option: "--initramfs and --modules with it, or as --kernel a directory with boot/ and lib/modules/",
            });
        }
        None if tree.is_none() && cached.is_none() => return Err(missing_kernel()),
        None => boot_parts_for(line, tree, tree, cached, &init, directory)?,
    })
}

fn missing_kernel() -> TryoutError {
    TryoutError::Missing {
        what: "kernel",
        option: "--kernel",
    }
}

fn present(path: &Path) -> Result<PathBuf, TryoutError> {
    let metadata = std::fs::metadata(path).map_err(TryoutError::io("looking for", path))?;
    if !metadata.is_file() {
        let error = std::io::Error::other("it is not a file");
        return Err(TryoutError::io("using", path)(error));
    }
    std::path::absolute(path).map_err(TryoutError::io("finding", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_option() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("made");
        let file = |name: &str| {
            std::fs::write(home.path().join(name), name).unwrap();
            Some(home.path().join(name))
        };
        let find = |options: &PartsOptions| Parts::find(options, None, &directory);
        let words = |options: &PartsOptions| find(options).unwrap_err().to_string();
        let mut options = PartsOptions::default();
        assert!(words(&options).contains("--root"));
        options.root = Some(home.path().join("nowhere"));
        assert!(words(&options).contains("nowhere"));
        options.root = file("root.erofs");
        assert!(words(&options).contains("--init "));
        options.init = file("init");
        assert!(words(&options).contains("no kernel: give --kernel"));
        options.kernel = file("vmlinuz");
        assert!(words(&options).contains("--initramfs and --modules with it"));
        options.initramfs = file("initramfs");
        options.modules = file("modules");
        let parts = find(&options).unwrap();
        assert_eq!(Some(parts.root), options.root);
        assert_eq!(Some(parts.kernel), options.kernel);
        assert!(!directory.exists(), "nothing had to be made");
    }

    #[test]
    fn what_setup_left_is_understood() {
        let home = tempfile::tempdir().unwrap();
        assert!(Prepared::load(home.path()).is_none());
        let text = r#"{"kernel":{"version":"6.1","directory":"/k"},"reference_root":"/r","sealed":"/s","accel":"tcg"}"#;
        std::fs::write(home.path().join("prepared.json"), text).unwrap();
        let prepared = Prepared::load(home.path()).unwrap();
        assert_eq!(prepared.accel, Accel::Tcg);
        assert_eq!(prepared.kernel.directory, Path::new("/k"));
    }
}
