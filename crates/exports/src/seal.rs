//! Sealing: a root as it stands becomes one read-only EROFS image, named by its manifest
//! (`estive_chunks`), which lies beside it.
//!
//! The image is plain (uncompressed: a second or two where lz4hc takes most of a minute), with one
//! time stamp for every file and a fixed UUID, so that the same tree gives the same bytes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use estive_chunks::{MAX_ENCODED_BYTES, Manifest, SignedManifest};
use rustix::fs::FlockOperation;

use crate::ExportError;
use crate::left_out;

/// One UUID for every image: it is part of the bytes, and the bytes must only depend on the tree.
const IMAGE_UUID: &str = "e571fe00-0000-4000-8000-000000000000";

/// A live root changes while it is read: a file that goes away between listing and reading makes
/// mkfs.erofs give up, so it is tried again this many times in all.
const LIVE_ROOT_TRIES: u32 = 4;

const TEMPORARY_PREFIX: &str = ".seal-";

/// A sealed image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// `sha256:<64 hex digits>`: the name that the image's manifest gives it ([`Manifest::name`]).
    pub digest: String,
    /// `<out_dir>/<64 hex digits>.erofs`, mode 0600 (it may hold /etc/shadow). The manifest of a root lies beside it,
    /// [`manifest_path`].
    pub path: PathBuf,
    pub size_bytes: u64,
}

#[derive(Debug, Clone, Default)]
pub struct SealOptions {
    /// Directories below the root whose contents stay out, given as paths on this machine.
    pub leave_out: Vec<PathBuf>,
}

/// Seals `root` into `out_dir` (made when missing, mode 0700). Blocks for seconds on a whole system.
///
/// Left out: what is mounted below the root, `out_dir` itself, private SSH host keys, and with `/`
/// the contents of /proc /sys /dev /run /tmp /var/tmp, swap files and Estive's own state.
pub fn seal(root: &Path, out_dir: &Path) -> Result<Sealed, ExportError> {
    seal_with(root, out_dir, &SealOptions::default())
}

/// [`seal`] with more left out.
pub fn seal_with(
    root: &Path,
    out_dir: &Path,
    options: &SealOptions,
) -> Result<Sealed, ExportError> {
    let root = canonical_root(root)?;
    let mut entries = fs::read_dir(&root).map_err(ExportError::io("reading the root", &root))?;
    if entries.next().is_none() {
        return Err(ExportError::EmptyRoot { root });
    }
    let (half_made, out_dir) = half_made_image(&root, out_dir, options)?;
    // The manifest first: an image never lies there without one.
    let manifest = half_made.manifest()?;
    write_manifest(&out_dir, &manifest)?;
    half_made.keep(&out_dir, &manifest)
}

/// Where the manifest of the image at `path` lies: beside it, `<64 hex digits>.manifest`.
pub fn manifest_path(path: &Path) -> PathBuf {
    path.with_extension("manifest")
}

/// The image of any directory, also an empty one, without a manifest.
pub(crate) fn image_of(
    root: &Path,
    out_dir: &Path,
    options: &SealOptions,
) -> Result<Sealed, ExportError> {
    let (half_made, out_dir) = half_made_image(root, out_dir, options)?;
    let manifest = half_made.manifest()?;
    half_made.keep(&out_dir, &manifest)
}

/// An image that vanishes unless it is kept, and where it is to be kept.
fn half_made_image(
    root: &Path,
    out_dir: &Path,
    options: &SealOptions,
) -> Result<(Temporary, PathBuf), ExportError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(out_dir)
        .map_err(ExportError::io("making the directory", out_dir))?;
    let out_dir =
        fs::canonicalize(out_dir).map_err(ExportError::io("finding the directory", out_dir))?;
    remove_abandoned(&out_dir);

    let more: Vec<PathBuf> = options
        .leave_out
        .iter()
        .map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.clone()))
        .collect();
    let patterns = left_out::patterns(root, &out_dir, &more)?;
    let temporary = Temporary::new(&out_dir)?;
    let mut tries_left = if root == Path::new("/") {
        LIVE_ROOT_TRIES
    } else {
        1
    };
    loop {
        tries_left -= 1;
        match make_image(root, &temporary.path, &patterns) {
            Ok(()) => break,
            Err(error @ ExportError::ProgramFailed { .. }) if tries_left > 0 => {
                tracing::warn!(%error, "the root changed while it was read; trying again");
            }
            Err(error) => return Err(error),
        }
    }
    Ok((temporary, out_dir))
}

/// Writes an unsigned manifest, unless the one that is there, perhaps signed, is of this root.
fn write_manifest(out_dir: &Path, manifest: &Manifest) -> Result<(), ExportError> {
    let known = read_manifest(&out_dir.join(format!("{}.manifest", manifest.name().hex())));
    if known.is_ok_and(|known| known.manifest == *manifest) {
        return Ok(());
    }
    put_manifest(out_dir, &SignedManifest::unsigned(manifest.clone()))
}

