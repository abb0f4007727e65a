//! Finding a kernel and its modules in a root, without ever leaving that root.

use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::aliases::Aliases;
use crate::inside::{Found, Inside};
use crate::modules::ModulesDep;
use crate::{Error, Result};

const KERNEL_BYTES_MAX: u64 = 256 << 20;
const MODULES_DEP_BYTES_MAX: u64 = 16 << 20;
const MODULE_BYTES_MAX: u64 = 128 << 20;

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
        Self::find_preferring(root, |release| release.contains("cloud"))
    }

    /// The kernel for machines that may be physical: likewise, a `cloud` one only where there is no other, since it
    /// is without most drivers.
    pub fn find_for_hardware(root: &Path) -> Result<KernelTree> {
        Self::find_preferring(root, |release| !release.contains("cloud"))
    }

    /// The modules of the kernel `release` in this root, whatever kernels it has, for the file `vmlinuz`.
    pub fn of_release(root: &Path, vmlinuz: &Path, release: &str) -> Option<KernelTree> {
        let modules = modules_in(&Inside::open(root).ok()?, release)?;
        Some(KernelTree {
            release: release.to_owned(),
            vmlinuz: vmlinuz.to_owned(),
            modules,
        })
    }

    fn find_preferring(root: &Path, is_liked: impl Fn(&str) -> bool) -> Result<KernelTree> {
        let inside = Inside::open(root)?;
        let mut kernels = Vec::new();
        let mut without_modules = Vec::new();
        for directory in ["boot", "."] {
            for name in inside.names(directory)? {
                let Some(release) = name.strip_prefix("vmlinuz-") else {
                    continue;
                };
                match tree_of(&inside, &format!("{directory}/{name}"), release)? {
                    Some(tree) => kernels.push(tree),
                    None => without_modules.push(release.to_owned()),
                }
            }
        }
        // Fedora and others keep the kernel beside its modules.
        for directory in ["lib/modules", "usr/lib/modules"] {
            for release in inside.names(directory)? {
                if let Some(tree) =
                    tree_of(&inside, &format!("{directory}/{release}/vmlinuz"), &release)?
                {
                    kernels.push(tree);
                }
            }
        }
        kernels
            .into_iter()
            .max_by_key(|tree| (is_liked(&tree.release), version_key(&tree.release)))
            .ok_or_else(|| Error::NoKernel {
                root: root.to_owned(),
                found: if without_modules.is_empty() {
                    String::new()
                } else {
                    format!("; without modules: {}", without_modules.join(", "))
                },
            })
    }

    /// `modules.alias` and `modules.softdep`.
    pub fn aliases(&self) -> Result<Aliases> {
        let inside = Inside::open(&self.modules)?;
        let alias = inside.read("modules.alias", MODULES_DEP_BYTES_MAX)?;
        let softdep = inside.read_if_there("modules.softdep", MODULES_DEP_BYTES_MAX)?;
        Aliases::parse(
            &String::from_utf8_lossy(&alias),
            &String::from_utf8_lossy(&softdep.unwrap_or_default()),
        )
    }
}

/// The directory with one kernel's `modules.dep`, wherever it lies.
pub trait KernelModules {
    /// A file by its path below the directory, refused when it has more than `limit_bytes`; `None` where there is none.
    fn file(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>>;

    /// What to call such a file to people.
    fn place(&self, path: &str) -> PathBuf;

    /// `modules.dep` and `modules.builtin`.
    fn modules_dep(&self) -> Result<ModulesDep> {
        let dep = needed(self, "modules.dep", MODULES_DEP_BYTES_MAX)?;
        let builtin = self.file("modules.builtin", MODULES_DEP_BYTES_MAX)?;
        ModulesDep::parse(
            &String::from_utf8_lossy(&dep),
            &String::from_utf8_lossy(&builtin.unwrap_or_default()),
        )
    }

    /// One module as the kernel takes it, decompressed. `file` is as `modules.dep` writes it.
    fn module(&self, file: &str) -> Result<Vec<u8>> {
        let bytes = needed(self, file, MODULE_BYTES_MAX)?;
        decompressed(bytes, self.place(file))
    }
}

fn needed(
    modules: &(impl KernelModules + ?Sized),
    path: &str,
    limit_bytes: u64,
) -> Result<Vec<u8>> {
    let found = modules.file(path, limit_bytes)?;
    found.ok_or_else(|| Error::Read {
        path: modules.place(path),
        source: std::io::ErrorKind::NotFound.into(),
    })
}

impl KernelModules for KernelTree {
    fn file(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
        Inside::open(&self.modules)?.read_if_there(path, limit_bytes)
    }

