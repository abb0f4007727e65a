//! Finding a kernel and its modules in a root, without ever leaving that root.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

use crate::modules::ModulesDep;
use crate::{Error, Result};

const KERNEL_BYTES_MAX: u64 = 256 << 20;
const MODULES_DEP_BYTES_MAX: u64 = 16 << 20;
const MODULE_BYTES_MAX: u64 = 128 << 20;
const CANDIDATES_MAX: usize = 1000;

/// A kernel with the modules made for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelTree {
    /// As `uname -r` says it.
    pub release: String,
    /// The bzImage. A path that was resolved inside its root: no symbolic link left in it.
    pub vmlinuz: PathBuf,
    /// The directory with `modules.dep`, likewise.
    pub modules: PathBuf,
}

impl KernelTree {
    /// The kernel to boot clones of this root with: of those that have their modules, a `cloud`
    /// one before others (it boots seconds faster under emulation), then the newest.
    ///
    /// Symbolic links are followed as the root's own, never out of it. Fails with
    /// [`Error::NoKernel`] when there is none, which is a fact about the root rather than trouble.
    pub fn find(root: &Path) -> Result<KernelTree> {
        let inside = Inside::open(root)?;
        let mut kernels = Vec::new();
        let mut without_modules = Vec::new();
        for directory in ["boot", "."] {
            for name in inside.names(directory)? {
                let Some(release) = name.strip_prefix("vmlinuz-") else {
                    continue;
                };
                match inside.tree(&format!("{directory}/{name}"), release)? {
                    Some(tree) => kernels.push(tree),
                    None => without_modules.push(release.to_owned()),
                }
            }
        }
        // Fedora and others keep the kernel beside its modules.
        for directory in ["lib/modules", "usr/lib/modules"] {
            for release in inside.names(directory)? {
                if let Some(tree) =
                    inside.tree(&format!("{directory}/{release}/vmlinuz"), &release)?
                {
                    kernels.push(tree);
                }
            }
        }
        kernels
            .into_iter()
            .max_by_key(|tree| (tree.release.contains("cloud"), version_key(&tree.release)))
            .ok_or_else(|| Error::NoKernel {
                root: root.to_owned(),
                found: if without_modules.is_empty() {
                    String::new()
                } else {
                    format!("; without modules: {}", without_modules.join(", "))
                },
            })
    }

    /// `modules.dep` and `modules.builtin`.
    pub fn modules_dep(&self) -> Result<ModulesDep> {
        let inside = Inside::open(&self.modules)?;
        let dep = inside.read("modules.dep", MODULES_DEP_BYTES_MAX)?;
        let builtin = match inside.read("modules.builtin", MODULES_DEP_BYTES_MAX) {
            Err(Error::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Vec::new()
            }
            other => other?,
        };
        ModulesDep::parse(
            &String::from_utf8_lossy(&dep),
            &String::from_utf8_lossy(&builtin),
        )
    }

    /// One module as the kernel takes it, decompressed. `file` is as `modules.dep` writes it.
    pub fn module(&self, file: &str) -> Result<Vec<u8>> {
        let path = self.modules.join(file);
        let bytes = Inside::open(&self.modules)?.read(file, MODULE_BYTES_MAX)?;
        let decompressed = match file.rsplit('.').next() {
            Some("xz") => bounded(xz2::read::XzDecoder::new(&bytes[..]), &path),
            Some("gz") => bounded(flate2::read::GzDecoder::new(&bytes[..]), &path),
            Some("zst") => match zstd::stream::read::Decoder::new(&bytes[..]) {
                Ok(decoder) => bounded(decoder, &path),
                Err(source) => Err(Error::Decompress { path, source }),
            },
            _ => Ok(bytes),
        }?;
        Ok(decompressed)
    }
}