/// Reads a manifest, signed or not.
pub fn read_manifest(path: &Path) -> Result<SignedManifest, ExportError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_ENCODED_BYTES + 1).read_to_end(&mut bytes))
        .map_err(ExportError::io("reading the manifest", path))?;
    SignedManifest::decode(&bytes).map_err(ExportError::manifest(path))
}

/// Puts a manifest into `out_dir` under its root's name, whole and 0600, in place of one that is there.
pub fn put_manifest(out_dir: &Path, signed: &SignedManifest) -> Result<(), ExportError> {
    let path = out_dir.join(format!("{}.manifest", signed.manifest.name().hex()));
    let bytes = signed.encode().map_err(ExportError::manifest(&path))?;
    let mut half_made = Temporary::new(out_dir)?;
    half_made
        .file
        .write_all(&bytes)
        .map_err(ExportError::io("writing", &half_made.path))?;
    half_made.rename(&path)
}

pub(crate) fn canonical_root(root: &Path) -> Result<PathBuf, ExportError> {
    let missing = || ExportError::MissingRoot {
        root: root.to_path_buf(),
    };
    let canonical = fs::canonicalize(root).map_err(|_| missing())?;
    if canonical.is_dir() {
        Ok(canonical)
    } else {
        Err(missing())
    }
}

fn make_image(
    root: &Path,
    image: &Path,
    patterns: &std::collections::BTreeSet<std::ffi::OsString>,
) -> Result<(), ExportError> {
    // Only options that erofs-utils 1.5 (Debian 12) and 1.8 (Debian 13) both have. Both apply -T
    // to every file. -x2147483647 keeps every xattr with its inode: the search for shared ones
    // ignores the patterns and walks /proc and all that is mounted.
    // -Enoinline_data keeps the last part of a file out of the inodes' blocks: 128 inodes lie in one block then, and a cold
    // walk over a Debian root reads a tenth of the blocks. It costs 7 % of size.
    let mut command = Command::new("mkfs.erofs");
    command.args([
        "--quiet",
        "-T0",
        "-x2147483647",
        "-Enoinline_data",
        "-U",
        IMAGE_UUID,
    ]);
    for pattern in patterns {
        let mut argument = std::ffi::OsString::from("--exclude-regex=");
        argument.push(pattern);
        command.arg(argument);
    }
    let output = command
        .arg(image)
        .arg(root)
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .output()
        .map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                ExportError::ProgramMissing {
                    program: "mkfs.erofs",
                    package: "erofs-utils",
                }
            } else {
                ExportError::io("running mkfs.erofs for", root)(error)
            }
        })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    Err(ExportError::ProgramFailed {
        root: root.to_path_buf(),
        program: "mkfs.erofs",
        status: output.status.to_string(),
        output: lines[lines.len().saturating_sub(5)..].join("; "),
    })
}

/// A half-made image: locked while its maker lives, removed unless kept.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn new(out_dir: &Path) -> Result<Self, ExportError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = out_dir.join(format!(
            "{TEMPORARY_PREFIX}{}-{}.tmp",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(ExportError::io("making", &path))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| ExportError::io("locking", &path)(errno.into()))?;
        Ok(Self { path, file })
    }

    /// Of what was written into it, read from its start.
    fn manifest(&self) -> Result<Manifest, ExportError> {
        Manifest::read(&mut &self.file).map_err(ExportError::manifest(&self.path))
    }

    /// Keeps an image under the name of its manifest.
    fn keep(self, out_dir: &Path, manifest: &Manifest) -> Result<Sealed, ExportError> {
        let name = manifest.name();
        let path = out_dir.join(format!("{}.erofs", name.hex()));
        self.rename(&path)?;
        File::open(out_dir)
            .and_then(|dir| dir.sync_all())
            .map_err(ExportError::io("writing to disk", out_dir))?;
        Ok(Sealed {
            digest: name.to_string(),
            path,
            size_bytes: manifest.size_bytes(),
        })
    }

    fn rename(self, path: &Path) -> Result<(), ExportError> {
        self.file
            .sync_all()
            .map_err(ExportError::io("writing to disk", &self.path))?;
        fs::rename(&self.path, path).map_err(ExportError::io("naming", path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename the name is gone and this finds nothing, as it should.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes half-made images whose maker was killed: nobody holds their lock any more.
fn remove_abandoned(out_dir: &Path) {
    let Ok(entries) = fs::read_dir(out_dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with(TEMPORARY_PREFIX) || !name.ends_with(".tmp") {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else {
            continue;
        };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}