    fn place(&self, path: &str) -> PathBuf {
        self.modules.join(path)
    }
}

/// The release that a kernel says of itself, as `uname -r` does, from the first [`RELEASE_HEAD_BYTES`] of its file or
/// more; `None` for what is no bzImage (`Documentation/arch/x86/boot.rst`, field `kernel_version`).
pub fn release_of(bzimage: &[u8]) -> Option<String> {
    let at = |at: usize, length: usize| bzimage.get(at..at.checked_add(length)?);
    if at(0x202, 4)? != b"HdrS" {
        return None;
    }
    let offset = u16::from_le_bytes(at(0x20e, 2)?.try_into().ok()?);
    // Zero: it does not say.
    let start = 0x200 + usize::from(Some(offset).filter(|offset| *offset > 0)?);
    let text = bzimage
        .get(start..)?
        .split(|byte| matches!(byte, 0 | b' '))
        .next()?;
    let release = std::str::from_utf8(text).ok()?;
    let is_one = estive_archive::check_path(release).is_ok() && !release.contains('/');
    (is_one && release.len() <= RELEASE_BYTES_MAX).then(|| release.to_owned())
}

/// See [`release_of`].
pub const RELEASE_HEAD_BYTES: u64 = 0x200 + (64 << 10) + RELEASE_BYTES_MAX as u64 + 1;
/// As the kernel's own `__NEW_UTS_LEN`.
const RELEASE_BYTES_MAX: usize = 64;

/// A firmware file of a root, decompressed, by its name below `lib/firmware`; `None` when the root has none.
pub fn firmware(root: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let inside = Inside::open(root)?;
    for directory in ["lib/firmware", "usr/lib/firmware"] {
        for ending in ["", ".xz", ".zst"] {
            let path = format!("{directory}/{name}{ending}");
            if let Some(bytes) = inside.read_if_there(&path, MODULE_BYTES_MAX)? {
                // What is plain keeps its bytes, whatever its own name ends in.
                return match ending {
                    "" => Ok(Some(bytes)),
                    _ => decompressed(bytes, root.join(path)).map(Some),
                };
            }
        }
    }
    Ok(None)
}

/// By the ending of the path.
fn decompressed(bytes: Vec<u8>, path: PathBuf) -> Result<Vec<u8>> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("xz") => bounded(xz2::read::XzDecoder::new(&bytes[..]), &path),
        Some("gz") => bounded(flate2::read::GzDecoder::new(&bytes[..]), &path),
        Some("zst") => match zstd::stream::read::Decoder::new(&bytes[..]) {
            Ok(decoder) => bounded(decoder, &path),
            Err(source) => Err(Error::Decompress { path, source }),
        },
        _ => Ok(bytes),
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

/// The tree of this kernel, if the file is a kernel's and its modules are there.
fn tree_of(inside: &Inside, vmlinuz: &str, release: &str) -> Result<Option<KernelTree>> {
    if estive_archive::check_path(release).is_err() || release.contains('/') {
        return Ok(None);
    }
    let is_kernel = |found: &Found| {
        found.kind == FileType::RegularFile && (1..=KERNEL_BYTES_MAX).contains(&found.size_bytes)
    };
    let Some(vmlinuz) = inside.find(vmlinuz).filter(is_kernel) else {
        return Ok(None);
    };
    Ok(modules_in(inside, release).map(|modules| KernelTree {
        release: release.to_owned(),
        vmlinuz: vmlinuz.path,
        modules,
    }))
}

fn modules_in(inside: &Inside, release: &str) -> Option<PathBuf> {
    ["lib/modules", "usr/lib/modules"]
        .iter()
        .find_map(|parent| {
            let modules = format!("{parent}/{release}");
            inside.find(&format!("{modules}/modules.dep"))?;
            let found = inside.find(&modules)?;
            (found.kind == FileType::Directory).then_some(found.path)
        })
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
        let found = KernelTree::find_for_hardware(root.path()).unwrap();
        assert_eq!(found.release, "6.10.0-1-amd64");
    }

    #[test]
    fn firmware_is_the_roots_own() {
        use std::io::Write;
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("usr/lib/firmware/a");
        fs::create_dir_all(&directory).unwrap();
        let of = |name: &str| firmware(root.path(), name).unwrap();
        assert_eq!(of("a/b.bin"), None);
        fs::write(directory.join("b.bin"), "plain").unwrap();
        assert_eq!(of("a/b.bin").as_deref(), Some(&b"plain"[..]));
        let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(b"packed").unwrap();
        fs::write(directory.join("c.xz"), xz.finish().unwrap()).unwrap();
        assert_eq!(of("a/c").as_deref(), Some(&b"packed"[..]));
        symlink("/etc/passwd", directory.join("d")).unwrap();
        assert_eq!(of("a/d"), None);
        // A directory of that name, and a file where a directory should be.
        assert_eq!(of("a"), None);
        assert_eq!(of("a/b.bin/c"), None);
        fs::create_dir_all(root.path().join("lib")).unwrap();
        fs::write(root.path().join("lib/firmware"), "no directory").unwrap();
        assert_eq!(of("a/b.bin").as_deref(), Some(&b"plain"[..]));
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
    fn a_kernel_says_its_release() {
        let mut image = vec![0; 0x400];
        assert_eq!(release_of(&image), None);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(release_of(&image), None);
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x31c].copy_from_slice(b"6.1.0-56-cloud-amd64 (x@y) #");
        assert_eq!(release_of(&image).as_deref(), Some("6.1.0-56-cloud-amd64"));
        // It becomes a path.
        for hostile in [
            &b"../../etc/passwd 1234"[..],
            b"a/b ",
            b" ",
            b"\xff ",
            &[b'a'; 200],
        ] {
            image[0x300..].fill(0);
            image[0x300..0x300 + hostile.len()].copy_from_slice(hostile);
            assert_eq!(release_of(&image), None, "{hostile:?}");
        }
        image[0x20e..0x210].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(release_of(&image), None);
        assert_eq!(release_of(&image[..0x20f]), None);
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