fn bounded(reader: impl Read, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader
        .take(MODULE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Decompress {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > MODULE_BYTES_MAX {
        return Err(Error::TooLarge {
            path: path.to_owned(),
            limit_bytes: MODULE_BYTES_MAX,
        });
    }
    Ok(bytes)
}

/// The numbers of a release, so that 6.10 is newer than 6.9.
fn version_key(release: &str) -> Vec<u64> {
    release
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().unwrap_or(u64::MAX))
        .collect()
}

/// A directory as a root of its own: links in it are resolved by the kernel as if chrooted.
struct Inside {
    root: PathBuf,
    descriptor: std::os::fd::OwnedFd,
}

impl Inside {
    fn open(root: &Path) -> Result<Inside> {
        let descriptor = openat(
            CWD,
            root,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| Error::Read {
            path: root.to_owned(),
            source: errno.into(),
        })?;
        Ok(Inside {
            root: root.to_owned(),
            descriptor,
        })
    }

    fn open_at(&self, path: &str, flags: OFlags) -> Result<File> {
        openat2(
            &self.descriptor,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
        .map(File::from)
        .map_err(|errno| Error::Read {
            path: self.root.join(path),
            source: errno.into(),
        })
    }

    fn read(&self, path: &str, limit_bytes: u64) -> Result<Vec<u8>> {
        let file = // A fifo or a device must not hold us.
            self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let mut bytes = Vec::new();
        let read = file.take(limit_bytes + 1).read_to_end(&mut bytes);
        read.map_err(|source| Error::Read {
            path: self.root.join(path),
            source,
        })?;
        if bytes.len() as u64 > limit_bytes {
            return Err(Error::TooLarge {
                path: self.root.join(path),
                limit_bytes,
            });
        }
        Ok(bytes)
    }

    /// The names in a directory, sorted; none when it is not there.
    fn names(&self, directory: &str) -> Result<Vec<String>> {
        let Ok(opened) = self.open_at(directory, OFlags::RDONLY | OFlags::DIRECTORY) else {
            return Ok(Vec::new());
        };
        let read = |errno: rustix::io::Errno| Error::Read {
            path: self.root.join(directory),
            source: errno.into(),
        };
        let mut names: Vec<String> = Dir::new(opened)
            .map_err(read)?
            .take(CANDIDATES_MAX)
            .filter_map(|entry| Some(entry.ok()?.file_name().to_str().ok()?.to_owned()))
            .filter(|name| name != "." && name != "..")
            .collect();
        names.sort();
        Ok(names)
    }

    /// The tree of this kernel, if the file is a kernel's and its modules are there.
    fn tree(&self, vmlinuz: &str, release: &str) -> Result<Option<KernelTree>> {
        if estive_archive::check_path(release).is_err() || release.contains('/') {
            return Ok(None);
        }
        let Some(vmlinuz) = self.real_path(vmlinuz, false) else {
            return Ok(None);
        };
        for parent in ["lib/modules", "usr/lib/modules"] {
            let modules = format!("{parent}/{release}");
            if self
                .open_at(&format!("{modules}/modules.dep"), OFlags::PATH)
                .is_ok()
                && let Some(modules) = self.real_path(&modules, true)
            {
                return Ok(Some(KernelTree {
                    release: release.to_owned(),
                    vmlinuz,
                    modules,
                }));
            }
        }
        Ok(None)
    }

    /// Where a path inside the root really lies, its links resolved inside the root; `None` when
    /// it is not there, is not the kind asked for, or is too large for a kernel.
    fn real_path(&self, path: &str, directory: bool) -> Option<PathBuf> {
        let opened = self.open_at(path, OFlags::PATH).ok()?;
        let status = fstat(&opened).ok()?;
        let fits = match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => directory,
            FileType::RegularFile => {
                !directory && (1..=KERNEL_BYTES_MAX as i64).contains(&status.st_size)
            }
            _ => false,
        };
        if !fits {
            return None;
        }
        use std::os::fd::AsRawFd;
        std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn kernel(root: &Path, release: &str) {
        let modules = root.join("usr/lib/modules").join(release);
        fs::create_dir_all(&modules).unwrap();
        fs::create_dir_all(root.join("boot")).unwrap();
        fs::write(modules.join("modules.dep"), "").unwrap();
        fs::write(root.join(format!("boot/vmlinuz-{release}")), "kernel").unwrap();
    }

    #[test]
    fn prefers_cloud_then_the_newest() {
        let root = tempfile::tempdir().unwrap();
        for release in ["6.9.0-1-amd64", "6.10.0-1-amd64"] {
            kernel(root.path(), release);
        }
        let find = || KernelTree::find(root.path()).unwrap().release;
        assert_eq!(find(), "6.10.0-1-amd64");
        kernel(root.path(), "6.1.0-56-cloud-amd64");
        assert_eq!(find(), "6.1.0-56-cloud-amd64");
    }

    #[test]
    fn links_are_the_roots_own() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        kernel(root.path(), "6.1.0");
        // Absolute, as Debian's /vmlinuz may be: meant inside the root.
        symlink("/usr/lib", root.path().join("lib")).unwrap();
        let tree = KernelTree::find(root.path()).unwrap();
        let real = root.path().canonicalize().unwrap();
        assert_eq!(tree.modules, real.join("usr/lib/modules/6.1.0"));

        kernel(outside.path(), "9.9.9");
        symlink(
            outside.path().join("boot/vmlinuz-9.9.9"),
            root.path().join("boot/vmlinuz-9.9.9"),
        )
        .unwrap();
        symlink(
            outside.path().join("usr/lib/modules/9.9.9"),
            root.path().join("usr/lib/modules/9.9.9"),
        )
        .unwrap();
        assert_eq!(KernelTree::find(root.path()).unwrap().release, "6.1.0");
    }

    #[test]
    fn a_kernel_without_modules_is_said() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("boot")).unwrap();
        fs::write(root.path().join("boot/vmlinuz-5.5"), "x").unwrap();
        let error = KernelTree::find(root.path()).unwrap_err().to_string();
        assert!(error.contains("without modules: 5.5"), "{error}");
    }

    #[test]
    fn compressed_modules_are_read_and_bounded() {
        use std::io::Write;
        let root = tempfile::tempdir().unwrap();
        kernel(root.path(), "6.1.0");
        let tree = KernelTree::find(root.path()).unwrap();
        let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(b"module").unwrap();
        fs::write(tree.modules.join("a.ko.xz"), xz.finish().unwrap()).unwrap();
        fs::write(
            tree.modules.join("b.ko.zst"),
            zstd::encode_all(&b"module"[..], 1).unwrap(),
        )
        .unwrap();
        fs::write(tree.modules.join("c.ko.xz"), "not xz").unwrap();
        assert_eq!(tree.module("a.ko.xz").unwrap(), b"module");
        assert_eq!(tree.module("b.ko.zst").unwrap(), b"module");
        assert!(matches!(
            tree.module("c.ko.xz"),
            Err(Error::Decompress { .. })
        ));
        assert!(tree.module("../../../../boot/vmlinuz-6.1.0").is_err());
    }
}
