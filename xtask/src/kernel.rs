//! Kernels of Debian: the cloud one, for references that have none of their own, and the generic one, which has the
//! drivers of physical machines, for tests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::apt::Apt;
use crate::cache::Cache;
use crate::failure::{Failure, Result, file};
use crate::progress::{Step, output};

/// Which of Debian's kernels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// For virtual machines: small, and seconds faster to boot under emulation.
    Cloud,
    /// For every machine: with 9p, and with drivers of disks and network cards that are not virtio.
    Generic,
}

impl Flavour {
    /// The package that depends on the newest one of a suite.
    fn newest_package(self) -> &'static str {
        match self {
            Self::Cloud => "linux-image-cloud-amd64",
            Self::Generic => "linux-image-amd64",
        }
    }

    fn place(self, cache: &Cache, suite: &str) -> PathBuf {
        match self {
            Self::Cloud => cache.kernel(suite),
            Self::Generic => cache.kernel(&format!("{suite}-generic")),
        }
    }
}

/// A kernel unpacked as its package lays it out: `boot/vmlinuz-VERSION`, `lib/modules/VERSION`.
#[derive(Serialize, Deserialize)]
pub struct KernelTree {
    pub directory: PathBuf,
    pub version: String,
}

impl KernelTree {
    pub fn image(&self) -> PathBuf {
        self.directory
            .join("boot")
            .join(format!("vmlinuz-{}", self.version))
    }

    fn open(directory: &Path) -> Result<Self> {
        let modules = directory.join("lib/modules");
        let listed = fs::read_dir(&modules).map_err(file("reading", &modules))?;
        let mut versions: Vec<String> = listed
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        versions.sort();
        let tree = versions.pop().map(|version| Self {
            directory: directory.to_path_buf(),
            version,
        });
        tree.filter(|tree| tree.image().is_file()).ok_or_else(|| {
            Failure::Unfit(format!(
                "{} holds no kernel with its modules: remove it, then try again",
                directory.display()
            ))
        })
    }
}

/// A kernel in the cache, downloaded and unpacked there the first time. Nothing of it is installed on the machine.
pub fn prepare(cache: &Cache, suite: &str, flavour: Flavour, apt: &mut Apt) -> Result<KernelTree> {
    let place = flavour.place(cache, suite);
    if !place.exists() {
        let wanted = flavour.newest_package();
        let package = match newest(wanted) {
            Some(package) => package,
            None => {
                apt.update()?;
                newest(wanted).ok_or_else(|| {
                    Failure::Unfit(format!("no package source of this machine offers {wanted}"))
                })?
            }
        };
        let step = Step::begin(format!("fetching the kernel {package}"));
        cache.make_whole(&place, |making| fetch(&step, &package, making))?;
        step.done("");
    }
    KernelTree::open(&place)
}

/// The package of the newest kernel's files, e.g. `linux-image-6.1.0-37-cloud-amd64`; none when no list offers it.
fn newest(wanted: &str) -> Option<String> {
    let show = ["show", "--no-all-versions", wanted];
    dependency(
        &output(
            "asking for the newest kernel",
            Command::new("apt-cache").args(show),
        )
        .ok()?,
    )
}

fn dependency(description: &str) -> Option<String> {
    let depends = description
        .lines()
        .find_map(|line| line.strip_prefix("Depends:"))?;
    depends
        .split([',', '|'])
        .filter_map(|one| one.split_whitespace().next())
        .find(|name| name.starts_with("linux-image-"))
        .map(String::from)
}

fn fetch(step: &Step, package: &str, making: &Path) -> Result<()> {
    // apt downloads into the directory it stands in, as itself: the cache need not be open to its own user.
    let download = ["-o", "APT::Sandbox::User=root", "download", package];
    step.run(Command::new("apt-get").args(download).current_dir(making))?;
    let listed = fs::read_dir(making).map_err(file("reading", making))?;
    let archive = listed
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "deb"));
    let archive = archive.ok_or_else(|| {
        Failure::Unfit(format!("apt-get download {package} left no package behind"))
    })?;
    step.run(Command::new("dpkg").arg("-x").arg(&archive).arg(making))?;
    fs::remove_file(&archive).map_err(file("removing", &archive))?;
    merge_lib(making)?;
    let tree = KernelTree::open(making)?;
    if !making
        .join("lib/modules")
        .join(&tree.version)
        .join("modules.dep")
        .exists()
    {
        step.run(
            Command::new("depmod")
                .arg("-b")
                .arg(making)
                .arg(&tree.version),
        )?;
    }
    Ok(())
}

/// Makes `/lib` and `/usr/lib` one: newer releases keep modules in the second, and each depmod looks in its own.
fn merge_lib(root: &Path) -> Result<()> {
    let (lib, usr_lib) = (root.join("lib"), root.join("usr/lib"));
    if !lib.exists() && usr_lib.exists() {
        symlink("usr/lib", &lib).map_err(file("linking", &lib))?;
    } else if lib.exists() && !usr_lib.exists() {
        fs::create_dir_all(root.join("usr")).map_err(file("making", root))?;
        symlink("../lib", &usr_lib).map_err(file("linking", &usr_lib))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_the_newest_packages_dependency() {
        let shown = "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-37-cloud-amd64 (= 6.1.140-1), x\n";
        assert_eq!(
            dependency(shown).as_deref(),
            Some("linux-image-6.1.0-37-cloud-amd64")
        );
        assert_eq!(dependency("Depends: libc6"), None);
        assert_eq!(dependency(""), None);
    }

    #[test]
    fn a_tree_without_its_image_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        assert!(KernelTree::open(root).is_err());
        fs::create_dir_all(root.join("lib/modules/6.1.0-1")).unwrap();
        assert!(KernelTree::open(root).is_err());
        fs::create_dir_all(root.join("boot")).unwrap();
        fs::write(root.join("boot/vmlinuz-6.1.0-1"), "x").unwrap();
        assert_eq!(KernelTree::open(root).unwrap().version, "6.1.0-1");
    }
}
